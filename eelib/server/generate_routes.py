"""Routes of Hugging Face's clients, Ollama's, and the thesis's own configuration."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from eelib.server.completion import Completion, Piece
from eelib.server.schemas import Error, GenerateRequest, OllamaOrGenerate
from eelib.server.serving import asked, begin, complete, dump, engine_of, event, streamed, watch

router = APIRouter(
    responses={status: {"model": Error} for status in (401, 403, 413, 422, 429, 503, 504)}, tags=["generate"]
)


@router.post("/models/{model:path}", response_model=None)
async def hugging_face(request: Request, model: str, body: GenerateRequest) -> Any:
    """llm-ls's `huggingface` backend. The server has one model, whatever name it is called by."""
    return await generate(request, body)


@router.post("/", response_model=None, name="root")
@router.post("/generate", response_model=None)
@router.post("/models", response_model=None, include_in_schema=False)  # an empty name
async def generate(request: Request, body: GenerateRequest) -> Any:
    """llm-ls's `tgi` backend, and huggingface_hub's client."""
    what, whole, details = _asked(request, body)
    if body.stream:
        completion = await begin(request, what)
        return streamed(request, _tgi_events(request, completion, whole), "text/event-stream")
    completion = await complete(request, what)
    answer = {"generated_text": whole + completion.text}
    if details:
        answer["details"] = _details(completion)
    return answer | {"model": request.app.state.name, "early_exit": completion.early_exit()}


@router.post("/api/generate", response_model=None)
async def ollama(request: Request, body: OllamaOrGenerate) -> Any:
    """Ollama's clients (`prompt`), and the thesis's Listing 5 (`inputs`)."""
    if isinstance(body, GenerateRequest):
        return await generate(request, body)
    options = body.options
    what = asked(request, body.prompt, options and options.num_predict, body, options and options.stop)
    if body.stream is False:
        completion = await complete(request, what)
        return _ollama(request, completion.text) | ollama_end(completion)
    completion = await begin(request, what)
    return streamed(request, _ollama_lines(request, completion), "application/x-ndjson")


def _asked(request: Request, body: GenerateRequest):
    """What a Hugging Face request asks for; the text that its answer repeats; whether it wants details."""
    parameters, options = body.all_parameters, body.options

    def first(name: str) -> Any:
        return next((value for layer in parameters if (value := getattr(layer, name)) is not None), None)

    new_tokens = first("max_new_tokens") or (options and options.num_predict)
    what = asked(request, body.inputs, new_tokens, body, first("stop") or (options and options.stop))
    return what, body.inputs if first("return_full_text") else "", bool(first("details"))


def _token(piece: Piece) -> dict[str, Any]:
    return {"id": piece.token, "text": piece.text, "logprob": None, "special": False}


def _details(completion: Completion) -> dict[str, Any]:
    return {
        "finish_reason": completion.finish_reason,
        "generated_tokens": len(completion.made),
        "seed": None,
        "prefill": [],
        "tokens": [_token(piece) for piece in completion.made],
    }


async def _tgi_events(request: Request, completion: Completion, whole: str) -> AsyncIterator[str]:
    """Text generation inference's events: a token each, the last one with the whole text."""
    waiting: Piece | None = None
    index = 0
    async for piece in watch(request, completion):
        if waiting is not None:
            index += 1
            yield event({"index": index, "token": _token(waiting), "generated_text": None, "details": None})
        waiting = piece
    last = waiting or Piece(0, 0, "")
    details = {
        name: value for name, value in _details(completion).items() if name not in ("prefill", "tokens")
    }
    yield event(
        {
            "index": index + 1,
            "token": _token(last),
            "generated_text": whole + completion.text,
            "details": details,
            "early_exit": completion.early_exit().model_dump(),
        }
    )


def _ollama(request: Request, text: str) -> dict[str, Any]:
    return {"model": request.app.state.name, "created_at": now(), "response": text, "done": False}


def now() -> str:
    """The time as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def ollama_end(completion: Completion) -> dict[str, Any]:
    """What ends an answer of Ollama's."""
    nanoseconds = int(1e9 * completion.seconds)
    return {
        "done": True,
        "done_reason": "length" if completion.finish_reason == "length" else "stop",
        "context": [],
        "total_duration": nanoseconds,
        "prompt_eval_count": completion.prompt_tokens,
        "eval_count": len(completion.made),
        "eval_duration": nanoseconds,
        "early_exit": completion.early_exit().model_dump(),
    }


async def _ollama_lines(request: Request, completion: Completion) -> AsyncIterator[str]:
    async for piece in watch(request, completion):
        if piece.text:
            yield dump(_ollama(request, piece.text)) + "\n"
    yield dump(_ollama(request, "") | ollama_end(completion)) + "\n"


@router.get("/health", response_model=None)
async def health(request: Request) -> dict[str, Any]:
    """Whether the server can complete; open even where a token is set."""
    engine = engine_of(request)
    loaded = engine.loaded
    return {
        "status": "ok",
        "model": loaded.name,
        "language": loaded.language,
        "threshold": engine.config.threshold,
        "total_layers": loaded.parts.total_layers,
        "exit_points": loaded.parts.exit_points,
        "max_new_tokens": engine.max_new_tokens,
        "energy": engine.monitor.describe(),
    }


@router.get("/metrics", response_model=None)
async def metrics(request: Request) -> Response:
    """Prometheus's page."""
    return Response(request.app.state.metrics.exposition(), media_type="text/plain; version=0.0.4")
