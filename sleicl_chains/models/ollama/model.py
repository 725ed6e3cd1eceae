"""`ollama:NAME`: LangChain's ChatOllama with the guards that Ollama itself lacks."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult, LLMResult
from langchain_ollama import ChatOllama
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from tenacity import AsyncRetrying, Retrying, stop_after_attempt

from sleicl_chains.errors import CutReply, OptionError, ServerError, Unsupported
from sleicl_chains.models.abilities import LabelScores
from sleicl_chains.models.layouts import STOP, completion
from sleicl_chains.models.ollama.address import server_address
from sleicl_chains.models.ollama.arrival import Arrival
from sleicl_chains.models.ollama.failures import PromptRefused, retryable
from sleicl_chains.models.ollama.installed import trained_context, weights_digest
from sleicl_chains.models.ollama.options import merged, standard_names, taken_from
from sleicl_chains.models.ollama.rendering import (
    Frame,
    Layout,
    choose_layout,
    fixed_text,
    frame,
    lay_out,
    question,
    warn_control,
    warn_lowered,
    warn_unseen,
)
from sleicl_chains.models.ollama.replies import Reply
from sleicl_chains.models.ollama.scoring import ALTERNATIVES, SCORING, NextTokens, read_tokens, score
from sleicl_chains.models.ollama.server import Server
from sleicl_chains.models.ollama.versions import LOGPROBS_SINCE, dotted, is_before, warn_untried


@dataclass(frozen=True)
class Known:
    """What is known of the weights behind a name."""

    shown: dict[str, Any]
    """/api/show."""
    layout: Layout | None
    """None where the server shows no rendering."""


class OllamaModel(ChatOllama):
    """A model of an Ollama server, for answers that can be trusted or that fail with a reason.

    Beside what ChatOllama does: a prompt that does not fit is refused and never cut; a reply is accepted only
    if it is whole; what the template makes of the prompt is checked; options are the same in every call;
    LangChain caches tell models, settings and re-pulled weights apart; labels are scored from
    log-probabilities. Sync and async, from any number of threads and event loops.
    """

    model_config = ConfigDict(extra="forbid")

    num_ctx: int | None = Field(default=4096, gt=0)
    """Context in tokens, prompt and reply together. Sent with every call: the server's default depends on the GPU."""
    num_predict: int | None = 64
    """Longest reply in tokens; -1 for as many as fit."""
    temperature: float | None = 0.0
    seed: int | None = 0
    repeat_penalty: float | None = 1.0
    """No penalty. Servers of before August 2026 punish what the prompt has said by 1.1, and it has said the labels."""
    reasoning: bool | str | None = False
    """Off: a label needs no thinking. None leaves it to the model; thinking text never stands in the answer."""
    num_batch: int | None = None
    min_p: float | None = None
    base_url: str | None = Field(default=None, repr=False)
    """Address of the server, which may hold a password; `OLLAMA_HOST` by default."""
    timeout_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """Longest silence of the server in seconds: queueing, loading the model and reading the prompt."""
    deadline_s: float = Field(default=3600.0, gt=0, allow_inf_nan=False)
    """How long an answer may take in all, in seconds; label scores must come within `timeout_s`."""
    attempts: int = Field(default=3, gt=0)
    """How often a request is sent in all when the server is down, busy or broken, or the reply is cut."""

    api_key: SecretStr | None = None
    """For a server behind a door; `OLLAMA_API_KEY` by default."""
    streaming: bool = False
    """Whether LangChain asks for every reply as a stream."""

    alternatives: ClassVar[int] = ALTERNATIVES
    """How many next tokens the server shows; labels beyond get a floor, so prompts should name the labels."""

    _server: Server = PrivateAttr()
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    _known: dict[str, Known] = PrivateAttr(default_factory=dict)
    _frames: dict[tuple[str, ...], Frame | None] = PrivateAttr(default_factory=dict)
    _arrival: Arrival = PrivateAttr(default_factory=Arrival)

    @model_validator(mode="before")
    @classmethod
    def _standard_names(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Take the names that LangChain's models have in common: `max_tokens`, `timeout`, `max_retries`."""
        return standard_names(given)

    @model_validator(mode="after")
    def _set_clients(self) -> Self:
        """Use one guarded server instead of ChatOllama's two clients."""
        self._connect()
        if self.validate_model_on_init:
            self._server.find(self.model)
        return self

    def _connect(self) -> None:
        address = server_address(self.base_url, self.api_key.get_secret_value() if self.api_key else None)
        self._server = Server(
            address, timeout_s=self.timeout_s, deadline_s=self.deadline_s, attempts=self.attempts,
            http=self.client_kwargs,
        )  # fmt: skip

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with other settings, asking its own server."""
        copied = super().model_copy(update=update)
        copied._connect()
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy that asks its own server."""
        return self.model_copy()

    def __reduce__(self) -> tuple[Any, ...]:
        """Be pickled as the settings: a copy connects itself, and asks what the weights are."""
        return _opened, (type(self), {name: getattr(self, name) for name in self.model_fields_set})

    @property
    def _llm_type(self) -> str:
        return "sleicl-ollama"

    @property
    def model_name(self) -> str:
        """The name to print."""
        return f"ollama:{self.model}"

    @property
    def server(self) -> Server:
        """The server that is asked."""
        return self._server

    def schema_option(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the option that holds a reply to a JSON schema."""
        return {"format": dict(schema)}

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that decide an answer."""
        asked = {name: getattr(self, name) for name in ("logprobs", "top_logprobs") if getattr(self, name)}
        return {**self._options({}), "reasoning": self.reasoning, "format": self.format, **asked}

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"model": self.model, "server": self._server.url, **self.settings}

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides an answer, for journals and caches: weights by digest, so that a re-pulled model is new.

        Raises:
            ServerDown: the digest could not be asked for.
            ModelNotFound: the server has no such model.
        """
        version = dotted(self._server.version)
        digest = self._server.find(self.model)["digest"]
        read = {"engine": f"ollama {version}", "weights": digest, "layout": self.layout, "scoring": SCORING}
        return {**read, **self.settings}

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the file of weights alone, the same in every program that runs it; empty where it has others."""
        return weights_digest(self.shown)

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """Add the identity to LangChain's cache key, which is the same for all models of ChatOllama."""
        return f"{sorted(self.identity.items(), key=lambda item: item[0])}{super()._get_llm_string(stop, **kwargs)}"

    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """Ask the server first what the model is: a cache would ask in the event loop and hold it up."""
        await asyncio.to_thread(lambda: self.identity)
        return await super().agenerate(*args, **kwargs)

    def get_num_tokens(self, text: str) -> int:
        """Estimate the number of tokens, from the length of those that the server counted; no call."""
        return self._arrival.estimate(len(text))

    @property
    def known(self) -> Known:
        """What is known of the model: asked for once for the weights, which may be pulled again under the name.

        Raises:
            ServerError: the server could not be asked.
            ModelNotFound: the server has no such model.
            PromptLost: no layout brings a chat to the model.
        """
        return self._of_digest(self._server.find(self.model)["digest"])

    def _of_digest(self, digest: str) -> Known:
        with self._lock:
            if digest not in self._known:
                shown = self._server.show(self.model)
                self._known[digest] = Known(shown, choose_layout(self._rendered, shown, self.model_name))
                warn_untried(self._server.version)
                warn_lowered(self.model_name, self.num_ctx or 0, trained_context(shown))
                if self._known[digest].layout is None:
                    warn_unseen(self.model_name, self._server.version)
        return self._known[digest]

    def _settled(self) -> Known:
        """Return what is known, and tell the context to what counts tokens."""
        known = self.known
        self._arrival.context, self._arrival.largest = self.context, trained_context(known.shown) or 0
        return known

    @property
    def shown(self) -> dict[str, Any]:
        """What /api/show says of the model."""
        return self._server.show(self.model)

    @property
    def has_template(self) -> bool:
        """Whether the model knows chats; base models do not."""
        return self.known.layout != "completion"

    @property
    def context(self) -> int:
        """The context in tokens: the server silently lowers `num_ctx` to what the model was trained with."""
        asked = self.num_ctx or 0
        return min(asked, trained_context(self.known.shown) or asked)

    @property
    def layout(self) -> Layout:
        """How a chat reaches the model, see `rendering`."""
        return self.known.layout or "chat"

    @property
    def renders(self) -> bool:
        """Whether the exact prompt is known: the server shows it, or it is written here."""
        return self.known.layout is not None

    @property
    def scoring_problem(self) -> str:
        """Why labels cannot be scored here; empty if they can."""
        version = dotted(self._server.version)
        if is_before(self._server.version, LOGPROBS_SINCE):
            return f"Ollama {version} gives no log-probabilities (since 0.12.11; update it)"
        if not self.renders:
            return f"Ollama {version} does not show rendered prompts; embedded:ollama/{self.model} scores exactly"
        return ""

    def _options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a call; every call gets them here."""
        return merged(self, given, self.model_name)

    def _chat_params(self, messages: list[BaseMessage], stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        """Merge options given with a call into the model's own; ChatOllama replaces them all.

        Raises:
            OptionError: the call gives something that a call cannot.
        """
        if (other := kwargs.get("model", self.model)) != self.model:
            raise OptionError(f"{self.model_name}: a call cannot take the model {other!r}; make a model of that name")
        asked = taken_from(kwargs) | ({"stop": stop} if stop is not None else {})
        params = super()._chat_params(messages, None, **kwargs)
        params |= {"options": self._options(asked), "truncate": False, "shift": False}
        return {key: value for key, value in params.items() if value is not None}

    def _rendered(self, messages: Sequence[BaseMessage]) -> str | None:
        """Return what the template makes of messages; None where the server does not say.

        A server too old for this would answer instead, so the reply is held to one token.
        """
        body = self._chat_params(list(messages), num_predict=1) | {"stream": False, "_debug_render_only": True}
        info = self._server.post("/api/chat", body).get("_debug_info") or {}
        text: str | None = info.get("rendered_template")
        return text

    def _frame(self, messages: Sequence[BaseMessage]) -> Frame | None:
        """Return how the template frames the last question, asked for once a fixed text."""
        key = (self._server.find(self.model)["digest"], *fixed_text(messages))
        with self._lock:
            if key not in self._frames:
                if len(self._frames) >= 100:  # a chat's history would pile up
                    self._frames.clear()
                self._frames[key] = frame(self._rendered, messages, self.model_name)
        return self._frames[key]

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Return the route and the body of a request whose prompt is known to arrive."""
        layout = self._settled().layout
        warn_control(self.model_name, messages)
        if layout == "completion" and not kwargs.get("tools"):
            params = self._chat_params([], stop if stop is not None else self.stop or [STOP], **kwargs)
            body = {key: value for key, value in params.items() if key not in ("messages", "think", "tools")}
            return "/api/generate", {**body, "prompt": completion(messages), "raw": True, "stream": True}
        laid = lay_out(messages, layout or "chat")
        if layout and not kwargs.get("tools"):
            self._frame(laid)
        return "/api/chat", {**self._chat_params(laid, stop, **kwargs), "stream": True}

    def _create_chat_stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, **kwargs: Any
    ) -> Iterator[Mapping[str, Any] | str]:
        reply = Reply(self.model_name)
        with self._guarded(reply, messages):
            route, body = self._request(messages, stop, kwargs)
            for part in self._server.stream(route, body):
                yield reply.checked(part)

    async def _acreate_chat_stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, **kwargs: Any
    ) -> AsyncIterator[Mapping[str, Any] | str]:
        reply = Reply(self.model_name)
        with self._guarded(reply, messages):
            # A model's first request asks the server what it is; that must not hold the event loop up.
            route, body = await asyncio.to_thread(self._request, messages, stop, kwargs)
            async with aclosing(self._server.astream(route, body)) as parts:
                async for part in parts:
                    yield reply.checked(part)

    @contextmanager
    def _guarded(self, reply: Reply, messages: Sequence[BaseMessage]) -> Iterator[None]:
        """Check a reply at its end, and complete what its errors say."""
        size = sum(len(message.text) for message in messages)
        try:
            yield
            self._arrival.check(reply.end(), size, self._server.version)
        except (CutReply, ServerError) as problem:
            problem.begun = reply.begun
            raise
        except PromptRefused:
            raise self._arrival.too_long(size) from None

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Answer at once; a reply that breaks off is asked for again, and listeners hear its tokens again."""
        return Retrying(**self._again)(super()._generate, messages, stop, run_manager, **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Do the same as `_generate` without blocking."""
        return await AsyncRetrying(**self._again)(super()._agenerate, messages, stop, run_manager, **kwargs)

    @property
    def _again(self) -> dict[str, Any]:
        """Once more, if any: what failed before the first part, the server has tried its number of times."""
        return {**self._server.retry_policy(_broke_off), "stop": stop_after_attempt(min(2, self.attempts))}

    def render(self, messages: Sequence[BaseMessage]) -> str:
        """Return the exact text that the model is given; a trailing AI message is left open.

        Two requests to the server for each new fixed text; questions behind a known one cost none.

        Raises:
            PromptLost: a part of it would not reach the model.
            Unsupported: the server does not show rendered prompts, or a message holds more than text.
        """
        if any(not isinstance(message.content, str) for message in messages):
            raise Unsupported(f"{self.model_name} renders messages of text; found one with other content")
        layout = self.known.layout
        warn_control(self.model_name, messages)
        if layout == "completion":
            return completion(messages)
        opened = messages[-1].text if messages and messages[-1].type == "ai" else ""
        laid = lay_out(messages[:-1] if opened else messages, layout or "chat")
        found = self._frame(laid)
        rendered = found.around(question(laid)) if found else self._rendered(laid)
        if rendered is None:
            raise Unsupported(f"{self.model_name}: {self.scoring_problem}")
        return rendered + opened

    def score_labels(self, prompt: str, labels: Sequence[str]) -> LabelScores:
        """Score each label as the continuation of a rendered prompt, see `scoring`.

        One request, and one more for each beginning that labels share. No randomness.

        Raises:
            PromptTooLong: the prompt does not fit the context.
            Unsupported: the server gives no log-probabilities.
        """
        if self.scoring_problem:
            raise Unsupported(f"{self.model_name}: {self.scoring_problem}")
        return score(self.next_tokens, prompt, labels)

    def next_tokens(self, prompt: str) -> NextTokens:
        """Return the 20 likeliest tokens after a rendered prompt.

        One call, or two where the likeliest one ends the turn.

        Raises:
            PromptTooLong: the prompt does not fit the context.
            GarbledReply: the server gave no log-probabilities.
        """
        body = {
            "model": self.model, "prompt": prompt, "raw": True, "stream": False, "truncate": False, "shift": False,
            "logprobs": True, "top_logprobs": ALTERNATIVES, "options": self._options({"num_predict": 1}),
            **({"keep_alive": self.keep_alive} if self.keep_alive is not None else {}),
        }  # fmt: skip
        self._settled()
        try:
            reply = self._server.post("/api/generate", body)
            if not reply.get("logprobs"):
                # Where the likeliest token ends the turn, the server sends none. A grammar chooses another token
                # and leaves the log-probabilities as they are.
                reply = self._server.post("/api/generate", {**body, "format": "json"})
        except PromptRefused:
            raise self._arrival.too_long(len(prompt)) from None
        tokens = read_tokens(reply)
        self._arrival.check(tokens.prompt_tokens, len(prompt), self._server.version)
        return tokens


def _opened(kind: type[OllamaModel], settings: dict[str, Any]) -> OllamaModel:
    return kind(**settings)


def _broke_off(problem: BaseException) -> bool:
    """Tell whether a reply broke off in the middle; what fails before its first part the server tries again."""
    return retryable(problem) and bool(getattr(problem, "begun", False))
