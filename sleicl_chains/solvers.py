"""The weak model's chain: a question in, an `Answer` out, with or without a grimoire in front."""

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Protocol, get_args, runtime_checkable

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, messages_to_dict
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.config import run_in_executor

from sleicl_chains.answers import Answer, Arm, LabelScores, Mode, Prior
from sleicl_chains.chats import Chat, form_shown
from sleicl_chains.cues import CUE, CUES, LISTING, NO_CUE, Cue, choose_cue
from sleicl_chains.errors import InputError, OptionError, Unsupported
from sleicl_chains.grimoires import Grimoire
from sleicl_chains.journal import Journal, aask, ask, identity
from sleicl_chains.labels import parse_label
from sleicl_chains.priors import CONTENT_FREE, mean_shares, remove_prior
from sleicl_chains.tasks import Example, Task
from sleicl_chains.thinking import without_thinking

_NONE_IN_SIGHT = "no label was among the tokens that the server shows; embedded:ollama/NAME scores them all"

_READING = 3
"""Counted up when replies are parsed or scores corrected differently, so that no run mixes both."""


@runtime_checkable
class LabelScorer(Protocol):
    """A chat model that renders its own prompts and gives the probabilities of labels."""

    def render(self, messages: Sequence[BaseMessage]) -> str:
        """Return the exact prompt."""
        ...

    def score_labels(self, prompt: str, labels: Sequence[str]) -> LabelScores:
        """Score each label as the prompt's continuation."""
        ...


def solver(
    weak: BaseChatModel,
    task: Task,
    *,
    arm: Arm = "zero-shot",
    grimoire: Grimoire | None = None,
    examples: Sequence[Example] = (),
    mode: Mode | None = None,
    prior: Prior | None = None,
    prior_texts: Sequence[str] = (),
    journal: Journal | None = None,
) -> Runnable[str, Answer]:
    """Return a chain that answers one question with one weak call (in mode `score`, see below).

    Args:
        weak: any chat model; mode `score` needs one that gives label probabilities.
        task: its labels are the possible answers; without labels the answer is free text.
        arm: what stands before the question.
        grimoire: for the arms `simple` and `profound`.
        examples: for the arms with `few-shot`, shown as earlier turns in the given order.
        mode: `score` where the task has labels and the model can, else `generate` with the reason in `Answer.note`.
        prior: taken off the label scores; `mean` when there are `prior_texts`, else `content-free`.
            It costs one weak call a text (3 if content-free), once, at the first question.
        prior_texts: training texts for the prior `mean`. A model that shows only its likeliest tokens (Ollama)
            is also tried on six of them with each of four cues, see `cues`.
        journal: keeps every call; a repeated one is answered from it.

    Raises:
        InputError: the arm lacks its grimoire or examples, or a name is unknown.
        Unsupported: mode `score` with a model or task that has none.
        PromptTooLong: (when asked) the prompt does not fit; nothing is ever cut.
    """
    reason = scoring_problem(weak) if task.labels and mode is None else ""
    mode = mode or ("score" if task.labels and not reason else "generate")
    chosen = prior or ("mean" if prior_texts else "content-free")
    note = f"generated and parsed: {reason}" if reason else ""
    steps = _Solver(weak, task, arm, grimoire, tuple(examples), mode, chosen, tuple(prior_texts), journal, note)
    steps.check()
    chain = RunnableLambda(steps.answer, afunc=steps.aanswer, name=arm)
    metadata = {"arm": arm, "mode": mode, "prior": steps.prior, "settings": steps.settings}
    return chain.with_config(run_name=arm, metadata=metadata)


@dataclass(frozen=True)
class _Solver:
    weak: BaseChatModel
    task: Task
    arm: Arm
    grimoire: Grimoire | None
    examples: tuple[Example, ...]
    mode: Mode
    chosen_prior: Prior
    prior_texts: tuple[str, ...]
    journal: Journal | None
    note: str = ""
    """Goes with every answer: why the mode is not the one that the task would have."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def check(self) -> None:
        """Refuse what cannot work before anything is paid for."""
        _one_of("arm", self.arm, get_args(Arm))
        _one_of("mode", self.mode, get_args(Mode))
        _one_of("prior", self.chosen_prior, get_args(Prior))
        form = form_shown(self.arm)
        if form and (self.grimoire is None or not getattr(self.grimoire, form)):
            raise InputError(f"The arm {self.arm!r} needs a grimoire with a {form} text; none was given")
        if "few-shot" in self.arm and not self.examples:
            raise InputError(f"The arm {self.arm!r} needs examples; none were given")
        if self.mode == "score" and not self.task.labels:
            raise Unsupported("Mode 'score' needs labels on the task card; use mode 'generate' for open-ended tasks")
        if self.mode == "score" and (reason := scoring_problem(self.weak)):
            raise Unsupported(f"{reason}; use mode 'generate' or a model embedded:NAME")
        if self.prior == "mean" and not self.prior_texts:
            raise InputError("The prior 'mean' needs training texts; give some, or use 'content-free'")

    @property
    def prior(self) -> Prior:
        return self.chosen_prior if self.mode == "score" else "none"

    # ------------------------------------------------------------------ prompt

    @cached_property
    def chat(self) -> Chat:
        return Chat(self.task, self.arm, self.grimoire, self.examples, names_texts=not self._chats)

    def messages(self, question: str) -> list[BaseMessage]:
        """Return the prompt of one question."""
        return self.chat.messages(question, self.cue)

    @cached_property
    def cue(self) -> Cue:
        """How the answer is asked for; a chat whose reply is parsed needs no cue."""
        if self.mode == "generate":
            return NO_CUE if self._chats else CUE
        if not self._few_alternatives:
            return CUE
        return choose_cue(lambda cue, text: self._scores(text, cue)[0], self.prior_texts)

    @cached_property
    def _chats(self) -> bool:
        """Whether the model was trained on chats; a base model is given a text to continue."""
        return bool(getattr(self.weak, "has_template", True))

    @property
    def _few_alternatives(self) -> bool:
        """Whether the model shows its likeliest tokens alone, so that labels may be out of sight."""
        return self.mode == "score" and getattr(self.weak, "alternatives", None) is not None

    @cached_property
    def settings(self) -> str:
        """Sixteen hex digits over everything that decides an answer."""
        parts = [_READING, self.identity, self.mode, self.prior, self.prior_texts, self.task.labels]
        cues = (*CUES, *LISTING) if self._few_alternatives else (self.cue,)  # which is chosen follows from the rest
        shown = [messages_to_dict(self.chat.messages("?", cue)) for cue in cues]
        return hashlib.sha256(json.dumps([parts, shown], sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def identity(self) -> dict[str, Any]:
        return identity(self.weak)

    # ------------------------------------------------------------------ answering

    def answer(self, question: str) -> Answer:
        if self.mode == "score":
            return self._scored(_text(question))
        return self._read(ask(self.weak, self.messages(_text(question)), self.journal))

    async def aanswer(self, question: str) -> Answer:
        if self.mode == "score":  # in a thread: the engine blocks, and Ollama answers one at a time as well
            return await run_in_executor(None, self._scored, _text(question))
        return self._read(await aask(self.weak, self.messages(_text(question)), self.journal))

    def _read(self, reply: AIMessage) -> Answer:
        """Take the answer out of the model's own words."""
        text = reply.text.strip() if self.task.labels else without_thinking(reply.text)
        label = parse_label(text, self.task.labels) if self.task.labels else None
        cut = reply.response_metadata.get("finish_reason") == "length"
        used = reply.usage_metadata
        usage = {"prompt_tokens": used["input_tokens"], "reply_tokens": used["output_tokens"]} if used else {}
        return Answer(
            label=label,
            text=text,
            valid=label is not None if self.task.labels else bool(text),
            usage=usage,
            seconds=reply.response_metadata.get("seconds", 0.0),
            note="the reply was cut at its length limit" if cut and not self.task.labels else self.note,
            **self._about,
        )

    def _scored(self, question: str) -> Answer:
        """Score the labels after the cue and take the prior off."""
        self._prepare()
        scored, seconds = self._scores(question, self.cue)
        found: dict[str, Any] = {
            "coverage": scored.coverage,
            "unseen": scored.unseen,
            "cue": self.cue.text,
            "lists_labels": self.cue.lists_labels,
            "usage": {"prompt_tokens": scored.prompt_tokens, "reply_tokens": 0},
            "seconds": seconds,
            **self._about,
        }
        if len(scored.unseen) == len(scored.probabilities):
            return Answer(label=None, text="", valid=False, note=_NONE_IN_SIGHT, **found)
        shares = remove_prior(scored.probabilities, self._prior_shares)
        label = max(shares, key=lambda name: shares[name])
        return Answer(label=label, text=label, valid=True, probability=shares[label], scores=shares, **found)

    @cached_property
    def _about(self) -> dict[str, Any]:
        shown = self.grimoire.id if self.grimoire and form_shown(self.arm) else None
        return {"arm": self.arm, "mode": self.mode, "prior": self.prior, "grimoire": shown}

    def _scores(self, question: str, cue: Cue) -> tuple[LabelScores, float]:
        assert isinstance(self.weak, LabelScorer)
        prompt = self.weak.render(self.chat.messages(question, cue))
        # The op gets another name when scoring changes; old entries then answer no more.
        request = {"op": "score_labels", "model": self.identity, "prompt": prompt, "labels": self.task.labels}
        kept = self.journal.get(request) if self.journal else None
        if kept is None:
            started = time.perf_counter()
            scores = self.weak.score_labels(prompt, self.task.labels)
            kept = {"scores": asdict(scores), "seconds": time.perf_counter() - started}
            if self.journal:
                self.journal.put(request, kept)
        return LabelScores(**kept["scores"]), kept["seconds"]

    def _prepare(self) -> None:
        """Choose the cue and estimate the prior, once; several threads may ask their first question together."""
        with self._lock:
            _ = self.cue, self._prior_shares

    @cached_property
    def _prior_shares(self) -> dict[str, float]:
        if self.prior == "none":
            return dict.fromkeys(self.task.labels, 1.0)
        texts = CONTENT_FREE if self.prior == "content-free" else self.prior_texts
        return mean_shares(self._scores(text, self.cue)[0].probabilities for text in texts)


def scoring_problem(weak: BaseChatModel) -> str:
    """Return why a model's labels cannot be scored; empty if they can. An Ollama server is asked once."""
    if not isinstance(weak, LabelScorer):
        return f"{type(weak).__name__} gives no label probabilities"
    return str(getattr(weak, "scoring_problem", ""))


def _text(question: str) -> str:
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"A solver takes a question as text; found {question!r}")
    return question


def _one_of(what: str, found: str, names: Sequence[str]) -> None:
    if found not in names:
        raise OptionError(f"There is no {what} {found!r}; expected one of {', '.join(names)}")
