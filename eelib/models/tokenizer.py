"""The byte-pair tokenizer of the pico models, trained on tokenised code; `<EOL>` in the tokenizers of other models."""

from collections.abc import Iterable

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from eelib.data.marks import EOL

VOCABULARY_SIZE = 4096
BOS, END, PAD, UNKNOWN = "<s>", "</s>", "<pad>", "<unk>"


def train_tokenizer(texts: Iterable[str], vocabulary_size: int = VOCABULARY_SIZE) -> PreTrainedTokenizerFast:
    """A byte-level BPE over whole code tokens.

    Code tokens are the pre-tokens (text is split at spaces only), so that a frequent one such as `'<STR_LIT>'` or
    `<EOL>` is a single entry. Every encoded text starts with `<s>`, as the models' prompts do.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", behavior="merged_with_next"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[BOS, END, PAD, UNKNOWN],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=24,
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def end_of_line(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id of `<EOL>`, with or without the blank before it; None for a tokenizer that splits it."""
    for piece in (EOL, f" {EOL}"):
        ids = tokenizer(piece, add_special_tokens=False).input_ids
        if len(ids) == 1:
            return ids[0]
    return None


def add_end_of_line(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Make ` <EOL>` one token of a tokenizer that splits it (Section 4.2.2); say whether it was needed."""
    if end_of_line(tokenizer) is not None:
        return False
    tokenizer.add_tokens(AddedToken(f" {EOL}", normalized=False))
    return True


@torch.no_grad()
def resize_embeddings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the token that `add_end_of_line` added its embedding, to begin with that of a line break.

    An untied head gets the line break's row as well.
    """
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    new = end_of_line(tokenizer)
    line_break = tokenizer("\n", add_special_tokens=False).input_ids[-1]
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        module.weight[new] = module.weight[line_break]
