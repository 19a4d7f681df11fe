"""The byte-pair tokenizer: whole code tokens as entries, and nothing lost between encoding and decoding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from eelib.models.tokenizer import BOS, END, PAD, UNKNOWN, add_end_of_line, end_of_line, train_tokenizer

FREQUENT = ["<EOL>", '"<STR_LIT>"', "<NUM_LIT:0>", "public", "return", "self", "(", ")", "{", "!=", "."]
TEXTS = [
    "def f ( self ) : <EOL> return self . value != <NUM_LIT:0> <EOL>",
    'public String name ( ) { return "<STR_LIT>" ; }',
    'if ( self . a != "<STR_LIT>" ) { return <NUM_LIT:0> ; }',
] * 20

# What tells tokens apart is a space; anything else that str.split() would split at never occurs within one.
CODE_TOKENS = st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1).filter(
    lambda text: not any(special in text for special in (BOS, END, PAD, UNKNOWN))
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocabulary_size=420)


def test_frequent_code_tokens_are_single_entries(tokenizer):
    for token in FREQUENT:
        # The same entry at the start, in the middle and at the end of a text.
        [entry] = tokenizer(token, add_special_tokens=False).input_ids
        text = f"{token} {token} {token}"
        assert tokenizer(text, add_special_tokens=False).input_ids == [entry] * 3
    assert len(tokenizer("unheardOf", add_special_tokens=False).input_ids) > 1


def test_a_tokenizer_that_splits_the_end_of_line_gets_it(tokenizer):
    assert not add_end_of_line(tokenizer)  # it has it
    other = train_tokenizer(["a b c"], vocabulary_size=270)
    size = len(other)
    assert end_of_line(other) is None and add_end_of_line(other)
    assert end_of_line(other) == size == len(other) - 1 and not add_end_of_line(other)


def test_an_entry_never_spans_two_code_tokens(tokenizer):
    # `self .` and `return self` are frequent, but they are two tokens of code.
    for entry in tokenizer.get_vocab():
        assert "Ġ" not in entry[1:], entry


def test_the_vocabulary_has_the_size_asked_for(tokenizer):
    assert 260 < len(tokenizer) <= 420
    assert len(train_tokenizer(TEXTS, vocabulary_size=300)) == 300


def test_every_text_starts_with_the_start_token(tokenizer):
    for text in ["", "return", "def f"]:
        ids = tokenizer(text).input_ids
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.convert_ids_to_tokens(tokenizer("return").input_ids) == [BOS, "Ġreturn"]
    names = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert names == (BOS, END, PAD, UNKNOWN)


@given(st.lists(CODE_TOKENS, min_size=1, max_size=12))
def test_code_tokens_survive_a_round_trip(tokenizer, code):
    text = " ".join(code)
    ids = tokenizer(text).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text
    assert tokenizer.decode(ids, skip_special_tokens=True).split() == code


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*TEXTS[:3], "naïve λ → 東京"]:
        assert loaded(text).input_ids == tokenizer(text).input_ids
        assert loaded.decode(loaded(text).input_ids, skip_special_tokens=True).strip() == text
    assert (loaded.bos_token_id, loaded.eos_token_id) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
