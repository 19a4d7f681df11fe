"""What all routes do with a request: check it, queue it, watch over it."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator

from fastapi import Request
from fastapi.responses import StreamingResponse

from eelib.errors import InputError
from eelib.profile import check_threshold
from eelib.server.completion import Asked, Completion, Piece
from eelib.server.engine import Busy, Engine, NotReady
from eelib.server.errors import ClientGone, RequestError, error_body
from eelib.server.schemas import Request as Wishes

HEADER = "X-Exit-Threshold"
LOSS_HEADER = "X-Tolerated-Loss"
log = logging.getLogger("eelib.server")


def engine_of(request: Request) -> Engine:
    """The server's engine, ready; 503 while it loads."""
    engine: Engine = request.app.state.engine
    if engine.loaded is None:
        name = request.app.state.name
        if engine.failure is not None:
            raise RequestError(503, f"The model {name} could not be loaded.")
        raise RequestError(503, f"The model {name} is currently loading.", headers={"Retry-After": "5"})
    return engine


def asked(
    request: Request,
    source: str,
    new_tokens: int | None,
    body: Wishes,
    stop: str | list[str] | None = None,
) -> Asked:
    """A checked request; what it leaves open is the server's.

    Parameters
    ----------
    new_tokens: None for the server's number, -1 for the most there may be.
    body: where the exit threshold or the tolerated loss may stand; headers are read here. Two different values are refused.
    """
    engine = engine_of(request)
    threshold = _one("exit threshold", [*body.thresholds, *_header(request, HEADER)])
    loss = _one("tolerated loss", [*body.losses, *_header(request, LOSS_HEADER)])
    if threshold is not None and loss is not None:
        raise RequestError(
            422,
            f"The exit threshold {threshold:g} and the tolerated loss {loss:g} are given: allowed is one of them.",
            "tolerated_loss",
        )
    most = engine.max_new_tokens
    count = min(engine.config.new_tokens, most) if new_tokens is None else new_tokens
    if count == -1:
        count = most
    if count > most:
        raise RequestError(422, f"{count} new tokens are asked for: allowed are 1 to {most}.", "max_tokens")
    if loss is not None:
        try:
            threshold = engine.loaded.promises.threshold(loss)
        except InputError as error:
            raise RequestError(422, str(error), "tolerated_loss") from error
    if threshold is None:
        threshold = engine.config.threshold
    return Asked(source, count, threshold, [stop] if isinstance(stop, str) else stop or [], loss)


def _one(what: str, named: Iterable[float | None]) -> float | None:
    """The one value that is named, or None."""
    given = sorted({value for value in named if value is not None})
    if len(given) > 1:
        values = " and ".join(f"{value:g}" for value in given)
        raise RequestError(
            422, f"The {what} is given as {values}: allowed is one value.", what.replace(" ", "_")
        )
    return given[0] if given else None


def _header(request: Request, name: str) -> Iterator[float]:
    """The values of a header, which may be given more than once."""
    for text in request.headers.getlist(name):
        try:
            value = float(text)
            check_threshold(value)
        except (ValueError, InputError) as error:
            raise RequestError(
                422, f"The header {name} is {text[:40]!r}: allowed are numbers from 0 to 1.", name
            ) from error
        yield value


async def begin(request: Request, what: Asked) -> Completion:
    """Queue a completion: 429 at once when the queue is full, 504 when reading its source takes all of its time."""
    completion = Completion(request.app.state.engine, what)
    try:
        await completion.start(_ends(request, completion) - time.monotonic())
    except Busy as error:
        raise RequestError(
            429, "The queue is full: try again in a second.", headers={"Retry-After": "1"}
        ) from error
    except NotReady as error:
        raise RequestError(503, str(error)) from error
    except TimeoutError as error:
        raise _late(completion) from error
    return completion


def _ends(request: Request, completion: Completion) -> float:
    """When the request's deadline passes, by the monotonic clock."""
    return request.state.arrived + completion.engine.config.deadline


def _late(completion: Completion) -> RequestError:
    seconds = completion.engine.config.deadline
    return RequestError(504, f"The completion took longer than the deadline of {seconds:g} s.")


async def watch(request: Request, completion: Completion) -> AsyncIterator[Piece]:
    """The pieces of a completion, until it ends, its deadline passes (504), or the client hangs up (ClientGone)."""
    ends = _ends(request, completion)
    gone = asyncio.create_task(_hung_up(request))
    try:
        while True:
            step = asyncio.create_task(completion.next())
            timeout = max(0, ends - time.monotonic())
            try:
                await asyncio.wait({step, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            finally:
                step.cancel()  # no matter to one that is done
            if gone.done():
                raise ClientGone
            if not step.done():
                raise _late(completion)
            piece = step.result()
            if piece is None:
                break
            yield piece
    finally:
        gone.cancel()
        completion.close()
        log.info(
            "completion: %d prompt tokens, %d new, %.1f layers, threshold %g, %.0f ms",
            completion.prompt_tokens,
            len(completion.made),
            sum(completion.layers) / max(1, len(completion.made)),
            completion.asked.threshold,
            1000 * completion.seconds,
        )


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def complete(request: Request, what: Asked) -> Completion:
    """A whole completion."""
    completion = await begin(request, what)
    async for _ in watch(request, completion):
        pass
    return completion


def event(data: dict | str) -> str:
    """A server-sent event."""
    return f"data: {data if isinstance(data, str) else dump(data)}\n\n"


def dump(data: dict) -> str:
    """JSON on one line."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def streamed(request: Request, lines: AsyncIterator[str], media_type: str) -> StreamingResponse:
    """An answer that is sent while it is made. What fails after its start is said in the stream, in the route's form."""

    async def guarded() -> AsyncIterator[str]:
        try:
            async for line in lines:
                yield line
        except ClientGone:
            return
        except RequestError as error:
            body = error_body(request.url.path, error.status, error.message)
            yield event(body) if media_type == "text/event-stream" else dump(body) + "\n"

    return StreamingResponse(guarded(), media_type=media_type, headers={"Cache-Control": "no-store"})
