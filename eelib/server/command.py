"""The command line of `python -m eelib.server`, and how a server is run from it."""

import argparse
import logging
import os
import signal
import socket
from pathlib import Path

import torch
import uvicorn

from eelib.decoding.cache import CacheMode
from eelib.errors import InputError
from eelib.server.app import create_app
from eelib.server.artifacts import Artifacts, of_paths, of_profile, of_shipped
from eelib.server.config import ServerConfig
from eelib.server.connection import Connection
from eelib.study.quiet import quieten_libraries

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOKEN = "EELIB_TOKEN"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    defaults = ServerConfig()
    parser = argparse.ArgumentParser(
        prog="python -m eelib.server",
        description="Serve early-exit code completion to editors and ordinary clients.",
        epilog=f"A token that every request must carry is read from the environment variable {TOKEN}.",
    )
    parser.add_argument(
        "--model", default="smollm2-135m", help="one that ships, or is of the profile (default: smollm2-135m)"
    )
    parser.add_argument("--language", default="python", help="java or python (default: python)")
    parser.add_argument("--profile", help="the artifacts of its run instead of those that ship")
    parser.add_argument("--seed", type=int, default=0, help="which of the profile's agents (default: 0)")
    parser.add_argument(
        "--model-path", type=Path, help="a fine-tuned model's folder instead; needs --agent-path"
    )
    parser.add_argument("--agent-path", type=Path, help="an agent's folder; needs --model-path")
    parser.add_argument("--host", default="127.0.0.1", help=f"any but the default needs a token in {TOKEN}")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one, which is printed")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name the server is called by",
    )
    parser.add_argument("--threshold", type=float, default=defaults.threshold, help="of requests without one")
    parser.add_argument(
        "--cache", default=defaults.cache_mode.value, choices=[mode.value for mode in CacheMode]
    )
    parser.add_argument(
        "--new-tokens", type=int, default=defaults.new_tokens, help="of requests that say none"
    )
    parser.add_argument("--max-new-tokens", type=int, default=defaults.max_new_tokens)
    parser.add_argument("--context", type=int, default=defaults.context, help="tokens of prompt and answer")
    parser.add_argument(
        "--warm-bytes",
        type=int,
        default=defaults.warm_bytes,
        help="of keys and values of prompts kept between requests",
    )
    parser.add_argument("--side-by-side", type=int, default=defaults.side_by_side, help="requests in turns")
    parser.add_argument("--queue", type=int, default=defaults.queue, help="requests that may wait")
    parser.add_argument(
        "--deadline", type=float, default=defaults.deadline, help="seconds a request may take"
    )
    parser.add_argument("--max-body", type=int, default=defaults.max_body, help="bytes of a request")
    return parser.parse_args(arguments)


def configuration(args: argparse.Namespace) -> ServerConfig:
    """The server's configuration; a bind beyond loopback without a token gives InputError."""
    token = os.environ.get(TOKEN) or None
    if args.host not in LOOPBACK and token is None:
        raise InputError(
            f"The host is {args.host!r}, which others can reach: allowed without a token in {TOKEN} are {', '.join(LOOPBACK)}."
        )
    if not 0 <= args.port <= 65535:
        raise InputError(f"The port is {args.port}: allowed are 0 to 65535.")
    return ServerConfig(
        threshold=args.threshold,
        cache_mode=CacheMode(args.cache),
        new_tokens=args.new_tokens,
        max_new_tokens=args.max_new_tokens,
        context=args.context,
        warm_bytes=args.warm_bytes,
        side_by_side=args.side_by_side,
        queue=args.queue,
        deadline=args.deadline,
        max_body=args.max_body,
        token=token,
        hosts=tuple(name.lower() for name in (*LOOPBACK, args.host, *args.allow_host)),
    )


def artifacts(args: argparse.Namespace) -> Artifacts:
    """What is to be served."""
    if (args.model_path is None) != (args.agent_path is None):
        raise InputError("--model-path and --agent-path belong together: give both or none.")
    if args.model_path is not None:
        return of_paths(args.model_path, args.agent_path, args.language)
    if args.profile is not None:
        return of_profile(args.profile, args.model, args.language, args.seed)
    return of_shipped(args.model, args.language)


def listening(host: str, port: int) -> socket.socket:
    """The server's socket, which takes connections already; InputError where none can be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"The server cannot listen at port {port} of {host} ({error.strerror}): allowed are free ports, and 0 takes one."
        ) from error
    # Connections inherit it. Without, the second packet of an answer waits for the first one's acknowledgement, 40 ms on Linux.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return bound


def run(args: argparse.Namespace) -> None:
    """Serve until a signal."""
    config, chosen = configuration(args), artifacts(args)
    bound = listening(args.host, args.port)
    quieten_libraries()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    app = create_app(chosen.name, chosen.load, config)
    # Its access log has paths and statuses; no log has a prompt.
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=args.host,
            port=args.port,
            log_config=None,
            http=Connection,
            server_header=False,
            timeout_graceful_shutdown=round(config.deadline) + 1,
        )
    )
    app.state.engine.on_failure = lambda: setattr(server, "should_exit", True)
    shown = f"[{args.host}]" if ":" in args.host else args.host
    print(f"{chosen.name} for {chosen.language}: http://{shown}:{bound.getsockname()[1]}", flush=True)
    # uvicorn drains, then raises the signal again for whoever was there before it: this asks what is done by then, so that a
    # wish ends with 0. One that comes before uvicorn listens for it is heard as well.
    signal.signal(signal.SIGTERM, server.handle_exit)
    signal.signal(signal.SIGINT, server.handle_exit)
    server.run(sockets=[bound])
    if app.state.engine.failure is not None:
        raise app.state.engine.failure
