"""Really running servers on loopback, in a thread, with a tiny random model and agent."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import httpx
import torch
import uvicorn
from conftest import tiny_model
from fastapi import FastAPI

from eelib.decoding.policy import ExitPolicy
from eelib.models.loading import load_tokenizer
from eelib.models.parts import take_apart
from eelib.models.pico import pico_config, random_model
from eelib.server.app import create_app
from eelib.server.artifacts import Loaded
from eelib.server.config import ServerConfig
from eelib.server.connection import Connection
from eelib.server.engine import Engine

NAME = "tiny"
SOURCE = "import os\n\n\ndef read(self, path):\n    with open(path) as file:\n        "


@cache
def tiny(language: str = "python") -> Loaded:
    """A model of 12 layers with the shipped tokenizer, and an agent whose exits are spread over its exit points."""
    tokenizer = load_tokenizer("opt-pico")
    model = tiny_model("llama-pico", vocabulary=len(tokenizer))
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(16, 128, generator=generator) / 4, torch.randn(2, 16, generator=generator)]
    policy = ExitPolicy(weights, [torch.zeros(16), torch.zeros(2)], NAME)
    return Loaded(NAME, language, take_apart(model), tokenizer, policy)


@dataclass
class Running:
    """A server that answers at `url`."""

    url: str
    app: FastAPI
    client: httpx.Client

    @property
    def engine(self) -> Engine:
        return self.app.state.engine

    def post(self, path: str, body: object = None, **arguments) -> httpx.Response:
        return self.client.post(path, json=body, **arguments)

    def metric(self, name: str, **labels: str) -> float:
        return self.app.state.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def running(load=tiny, wait: bool = True, **config) -> Iterator[Running]:
    """Start a server of `load` in a thread; it is ready unless `wait` is false."""
    app = create_app(NAME, load, ServerConfig(**config))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, http=Connection, timeout_graceful_shutdown=5)
    )
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        with httpx.Client(base_url=url, timeout=20) as client:
            if wait:
                until(lambda: app.state.engine.loaded is not None)
            yield Running(url, app, client)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def until(condition, seconds: float = 20) -> None:
    """Wait for a condition; AssertionError when it does not come."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.005)


def save_tiny(folder) -> tuple:
    """The tiny model and agent as folders that `--model-path` and `--agent-path` take."""
    from eelib.models.loading import fingerprint

    loaded, model, agent = tiny(), folder / "model", folder / "agent"
    agent.mkdir()
    pico = loaded.parts.model
    fresh = random_model(pico_config("llama-pico", pico.config.vocab_size, 0, 1, 2, layers=8), 0)
    fresh.save_pretrained(model)
    loaded.tokenizer.save_pretrained(model)
    ExitPolicy(loaded.policy.weights, loaded.policy.biases, fingerprint(str(model))).save(agent)
    return model, agent
