"""Solvers as LangChain chains: `steps.Solver` does the work, and here it gets `invoke`, `batch`, `stream` and metadata.

Where the reader is not fitted yet, that is done when the first question comes.
"""

import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import messages_to_dict
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.config import RunnableConfig, ensure_config, run_in_executor

from sleicl_chains.answering.cues import CUES, LISTING, Cue
from sleicl_chains.answering.evidence import Observation
from sleicl_chains.answering.fitting import fit_reader
from sleicl_chains.answering.observer import Observer, mode_problem
from sleicl_chains.answering.priors import CONTENT_FREE, domain_texts, mean_shares
from sleicl_chains.answering.readers import PriorReader, Reader
from sleicl_chains.answering.readings import GROUPS, Mode, Prior, looks_at, needs_labelled_rows
from sleicl_chains.answering.schemas import held_to_labels
from sleicl_chains.answering.steps import Solver, checked_question
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, PromptTooLong, Unsupported
from sleicl_chains.hashes import short_hash
from sleicl_chains.models.abilities import scoring_problem
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example, check_answers

_READING = 5
"""Counted up when replies are parsed or scores corrected differently, so that no run mixes both."""


@dataclass(frozen=True)
class Fit:
    """What a reader is fitted on: texts for a prior, or labelled rows."""

    texts: tuple[str, ...] = ()
    """Training texts for the priors `mean` and `domain`."""
    rows: tuple[Example, ...] = ()

    def check(self, task: Task, mode: Mode, prior: Prior) -> None:
        """Refuse what cannot be fitted, before anything is paid for."""
        check_answers(self.rows, task)
        if prior in ("mean", "domain") and not self.texts:
            raise InputError(f"The prior {prior!r} needs training texts; give some, or use 'content-free'")
        if needs_labelled_rows(mode, prior) and not self.rows:
            what = f"mode {mode!r}" if mode != "score" else "the prior 'affine'"
            raise InputError(f"The {what} is fitted on labelled rows; none were given (`train`, --train)")

    def reader(self, observer: Observer, mode: Mode, prior: Prior) -> Reader:
        """Return the reader; costs the evidence for each text or row, or for the few texts of a prior without any."""
        if not needs_labelled_rows(mode, prior):
            return PriorReader(self._prior_shares(observer, mode, prior))
        found = _observed(observer, mode, [row.text for row in self.rows])
        seen, answers = list(found.values()), [self.rows[at].answer for at in found]
        return fit_reader(mode, seen, answers, observer.groups(mode), observer.task.labels)

    def _prior_shares(self, observer: Observer, mode: Mode, prior: Prior) -> dict[str, float]:
        if prior == "none":
            return dict.fromkeys(observer.task.labels, 1.0)
        texts: Sequence[str] = CONTENT_FREE if prior == "content-free" else self.texts
        if prior == "domain":
            texts = domain_texts(self.texts, seed=0)
        scored = (seen.scores for seen in _observed(observer, mode, texts).values())
        return mean_shares(scores.probabilities for scores in scored if scores)


def _observed(observer: Observer, mode: Mode, texts: Sequence[str]) -> dict[int, Observation]:
    """Return the evidence for the texts that fit the context, by place.

    Raises:
        PromptTooLong: none does.
    """
    found: dict[int, Observation] = {}
    for at, text in enumerate(texts):
        try:
            found[at] = observer.observe(text, observer.blocks(mode))
        except PromptTooLong:  # the question, which may fit, is not to blame
            if not found and at == len(texts) - 1:
                raise
    return found


def chain_of(solver: Solver, fit: Fit | None = None) -> Runnable[str, Answer]:
    """Return a solver as a chain that carries its name and settings.

    Args:
        solver: its reader may be missing.
        fit: what the reader is fitted on then, once, at the first question.

    Raises:
        InputError: the arm lacks its grimoire, examples or rows.
        Unsupported: the model or the task does not have the mode.
    """
    check(solver)
    lacks_reader = fit is not None and solver.mode in GROUPS and solver.reader is None
    if fit is not None:
        fit.check(solver.task, solver.mode, solver.prior)
    asked = FittedWhenAsked(solver, fit) if fit is not None and lacks_reader else solver
    name = solver.name or solver.observer.arm.name
    chain: Runnable[str, Answer] = (
        StreamedSolver(solver, name) if solver.streams else RunnableLambda(asked.answer, afunc=asked.aanswer, name=name)
    )
    metadata = {"arm": name, "mode": solver.mode, "prior": solver.prior, "settings": settings(solver, fit)}
    return chain.with_config(run_name=name, metadata=metadata)


class StreamedSolver(RunnableLambda[str, Answer]):
    """A solver of open-ended questions whose `stream` gives the text as it comes.

    A plain `RunnableLambda` streams one piece; that of a generator would add up its pieces in `invoke` as well.
    """

    def __init__(self, solver: Solver, name: str) -> None:
        super().__init__(solver.answer, afunc=solver.aanswer, name=name)
        self.solver = solver

    def transform(self, input: Iterator[str], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Answer]:
        """Yield the pieces of an answer."""
        return self._transform_stream_with_config(input, self._pieces, ensure_config(config), **kwargs)

    async def atransform(
        self, input: AsyncIterator[str], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Answer]:
        """Do the same without blocking."""
        async for piece in self._atransform_stream_with_config(input, self._apieces, ensure_config(config), **kwargs):
            yield piece

    def _pieces(self, input: Iterator[str]) -> Iterator[Answer]:
        yield from self.solver.stream(_joined(list(input)))

    async def _apieces(self, input: AsyncIterator[str]) -> AsyncIterator[Answer]:
        async with aclosing(self.solver.astream(_joined([part async for part in input]))) as pieces:
            async for piece in pieces:
                yield piece


def _joined(parts: list[str]) -> str:
    """Return a question that came in parts; what is no text is refused where questions are checked."""
    return "".join(parts) if all(isinstance(part, str) for part in parts) else parts[0]


class FittedWhenAsked:
    """A solver whose reader is fitted at the first question, once, however many threads ask together."""

    def __init__(self, unfitted: Solver, fit: Fit) -> None:
        self._solver, self._fit = unfitted, fit
        self._lock = threading.Lock()

    def answer(self, question: str) -> Answer:
        """Answer one question."""
        question = checked_question(question)  # before anything is paid for the reader
        return self._fitted().answer(question)

    async def aanswer(self, question: str) -> Answer:
        """Do the same without blocking."""
        question = checked_question(question)
        return await (await run_in_executor(None, self._fitted)).aanswer(question)

    def _fitted(self) -> Solver:
        with self._lock:
            if self._solver.reader is None:
                observer, mode, prior = self._solver.observer, self._solver.mode, self._solver.prior
                _ = observer.cue  # chosen before all else, and kept by the observer
                self._solver = replace(self._solver, reader=self._fit.reader(observer, mode, prior))
            return self._solver

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock out: chains are pickled and deep-copied."""
        return {"_solver": self._solver, "_fit": self._fit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"_lock": threading.Lock()}


def check(solver: Solver) -> None:
    """Refuse a solver that cannot work, before anything is paid for; see `chain_of`."""
    shown, mode = solver.observer, solver.mode
    _check_shown(shown)
    if mode in ("schema", *GROUPS) and not solver.task.labels:
        wanted = "labels on the task card; use mode 'generate' for open-ended tasks"
        raise Unsupported(f"Mode {mode!r} needs {wanted}")
    if reason := mode_problem(shown.weak, mode):
        others = "'generate'" if mode != "hidden" or scoring_problem(shown.weak) else "'score' or 'blend'"
        raise Unsupported(f"{reason}; use mode {others} or a model embedded:NAME")
    if mode == "schema":
        held_to_labels(shown.weak, solver.task.labels)


def _check_shown(shown: Observer) -> None:
    arm, form = shown.arm, shown.arm.form
    if form and (shown.grimoire is None or not getattr(shown.grimoire, form)):
        found = f"{shown.grimoire.id} has none; take another arm" if shown.grimoire else "no grimoire was given"
        raise InputError(f"The arm {arm.name!r} needs a grimoire with a {form} text; {found}")
    if arm.examples == "few-shot" and not shown.examples:
        raise InputError(f"The arm {arm.name!r} needs examples; none were given (`examples` or `train`, --train)")
    if arm.examples == "knn" and not (shown.neighbours and shown.neighbours.rows):
        raise InputError("The arm 'knn' shows labelled rows; none were given (`train`, --train)")


def settings(solver: Solver, fit: Fit | None = None) -> str:
    """Return sixteen hex digits over everything that decides an answer."""
    shown, mode, fit = solver.observer, solver.mode, fit or Fit()
    parts: list[Any] = [_READING, shown.identity, mode, solver.prior, fit.texts, solver.task.labels]
    if solver.reader is not None or solver.calibration is not None:
        parts += [solver.reader.to_dict() if solver.reader else None, repr(solver.calibration)]
    elif needs_labelled_rows(mode, solver.prior):
        parts.append(sorted(row.id for row in fit.rows))
    if shown.neighbours:
        parts.append([row.id for row in shown.neighbours.rows])
    if shown.embeddings and (shown.neighbours or looks_at(mode, "vector")):
        from sleicl_chains.models.embedders import fingerprint

        parts.append(fingerprint(shown.embeddings))
    # Where cues are tried, which is chosen follows from the rest.
    cues: Sequence[Cue] = (*CUES, *LISTING) if mode in GROUPS and shown.few_alternatives else (solver.cue,)
    about = (shown.weak, shown.task, shown.arm, shown.grimoire, shown.examples)
    bare = Observer(*about, templates=shown.templates)
    chats = [messages_to_dict(bare.messages("?", cue)) for cue in cues]
    return short_hash(json.dumps([parts, chats], sort_keys=True))
