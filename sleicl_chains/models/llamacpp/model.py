"""A weak model in this process: a GGUF file behind LangChain's chat interface.

It renders its own prompts, so the exact text sent is known, and gives exact label probabilities.
"""

import asyncio
import functools
import importlib.metadata
import mmap
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, ClassVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, PrivateAttr

from sleicl_chains.errors import ModelError, ModelNotFound, Unsupported
from sleicl_chains.files import Home, open_file
from sleicl_chains.models.abilities import LabelScores, State
from sleicl_chains.models.digests import FileState, remembered_sha256
from sleicl_chains.models.layouts import STOP, completion
from sleicl_chains.models.llamacpp.engine import PROBE_TOKENS, Engine, check_unchanged, engine_for
from sleicl_chains.models.llamacpp.literals import may_hold_control
from sleicl_chains.models.llamacpp.next_tokens import NextTokens
from sleicl_chains.models.llamacpp.scoring import score, sent


class EmbeddedModel(BaseChatModel):
    """A GGUF file as a LangChain chat model, with rendered prompts and label probabilities.

    The engine starts at the first use (0.4 s for a 100 MB file) and is shared within the process.
    It answers one request at a time; more callers wait their turn. A model keeps to the file that lay at its path at
    the first use: the engine goes on with it when another is put in its place, which a new model then takes.
    """

    model_config = ConfigDict(extra="forbid")

    path: Path
    """The GGUF file."""
    n_ctx: int = 4096
    """Context in tokens, prompt and reply together; the engine rounds it up to a multiple of 256."""
    threads: int = 0
    """0 takes `$SLEICL_THREADS`, else as many as there are idle cores when the engine starts, one to eight.

    The threads wait for each other many times a token, so one that has to share its core stalls all:
    with two threads and another busy process, two cores were much slower than one thread. The number
    does not change any score.
    """
    temperature: float = 0.0
    max_tokens: int = 64
    seed: int = 0

    state_size: ClassVar[int] = 2 * PROBE_TOKENS
    """Numbers of the state that are read of one question: in two places, see `Observation.state`."""
    prefix_rule: ClassVar[str] = "remainder"
    """How a label that begins another is scored; part of the journal's key of such labels alone."""

    _digest: str = PrivateAttr(default="")
    _file: FileState | None = PrivateAttr(default=None)
    _home: Home | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        """Refuse at once what is not a GGUF file."""
        super().model_post_init(context)
        try:
            with open_file(self.path) as file:
                magic = file.read(4)
        except OSError as problem:
            raise ModelNotFound(f"{self.path}: cannot be read ({problem.strerror}); expected a GGUF file") from None
        if magic != b"GGUF":
            raise ModelNotFound(f"{self.path}: found {magic!r} at its start; expected a GGUF file")

    @property
    def _llm_type(self) -> str:
        return "sleicl-embedded"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return self.identity

    @property
    def model_name(self) -> str:
        """The name to print: that of the packaged weights, else the file's."""
        return f"embedded:{self.name or self.path.name}"

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides an answer, for the journal.

        Raises:
            ModelError: another file lies at the path than at the first use.
        """
        engine = importlib.metadata.version("xllamacpp")
        settings = self.model_dump(include={"n_ctx", "temperature", "max_tokens", "seed"})
        return {"engine": f"xllamacpp {engine}", "weights": self.weights_digest, **settings}

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the file; about 2 s a gigabyte the first time, see `remembered_sha256`.

        Raises:
            ModelError: another file lies at the path than at the first use.
        """
        if not self._digest:
            digest = remembered_sha256(self.path, self._home or Home.at())
            check_unchanged(self.path, self._opened)
            self._digest = digest
        return self._digest

    @property
    def engine(self) -> Engine:
        """The running engine, started if need be."""
        threads = self.threads or int(os.environ.get("SLEICL_THREADS", 0)) or _idle_cores()
        return engine_for(self.path, self._opened, n_ctx=self.n_ctx, threads=threads)

    @property
    def _opened(self) -> FileState:
        """The file that lay at the path at the first use."""
        if self._file is None:
            self._file = FileState.of(self.path)
        return self._file

    @functools.cached_property
    def has_template(self) -> bool:
        """Whether the file says how a chat is to be written down; base models do not."""
        with open_file(self.path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = data.find(b"tokenizer.chat_template") >= 0
        check_unchanged(self.path, self._opened)
        return found

    def render(self, messages: Sequence[BaseMessage]) -> str:
        """Return the exact text that the model is given; a trailing AI message is left open.

        Without a chat template it is laid out by `layouts.completion`. The engine would silently
        take a template that the model was not trained on. Control tokens in the messages stand between marks, see
        `literals`: the model is given them as text.
        """
        if unknown := [message.type for message in messages if message.type not in _ROLES]:
            raise Unsupported(
                f"{self.model_name} takes system, human and AI messages; found one of type {unknown[0]!r}"
            )
        messages = [self._plain(message) for message in messages]
        turns = [{"role": _ROLES[message.type], "content": message.text} for message in messages]
        if not self.has_template:
            return completion(messages)
        return self.engine.fronts.render(turns)

    def _plain(self, message: BaseMessage) -> BaseMessage:
        """Return a message whose control tokens are marked as text."""
        text = self.engine.as_text(message.text) if may_hold_control(message.text) else message.text
        return message if text == message.text else message.model_copy(update={"content": text})

    def score_labels(self, prompt: str, labels: Sequence[str]) -> LabelScores:
        """Score each label as the continuation of a rendered prompt, see `scoring`.

        One request, and one more for each beginning that labels share. No randomness.

        Raises:
            PromptTooLong: the prompt does not fit the context.
        """
        return score(self._next_tokens(), prompt, labels)

    def read_state(self, prompt: str) -> State:
        """Return the model's last-layer state at the end of a rendered prompt: 512 numbers.

        The engine gives the state itself only by evaluating the whole prompt anew. What it gives from its
        cache are the next token's logits, and they are the state times the output matrix. So the
        logits of 512 fixed tokens are read, less their mean, which the softmax leaves open: a linear image of the
        state. A linear model reads it as well as the state (benchmarks/LOG.md). No randomness.

        Raises:
            PromptTooLong: the prompt does not fit the context.
        """
        seen = self._next_tokens()
        logits = seen.logits(sent(self.engine, prompt), self.engine.probe_tokens)
        return State(logits, seen.prompt_tokens)

    def _next_tokens(self) -> NextTokens:
        return NextTokens(self.engine, self.model_name, self.path)

    def schema_option(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the option that holds a reply to a JSON schema."""
        return {"json_schema": schema}

    def _body(
        self, messages: Sequence[BaseMessage], stop: list[str] | None, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        if unknown := set(options) - _OPTIONS:
            raise ModelError(f"{self.model_name} does not know the option {sorted(unknown)[0]!r}")
        temperature = options.get("temperature", self.temperature)
        ends = stop or ([] if self.has_template else [STOP])
        prompt = sent(self.engine, self.render(messages))
        body = {
            "prompt": prompt[0] if len(prompt) == 1 else prompt,
            "n_predict": options.get("max_tokens", self.max_tokens), "cache_prompt": True,
            "temperature": temperature, "seed": options.get("seed", self.seed), "stop": ends,
        }  # fmt: skip
        if options.get("logprobs"):
            body["n_probs"] = options.get("top_logprobs") or 1
        if "json_schema" in options:
            body["json_schema"] = options["json_schema"]
        return body

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._result(self.engine.post("/completion", self._body(messages, stop, kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Do the same as `_generate` without blocking; when it is cancelled, the engine stops within a second."""
        # The engine may have to start, which must not hold the event loop up.
        body = await asyncio.to_thread(self._body, messages, stop, kwargs)
        return self._result(await self.engine.apost("/completion", body))

    def _result(self, reply: Mapping[str, Any]) -> ChatResult:
        message = AIMessage(
            content=reply["content"], usage_metadata=_usage(reply), response_metadata=self._metadata(reply)
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        ended = False
        # The connection is closed where no more is taken, and the engine stops.
        with closing(self.engine.stream("/completion", self._body(messages, stop, kwargs))) as events:
            for event in events:
                ended = bool(event.get("stop"))
                chunk = self._chunk(event)
                if run_manager:
                    run_manager.on_llm_new_token(event["content"], chunk=chunk)
                yield chunk
        if not ended:
            raise self._broke_off()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        ended = False
        body = await asyncio.to_thread(self._body, messages, stop, kwargs)
        async with aclosing(self.engine.astream("/completion", body)) as events:
            async for event in events:
                ended = bool(event.get("stop"))
                chunk = self._chunk(event)
                if run_manager:
                    await run_manager.on_llm_new_token(event["content"], chunk=chunk)
                yield chunk
        if not ended:
            raise self._broke_off()

    def _chunk(self, event: Mapping[str, Any]) -> ChatGenerationChunk:
        message = AIMessageChunk(content=event["content"])
        if event.get("stop"):
            message.usage_metadata = _usage(event)
            message.response_metadata = self._metadata(event)
            message.chunk_position = "last"
        return ChatGenerationChunk(message=message)

    def _broke_off(self) -> ModelError:
        return ModelError(f"{self.model_name}: the reply broke off before its end")

    def _metadata(self, reply: Mapping[str, Any]) -> dict[str, Any]:
        cut = reply.get("stop_type") == "limit" or reply.get("truncated")
        metadata: dict[str, Any] = {
            "model_name": self.model_name,
            "finish_reason": "length" if cut else "stop",
        }
        if "completion_probabilities" in reply:
            metadata["logprobs"] = {"content": reply["completion_probabilities"]}
        return metadata


_OPTIONS = {"temperature", "max_tokens", "seed", "logprobs", "top_logprobs", "json_schema"}
_ROLES = {"system": "system", "human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}


@functools.cache  # once a process: all models share an engine, and it does not change with its own load
def _idle_cores() -> int:
    """Return how many of the cores that this process may use have nothing to do now; takes a fifth of a second."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Not the load of the last minute: it would count an installation that has just ended.
    busy = round(psutil.cpu_percent(interval=0.2) / 100 * (os.cpu_count() or 1))
    return min(8, max(1, cores - busy))


def _usage(reply: Mapping[str, Any]) -> UsageMetadata:
    read, written = reply["tokens_evaluated"], reply["tokens_predicted"]
    return UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)


def check(model: EmbeddedModel) -> dict[str, Any]:
    """Open a model and measure it with two short calls: template, context, and speed in tokens a second."""
    prompt = " ".join(f"word {number}" for number in range(60))
    body = {"prompt": prompt, "n_predict": 32, "cache_prompt": False, "temperature": 0.0, "ignore_eos": True}
    timings = model.engine.post("/completion", body)["timings"]
    scores = model.score_labels("The sky is", ["blue", "green"])
    return {
        "name": model.model_name,
        "megabytes": round(model.path.stat().st_size / 1e6),
        "context": model.n_ctx,
        "template": model.has_template,
        "label_probabilities": abs(sum(scores.probabilities.values()) - 1) < 1e-6,
        "prompt_tokens_per_second": round(timings["prompt_per_second"]),
        "reply_tokens_per_second": round(timings["predicted_per_second"]),
    }
