"""Contexts and references: cut by hand, capped, counted, and the same every time."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from eelib.data.corpus import CodeFile
from eelib.data.samples import Sample, encode, evaluation_samples, random_prompts, random_windows, split_file
from eelib.errors import InputError
from eelib.profile import Context

START = 9999


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Token `i` has id i, so that a sample says which part of a file it is; every text starts with START."""
    vocabulary = {str(i): i for i in range(START)} | {"<s>": START}
    backend = Tokenizer(models.WordLevel(vocabulary))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", START)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")


def code_files(*lengths: int) -> list[CodeFile]:
    """Files of these lengths; the tokens of file i are i * 1000, i * 1000 + 1, ..."""
    return [
        CodeFile(f"f{i}", "", "java", "test", [str(i * 1000 + n) for n in range(length)])
        for i, length in enumerate(lengths)
    ]


def test_encoding_adds_no_special_token(tokenizer):
    assert encode(code_files(3)[0], tokenizer) == [0, 1, 2]


def test_split_by_hand():
    ids, config = list(range(10, 30)), Context(max_tokens=8, new_tokens=3)
    # 20% of 20 tokens are 4 tokens of context, and the next 3 are the reference.
    assert split_file("f", ids, 0.2, config, 0) == Sample("f", [0, 10, 11, 12, 13], [14, 15, 16])
    # A longer context keeps its last tokens: 7 of them and the start token.
    assert split_file("f", ids, 0.5, config, 0) == Sample("f", [0, 13, 14, 15, 16, 17, 18, 19], [20, 21, 22])
    # 85% leave exactly the 3 tokens of a reference, 90% only 2; 4% leave no context.
    assert split_file("f", ids, 0.85, config, 0).reference == [27, 28, 29]
    assert split_file("f", ids, 0.9, config, 0) is None
    assert split_file("f", ids, 0.04, config, 0) is None


@given(
    st.integers(1, 60),
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.integers(1, 20),
    st.integers(1, 9),
)
def test_context_and_reference_are_neighbours_in_the_file(length, fraction, most, new_tokens):
    sample = split_file("f", list(range(length)), fraction, Context(most, new_tokens), START)
    if sample is None:
        assert fraction * length < 1 or length - int(fraction * length) < new_tokens
        return
    assert sample.context[0] == START
    assert len(sample.context) == min(int(fraction * length) + 1, most)
    assert len(sample.reference) == new_tokens
    everything = sample.context[1:] + sample.reference
    end = int(fraction * length) + new_tokens
    assert everything == list(range(end - len(everything), end))


def test_files_without_a_full_reference_are_dropped_and_counted(tokenizer):
    files = code_files(40, 5, 40, 6, 40)
    samples, dropped = evaluation_samples(files, tokenizer, 0.5, 100, Context(100, 4))
    assert sorted(sample.id for sample in samples) == ["f0", "f2", "f4"]
    assert dropped == 2
    assert next(sample for sample in samples if sample.id == "f2") == Sample(
        "f2", [START, *range(2000, 2020)], [2020, 2021, 2022, 2023]
    )


def test_files_come_in_one_order_for_every_fraction(tokenizer):
    files = code_files(*[50] * 9)

    def ids(fraction: float, count: int, seed: int = 0) -> list[str]:
        return [
            sample.id
            for sample in evaluation_samples(files, tokenizer, fraction, count, Context(20, 5), seed)[0]
        ]

    assert ids(0.2, 9) == ids(0.2, 9) == ids(0.6, 9)
    assert ids(0.2, 4) == ids(0.2, 9)[:4]
    assert sorted(ids(0.2, 9)) == [f"f{i}" for i in range(9)] != ids(0.2, 9)
    assert ids(0.2, 9, seed=1) != ids(0.2, 9)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, 1.5, float("nan")])
def test_fractions_lie_between_0_and_1(tokenizer, fraction):
    with pytest.raises(InputError, match=f"The context fraction is {fraction}: allowed are"):
        evaluation_samples(code_files(40), tokenizer, fraction, 1, Context(10, 2))


def test_no_sample_at_all_is_said(tokenizer):
    with pytest.raises(InputError, match=r"0\.9 leaves none of 2 files"):
        evaluation_samples(code_files(20, 25), tokenizer, 0.9, 10, Context(10, 4))


def test_prompts_end_between_20_and_60_percent_of_a_file_drawn_uniformly(tokenizer):
    files = code_files(*[500] * 4)
    prompts = random_prompts(files, tokenizer, 800, Context(64, 15), seed=0)
    assert len(prompts) == 800
    assert {prompt[0] for prompt in prompts} == {START}
    assert {len(prompt) for prompt in prompts} == {64}
    assert all(prompt[1:] == list(range(prompt[1], prompt[1] + 63)) for prompt in prompts)
    fractions = [(prompt[-1] % 1000 + 1) / 500 for prompt in prompts]
    assert 0.2 - 1 / 500 < min(fractions) < 0.21 and 0.59 < max(fractions) <= 0.6
    # Uniform: the mean of 800 draws is within four standard errors (0.4 / sqrt(12 * 800) = 0.004) of 0.4.
    assert abs(sum(fractions) / 800 - 0.4) < 4 * 0.0041
    counts = Counter(prompt[-1] // 1000 for prompt in prompts)
    assert set(counts) == {0, 1, 2, 3} and min(counts.values()) > 150


def test_prompts_are_those_of_their_seed(tokenizer):
    files, config = code_files(300, 200, 100), Context(32, 5)
    assert random_prompts(files, tokenizer, 20, config, 3) == random_prompts(files, tokenizer, 20, config, 3)
    assert random_prompts(files, tokenizer, 20, config, 3) != random_prompts(files, tokenizer, 20, config, 4)
    assert random_prompts(files, tokenizer, 20, config, 3)[:5] == random_prompts(
        files, tokenizer, 5, config, 3
    )


def test_a_prompt_is_never_empty(tokenizer):
    prompts = random_prompts(code_files(1), tokenizer, 10, Context(32, 5), 0)
    assert prompts == [[START, 0]] * 10


def test_windows_are_prompts_that_fill_the_context(tokenizer):
    files, config = code_files(900, 30), Context(64, 15)
    windows = random_windows(files, tokenizer, 5, config, seed=0)
    assert windows == [ids for ids in random_prompts(files, tokenizer, 250, config, 0) if len(ids) == 64][:5]
    with pytest.raises(
        InputError, match="Of 250 prompts drawn from 1 files, 0 fill a context of 64 tokens: 5 are needed"
    ):
        random_windows(code_files(90), tokenizer, 5, config, seed=0)
