"""Pretrain a pico base model on source code: plain next-token loss on the last layer, Java and Python together.

    python -m eelib.training.pretrain --model llama-pico --steps 2400

Builds the corpus from pinned source packages (what `packages.csv` calls training data, and `pretraining_packages.csv`),
trains the tokenizer, trains the model with the Hugging Face Trainer, and writes an ordinary checkpoint to
`models/<name>`. A killed run goes on from its last checkpoint; corpus and tokenizer are made once.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Trainer, TrainingArguments

from eelib.data.corpus import PACKAGES_TABLE, CodeFile, read_package, token_runs, without_near_duplicates
from eelib.data.lexing import LANGUAGES
from eelib.data.packages import read_table
from eelib.models.pico import PICO_CONFIGS, POSITIONS, pico_config, random_model
from eelib.models.tokenizer import train_tokenizer
from eelib.study.errors import InputError
from eelib.training.card import write_card
from eelib.training.finetune import last_whole_checkpoint
from eelib.training.packing import PackedDataset, encode_files

PRETRAINING_TABLE = PACKAGES_TABLE.with_name("pretraining_packages.csv")
TOKENIZER_SAMPLE = 20_000_000  # characters of each language: a vocabulary of 4096 needs no more


def pretraining_files(cache_dir: Path) -> list[CodeFile]:
    """Training files of all languages, without near-duplicates and without any run of an evaluation file."""
    study = read_table(PACKAGES_TABLE)
    forbidden: set[int] = set()
    for package in study:
        if package.split != "train":
            for file in read_package(package, cache_dir):
                forbidden.update(token_runs(file.code).tolist())
    training = [package for package in study if package.split == "train"]
    training += read_table(PRETRAINING_TABLE)
    files: list[CodeFile] = []
    for language in LANGUAGES:
        candidates = (
            file
            for package in training
            if package.language == language
            for file in read_package(package, cache_dir)
        )
        files += without_near_duplicates(candidates, forbidden)
    return files


def prepare(work: Path, cache_dir: Path) -> tuple[PreTrainedTokenizerFast, np.ndarray]:
    """Tokenizer and shuffled training ids (int32, shape (T,)), made in `work` unless they are there already."""
    ids_file, report_file = work / "ids.npy", work / "corpus.json"
    if not ids_file.exists():
        work.mkdir(parents=True, exist_ok=True)
        files = pretraining_files(cache_dir)
        np.random.default_rng(0).shuffle(files)
        sample, characters = [], dict.fromkeys(LANGUAGES, 0)
        for file in files:
            if characters[file.language] < TOKENIZER_SAMPLE:
                sample.append(" ".join(file.code))
                characters[file.language] += len(sample[-1])
        tokenizer = train_tokenizer(sample)
        tokenizer.save_pretrained(work / "tokenizer")
        report = {}
        parts = []
        for language in LANGUAGES:
            chosen = [file for file in files if file.language == language]
            ids = encode_files((" ".join(file.code) for file in chosen), tokenizer)
            report[language] = {
                "files": len(chosen),
                "code_tokens": sum(len(file.code) for file in chosen),
                "bpe_tokens": len(ids),
                "projects": sorted({file.project for file in chosen}),
            }
            parts.append(PackedDataset(ids, POSITIONS).blocks)
        # Both languages weigh the same: the smaller corpus is repeated, block by block, up to the larger one's size.
        most = max(len(blocks) for blocks in parts)
        blocks = np.concatenate([np.resize(part, (most, POSITIONS)) for part in parts])
        np.random.default_rng(1).shuffle(blocks)
        report_file.write_text(json.dumps(report, indent=1) + "\n")
        partial = ids_file.with_name("partial.npy")
        np.save(partial, blocks.reshape(-1))
        partial.rename(ids_file)
    return AutoTokenizer.from_pretrained(work / "tokenizer"), np.load(ids_file, mmap_mode="r")


def pretrain(args: argparse.Namespace) -> None:
    """Train one model and write its checkpoint, tokenizer and training record to `args.output / args.model`."""
    tokenizer, ids = prepare(args.work / "corpus", args.cache)
    if args.corpus_only:
        return
    held_out = args.batch_size * 8
    data = PackedDataset(ids, POSITIONS)
    training, validation = PackedDataset(ids, POSITIONS), PackedDataset(ids, POSITIONS)
    training.blocks, validation.blocks = data.blocks[held_out:], data.blocks[:held_out]
    config = pico_config(
        args.model, len(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    )
    model = random_model(config, seed=args.seed).train()
    run = args.work / f"{args.model}-lr{args.learning_rate:g}"
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(run),
            max_steps=args.steps,
            per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            lr_scheduler_type="warmup_stable_decay",
            lr_scheduler_kwargs={"num_decay_steps": int(0.4 * args.steps), "decay_type": "linear"},
            warmup_steps=60,
            adam_beta2=0.95,
            weight_decay=0.1,
            max_grad_norm=1.0,
            bf16=True,
            torch_compile=True,
            logging_steps=20,
            save_steps=100,
            save_total_limit=2,
            eval_strategy="steps",
            eval_steps=400,
            report_to="none",
            seed=args.seed,
            dataloader_num_workers=0,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=training,
        eval_dataset=validation,
    )
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=last_whole_checkpoint(run))
    target = args.output / args.model
    model.to(torch.bfloat16).save_pretrained(target)
    tokenizer.save_pretrained(target)
    record = {
        "model": args.model,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": args.steps,
        "batch_size": args.batch_size,
        "tokens_seen": args.steps * args.batch_size * POSITIONS,
        "learning_rate": args.learning_rate,
        "seed": args.seed,
        "hours_of_last_process": (time.perf_counter() - started) / 3600,
        "device": "cuda" if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads",
        "corpus": json.loads((args.work / "corpus" / "corpus.json").read_text()),
        "log": trainer.state.log_history,
    }
    (target / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    write_card(target)


def main() -> None:
    """Command line; bad input ends in one sentence and exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", choices=sorted(PICO_CONFIGS), required=True)
    parser.add_argument("--steps", type=int, default=2400, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="sequences of 256 tokens a step")
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus-only", action="store_true", help="build corpus and tokenizer, then stop")
    parser.add_argument("--output", type=Path, default=Path("models"), help="folder of the shipped models")
    parser.add_argument(
        "--work", type=Path, default=Path("cache/pretraining"), help="corpus, tokenizer, checkpoints"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("cache/packages"), help="downloaded source packages"
    )
    try:
        pretrain(parser.parse_args())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
