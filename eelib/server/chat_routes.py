"""Routes of clients that chat, and what Ollama's ask before: the user's last message is the code before the cursor."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request

from eelib.server.completion import Asked, Completion
from eelib.server.generate_routes import now, ollama_end
from eelib.server.openai_routes import reason, usage_of
from eelib.server.schemas import ChatRequest
from eelib.server.serving import asked, begin, complete, dump, engine_of, event, streamed, watch

router = APIRouter(tags=["chat"])


def _asked(request: Request, body: ChatRequest) -> Asked:
    options = body.options
    count = body.max_completion_tokens or body.max_tokens or (options and options.num_predict)
    return asked(request, body.source, count, body, body.stop or (options and options.stop))


@router.post("/v1/chat/completions", response_model=None)
async def openai_chat(request: Request, body: ChatRequest) -> Any:
    """OpenAI's chat completions."""
    what = _asked(request, body)
    if body.stream:
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return streamed(request, _events(request, await begin(request, what), usage), "text/event-stream")
    completion = await complete(request, what)
    message = {"role": "assistant", "content": completion.text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason(completion)}
    answer = _answer(request, "chat.completion") | {"choices": [choice], "usage": usage_of(completion)}
    return answer | {"early_exit": completion.early_exit()}


def _answer(request: Request, kind: str) -> dict[str, Any]:
    name = f"chatcmpl-{uuid.uuid4().hex}"
    return {"id": name, "object": kind, "created": int(time.time()), "model": request.app.state.name}


async def _events(request: Request, completion: Completion, usage: bool) -> AsyncIterator[str]:
    answer = _answer(request, "chat.completion.chunk")

    def chunk(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        return answer | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    yield event(chunk({"role": "assistant", "content": ""}))
    async for piece in watch(request, completion):
        if piece.text:
            yield event(chunk({"content": piece.text}))
    yield event(chunk({}, reason(completion)) | {"early_exit": completion.early_exit().model_dump()})
    if usage:
        yield event(answer | {"choices": [], "usage": usage_of(completion)})
    yield event("[DONE]")


@router.post("/api/chat", response_model=None)
async def ollama_chat(request: Request, body: ChatRequest) -> Any:
    """Ollama's chat."""
    what = _asked(request, body)
    if body.stream is False:
        completion = await complete(request, what)
        return _message(request, completion.text) | ollama_end(completion)
    return streamed(request, _lines(request, await begin(request, what)), "application/x-ndjson")


def _message(request: Request, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"model": request.app.state.name, "created_at": now(), "message": message, "done": False}


async def _lines(request: Request, completion: Completion) -> AsyncIterator[str]:
    async for piece in watch(request, completion):
        if piece.text:
            yield dump(_message(request, piece.text)) + "\n"
    yield dump(_message(request, "") | ollama_end(completion)) + "\n"


def _details(request: Request) -> dict[str, Any]:
    """What Ollama says of a model."""
    config = engine_of(request).loaded.parts.model.config
    return {"format": "safetensors", "family": config.model_type, "families": [config.model_type]}


@router.get("/api/tags", response_model=None)
async def tags(request: Request) -> dict[str, Any]:
    """The one model, as Ollama lists it."""
    name, model = request.app.state.name, engine_of(request).loaded.parts.model
    size = sum(weight.nbytes for weight in model.parameters())
    entry = {"name": name, "model": name, "size": size, "details": _details(request)}
    return {"models": [entry | {"modified_at": "1970-01-01T00:00:00Z", "digest": ""}]}


@router.post("/api/show", response_model=None)
async def show(request: Request) -> dict[str, Any]:
    """The one model, as Ollama shows it, whatever name it is called by."""
    engine = engine_of(request)
    family = _details(request)["family"]
    return {
        "modelfile": "",
        "parameters": "",
        "template": "{{ .Prompt }}",
        "details": _details(request),
        "model_info": {"general.architecture": family, f"{family}.context_length": engine.context},
        "capabilities": ["completion"],
    }
