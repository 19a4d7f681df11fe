"""The application: routes, errors, guards, the page."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from eelib.server import chat_routes, errors, generate_routes, openai_routes
from eelib.server.artifacts import Load
from eelib.server.config import ServerConfig
from eelib.server.engine import Engine
from eelib.server.metrics import Metrics
from eelib.server.middleware import Counted, Guarded

STATIC = Path(__file__).parent / "static"
_POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def create_app(name: str, load: Load, config: ServerConfig | None = None) -> FastAPI:
    """The application of one model.

    Parameters
    ----------
    name: what clients are told the model is called.
    load: gives the model, its tokenizer and policy; runs while the server already answers "is currently loading".
    """
    config, metrics = config or ServerConfig(), Metrics()
    engine = Engine(load, config, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        await engine.reader.start()
        yield
        await engine.reader.close()
        await asyncio.to_thread(engine.close)

    app = FastAPI(
        title="Early-exit code completion",
        version="1",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
    )
    metrics.waiting.set_function(lambda: engine.waiting)
    metrics.active.set_function(lambda: engine.active)
    metrics.warm_bytes.set_function(lambda: engine.kept.bytes)
    app.state.name, app.state.engine, app.state.metrics = name, engine, metrics
    # The most particular paths first: the generate routes take any name of a model.
    for routes in (chat_routes, openai_routes, generate_routes):
        app.include_router(routes.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Content-Security-Policy": _POLICY})

    app.add_exception_handler(errors.RequestError, errors.of_request_error)
    app.add_exception_handler(RequestValidationError, errors.of_validation_error)
    app.add_exception_handler(HTTPException, errors.of_http_exception)
    app.add_exception_handler(errors.ClientGone, _nobody)
    app.add_exception_handler(Exception, errors.of_anything)
    app.add_middleware(Guarded, config=config)
    app.add_middleware(Counted, metrics=metrics)  # added last: the outermost
    return app


def _nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=499)
