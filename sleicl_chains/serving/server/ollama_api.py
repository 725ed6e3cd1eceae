"""The same models behind Ollama's API, for tools that know no other: as much of it as chatting takes."""

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sleicl_chains.hashes import short_hash
from sleicl_chains.models.abilities import context_of, name_of
from sleicl_chains.serving.server.failures import Failure, wrong
from sleicl_chains.serving.server.menu import CHAT, Chat, Learned
from sleicl_chains.serving.server.openai import Message, Stops
from sleicl_chains.serving.server.replies import Asked, Ended, Part, call_options
from sleicl_chains.serving.server.requests import Running, Service, Streamed, Whole, headers_of, read, unknown

VERSION = "0.24.0"
"""The release whose API this follows; tools want a bare version."""
_TAG = ":latest"


class Options(BaseModel):
    """Options of a call."""

    model_config = ConfigDict(extra="allow")

    num_predict: int | None = Field(default=None, le=10**6)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    seed: int | None = None
    stop: Stops = None

    def known(self) -> dict[str, Any]:
        """Return those that a model here knows, under LangChain's names."""
        most = self.num_predict if (self.num_predict or 0) > 0 else None  # -1: as many as it likes
        return call_options(max_tokens=most, temperature=self.temperature, seed=self.seed, stop=self.stop)


class OllamaMessage(Message):
    """A message, which may hold images elsewhere; here it may not."""

    images: Annotated[list[str] | None, Field(max_length=0)] = None


class _Wanted(BaseModel):
    """What chat and generate have in common."""

    model_config = ConfigDict(extra="allow")

    model: str
    stream: bool = True
    format: dict[str, Any] | str | None = None
    options: Options = Options()

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """Leave out fields of null, which mean to Ollama that they are not there."""
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    def _asked(self, messages: list[Message]) -> Asked:
        extra = self.model_extra or {}
        refused = ("tools", "images", "raw", "suffix", "template", "context")
        if found := next((name for name in refused if extra.get(name)), None):
            raise wrong(found, "is not served here; leave it out")
        named = [name for name in (*(self.options.model_extra or {}), *extra) if name not in (*refused, "keep_alive")]
        return Asked(
            [one.as_message() for one in messages], self.options.known(), self._schema(), "format", unknown(named)
        )

    def _schema(self) -> dict[str, Any] | None:
        if not self.format:
            return None
        if isinstance(self.format, dict):
            return self.format
        if self.format != "json":
            raise wrong("format", 'expected "json" or a JSON schema')
        return {}


class ChatWanted(_Wanted):
    """The body of /api/chat."""

    messages: list[OllamaMessage] = []

    @property
    def empty(self) -> bool:
        """Whether the model is only to be loaded."""
        return not self.messages

    def asked(self) -> Asked:
        """Return what is wanted."""
        return self._asked([*self.messages])

    def words(self, text: str, thinking: str = "") -> dict[str, Any]:
        """Return a part of the reply."""
        return {"message": {"role": "assistant", "content": text} | ({"thinking": thinking} if thinking else {})}


class GenerateWanted(_Wanted):
    """The body of /api/generate."""

    prompt: str = ""
    system: str = ""

    @property
    def empty(self) -> bool:
        """Whether the model is only to be loaded."""
        return not self.prompt

    def asked(self) -> Asked:
        """Return what is wanted."""
        system = [Message(role="system", content=self.system)] if self.system else []
        return self._asked([*system, Message(role="user", content=self.prompt)])

    def words(self, text: str, thinking: str = "") -> dict[str, Any]:
        """Return a part of the reply."""
        return {"response": text} | ({"thinking": thinking} if thinking else {})


class Named(BaseModel):
    """The body of /api/show; old clients say `name`."""

    model: str = ""
    name: str = ""


def add_ollama(app: FastAPI, service: Service) -> None:
    """Add the routes of an Ollama server."""
    started = _now()

    @app.api_route("/", methods=["GET", "HEAD"])
    async def root() -> Response:
        return PlainTextResponse("Ollama is running")

    @app.api_route("/api/version", methods=["GET", "HEAD"])
    async def version() -> Response:
        return JSONResponse({"version": VERSION})

    @app.api_route("/api/tags", methods=["GET", "HEAD"])
    async def tags() -> Response:
        return JSONResponse({"models": [_listed(name, started) for name in await service.names()]})

    @app.get("/api/ps")
    async def ps() -> Response:
        names = [name for name in await service.names() if not name.startswith(f"{CHAT}:")]
        loaded = {"size_vram": 0, "expires_at": "9999-12-31T00:00:00Z"}
        return JSONResponse({"models": [{**_listed(name, started), **loaded} for name in names]})

    @app.post("/api/show")
    async def show(request: Request) -> Response:
        wanted = await read(request, Named, service.limits.body_bytes)
        return JSONResponse(_shown(await _model(service, request, wanted.model or wanted.name), started))

    @app.post("/api/chat")
    async def chat(request: Request) -> Response:
        return await _reply(service, request, await read(request, ChatWanted, service.limits.body_bytes))

    @app.post("/api/generate")
    async def generate(request: Request) -> Response:
        return await _reply(service, request, await read(request, GenerateWanted, service.limits.body_bytes))


async def _model(service: Service, request: Request, name: str) -> Learned | Chat:
    return await service.model(request, name.removesuffix(_TAG))


async def _reply(service: Service, request: Request, wanted: ChatWanted | GenerateWanted) -> Response:
    served = await _model(service, request, wanted.model)
    written = _Written(wanted)
    if wanted.empty:
        return JSONResponse(written.part(wanted.words(""), done=True, done_reason="load"))
    running = await service.begin(request, served, wanted.asked())
    headers = headers_of(running.begun)
    if wanted.stream:
        return Streamed(running, written.stream(running), media_type="application/x-ndjson", headers=headers)
    return JSONResponse(written.whole(await running.whole(request)), headers=headers)


class _Written:
    """A reply in Ollama's words."""

    def __init__(self, wanted: ChatWanted | GenerateWanted) -> None:
        self.wanted = wanted
        self._began = time.monotonic_ns()

    def part(self, words: dict[str, Any], *, done: bool = False, **more: Any) -> dict[str, Any]:
        """Return a line."""
        return {"model": self.wanted.model, "created_at": _now(), **words, "done": done, **more}

    def whole(self, found: Whole) -> dict[str, Any]:
        """Return a whole reply."""
        return self._end(found.text or found.ended.refusal, found.thinking, found.ended)

    def _end(self, text: str, thinking: str, ended: Ended) -> dict[str, Any]:
        took = time.monotonic_ns() - self._began
        counts = {
            "done_reason": ended.finish, "total_duration": took, "load_duration": 0,
            "prompt_eval_count": ended.prompt_tokens or 0, "prompt_eval_duration": 0,
            "eval_count": ended.reply_tokens or 0, "eval_duration": took,
        }  # fmt: skip
        return self.part(self.wanted.words(text, thinking), done=True, **counts)

    async def stream(self, running: Running) -> AsyncGenerator[str, None]:
        """Yield a reply line by line; one that fails in its midst ends by an error."""
        try:
            async with aclosing(running.events()) as events:
                async for event in events:
                    if isinstance(event, Ended):
                        yield _line(self._end(event.refusal, "", event))
                    else:
                        yield _line(self.part(self._words(event)))
        except Failure as problem:
            yield _line(problem.body("/api/"))

    def _words(self, part: Part) -> dict[str, Any]:
        return self.wanted.words("", part.text) if part.thinking else self.wanted.words(part.text)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _listed(name: str, started: str) -> dict[str, Any]:
    """Return a model's entry in a list. Of its size nothing is told."""
    digest = short_hash(name) * 4
    return {
        "name": name, "model": name, "modified_at": started, "size": 0, "digest": digest, "details": _details(),
    }  # fmt: skip


def _details() -> dict[str, Any]:
    return {
        "parent_model": "", "format": "gguf", "family": "sleicl", "families": ["sleicl"], "parameter_size": "",
        "quantization_level": "",
    }  # fmt: skip


def _shown(served: Learned | Chat, started: str) -> dict[str, Any]:
    about = served.task.description if isinstance(served, Learned) else f"chat with {name_of(served.weak)}"
    context = context_of(served.weak) if isinstance(served, Chat) else None
    info = {"general.architecture": "sleicl"} | ({"sleicl.context_length": context} if context else {})
    return {
        "modelfile": f"# {' '.join(about.split())}\n", "parameters": "", "template": "{{ .Prompt }}",
        "details": _details(), "model_info": info, "capabilities": ["completion"], "modified_at": started,
    }  # fmt: skip
