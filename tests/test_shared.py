"""Many criteria decoded at once: each gets what it gets alone, and equal prefixes are one row."""

import pytest
import torch
from test_decoding import NEW, criteria, random_policy

from eelib.decoding import shared
from eelib.decoding.batch import BatchDecoder
from eelib.decoding.criteria import Agent, FixedLayer, FullDepth, Scripted
from eelib.decoding.shared import decode_shared


@pytest.fixture
def most_rows(monkeypatch) -> list[int]:
    """The rows of every step, added as they are decoded."""
    counted = []
    step = shared._Rows.step

    def count(self, token):
        counted.append(len(self.prompt))
        return step(self, token)

    monkeypatch.setattr(shared._Rows, "step", count)
    return counted


def memoryless(parts) -> list:
    return [criterion for criterion in criteria(parts) if not isinstance(criterion, Scripted)]


@pytest.mark.parametrize("end_at", [None, 2])
def test_each_criterion_gets_what_it_gets_alone(parts, prompts, end_at):
    decoder = BatchDecoder(parts, prompts, NEW)
    chosen = memoryless(parts)
    end = None if end_at is None else decoder.decode(FixedLayer(6))[0].tokens[end_at]
    alone = [decoder.decode(criterion, end=end) for criterion in chosen]
    together = decode_shared(decoder, chosen, end)
    assert [[generation for generation, _ in found] for found in together] == alone
    assert decoder.decode(chosen[0], end=end) == alone[0]  # the prefill is as it was
    assert len({tuple(found[0].tokens) for found in alone}) > 2  # they do part


def test_the_last_layers_tokens_are_those_after_the_same_prefix(parts, prompts):
    decoder = BatchDecoder(parts, prompts, NEW)
    for found in decode_shared(decoder, [FixedLayer(4), FullDepth()]):
        for prompt, (generation, last) in zip(prompts, found, strict=True):
            ids = torch.tensor([prompt + generation.tokens[:-1]])
            with torch.inference_mode():
                states = parts.hidden_states(ids)[-1][0, -NEW:]
                assert last == parts.logits(states).argmax(-1).tolist()


def test_equal_prefixes_are_one_row_and_parting_copies_it(parts, prompts, most_rows):
    decoder = BatchDecoder(parts, prompts, NEW)
    agent = Agent(random_policy(parts.width), 0.5)
    decode_shared(decoder, [agent] * 5)
    assert most_rows == [len(prompts)] * NEW
    most_rows.clear()
    found = decode_shared(decoder, [FixedLayer(4), agent, agent, FullDepth()])
    distinct = [
        len(
            {
                (row, *completions[row][0].tokens[:token])
                for completions in found
                for row in range(len(prompts))
            }
        )
        for token in range(NEW)
    ]
    assert most_rows == distinct and distinct[-1] > len(prompts)


def test_too_many_prefixes_are_decoded_in_parts(parts, prompts, monkeypatch):
    decoder = BatchDecoder(parts, prompts, NEW)
    chosen = memoryless(parts)
    whole = decode_shared(decoder, chosen)
    monkeypatch.setattr(shared, "MOST_ROWS", 1)
    assert decode_shared(decoder, chosen) == whole


def test_a_scripted_exit_cannot_be_shared(parts, prompts):
    with pytest.raises(ValueError, match="cannot be shared"):
        decode_shared(BatchDecoder(parts, prompts, NEW), [Scripted([[4] * NEW])])
