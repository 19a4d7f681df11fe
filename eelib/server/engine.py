"""The decoder's thread: requests side by side, a token each in turn.

Turns make a short request short beside a long one, and let a cancellation take effect within a token. No two requests share
anything but the model, so each gets what it would get alone.
"""

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch

from eelib.decoding.cache import CacheMode
from eelib.decoding.criteria import Agent
from eelib.decoding.generate import SingleDecoder
from eelib.evaluation.energy import EnergyMonitor, Measurement
from eelib.server.artifacts import Load, Loaded
from eelib.server.config import ServerConfig
from eelib.server.metrics import Metrics
from eelib.server.reading import Reader
from eelib.server.warm import Kept, WarmDecoder


class Busy(Exception):
    """The queue is full."""


class NotReady(Exception):
    """The model is loading, or the server is going down. The message says which."""


@dataclass(eq=False)
class Job:
    """One request's decoding.

    Attributes
    ----------
    steps: (token, exit layer) as they are decoded; None after the last; an exception in place of a failed one.
    alone: whether no other request ran between its first and last token, so that the device's energy is its own.
    """

    prompt: list[int]
    new_tokens: int
    threshold: float
    loop: asyncio.AbstractEventLoop
    steps: asyncio.Queue = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    alone: bool = True
    measurement: Measurement = field(default_factory=Measurement)
    decoder: SingleDecoder | None = None
    prefilled: bool = False  # whether the prompt's keys and values are there
    warm: int = 0  # positions of the prompt whose keys and values were kept from earlier requests
    criterion: Agent | None = None
    done: int = 0  # tokens so far
    window: ExitStack = field(default_factory=ExitStack)

    @property
    def joules(self) -> float | None:
        """Energy of the device while this request ran; None where unmeasured or shared with other requests."""
        return self.measurement.joules if self.alone and math.isfinite(self.measurement.joules) else None

    def send(self, item: object) -> None:
        """Hand an item to the waiting coroutine, from the decoder's thread."""
        try:
            self.loop.call_soon_threadsafe(self.steps.put_nowait, item)
        except RuntimeError:  # the loop has closed: nobody waits
            self.cancelled = True


class Engine:
    """A bounded queue and the one thread that decodes.

    Parameters
    ----------
    load: gives the model, tokenizer and policy; called in the thread, so that the server answers meanwhile.
    """

    def __init__(self, load: Load, config: ServerConfig, metrics: Metrics):
        self.config = config
        self.metrics = metrics
        self.loaded: Loaded | None = None
        self.failure: Exception | None = None  # of loading
        self.on_failure: Callable[[], None] = lambda: None
        self.monitor: EnergyMonitor | None = None
        self.reader = Reader()
        self.kept = Kept(config.warm_bytes)
        self._entering = 0  # requests whose source is being read
        self._load = load
        self._waiting: deque[Job] = deque()
        self._active: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)

    def start(self) -> None:
        """Start loading, then serving."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; what has not been decoded is dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @property
    def waiting(self) -> int:
        return self._entering + len(self._waiting)

    @property
    def active(self) -> int:
        return len(self._active)

    @property
    def max_new_tokens(self) -> int:
        """The most new tokens a request may ask for: the configured limit, and half of what the model knows positions for."""
        return min(self.config.max_new_tokens, self.context // 2)

    @property
    def context(self) -> int:
        """The most tokens of a prompt and its answer."""
        return min(self.config.context, self.loaded.parts.max_positions)

    @contextmanager
    def entering(self) -> Iterator[None]:
        """Hold a place in the queue while a request's source is read, at once or not at all: Busy when the queue is full."""
        with self._changed:
            self._check_open()
            if self.waiting + self.active >= self.config.side_by_side + self.config.queue:
                raise Busy
            self._entering += 1
        try:
            yield
        finally:
            with self._changed:
                self._entering -= 1

    def _check_open(self) -> None:
        if self._closing or self.loaded is None:
            raise NotReady("The server is going down." if self._closing else "The model is not loaded.")

    def submit(self, prompt: list[int], new_tokens: int, threshold: float) -> Job:
        """Queue a request that is `entering`. Call within the event loop."""
        job = Job(prompt, new_tokens, threshold, asyncio.get_running_loop())
        with self._changed:
            self._check_open()
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Nobody waits for this request any more: it stops before its next token."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                self.metrics.cancellations.inc()

    def _run(self) -> None:
        try:
            loaded = self._load()
            with torch.inference_mode():
                SingleDecoder(loaded.parts, [0, 0], 1, self.config.cache_mode).step(
                    Agent(loaded.policy, self.config.threshold)
                )
            self.monitor = EnergyMonitor(loaded.parts.device)
            self.loaded = loaded
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the server's to say
            self.failure = error
            self.on_failure()
            return
        while self._admit():
            job = self._active[0]
            self._active.rotate(-1)
            try:
                finished = self._advance(job)
            except Exception as error:  # noqa: BLE001 - of this request alone; the others go on
                job.send(error)
                finished = True
            if finished:
                self._leave(job)

    def _admit(self) -> bool:
        """Let waiting requests in, or wait for one; False when the server goes down."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._waiting or self._active)
            while self._waiting and len(self._active) < self.config.side_by_side:
                self._active.append(self._waiting.popleft())
                if len(self._active) > 1:
                    for job in self._active:
                        job.alone = False
            return not self._closing

    def _advance(self, job: Job) -> bool:
        """One turn of a request: its prompt, block by block, then a token each. Whether it has ended."""
        if job.cancelled:
            self.metrics.cancellations.inc()
            return True
        if job.decoder is None:
            job.measurement = job.window.enter_context(self.monitor.measure())
            job.criterion = Agent(self.loaded.policy, job.threshold)
            job.decoder = self._decoder(job)
            return False
        if not job.prefilled:
            job.prefilled = job.decoder.prefill()
            return False
        token, layer = job.decoder.step(job.criterion)
        job.done += 1
        ends = token == self.loaded.tokenizer.eos_token_id
        job.send((token, layer))
        return ends or job.done == job.new_tokens

    def _decoder(self, job: Job) -> SingleDecoder:
        """A decoder at the start of a request's prompt."""
        parts, mode = self.loaded.parts, self.config.cache_mode
        if mode is CacheMode.NONE:  # every token runs the prompt anew: nothing is kept
            job.prefilled = True
            return SingleDecoder(parts, job.prompt, job.new_tokens, mode)
        decoder = WarmDecoder(parts, job.prompt, job.new_tokens, mode, self.kept)
        job.warm = decoder.warm
        self.metrics.prompt_tokens.inc(len(job.prompt))
        self.metrics.prompt_tokens_warm.inc(job.warm)
        return decoder

    def _leave(self, job: Job) -> None:
        with self._changed:
            self._active.remove(job)
        job.window.close()
        job.send(None)
