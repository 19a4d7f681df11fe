"""CUDA graphs of functions on fixed addresses, and the host's view of the flags that they raise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

UNDECIDED = 2  # a flag is 0 or 1 once its graph has run that far


class Captured:
    """A function without arguments: on a GPU captured as a CUDA graph at its first call and replayed from then on.

    The function reads and writes tensors that stay where they are, and must be idempotent: it runs once for warm-up
    before it is captured, and again when it is replayed. Elsewhere it is simply called.

    Attributes
    ----------
    output: what the function gave; on a GPU the same tensors every time, which a replay writes anew.
    """

    def __init__(self, function: Callable[[], Any], pool: Any | None):
        self._function = function
        self._pool = pool
        self._graph: torch.cuda.CUDAGraph | None = None
        self.output: Any = None

    def record(self) -> None:
        """Capture the function if that is still to be done; afterwards nothing is left running."""
        if self._pool is None or self._graph is not None:
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._function()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            self.output = self._function()
        self._graph = graph

    def __call__(self) -> None:
        if self._pool is None:
            self.output = self._function()
            return
        self.record()
        self._graph.replay()


class SideStream:
    """Work beside the main stream, inside a capture or not; on a CPU it is done in line."""

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Queue the block's work beside the main stream, after what stands there."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield

    def join(self) -> None:
        """Let the main stream wait for what was queued aside."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)


class Flags:
    """Decisions that graphs write into the host's own memory, one byte each, while the GPU goes on.

    Reading one is a poll of that byte: the host waits for the decision, and for nothing queued after it.
    """

    def __init__(self, count: int, device: torch.device):
        self._cuda = device.type == "cuda"
        self._bytes = torch.full((count,), UNDECIDED, dtype=torch.uint8, pin_memory=self._cuda)
        self._seen = self._bytes.numpy()

    def clear(self, index: int) -> None:
        """Forget a decision before the graph that makes it is replayed."""
        self._seen[index] = UNDECIDED

    def write(self, index: int, decision: Tensor) -> None:
        """Write a (1,) uint8 decision; part of the graph."""
        self._bytes[index : index + 1].copy_(decision, non_blocking=True)

    def wait(self, index: int) -> bool:
        """The decision, once it is there; RuntimeError if the GPU is idle without having made it."""
        polls = 0
        while self._seen[index] == UNDECIDED:
            polls += 1
            if polls % 100_000 == 0:
                idle = not self._cuda or torch.cuda.current_stream().query()
                if idle and self._seen[index] == UNDECIDED:
                    raise RuntimeError("A captured exit decision never reached the host.")
        return bool(self._seen[index])
