"""One completion: source text in, pieces of editor text out, and what early exit did meanwhile."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Literal

from eelib.evaluation.flops import generation_flops, layer_flops
from eelib.server.engine import Engine, Job
from eelib.server.schemas import EarlyExit
from eelib.server.text import EditorText, StopSequences, encode, token_text

CHARACTERS_A_TOKEN = 16  # of source that are read for a token that the context can hold; comments among them
WITHIN = "The cursor is within a string or a comment, where this model has learnt nothing."
FinishReason = Literal["length", "eos_token", "stop_sequence"]


@dataclass(frozen=True)
class Asked:
    """What a request of any client asks for, checked. `new_tokens` and `threshold`: the server's own where it names none."""

    source: str
    new_tokens: int
    threshold: float
    stop: list[str]
    tolerated_loss: float | None = None  # that `threshold` stands for


@dataclass(frozen=True)
class Piece:
    """The text that one token has settled, empty while a code token goes on."""

    token: int
    layer: int
    text: str


@dataclass
class Completion:
    """A completion under way: `start`, then `next` until None, then `close`.

    Attributes
    ----------
    dropped: ids of the prompt before the last ones that leave room for the answer.
    dropped_characters: of the source, before what was read at all.
    note: why nothing was decoded.
    """

    engine: Engine
    asked: Asked
    made: list[Piece] = field(default_factory=list)
    finish_reason: FinishReason = "length"
    prompt_tokens: int = 0
    dropped: int = 0
    dropped_characters: int = 0
    note: str | None = None
    _ended: bool = False
    seconds: float = 0.0
    job: Job | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.made)

    @property
    def layers(self) -> list[int]:
        return [piece.layer for piece in self.made]

    async def start(self, seconds: float) -> None:
        """Read the source within so many seconds and queue the decoding; Busy when the queue is full, TimeoutError when
        reading takes longer. A source that is empty, or ends where the model can say nothing, needs no decoding."""
        if not self.asked.source:
            return
        self._started = time.perf_counter()
        with self.engine.entering():
            async with asyncio.timeout(seconds):
                prompt = await self._read()
            if prompt:  # else a tokenizer without a start token, and a source without code
                self.prompt_tokens = len(prompt)
                self.job = self.engine.submit(prompt, self.asked.new_tokens, self.asked.threshold)

    async def _read(self) -> list[int]:
        """The prompt, empty where nothing is to be decoded."""
        loaded, context = self.engine.loaded, self.engine.context
        read = await self.engine.reader.read(self.asked.source, loaded.language, CHARACTERS_A_TOKEN * context)
        self.dropped_characters = read.dropped
        if read.within:
            self.finish_reason, self.note = "stop_sequence", WITHIN
            return []
        self._text, self._stop = EditorText(loaded.tokenizer, read.after), StopSequences(self.asked.stop)
        room = context - self.asked.new_tokens
        prompt, self.dropped = await asyncio.to_thread(encode, read.code, loaded.tokenizer, room)
        return prompt

    async def next(self) -> Piece | None:
        """The next token's piece, the last with the rest of the text; None at the end."""
        if self.job is None or self._ended:
            return None
        step = await self.job.steps.get()
        if step is None:
            return None
        if isinstance(step, Exception):
            raise step
        token, layer = step
        ends = token == self.engine.loaded.tokenizer.eos_token_id
        last = ends or len(self.made) + 1 == self.asked.new_tokens
        written = self._stop.push(self._text.push(token) + (self._text.finish() if last else ""))
        if last:
            written += self._stop.finish()
        if self._text.after.over:  # a bracket that closes nothing: what is left of the text is not here
            written += self._stop.finish()
        self._ended = self._stop.found or self._text.after.over
        if self._ended or ends:
            self.finish_reason = "stop_sequence" if self._ended else "eos_token"
        piece = Piece(token, layer, written)
        self.made.append(piece)
        return piece

    def close(self) -> None:
        """Stop the decoding if it goes on, and count what it ran."""
        if self.job is not None:
            self.engine.cancel(self.job)
            self.seconds = time.perf_counter() - self._started
            self.engine.metrics.count(self.layers, self.engine.loaded.parts.total_layers, self.job.joules)

    def early_exit(self) -> EarlyExit:
        """What early exit did."""
        parts, layers = self.engine.loaded.parts, self.layers
        flops = full = None
        if layers:
            arguments = parts.model.config, self.prompt_tokens
            cache = self.engine.config.cache_mode.value
            warm = self._warm_flops()
            flops = generation_flops(*arguments, layers, cache) - warm
            full = generation_flops(*arguments, [parts.total_layers] * len(layers), cache) - warm
        return EarlyExit(
            threshold=self.asked.threshold,
            tolerated_loss=self.asked.tolerated_loss,
            layers_used=layers,
            mean_layers=sum(layers) / len(layers) if layers else None,
            total_layers=parts.total_layers,
            exit_points=parts.exit_points,
            energy_j=None if self.job is None else self.job.joules,
            energy_source=self.engine.monitor.source,
            energy_scope=self._energy_scope(),
            flops=flops,
            flops_full_depth=full,
            tokens=[token_text(self.engine.loaded.tokenizer, piece.token) for piece in self.made],
            cache=self.engine.config.cache_mode.value,
            prompt_tokens=self.prompt_tokens,
            prompt_tokens_warm=0 if self.job is None else self.job.warm,
            prompt_tokens_dropped=self.dropped,
            source_characters_dropped=self.dropped_characters,
            note=self.note,
            seconds=self.seconds,
        )

    def _warm_flops(self) -> int:
        """FLOPs of the prompt's positions that were kept, in the count of `generation_flops`."""
        parts, prefilled = self.engine.loaded.parts, self.prompt_tokens - 1
        if not self.job.warm:
            return 0
        cold = layer_flops(parts.model.config, prefilled, prefilled)
        if left := prefilled - self.job.warm:
            cold -= layer_flops(parts.model.config, left, prefilled)
        return parts.total_layers * cold

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
