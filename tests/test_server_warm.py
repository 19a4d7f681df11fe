"""What is kept between requests gives, token for token and bit for bit, what running the whole prompt gives."""

import concurrent.futures
import json
import random

import pytest
import torch
from servers import running, tiny

from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import Agent
from eelib.decoding.generate import SingleDecoder
from eelib.server.warm import BLOCK, Kept, WarmDecoder

TEXT = "".join(f"name{i} = value{i} ( {i} )\n" for i in range(14))
MODES = [mode for mode in CacheMode if mode is not CacheMode.NONE]


def decoded(prompt: list[int], kept: Kept, threshold: float = 0.5, mode=CacheMode.PROPAGATE, count: int = 8):
    """Tokens and layers of a decoding, and its decoder."""
    loaded = tiny()
    decoder = WarmDecoder(loaded.parts, prompt, count, mode, kept)
    while not decoder.prefill():
        pass
    agent = Agent(loaded.policy, threshold)
    return [decoder.step(agent) for _ in range(count)], decoder


def edits(rng: random.Random, count: int) -> list[list[int]]:
    """Prompts as typing makes them: each is the one before with something typed, deleted, or changed in the middle."""
    prompt, prompts = [rng.randrange(4, 4096) for _ in range(100)], []
    for _ in range(count):
        place = rng.choice([len(prompt), len(prompt), rng.randrange(len(prompt))])
        removed = rng.choice([0, 0, 1, 20])
        prompt = prompt[:place] + [rng.randrange(4, 4096)] * rng.randrange(4) + prompt[place + removed :]
        prompt = prompt[:200] or [5]
        prompts.append(prompt)
    return prompts


@pytest.mark.parametrize("mode", MODES)
def test_edited_prompts_give_bit_for_bit_what_they_give_alone(mode):
    kept, rng, found = Kept(2**30), random.Random(0), 0
    for number, prompt in enumerate(edits(rng, 12)):
        threshold = (0.0, 0.3, 0.5, 1.0)[number % 4]
        warm, warm_decoder = decoded(prompt, kept, threshold, mode)
        cold, cold_decoder = decoded(prompt, Kept(0), threshold, mode)
        assert warm == cold and cold_decoder.warm == 0
        length = len(prompt) - 1
        for ours, theirs in (
            (warm_decoder.cache.keys, cold_decoder.cache.keys),
            (warm_decoder.cache.values, cold_decoder.cache.values),
        ):
            assert torch.equal(ours[..., :length, :], theirs[..., :length, :])
        found += warm_decoder.warm
    assert found > 6 * BLOCK


def test_a_prompt_in_blocks_is_the_prompt_at_once_up_to_rounding():
    loaded, prompt = tiny(), edits(random.Random(1), 1)[0]
    _, blocks = decoded(prompt, Kept(0), count=1)
    whole = SingleDecoder(loaded.parts, prompt, 1, CacheMode.PROPAGATE)
    length = len(prompt) - 1
    torch.testing.assert_close(blocks.cache.keys[..., :length, :], whole.cache.keys[..., :length, :])
    torch.testing.assert_close(blocks.cache.values[..., :length, :], whole.cache.values[..., :length, :])


@pytest.mark.parametrize("length", [1, 2, BLOCK, BLOCK + 1, BLOCK + 2, 2 * BLOCK + 1])
def test_only_whole_blocks_before_the_last_token_are_kept(length):
    kept, prompt = Kept(2**30), list(range(5, 5 + length))
    cold, decoder = decoded(prompt, kept)
    assert decoder.warm == 0
    again, decoder = decoded(prompt, kept)
    assert again == cold and decoder.warm == (length - 1) // BLOCK * BLOCK
    other, decoder = decoded([*prompt, 9], kept)
    assert decoder.warm == (length - 1) // BLOCK * BLOCK and other == decoded([*prompt, 9], Kept(0))[0]
    assert decoded([4, *prompt], kept)[1].warm == 0, "another beginning"


def block() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(10), torch.zeros(10)  # 80 bytes


def test_the_least_recently_used_are_forgotten_the_later_blocks_of_a_prompt_first():
    kept, first, second = Kept(4 * 80), list(range(64)), list(range(100, 164))
    for prompt in (first, second):
        for end in (32, 64):
            kept.keep(prompt[:end], *block())
    assert kept.bytes == 4 * 80 and len(kept.find(first)) == 2
    kept.keep(list(range(200, 232)), *block())  # the end of the second prompt makes room, nothing else
    assert kept.bytes == 4 * 80
    assert [len(kept.find(prompt)) for prompt in (first, second)] == [2, 1]


def test_nothing_is_kept_that_is_larger_than_what_may_be_kept():
    kept = Kept(79)
    kept.keep(list(range(32)), *block())
    assert kept.bytes == 0 and kept.find(list(range(32))) == []


def test_several_clients_typing_get_what_a_server_without_it_gives_them():
    rng = random.Random(2)
    requests = []
    for client in range(3):
        text = f"class C{client}:\n" + TEXT
        for key in range(6):
            cut = len(text) - rng.randrange(30)
            requests.append(
                {"prompt": text[:cut], "max_tokens": 6 + key, "exit_threshold": (0.3, 0.5, 1.0)[client]}
            )

    def ask(server, request, stream):
        answer = server.post("/v1/completions", request | {"stream": stream})
        if not stream:
            body = answer.json()
            return body["choices"][0]["text"], body["early_exit"]
        chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        return "".join(chunk["choices"][0]["text"] for chunk in chunks), chunks[-1]["early_exit"]

    with running(warm_bytes=0) as server:
        cold = [ask(server, request, False) for request in requests]
        assert server.metric("eelib_prompt_tokens_warm_total") == server.metric("eelib_warm_bytes") == 0
    with running() as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        streams = [number % 2 == 0 for number in range(len(requests))]
        warm = list(pool.map(ask, [server] * len(requests), requests, streams))
        assert server.metric("eelib_prompt_tokens_warm_total") == sum(
            said["prompt_tokens_warm"] for _, said in warm
        )
        assert server.metric("eelib_warm_bytes") > 0
    same = ("layers_used", "tokens", "prompt_tokens")
    for (text, said), (expected, alone) in zip(warm, cold, strict=True):
        assert text == expected and [said[name] for name in same] == [alone[name] for name in same]
        assert (said["flops"] < alone["flops"]) == (said["prompt_tokens_warm"] > 0)
        saved = said["flops_full_depth"] - said["flops"]
        assert saved == alone["flops_full_depth"] - alone["flops"], "early exit saves the same of less"
    assert sum(said["prompt_tokens_warm"] > 0 for _, said in warm) >= 6
