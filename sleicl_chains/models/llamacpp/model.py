"""A weak model in this process: a GGUF file behind LangChain's chat interface.

It renders its own prompts, so the exact text sent is known, and gives exact label probabilities.
"""

import asyncio
import functools
import importlib.metadata
import math
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
from sleicl_chains.models.layouts import STOP, completion
from sleicl_chains.models.llamacpp.engine import PROBE_TOKENS, Engine, check_unchanged, engine_for
from sleicl_chains.models.llamacpp.literals import MARK, may_hold_control
from sleicl_chains.models.weights import FileState, fetched_again, remembered_sha256

_BIAS = 10.0
"""Added to the logits of a label's tokens; see `_label_masses`."""
_ALONE = 100.0
"""Added to logits so that no other token is left any probability."""


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
        if not self._digest:
            digest = remembered_sha256(self.path, self._home or Home.at())
            check_unchanged(self.path, self._opened)
            self._digest = digest
        engine = importlib.metadata.version("xllamacpp")
        settings = self.model_dump(include={"n_ctx", "temperature", "max_tokens", "seed"})
        return {"engine": f"xllamacpp {engine}", "weights": self._digest, **settings}

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

    # ------------------------------------------------------------------ prompts

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

    def _sent(self, prompt: str) -> list[str | int]:
        """Return a rendered prompt as the engine takes it: the text, or its tokens where some of it is marked."""
        return [*self.engine.prompt_tokens(prompt)] if MARK in prompt else [prompt]

    # ------------------------------------------------------------------ label probabilities

    def score_labels(self, prompt: str, labels: Sequence[str]) -> LabelScores:
        """Score each label as the continuation of a rendered prompt, at its usual tokens.

        A label is followed token by token until no other label begins alike, and its first tokens up
        to there stand for it: " Ab" for " Abbreviation". So there is one request a question, and one
        more for each beginning that labels share ("very positive", "very negative"), within which
        they are scored against each other. A label that begins another ("hate", "hate speech") has what the
        others leave of all that may follow it, as in `ollama.scoring`. No randomness.

        Raises:
            PromptTooLong: the prompt does not fit the context.
        """
        start, spelled = self._spell(prompt, tuple(labels))
        return self._descend(start, dict(zip(labels, spelled, strict=True)), 0)

    def _spell(self, prompt: str, labels: tuple[str, ...]) -> tuple[list[str | int], list[list[int]]]:
        """Return the prompt, and each label's tokens as the tokenizer writes them after it.

        The prompt stays a text, which spares a request, unless a label changes how its last tokens are written.
        """
        tail = prompt.rpartition("\n")[2].replace(MARK, "")
        changed, spelled = self.engine.spell(tail[-40:], labels)
        if not changed:
            return self._sent(prompt), spelled
        return [*self.engine.prompt_tokens(prompt)[:-changed]], spelled

    def _descend(self, start: list[str | int], spelled: dict[str, list[int]], depth: int) -> LabelScores:
        """Share out probability at the first token where the labels differ, then within each branch."""
        ended = [label for label, tokens in spelled.items() if len(tokens) == depth]
        branches: dict[int, dict[str, list[int]]] = {}
        for label, tokens in spelled.items():
            if label not in ended:
                branches.setdefault(tokens[depth], {})[label] = tokens
        if len(branches) == 1 and len(spelled) > 1 and depth and not ended:
            return self._descend([*start, next(iter(branches))], spelled, depth + 1)
        if ended:
            masses, coverage, read = self._beside_an_end(start, list(branches))
        else:
            masses, coverage, read = self._label_masses(start, list(branches))
        probabilities = dict.fromkeys(ended, max(0.0, 1.0 - sum(masses.values())) / max(1, len(ended)))
        requests = 1
        for step, members in branches.items():
            inner: Mapping[str, float] = dict.fromkeys(members, 1.0)
            if len(members) > 1:
                below = self._descend([*start, step], members, depth + 1)
                inner, requests, read = below.probabilities, requests + below.requests, read + below.prompt_tokens
            probabilities |= {label: masses[step] * share for label, share in inner.items()}
        return LabelScores(probabilities, coverage, read, requests)

    def _beside_an_end(self, start: list[str | int], tokens: list[int]) -> tuple[dict[int, float], float, int]:
        """Return the probabilities of `tokens` among all, where a label has ended and has the rest."""
        if not tokens:  # the tokenizer writes two labels alike
            return {}, 1.0, 0
        shares, read = self._exact(start, tokens)
        total = max(1.0, sum(shares.values()))
        return {token: share / total for token, share in shares.items()}, 1.0, read

    def _label_masses(self, start: list[str | int], tokens: list[int]) -> tuple[dict[int, float], float, int]:
        """Return the probabilities of `tokens` among themselves, their share of all tokens, and the prompt's length.

        Adding a bias b to the logits of some tokens turns their joint probability m into
        s = e^b m / (1 - m + e^b m), and leaves their ratios alone. So one request with b = 10 lifts
        them into the short list that the engine returns, and m = s / (e^b (1 - s) + s).
        """
        found, read = self._biased(start, tokens, _BIAS, max(64, 4 * len(tokens)))
        if found is not None:
            lifted = sum(found.values())
            coverage = lifted / (math.exp(_BIAS) * max(0.0, 1 - lifted) + lifted) if lifted else 0.0
            if len(found) < len(tokens):  # one is too unlikely even so: leave nothing else on the list
                found, _ = self._biased(start, tokens, _ALONE, len(tokens))
        if found is None:
            found, read = self._exact(start, tokens)
            coverage = sum(found.values())
        total = sum(found.values())
        return {token: found.get(token, 0.0) / total for token in tokens}, min(1.0, coverage), read

    def _biased(
        self, start: list[str | int], tokens: list[int], bias: float, alternatives: int
    ) -> tuple[dict[int, float] | None, int]:
        """Return the next token's probabilities with some tokens lifted, and the tokens of the prompt.

        None for the probabilities where the token that the engine drew is a piece of a character: it
        keeps that one back until the character is whole, and its alternatives with it.
        """
        listed, read = self._next(start, dict.fromkeys(tokens, bias), alternatives, biased=True)
        if listed is None:
            return None, read
        shares = {entry["id"]: entry["prob"] for entry in listed}
        return {token: shares[token] for token in tokens if token in shares}, read

    def _exact(self, start: list[str | int], tokens: list[int]) -> tuple[dict[int, float], int]:
        """Return the probabilities of `tokens` among all tokens, and the tokens of the prompt; three requests or more.

        Another token, one that is whole text, is made the one that is drawn. Its own probability p is given
        without the bias; under one that is g smaller for `tokens`, a token of probability q is listed with q e^-g / p
        of what the drawn one has.
        """
        plain = self.engine.tokens("a", special=False)[-1]
        # Twice: a prompt that is in the cache is evaluated by its last token, a new one at once, and after pieces of
        # characters their logits differ by up to .08. What is compared below must come from one kind of evaluation.
        for _ in range(2):
            listed, read = self._next(start, {plain: _ALONE}, max(64, 4 * len(tokens)), biased=False)
        assert listed is not None
        drawn = next((entry for entry in listed if entry["id"] not in tokens and _is_whole(entry)), None)
        if drawn is None:
            raise ModelError(f"{self.model_name} shows no next token that is text, so labels cannot be scored here")
        for gap in (15.0, 30.0, 45.0):  # wider where one of `tokens` was drawn all the same
            bias = {drawn["id"]: _ALONE} | dict.fromkeys(tokens, _ALONE - gap)
            lifted, read = self._next(start, bias, max(64, 4 * len(tokens)), biased=True)
            if lifted is not None:
                break
        else:
            raise ModelError(f"{self.model_name}: the engine gave no probabilities for the tokens {tokens}")
        shares = {entry["id"]: entry["prob"] for entry in lifted}
        unit = math.exp(drawn["logprob"] + gap) / shares[drawn["id"]]
        return {token: shares.get(token, 0.0) * unit for token in tokens}, read

    def _next(
        self, start: list[str | int], bias: Mapping[int, float], alternatives: int, *, biased: bool
    ) -> tuple[list[dict[str, Any]] | None, int]:
        """Return the likeliest next tokens, and the tokens of the prompt.

        `biased` says whether their probabilities are given with the bias or without, then as logarithms.
        """
        reply = self.engine.post("/completion", {
            # A list of texts alone would be several prompts.
            "prompt": start[0] if len(start) == 1 else start,
            "n_predict": 1, "cache_prompt": True, "temperature": 1.0, "samplers": [], "seed": 0,
            "post_sampling_probs": biased, "n_probs": alternatives, "logit_bias": [*map(list, bias.items())],
            "response_fields": ["completion_probabilities", "tokens_evaluated", "timings"],
        })  # fmt: skip
        found, read = reply.get("completion_probabilities"), reply["tokens_evaluated"]
        if not found:
            return None, read
        listed = found[0]["top_probs"] if biased else [*found[0]["top_logprobs"], found[0]]
        if any(entry["prob" if biased else "logprob"] is None for entry in listed):
            raise ModelError(f"{self.path}: it gives probabilities that are no numbers; {fetched_again(self.path)}")
        return listed, read

    # ------------------------------------------------------------------ the model's state

    def read_state(self, prompt: str) -> State:
        """Return the model's last-layer state at the end of a rendered prompt: 512 numbers.

        The engine gives the state itself only by evaluating the whole prompt anew. What it gives from its
        cache are the next token's logits, and they are the state times the output matrix. So the
        logits of 512 fixed tokens are read, less their mean, which the softmax leaves open: a linear image of the
        state. A linear model reads it as well as the state (benchmarks/LOG.md). No randomness.

        Raises:
            PromptTooLong: the prompt does not fit the context.
        """
        tokens = self.engine.probe_tokens
        found, read = self._biased(self._sent(prompt), tokens, _ALONE, len(tokens))
        assert found is not None, "probe tokens are whole text"
        logits = [math.log(max(found.get(token, 0.0), 1e-30)) for token in tokens]
        mean = sum(logits) / len(logits)
        return State([logit - mean for logit in logits], read)

    # ------------------------------------------------------------------ text

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
        prompt = self._sent(self.render(messages))
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
    """Return how many of the cores that this process may use have had nothing to do in the last minute."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    busy = round(os.getloadavg()[0]) if hasattr(os, "getloadavg") else 1
    return min(8, max(1, cores - busy))


def _is_whole(entry: Mapping[str, Any]) -> bool:
    """Tell whether a listed token is text and no piece of a character."""
    try:
        return bool(bytes(entry["bytes"]).decode().strip())
    except UnicodeDecodeError:
        return False


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
