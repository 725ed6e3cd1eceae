"""`sleicl serve`: recipes and the chat behind OpenAI's API, in OpenAI's own types."""

import json
import math
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from openai.types import CompletionUsage, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from sleicl_chains.serving.server.failures import Failure, wrong
from sleicl_chains.serving.server.menu import Learned
from sleicl_chains.serving.server.replies import Asked, Ended, Part, call_options, check_shares, shares
from sleicl_chains.serving.server.requests import Running, Service, Streamed, headers_of, read, unknown

_NEVER = -9999.0
"""OpenAI's log-probability of what does not happen."""


def add_openai(app: FastAPI, service: Service) -> None:
    """Have an app answer as the OpenAI API does."""
    _add_models(app, service)
    _add_chat(app, service)


def _add_models(app: FastAPI, service: Service) -> None:
    started = int(time.time())

    def told(name: str) -> dict[str, Any]:
        return Model(id=name, created=started, object="model", owned_by="sleicl").model_dump()

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [told(name) for name in await service.names()]})

    @app.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        return JSONResponse(told((await service.model(request, name)).id))


def text_of(content: Any) -> Any:
    """Return a message's text, of parts joined.

    Raises:
        ValueError: a part is something else, such as an image.
    """
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise ValueError(f"found a part {str(kind)[:40]!r}; only text is taken")
    return "\n".join(part["text"] for part in content)


Stops = Annotated[list[str] | None, BeforeValidator(lambda given: [given] if isinstance(given, str) else given)]
"""Words at which a reply ends; one may stand without its list."""


class Message(BaseModel):
    """A message of a request."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(text_of)] = ""

    def as_message(self) -> BaseMessage:
        """Return it as LangChain's."""
        kinds: dict[str, type[BaseMessage]] = {"user": HumanMessage, "assistant": AIMessage}
        return kinds.get(self.role, SystemMessage)(content=self.content)


class StreamOptions(BaseModel):
    """How a stream is sent."""

    include_usage: bool | None = None


class Completion(BaseModel):
    """The body of a request for a reply; a field of null is one that is not there."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=10**6)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=10**6)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    seed: int | None = None
    stop: Stops = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    response_format: dict[str, Any] | None = None
    n: int | None = None

    def asked(self) -> Asked:
        """Return what is wanted.

        Raises:
            Failure: something that is not served.
        """
        extra = {name: value for name, value in (self.model_extra or {}).items() if value not in (None, [], {})}
        for name in ("tools", "functions", "audio", "web_search_options"):
            if name in extra:
                raise wrong(name, "is not served here; leave it out")
        if extra.get("modalities", ["text"]) != ["text"]:
            raise wrong("modalities", "text alone is served here")
        if self.n not in (None, 1):
            raise wrong("n", f"found {self.n}; one reply a request is served")
        if self.top_logprobs and not self.logprobs:
            raise wrong("top_logprobs", "goes with logprobs: true")
        options = call_options(
            max_tokens=self.max_completion_tokens or self.max_tokens, temperature=self.temperature, seed=self.seed,
            stop=self.stop,
        )  # fmt: skip
        messages = [one.as_message() for one in self.messages]
        return Asked(messages, options, self._schema(), unknown=unknown([*extra]))

    def _schema(self) -> dict[str, Any] | None:
        form = self.response_format or {"type": "text"}
        if form.get("type") == "text":
            return None
        if form.get("type") == "json_object":
            return {}
        named = form.get("json_schema")
        schema = named.get("schema") if isinstance(named, dict) else None
        if form.get("type") != "json_schema" or not isinstance(schema, dict):
            raise wrong("response_format", 'expected {"type": "json_schema", "json_schema": {"schema": {...}}}')
        return schema


def _add_chat(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        wanted = await read(request, Completion, service.limits.body_bytes)
        served, asked = await service.model(request, wanted.model), wanted.asked()
        if wanted.logprobs:
            check_shares(served)
        running = await service.begin(request, served, asked)
        written = _Written(served.id, wanted, labelled=isinstance(served, Learned) and bool(served.task.labels))
        headers = headers_of(running.begun)
        if wanted.stream:
            return Streamed(running, written.stream(running), media_type="text/event-stream", headers=headers)
        whole = await running.whole(request)
        return JSONResponse(written.whole(whole.text, whole.thinking, whole.ended), headers=headers)


class _Written:
    """A reply in OpenAI's words."""

    def __init__(self, model: str, wanted: Completion, *, labelled: bool) -> None:
        self.wanted, self.labelled = wanted, labelled
        self._base = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, text: str, thinking: str, ended: Ended) -> dict[str, Any]:
        """Return a whole reply."""
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if thinking:
            message["reasoning_content"] = thinking
        if ended.refusal:
            message |= {"content": None, "refusal": ended.refusal}
        choice = {
            "index": 0, "message": message, "finish_reason": ended.finish, "logprobs": self._logprobs(ended),
        }  # fmt: skip
        body = {**self._base, "object": "chat.completion", "choices": [choice], "usage": _usage(ended)}
        return ChatCompletion.model_validate(body).model_dump(exclude_unset=True)

    async def stream(self, running: Running) -> AsyncGenerator[str, None]:
        """Yield a reply's events; one that fails in its midst ends by an error."""
        yield self._chunk({"role": "assistant", "content": ""})
        said = ""
        try:
            async with aclosing(running.events()) as events:
                async for event in events:
                    if isinstance(event, Part) and self.labelled:
                        said += event.text  # one piece, and its probabilities come with the end
                    elif isinstance(event, Part):
                        yield self._chunk({"reasoning_content" if event.thinking else "content": event.text})
                    else:
                        for line in self._end(said, event):
                            yield line
        except Failure as problem:
            yield f"data: {json.dumps(problem.body())}\n\n"

    def _end(self, said: str, ended: Ended) -> list[str]:
        lines = []
        if said or ended.refusal:
            delta = {"refusal": ended.refusal} if ended.refusal else {"content": said}
            lines.append(self._chunk(delta, logprobs=self._logprobs(ended)))
        lines.append(self._chunk({}, finish=ended.finish))
        if self.wanted.stream_options and self.wanted.stream_options.include_usage:
            lines.append(self._event([], _usage(ended)))
        return [*lines, "data: [DONE]\n\n"]

    def _chunk(self, delta: dict[str, Any], *, finish: str | None = None, logprobs: Any = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
        return self._event([choice], None)

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> str:
        body: dict[str, Any] = {**self._base, "object": "chat.completion.chunk", "choices": choices}
        if self.wanted.stream_options and self.wanted.stream_options.include_usage:
            body["usage"] = usage
        return f"data: {ChatCompletionChunk.model_validate(body).model_dump_json(exclude_unset=True)}\n\n"

    def _logprobs(self, ended: Ended) -> dict[str, Any] | None:
        found = shares(ended.answer) if self.wanted.logprobs and ended.answer else []
        if not found:
            return None
        first = {**_token(*found[0]), "top_logprobs": [_token(*one) for one in found[: self.wanted.top_logprobs or 0]]}
        return {"content": [first], "refusal": None}


def _token(label: str, probability: float) -> dict[str, Any]:
    """Return a label as if it were a token."""
    logprob = math.log(probability) if probability > 0 else _NEVER
    return {"token": label, "bytes": [*label.encode()], "logprob": logprob}


def _usage(ended: Ended) -> dict[str, int] | None:
    """Return what a reply cost; None where the model does not count."""
    if ended.prompt_tokens is None:
        return None
    return CompletionUsage(
        prompt_tokens=ended.prompt_tokens, completion_tokens=ended.reply_tokens or 0, total_tokens=ended.total
    ).model_dump(exclude_unset=True)
