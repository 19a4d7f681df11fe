"""Routes under `/v1`: OpenAI's clients and Tabby's agent."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import psutil
from fastapi import APIRouter, Request

from eelib.provenance import commit
from eelib.server.completion import Completion
from eelib.server.errors import RequestError
from eelib.server.schemas import CompletionOrTabby, OpenAIError, TabbyRequest
from eelib.server.serving import asked, begin, complete, engine_of, event, streamed, watch

router = APIRouter(
    responses={status: {"model": OpenAIError} for status in (401, 403, 413, 422, 429, 503, 504)}, tags=["v1"]
)


@router.post("/v1/completions", response_model=None)
@router.post("/models/{model:path}/v1/completions", response_model=None)  # llm-ls, whose URL names a model
async def completions(request: Request, body: CompletionOrTabby) -> Any:
    """OpenAI's completions (`prompt`), and Tabby's (`segments`)."""
    if isinstance(body, TabbyRequest):
        return await _tabby(request, body)
    prompt = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    what = asked(request, prompt, body.max_tokens, body, body.stop)
    if body.stream:
        completion = await begin(request, what)
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return streamed(request, _events(request, completion, usage), "text/event-stream")
    completion = await complete(request, what)
    choice = _choice(completion.text, reason(completion))
    return _answer(request) | {
        "choices": [choice],
        "usage": usage_of(completion),
        "early_exit": completion.early_exit(),
    }


async def _tabby(request: Request, body: TabbyRequest) -> dict[str, Any]:
    """The code before the cursor, completed. A file in another language than the model's gets no completion."""
    engine = engine_of(request)
    foreign = body.language not in (None, engine.loaded.language)
    prefix = "" if foreign else body.segments.prefix
    completion = await complete(request, asked(request, prefix, None, body))
    choice = {"index": 0, "text": completion.text}
    return {"id": _identifier(), "choices": [choice], "early_exit": completion.early_exit()}


def _identifier() -> str:
    return f"cmpl-{uuid.uuid4().hex}"


def _answer(request: Request) -> dict[str, Any]:
    return {
        "id": _identifier(),
        "object": "text_completion",
        "created": int(time.time()),
        "model": request.app.state.name,
    }


def _choice(text: str, reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


def reason(completion: Completion) -> str:
    """Why the answer ended, as OpenAI's clients know it."""
    return "length" if completion.finish_reason == "length" else "stop"


def usage_of(completion: Completion) -> dict[str, int]:
    """Tokens of the prompt and the answer."""
    prompt, new = completion.prompt_tokens, len(completion.made)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


async def _events(request: Request, completion: Completion, usage: bool) -> AsyncIterator[str]:
    """OpenAI's stream: pieces, the reason of the end, the usage if it was asked for, `[DONE]`."""
    answer = _answer(request)
    async for piece in watch(request, completion):
        if piece.text:
            yield event(answer | {"choices": [_choice(piece.text, None)]})
    early_exit = {"early_exit": completion.early_exit().model_dump()}
    yield event(answer | {"choices": [_choice("", reason(completion))]} | early_exit)
    if usage:
        yield event(answer | {"choices": [], "usage": usage_of(completion)})
    yield event("[DONE]")


@router.get("/v1/models", response_model=None)
async def models(request: Request) -> dict[str, Any]:
    """The one model."""
    return {"object": "list", "data": [_model(request)]}


@router.get("/v1/models/{model:path}", response_model=None)
async def model(request: Request, model: str) -> dict[str, Any]:
    """The one model by its name."""
    if model != request.app.state.name:
        raise RequestError(
            404, f"There is no model {model[:80]!r}: allowed is {request.app.state.name}.", "model"
        )
    return _model(request)


def _model(request: Request) -> dict[str, Any]:
    """A model and what its agent promises, which is known when it has loaded."""
    loaded = request.app.state.engine.loaded
    entry = {"id": request.app.state.name, "object": "model", "created": 0, "owned_by": "eelib"}
    return entry | {"early_exit": None if loaded is None else loaded.promises.described()}


@router.get("/v1/health", response_model=None)
@router.post("/v1/health", response_model=None)
async def health(request: Request) -> dict[str, Any]:
    """What Tabby's agent asks first."""
    engine = engine_of(request)
    device = engine.loaded.parts.device.type
    return {
        "model": engine.loaded.name,
        "device": device,
        "arch": "",
        "cpu_info": "",
        "cpu_count": psutil.cpu_count(),
        "cuda_devices": [],
        "version": {"build_date": "", "build_timestamp": "", "git_sha": commit(), "git_describe": commit()},
    }


@router.get("/v1beta/server_setting", response_model=None)
async def server_setting() -> dict[str, bool]:
    """Tabby's agent asks whether it may send telemetry. It may not: nothing here would read it."""
    return {"disable_client_side_telemetry": True}
