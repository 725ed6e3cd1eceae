"""The server as one app: the APIs that it speaks, how it tells errors, and what it counts."""

from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from sleicl_chains.errors import SleiclError
from sleicl_chains.serving.server.door import Door
from sleicl_chains.serving.server.failures import Failure, failure_of
from sleicl_chains.serving.server.menu import Menu
from sleicl_chains.serving.server.metrics import Metrics
from sleicl_chains.serving.server.ollama_api import add_ollama
from sleicl_chains.serving.server.openai import add_openai
from sleicl_chains.serving.server.queue import Queue
from sleicl_chains.serving.server.requests import Limits, Service


def build(
    menu: Menu, limits: Limits | None = None, *, key: str | None = None, ollama_api: bool = False,
    log: Callable[[str], None] = lambda line: None,
) -> ASGIApp:  # fmt: skip
    """Return the server as an ASGI app.

    Args:
        menu: what it answers with.
        limits: what it takes upon itself.
        key: what clients must show.
        ollama_api: whether it speaks as an Ollama server, too.
        log: takes a line a request, without texts.
    """
    limits = limits or Limits()
    queue = Queue(running=limits.running, waiting=limits.waiting)
    metrics = Metrics(queue)
    # Its pages of docs load from other sites.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    service = Service(menu, queue, limits)
    _explain(app)
    add_openai(app, service)
    _add_state(app, metrics)
    if ollama_api:
        add_ollama(app, service)
    return Door(app, metrics, key=key, log=log)


def _explain(app: FastAPI) -> None:
    """Have all errors told in the shape of the API that was asked."""

    @app.exception_handler(Failure)
    @app.exception_handler(SleiclError)
    @app.exception_handler(Exception)
    async def told(request: Request, problem: Exception) -> Response:
        found = failure_of(problem)
        return JSONResponse(found.body(request.url.path), found.status, headers=found.headers)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, problem: HTTPException) -> Response:
        said = {404: "There is nothing at this address", 405: "This address does not take that method"}
        found = Failure(problem.status_code, said.get(problem.status_code, str(problem.detail)), code="unknown_url")
        return JSONResponse(found.body(request.url.path), found.status, headers=problem.headers)


def _add_state(app: FastAPI, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def counts() -> Response:
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4")
