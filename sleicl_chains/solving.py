"""The steps from a question to an `Answer`: the prompt, the evidence or the reply, and what is read in it."""

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, messages_to_dict
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.config import run_in_executor

from sleicl_chains.answers import Answer, Mode, Prior
from sleicl_chains.budget import as_journalled
from sleicl_chains.chats import form_shown
from sleicl_chains.cues import CUE, CUES, LISTING, NO_CUE, Cue
from sleicl_chains.errors import InputError, PromptTooLong, RejectedReply, Unsupported
from sleicl_chains.fitting import fit_reader
from sleicl_chains.journal import aask, ask
from sleicl_chains.labels import parse_label
from sleicl_chains.observations import GROUPS, Observation, looks_at, needs_labelled_rows
from sleicl_chains.observer import Observer, mode_problem, scoring_problem
from sleicl_chains.priors import CONTENT_FREE, domain_texts, mean_shares
from sleicl_chains.readers import Calibration, PriorReader, Reader, likeliest
from sleicl_chains.replies import check_label, check_said, check_whole, cut_by
from sleicl_chains.schemas import held_to_labels, label_of, refusals_told
from sleicl_chains.tasks import Example, Task, check_answers
from sleicl_chains.thinking import without_thinking

_NONE_IN_SIGHT = "no label was among the tokens that the server shows; embedded:ollama/NAME scores them all"

_READING = 5
"""Counted up when replies are parsed or scores corrected differently, so that no run mixes both."""


def chain_of(steps: "Solver") -> Runnable[str, Answer]:
    """Return a solver as a chain that carries its name and settings."""
    steps.check()
    name = steps.name or steps.observer.arm
    chain = RunnableLambda(steps.answer, afunc=steps.aanswer, name=name)
    metadata = {"arm": name, "mode": steps.mode, "prior": steps.prior, "settings": steps.settings}
    return chain.with_config(run_name=name, metadata=metadata)


@dataclass(frozen=True)
class Solver:
    """The steps of one chain; `solver` and `recipes` make it."""

    observer: Observer
    mode: Mode
    chosen_prior: Prior
    prior_texts: tuple[str, ...] = ()
    train: tuple[Example, ...] = ()
    note: str = ""
    """Goes with every answer: why the mode is not the one that the task would have."""
    fitted: Reader | None = None
    """A reader from a file; else one is fitted at the first question."""
    calibration: Calibration | None = None
    name: str = ""
    """The name in a table, where it is not the arm's."""
    whole: bool = False
    """Whether an open-ended reply that was cut is refused, not given with a note."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def check(self) -> None:
        """Refuse what cannot work before anything is paid for."""
        shown = self.observer
        form = form_shown(shown.arm)
        if form and (shown.grimoire is None or not getattr(shown.grimoire, form)):
            found = f"{shown.grimoire.id} has none; take another arm" if shown.grimoire else "no grimoire was given"
            raise InputError(f"The arm {shown.arm!r} needs a grimoire with a {form} text; {found}")
        if "few-shot" in shown.arm and not shown.examples:
            raise InputError(f"The arm {shown.arm!r} needs examples; none were given")
        if shown.arm == "knn" and not (shown.neighbours and shown.neighbours.rows):
            raise InputError("The arm 'knn' shows labelled rows; none were given (`train`, --train)")
        if self.mode in ("schema", *GROUPS) and not self.task.labels:
            wanted = "labels on the task card; use mode 'generate' for open-ended tasks"
            raise Unsupported(f"Mode {self.mode!r} needs {wanted}")
        if reason := mode_problem(shown.weak, self.mode):
            others = "'generate'" if self.mode != "hidden" or scoring_problem(shown.weak) else "'score' or 'blend'"
            raise Unsupported(f"{reason}; use mode {others} or a model embedded:NAME")
        if self.mode == "schema":
            held_to_labels(shown.weak, self.task.labels)
        if self.fitted is None:
            self._check_rows()

    def _check_rows(self) -> None:
        check_answers(self.train, self.task)
        if self.prior in ("mean", "domain") and not self.prior_texts:
            raise InputError(f"The prior {self.prior!r} needs training texts; give some, or use 'content-free'")
        if needs_labelled_rows(self.mode, self.prior) and not self.train:
            what = f"mode {self.mode!r}" if self.mode != "score" else "the prior 'affine'"
            raise InputError(f"The {what} is fitted on labelled rows; none were given (`train`, --train)")

    @property
    def task(self) -> Task:
        """What is asked."""
        return self.observer.task

    @property
    def prior(self) -> Prior:
        """What is taken off the scores; none where none are read."""
        return self.chosen_prior if self.mode == "score" else "none"

    @property
    def cue(self) -> Cue:
        """How the answer is asked for; a chat whose reply is parsed needs no cue."""
        if self.mode in GROUPS:
            return self.observer.cue
        return CUE if self.mode == "generate" and not self.observer.chats else NO_CUE

    def messages(self, question: str) -> list[BaseMessage]:
        """Return the prompt of one question."""
        return self.observer.messages(question, self.cue)

    @cached_property
    def settings(self) -> str:
        """Sixteen hex digits over everything that decides an answer."""
        shown = self.observer
        parts: list[Any] = [_READING, shown.identity, self.mode, self.prior, self.prior_texts, self.task.labels]
        if self.fitted is not None or self.calibration is not None:
            parts += [self.fitted.to_dict() if self.fitted else None, repr(self.calibration)]
        elif needs_labelled_rows(self.mode, self.prior):
            parts.append(sorted(row.id for row in self.train))
        if shown.neighbours:
            parts.append([row.id for row in shown.neighbours.rows])
        if shown.embeddings and (shown.neighbours or looks_at(self.mode, "vector")):
            from sleicl_chains.embedders import fingerprint

            parts.append(fingerprint(shown.embeddings))
        if self.mode in GROUPS and shown.few_alternatives:
            cues: Sequence[Cue] = (*CUES, *LISTING)  # which is chosen follows from the rest
        else:
            cues = (self.cue,)
        about = (shown.weak, shown.task, shown.arm, shown.grimoire, shown.examples)
        bare = Observer(*about, templates=shown.templates)
        chats = [messages_to_dict(bare.messages("?", cue)) for cue in cues]
        return hashlib.sha256(json.dumps([parts, chats], sort_keys=True).encode()).hexdigest()[:16]

    # ------------------------------------------------------------------ answering

    def answer(self, question: str) -> Answer:
        """Answer one question."""
        if self.mode in GROUPS:
            return self._observed(_text(question))
        messages = self.messages(_text(question))
        with refusals_told():
            return self._read(ask(self._asked(messages), messages, self.observer.journal, check=self.check_answer))

    async def aanswer(self, question: str) -> Answer:
        """Do the same without blocking."""
        if self.mode in GROUPS:  # in a thread: the engine blocks, and Ollama answers one at a time as well
            return await run_in_executor(None, self._observed, _text(question))
        messages = self.messages(_text(question))
        speaker = await run_in_executor(None, self._asked, messages)
        with refusals_told():
            return self._read(await aask(speaker, messages, self.observer.journal, check=self.check_answer))

    def _asked(self, messages: Sequence[BaseMessage]) -> Any:
        """The model, and where whole replies alone count, one that finds those bought under another limit of length."""
        return as_journalled(self._speaker, messages, self.observer.journal, {}) if self.whole else self._speaker

    @cached_property
    def _speaker(self) -> Any:
        """The model as it is asked for words."""
        weak = self.observer.weak
        return held_to_labels(weak, self.task.labels) if self.mode == "schema" else weak

    def check_answer(self, reply: AIMessage) -> None:
        """Refuse a reply that must not be taken for an answer; it is asked for again the next time.

        A weak model's open-ended reply that was cut at its limit is an answer with a note: its beginning is of use, and
        the same limit would cut it again. A strong model's is refused (`whole`): half an answer must not take the
        place of a whole one of the weak model.

        Raises:
            RejectedReply: it is empty, was withheld, is thinking alone, or was cut before it named a label.
        """
        try:
            if self.task.labels:
                check_label(reply, self._label(reply), self.task.labels)
            else:
                (check_whole if self.whole else check_said)(reply)
        except RejectedReply as problem:
            problem.answer = replace(self._read(reply), label=None, valid=False)
            raise

    def _label(self, reply: AIMessage) -> str | None:
        read = label_of if self.mode == "schema" else parse_label
        return read(reply.text.strip(), self.task.labels)

    def _read(self, reply: AIMessage) -> Answer:
        """Take the answer out of the model's own words."""
        text = reply.text.strip() if self.task.labels else without_thinking(reply.text)
        label = self._label(reply) if self.task.labels else None
        cut = bool(cut_by(reply))
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

    def _observed(self, question: str) -> Answer:
        """Gather the evidence and have the reader weigh it."""
        self._prepare()
        seen = self.observer.observe(question, self.observer.blocks(self.mode))
        found: dict[str, Any] = {
            "cue": self.cue.text,
            "lists_labels": self.cue.lists_labels,
            "usage": {"prompt_tokens": seen.prompt_tokens, "reply_tokens": 0},
            "seconds": seen.seconds,
            **self._about,
        }
        if seen.scores:
            found |= {"coverage": seen.scores.coverage, "unseen": seen.scores.unseen}
            if self.mode == "score" and not seen.scores.measured:
                return Answer(label=None, text="", valid=False, note=_NONE_IN_SIGHT, **found)
        shares = self.reader.shares(seen)
        label, share = likeliest(shares)
        chance = self.calibration.of(share) if self.calibration else share
        return Answer(label=label, text=label, valid=True, probability=chance, scores=shares, **found)

    @cached_property
    def _about(self) -> dict[str, Any]:
        shown = self.observer
        id = shown.grimoire.id if shown.grimoire and form_shown(shown.arm) else None
        return {"arm": self.name or shown.arm, "mode": self.mode, "prior": self.prior, "grimoire": id}

    def _prepare(self) -> None:
        """Choose the cue and fit the reader, once; several threads may ask their first question together."""
        with self._lock:
            _ = self.cue, self.reader

    @cached_property
    def reader(self) -> Reader:
        """What makes an answer of the evidence; fitted on training rows at the first question."""
        labels = self.task.labels
        if self.fitted is not None:
            return self.fitted
        if not needs_labelled_rows(self.mode, self.prior):
            return PriorReader(self._prior_shares)
        found = self._fitting([row.text for row in self.train])
        seen, answers = list(found.values()), [self.train[at].answer for at in found]
        return fit_reader(self.mode, seen, answers, self.observer.groups(self.mode), labels)

    @property
    def _prior_shares(self) -> dict[str, float]:
        if self.prior == "none":
            return dict.fromkeys(self.task.labels, 1.0)
        texts: Sequence[str] = CONTENT_FREE if self.prior == "content-free" else self.prior_texts
        if self.prior == "domain":
            texts = domain_texts(self.prior_texts, seed=0)
        scored = (seen.scores for seen in self._fitting(texts).values())
        return mean_shares(scores.probabilities for scores in scored if scores)

    def _fitting(self, texts: Sequence[str]) -> dict[int, Observation]:
        """Return the evidence for the texts that fit the context, by place.

        Raises:
            PromptTooLong: none does.
        """
        found: dict[int, Observation] = {}
        for at, text in enumerate(texts):
            try:
                found[at] = self.observer.observe(text, self.observer.blocks(self.mode))
            except PromptTooLong:  # the question, which may fit, is not to blame
                if not found and at == len(texts) - 1:
                    raise
        return found


def _text(question: str) -> str:
    if not isinstance(question, str) or not question.strip():
        found = "an empty one" if isinstance(question, str) else repr(question)
        raise InputError(f"A solver takes a question as text; found {found}")
    return question
