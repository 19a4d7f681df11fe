"""One completion: source text in, pieces of editor text out, and what early exit did meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

from eelib.evaluation.flops import generation_flops
from eelib.server.engine import Engine, Job
from eelib.server.schemas import EarlyExit
from eelib.server.text import EditorText, StopSequences, encode, read_source

FinishReason = Literal["length", "eos_token", "stop_sequence"]


@dataclass(frozen=True)
class Asked:
    """What a request of any client asks for, checked. `new_tokens` and `threshold`: the server's own where it names none."""

    source: str
    new_tokens: int
    threshold: float
    stop: list[str]


@dataclass(frozen=True)
class Piece:
    """The text that one token has settled, empty while a code token goes on."""

    token: int
    layer: int
    text: str


@dataclass
class Completion:
    """A completion under way; whole once `pieces` has ended.

    Attributes
    ----------
    dropped: ids of the prompt before the last ones that leave room for the answer.
    """

    engine: Engine
    asked: Asked
    made: list[Piece] = field(default_factory=list)
    finish_reason: FinishReason = "length"
    prompt_tokens: int = 0
    dropped: int = 0
    seconds: float = 0.0
    job: Job | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.made)

    @property
    def layers(self) -> list[int]:
        return [piece.layer for piece in self.made]

    async def start(self) -> None:
        """Read the source and queue the decoding; Busy when the queue is full. An empty source needs no decoding."""
        if not self.asked.source:
            return
        loaded = self.engine.loaded
        # A long source takes a while to parse, which is not the event loop's to wait for.
        code, self._after = await asyncio.to_thread(read_source, self.asked.source, loaded.language)
        room = loaded.parts.max_positions - self.asked.new_tokens
        prompt, self.dropped = encode(code, loaded.tokenizer, room)
        if not prompt:  # a tokenizer without a start token, and a source without code
            return
        self.prompt_tokens = len(prompt)
        self.job = self.engine.submit(prompt, self.asked.new_tokens, self.asked.threshold)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Decode, a piece a token; the last piece has the rest of the text. Closing it early cancels the decoding."""
        if self.job is None:
            return
        started = time.perf_counter()
        loaded = self.engine.loaded
        text = EditorText(loaded.tokenizer, self._after)
        stop = StopSequences(self.asked.stop)
        steps = self.engine.tokens(self.job)
        try:
            async for token, layer in steps:
                ends = token == loaded.tokenizer.eos_token_id
                last = ends or len(self.made) + 1 == self.asked.new_tokens
                written = stop.push(text.push(token) + (text.finish() if last else ""))
                if last:
                    written += stop.finish()
                self.made.append(Piece(token, layer, written))
                if stop.found or ends:
                    self.finish_reason = "stop_sequence" if stop.found else "eos_token"
                yield self.made[-1]
                if stop.found:
                    break
        finally:
            await steps.aclose()
            self.seconds = time.perf_counter() - started
            self.engine.metrics.count(self.layers, loaded.parts.total_layers, self.job.joules)

    async def whole(self) -> None:
        """Decode to the end."""
        async for _ in self.pieces():
            pass

    def early_exit(self) -> EarlyExit:
        """What early exit did."""
        parts, layers = self.engine.loaded.parts, self.layers
        flops = full = None
        if layers:
            arguments = parts.model.config, self.prompt_tokens
            cache = self.engine.config.cache_mode.value
            flops = generation_flops(*arguments, layers, cache)
            full = generation_flops(*arguments, [parts.total_layers] * len(layers), cache)
        return EarlyExit(
            threshold=self.asked.threshold,
            layers_used=layers,
            mean_layers=sum(layers) / len(layers) if layers else None,
            total_layers=parts.total_layers,
            exit_points=parts.exit_points,
            energy_j=None if self.job is None else self.job.joules,
            energy_source=self.engine.monitor.source,
            energy_scope=self._energy_scope(),
            flops=flops,
            flops_full_depth=full,
            cache=self.engine.config.cache_mode.value,
            prompt_tokens=self.prompt_tokens,
            prompt_tokens_dropped=self.dropped,
            seconds=self.seconds,
        )

    def _energy_scope(self) -> str:
        if self.engine.monitor.source == "none":
            return "not measured: this machine shows no energy counter"
        if self.job is None:
            return "not measured: nothing ran"
        if not self.job.alone:
            return "not attributed: other requests ran side by side with this one"
        if self.job.joules is None:
            return "not measured: the counter did not advance, or the decoding was stopped"
        return "the whole device, from the prompt to the last token"
