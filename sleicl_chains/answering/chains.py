"""Solvers as LangChain chains: `steps.Solver` does the work, and here it gets `invoke`, `batch`, `stream` and metadata.

Where the reader is not fitted yet, that is done when the first question comes.
"""

import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

from langchain_core.messages import messages_to_dict
from langchain_core.runnables import RunnableLambda, RunnableSerializable
from langchain_core.runnables.config import RunnableConfig, ensure_config, merge_configs, run_in_executor
from langchain_core.runnables.graph import Graph
from pydantic import ConfigDict, field_validator

from sleicl_chains.answering.arms import Arm, ArmName
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
from sleicl_chains.errors import InputError, OptionError, PromptTooLong, Unsupported
from sleicl_chains.grimoires.grimoire import Grimoire
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


class SolverChain(RunnableSerializable[str, Answer]):
    """A solver as a LangChain chain, with its name and settings in each run's metadata.

    `arm` and `grimoire` may be configured while it runs, by LangChain's `configurable_fields`; each pair is made ready
    once, which costs what its prior costs. An open-ended answer streams piece by piece, a label is one piece.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    arms: "Arms"
    arm: ArmName
    grimoire: Grimoire | None = None

    @field_validator("arm", mode="before")
    @classmethod
    def _known(cls, name: str) -> str:
        arm = Arm.of(name)
        if arm.reading:
            raise OptionError(f"arm: found {name!r}; what is shown can be configured, how answers are read cannot")
        return arm.name

    @property
    def task(self) -> Task:
        """What is asked."""
        return self.steps.task

    @property
    def steps(self) -> Solver:
        """What it does; the reader may be missing until the first question."""
        return self._ready.asked.solver

    @property
    def config(self) -> RunnableConfig:
        """The name and settings that each run carries."""
        return {"run_name": self.get_name(), "metadata": dict(self._ready.metadata)}

    @property
    def _ready(self) -> "Ready":
        return self.arms.ready(self.arm, self.grimoire)

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """Return the name in runs and tables."""
        return super().get_name(suffix, name=name or self.name or self._ready.metadata["arm"])

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """Return the steps: prompt, model, reader."""
        solver, graph = self.steps, Graph()
        prompt = RunnableLambda(solver.messages, name=f"{self.arm} prompt")
        reader = RunnableLambda(self._ready.asked.answer, name=f"{solver.mode} reader")
        shown = (self.get_input_schema(config), prompt, solver.observer.weak, reader, self.get_output_schema(config))
        for before, after in pairwise([graph.add_node(step) for step in shown]):
            graph.add_edge(before, after)
        return graph

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Answer:
        """Answer one question."""
        return self._call_with_config(self._ready.asked.answer, input, self._told(config), **kwargs)

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Answer:
        """Do the same without blocking."""
        ready = await run_in_executor(None, lambda: self._ready)  # a server may be asked what its model is
        return await self._acall_with_config(ready.asked.aanswer, input, self._told(config), **kwargs)

    def stream(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Answer]:
        """Yield the pieces of an answer; their sum is the answer."""
        yield from self.transform(iter([input]), config, **kwargs)

    async def astream(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Answer]:
        """Do the same without blocking."""

        async def alone() -> AsyncIterator[str]:
            yield input

        async for piece in self.atransform(alone(), config, **kwargs):
            yield piece

    def transform(self, input: Iterator[str], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Answer]:
        """Yield the pieces of an answer to a question that comes in pieces."""
        return self._transform_stream_with_config(input, self._pieces, self._told(config), **kwargs)

    async def atransform(
        self, input: AsyncIterator[str], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Answer]:
        """Do the same without blocking."""
        async for piece in self._atransform_stream_with_config(input, self._apieces, self._told(config), **kwargs):
            yield piece

    def _pieces(self, input: Iterator[str]) -> Iterator[Answer]:
        yield from self._ready.asked.stream(_joined(list(input)))

    async def _apieces(self, input: AsyncIterator[str]) -> AsyncIterator[Answer]:
        ready = await run_in_executor(None, lambda: self._ready)
        async with aclosing(ready.asked.astream(_joined([part async for part in input]))) as pieces:
            async for piece in pieces:
                yield piece

    def _told(self, config: RunnableConfig | None) -> RunnableConfig:
        return merge_configs(self.config, ensure_config(config))


def chain_of(solver: Solver, fit: Fit | None = None, build: "Build | None" = None) -> SolverChain:
    """Return a solver as a chain that carries its name and settings.

    Args:
        solver: its reader may be missing.
        fit: what the reader is fitted on then, once, at the first question.
        build: makes the solver of another arm or grimoire; without it these are fixed.

    Raises:
        InputError: the arm lacks its grimoire, examples or rows.
        Unsupported: the model or the task does not have the mode.
    """
    shown = solver.observer
    arms = Arms(build, {(shown.arm.name, shown.grimoire): _checked(solver, fit)})
    return SolverChain(arms=arms, arm=shown.arm.name, grimoire=shown.grimoire)


class Build(Protocol):
    """Makes the solver of an arm and a grimoire, all else being as it was given."""

    def __call__(self, arm: Arm, *, grimoire: Grimoire | None) -> tuple[Solver, Fit]:
        """Return the solver, and what its reader is fitted on."""
        ...


@dataclass(frozen=True)
class Ready:
    """A solver that was checked, and what its runs carry."""

    asked: "FittedWhenAsked"
    metadata: Mapping[str, str]


class Arms:
    """The solvers of one chain, by what they show; each is made and fitted once, so that a configured one is too."""

    def __init__(self, build: Build | None, known: dict[tuple[ArmName, Grimoire | None], Ready]) -> None:
        self._build, self._known = build, known

    def ready(self, arm: ArmName, grimoire: Grimoire | None) -> Ready:
        """Return the solver of an arm and a grimoire.

        Raises:
            InputError: these are not the chain's own, and it has no others. Or see `chain_of`.
        """
        key = (arm, grimoire)
        if key not in self._known:
            if self._build is None:
                raise InputError("A recipe was learned with its arm and its grimoire; they cannot be configured")
            made = _checked(*self._build(Arm.of(arm), grimoire=grimoire))
            self._known.setdefault(key, made)  # several threads keep the first
        return self._known[key]


def _checked(solver: Solver, fit: Fit | None) -> Ready:
    check(solver)
    if fit is not None:
        fit.check(solver.task, solver.mode, solver.prior)
    name = solver.name or solver.observer.arm.name
    metadata = {"arm": name, "mode": solver.mode, "prior": solver.prior, "settings": settings(solver, fit)}
    return Ready(FittedWhenAsked(solver, fit), metadata)


def _joined(parts: list[str]) -> str:
    """Return a question that came in parts; what is no text is refused where questions are checked."""
    return "".join(parts) if all(isinstance(part, str) for part in parts) else parts[0]


class FittedWhenAsked:
    """A solver whose reader is fitted at the first question, once, however many threads ask together.

    Args:
        solver: its reader may be there already.
        fit: what it is fitted on.
    """

    def __init__(self, solver: Solver, fit: Fit | None) -> None:
        self.solver, self._fit = solver, fit
        self._lock = threading.Lock()

    def answer(self, question: str) -> Answer:
        """Answer one question."""
        question = checked_question(question)  # before anything is paid for the reader
        return self._fitted().answer(question)

    async def aanswer(self, question: str) -> Answer:
        """Do the same without blocking."""
        question = checked_question(question)
        return await (await run_in_executor(None, self._fitted)).aanswer(question)

    def stream(self, question: str) -> Iterator[Answer]:
        """Yield the text of an open-ended answer as it comes, or a label."""
        if self.solver.streams:
            yield from self.solver.stream(question)
        else:
            yield self.answer(question)

    async def astream(self, question: str) -> AsyncGenerator[Answer, None]:
        """Do the same without blocking."""
        if not self.solver.streams:
            yield await self.aanswer(question)
            return
        async with aclosing(self.solver.astream(question)) as pieces:
            async for piece in pieces:
                yield piece

    def _fitted(self) -> Solver:
        if self._fit is None or self.solver.mode not in GROUPS:
            return self.solver
        with self._lock:
            if self.solver.reader is None:
                observer, mode, prior = self.solver.observer, self.solver.mode, self.solver.prior
                _ = observer.cue  # chosen before all else, and kept by the observer
                self.solver = replace(self.solver, reader=self._fit.reader(observer, mode, prior))
            return self.solver

    def __getstate__(self) -> dict[str, Any]:
        """Leave the lock out: chains are pickled and deep-copied."""
        return {"solver": self.solver, "_fit": self._fit}

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
