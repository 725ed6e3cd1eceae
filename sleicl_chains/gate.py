"""The gate: which prompt and which reading suit this weak model on this task, and whether a grimoire helps.

The labelled rows are cut once. On *choose* every candidate is fitted, raced and judged by cross-validation. On
*confirm* one paired test is made: the best candidate with a grimoire against the best one without. Then
the winner is fitted again on all rows and written into a recipe.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from langchain_core.language_models import BaseChatModel

from sleicl_chains.answers import Arm, Mode, Prior
from sleicl_chains.arms import FEW_SHOT_PER_LABEL
from sleicl_chains.chats import form_shown
from sleicl_chains.errors import InputError, PromptTooLong, RejectedReply
from sleicl_chains.evaluation import is_right
from sleicl_chains.grimoires import Grimoire
from sleicl_chains.journal import Journal
from sleicl_chains.neighbours import Neighbours
from sleicl_chains.observations import Block, Observation
from sleicl_chains.observer import Observer, StateReader
from sleicl_chains.priors import mean_shares, prior_texts
from sleicl_chains.readers import (
    Calibration,
    PriorReader,
    Reader,
    fit_affine,
    fit_calibration,
    fit_linear,
    held_out_linear,
)
from sleicl_chains.recipes import Finding, Shown, Trial, Verdict
from sleicl_chains.samplers import sampler
from sleicl_chains.solvers import Solver, scoring_problem
from sleicl_chains.splits import balance, distinct, folds, shuffled, stratified
from sleicl_chains.statistics import macro_f1, mcnemar, paired_difference
from sleicl_chains.tasks import Example, Task

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

CHOOSE_SHARE = 0.6
"""Of the labelled rows; the others confirm."""
FEWEST_ROWS = 40
"""Below this no test is made: on a dozen rows even a large gain cannot be told from chance."""
LEVEL = 0.05
"""The chance of "helps" or "hurts" where there is no difference, both together."""

_KNN_SLOWER = 6
"""A question with examples of its own takes so many times as long: the engine's cache holds little of its prompt."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the rows done and the rows to do, of all together."""
Notice = Callable[[str], None]
"""Called with a line for the person who waits."""


def usable(examples: Sequence[Example], seed: int) -> list[Example]:
    """Return the labelled rows, each text once, in the seeded order of which every beginning has the labels' shares.

    Raises:
        InputError: they are too few, or all have the same answer.
    """
    rows = stratified(distinct(shuffled(examples, seed)), seed)
    answers = len({row.answer for row in rows})
    if answers < 2 or len(rows) < 8:
        raise InputError(
            f"learn: found {len(rows)} labelled rows with {answers} different answers; expected at least 8 rows with "
            f"2 answers, and {FEWEST_ROWS} rows for a verdict"
        )
    return rows


def cut(
    task: Task, examples: Sequence[Example], seed: int, grimoires: Sequence[Grimoire] = ()
) -> tuple[list[Example], list[Example]]:
    """Return the choose and the confirm rows; few rows are all chosen on.

    Rows that a grimoire was written from are chosen on: a test on them would flatter it.
    """
    rows = usable(examples, seed)
    if len(rows) < FEWEST_ROWS:
        return rows, []
    known = {id for grimoire in grimoires for id in grimoire.provenance.examples}
    count = round(CHOOSE_SHARE * len(rows))
    choose = rows[:count] + [row for row in rows[count:] if row.id in known]
    return choose, [row for row in rows[count:] if row.id not in known]


@dataclass(frozen=True)
class Candidate:
    """A prompt and a way to read the answer."""

    setup: Observer
    mode: Mode
    prior: Prior

    @property
    def name(self) -> str:
        """The arm, with how it is read."""
        how = {"score": self.prior, "generate": "generate"}.get(self.mode, "")
        return setup_name(self.setup) + (f" / {how}" if how else f"+{self.mode}")

    @property
    def shows_grimoire(self) -> bool:
        """Whether a grimoire stands in the prompt."""
        return bool(form_shown(self.setup.arm))


def setup_name(setup: Observer) -> str:
    """Return an arm's name with the grimoire's id."""
    shown = f" ({setup.grimoire.id})" if setup.grimoire and form_shown(setup.arm) else ""
    return setup.arm + shown


@dataclass
class Judged:
    """A candidate with its cross-validated answers on choose rows."""

    candidate: Candidate
    predictions: list[str | None]
    shares: list[float]
    """Of the predicted label, a row."""
    loss: float | None
    right: list[bool]
    macro_f1: float | None
    score: float
    """What candidates are compared by: less loss, or accuracy where answers are generated."""
    cost: float
    """Mean prompt tokens."""
    dropped: bool = False


@dataclass
class Gate:
    """Choosing and confirming; `learn` wraps it."""

    task: Task
    examples: tuple[Example, ...]
    weak: BaseChatModel
    grimoires: tuple[Grimoire, ...]
    seed: int
    space: "Embeddings"
    journal: Journal | None
    progress: Progress
    notice: Notice
    notes: list[str] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    verdict: Verdict = field(default_factory=lambda: Verdict(finding="no difference shown"))
    _seen: dict[tuple[int, str], Observation] = field(default_factory=dict)
    _said: dict[tuple[int, str], str | None] = field(default_factory=dict)
    _too_long: dict[tuple[int, str], str] = field(default_factory=dict)
    """Rows that do not fit the context, with the complaint; they count as wrong."""
    _done: int = 0

    # ------------------------------------------------------------------ rows

    @cached_property
    def rows(self) -> list[Example]:
        """All labelled rows."""
        return usable(self.examples, self.seed)

    @cached_property
    def choose(self) -> list[Example]:
        """The rows that everything is fitted and chosen on."""
        return cut(self.task, self.examples, self.seed, self.grimoires)[0]

    @cached_property
    def confirm(self) -> list[Example]:
        """The rows of the one test; none where there are too few rows."""
        return cut(self.task, self.examples, self.seed, self.grimoires)[1]

    @property
    def tested(self) -> bool:
        """Whether there are rows enough to set some aside for a test."""
        return bool(self.confirm)

    # ------------------------------------------------------------------ candidates

    @cached_property
    def setups(self) -> list[Observer]:
        """All prompts: without a grimoire first, the cheaper first."""
        found = [self._setup("zero-shot")]
        if self.tested:
            found += [self._setup("few-shot"), self._setup("knn")]
        for grimoire in self.grimoires:
            for arm in ("simple", "profound"):
                if getattr(grimoire, arm):
                    found.append(self._setup(arm, grimoire))
                    if self.tested:
                        found.append(self._setup(f"{arm}+few-shot", grimoire))  # type: ignore[arg-type]
        return found

    def _setup(self, arm: Arm, grimoire: Grimoire | None = None, rows: Sequence[Example] | None = None) -> Observer:
        shown = self.shown if "few-shot" in arm else ()
        neighbours = Neighbours(rows or self.choose, self.space) if arm == "knn" else None
        return Observer(
            self.weak, self.task, arm, grimoire, tuple(shown), neighbours,
            cue_texts=tuple(prior_texts(self.choose, self.task, seed=self.seed)), embeddings=self.space,
            journal=self.journal,
        )  # fmt: skip

    @cached_property
    def shown(self) -> list[Example]:
        """The examples of few-shot prompts, out of the choose rows: a grimoire's own, else k-means ones."""
        by_id = {row.id: row for row in self.choose}
        for grimoire in self.grimoires:
            own = grimoire.provenance.examples
            if own and all(id in by_id for id in own):
                return [by_id[id] for id in own]
        draw = sampler("kmeans", per_label=FEW_SHOT_PER_LABEL, seed=self.seed, embeddings=self.space)
        return draw.invoke({"task": self.task, "examples": self.choose})

    @cached_property
    def readings(self) -> list[tuple[Mode, Prior]]:
        """How the answers of this model can be read."""
        if not self.task.labels or scoring_problem(self.weak):
            return [("generate", "none")]
        hidden: list[tuple[Mode, Prior]] = [("hidden", "none")] if isinstance(self.weak, StateReader) else []
        return [("score", "mean"), ("score", "affine"), *hidden, ("fusion", "none")]

    @cached_property
    def _blocks(self) -> tuple[Block, ...]:
        return self.setups[0].blocks("fusion")

    # ------------------------------------------------------------------ the gate

    def run(self) -> Candidate:
        """Race, confirm and return the candidate that the recipe takes."""
        if not self.tested:
            self.notes.append(f"{self._untested}, so only the plainest prompts were compared and nothing was tested")
        self.notice(f"About {self._expected_seconds() / 60:.0f} min at the speed of the first questions.")
        self.race()
        best_without = self._best(lambda one: not one.candidate.shows_grimoire)
        best_with = self._best(lambda one: one.candidate.shows_grimoire)
        if best_with is None or best_without is None:
            why = "no grimoire was given" if best_with is None else "nothing without a grimoire could be asked"
            self.verdict = self.verdict.model_copy(update={"why": why})
            return self._only(best_without or best_with)
        if not self.tested:
            self.verdict = self.verdict.model_copy(update={"why": self._untested})
            return best_without.candidate
        self.verdict = self._test(best_with, best_without)
        return best_with.candidate if self.verdict.finding == "helps" else best_without.candidate

    @property
    def _untested(self) -> str:
        """Why there is no test."""
        if len(self.rows) < FEWEST_ROWS:
            return f"{len(self.rows)} labelled rows are too few for a verdict ({FEWEST_ROWS} are needed)"
        return "no labelled row is left that no grimoire was written from"

    def _expected_seconds(self) -> float:
        """Return what all questions take at the pace of the first four, which are asked for it."""
        first = self.choose[:4]
        self._observe(self.setups[0], first, self.readings[0][0])
        times = sorted(self._of(self.setups[0], row).seconds for row in first if self._fits(self.setups[0], row))
        each = times[len(times) // 4] if times else 0.0
        return each * (self.planned + (_KNN_SLOWER - 1) * len(self.choose) * any(one.neighbours for one in self.setups))

    def _only(self, best: Judged | None) -> Candidate:
        if best is None:
            raise InputError("learn: no prompt fits the weak model's context; give a larger one (--option n_ctx=8192)")
        if self.tested:
            right = self._right_on_confirm(best.candidate)
            self.verdict = self.verdict.model_copy(
                update={"n": len(right), "chosen": sum(right) / len(right), "probe": self._probe_on_confirm()}
            )
        return best.candidate

    def race(self) -> None:
        """Judge all candidates on the first half of the choose rows, and those not clearly behind on all of them."""
        half = self.choose[: len(self.choose) // 2] if self.tested else self.choose
        early = [one for setup in self.setups for one in self._judge(setup, half)]
        if half is self.choose:
            self.judged = early
            return
        kept = [setup for setup in self.setups if not self._clearly_behind(setup, early)]
        for one in early:
            one.dropped = one.candidate.setup not in kept
        self.judged = [one for setup in kept for one in self._judge(setup, self.choose)]
        self.judged += [one for one in early if one.dropped]

    def _clearly_behind(self, setup: Observer, early: Sequence[Judged]) -> bool:
        """Say whether a prompt's best reading loses to the best of its kind by two standard errors, paired by row."""
        ours = [one for one in early if one.candidate.setup is setup]
        kind = ours[0].candidate.shows_grimoire if ours else False
        rivals = [one for one in early if one.candidate.shows_grimoire == kind]
        if not ours:
            return True  # it does not fit the context
        mine, best = max(ours, key=lambda one: one.score), max(rivals, key=lambda one: one.score)
        won = sum(a and not b for a, b in zip(best.right, mine.right, strict=True))
        lost = sum(b and not a for a, b in zip(best.right, mine.right, strict=True))
        return bool(won - lost > 2 * np.sqrt(won + lost))

    def _best(self, kind: Callable[[Judged], bool]) -> Judged | None:
        """Return the best candidate of a kind; equal ones go to the cheaper prompt."""
        these = [one for one in self.judged if kind(one) and not one.dropped]
        return max(these, key=lambda one: (one.score, -one.cost), default=None)

    def _test(self, best_with: Judged, best_without: Judged) -> Verdict:
        """Make the one paired test, on rows that nothing was fitted or chosen on."""
        ours, theirs = (self._right_on_confirm(one.candidate) for one in (best_with, best_without))
        difference, low, high = paired_difference(ours, theirs)
        p = mcnemar(ours, theirs)
        finding = judge(low, high, p, best_with.score - best_without.score)
        chosen = ours if finding == "helps" else theirs
        return Verdict(
            finding=finding, best_with=best_with.candidate.name, best_without=best_without.candidate.name,
            difference=difference, low=low, high=high, p=p, n=len(ours), probe=self._probe_on_confirm(),
            chosen=sum(chosen) / len(chosen),
        )  # fmt: skip

    def _right_on_confirm(self, candidate: Candidate) -> list[bool]:
        self._observe(candidate.setup, self.confirm, candidate.mode)
        setup = candidate.setup
        if candidate.mode == "generate":
            said = [self._said.get((id(setup), row.id)) for row in self.confirm]
        else:
            reader = self._fit(candidate, self.choose)
            said = [
                _top(reader.shares(self._of(setup, row)))[0] if self._fits(setup, row) else None for row in self.confirm
            ]
        return [is_right(a, row.answer, self.task.labels) for a, row in zip(said, self.confirm, strict=True)]

    def _probe_on_confirm(self) -> float | None:
        if not self.task.labels:
            return None
        from sleicl_chains.baselines import probe

        chain = probe(self.task, self.choose, self.space)
        return sum(chain.invoke(row.text).label == row.answer for row in self.confirm) / len(self.confirm)

    # ------------------------------------------------------------------ judging on choose rows

    def _judge(self, setup: Observer, rows: Sequence[Example]) -> list[Judged]:
        """Cross-validate every reading of one prompt; none where it does not fit the context for most rows."""
        self._observe(setup, rows, self.readings[0][0])
        long = [row for row in rows if not self._fits(setup, row)]
        if 2 * len(long) > len(rows):
            self.notes.append(f"{setup_name(setup)} was left out: {self._too_long[id(setup), long[0].id]}")
            return []
        return [self._cross_validate(Candidate(setup, mode, prior), rows) for mode, prior in self.readings]

    def _cross_validate(self, candidate: Candidate, rows: Sequence[Example]) -> Judged:
        setup, labels = candidate.setup, self.task.labels
        if candidate.mode == "generate":
            said = [(self._said.get((id(setup), row.id)), 1.0) for row in rows]
            return self._judged(candidate, rows, said, None)
        fitting = [at for at, row in enumerate(rows) if self._fits(setup, row)]
        shares = [dict.fromkeys(labels, 1 / len(labels)) for _ in rows]  # a blind guess where nothing was seen
        top: list[tuple[str | None, float]] = [(None, 0.0) for _ in rows]
        found = self._held_out(candidate, [rows[at] for at in fitting], [rows[at].answer for at in fitting])
        for at, one in zip(fitting, found, strict=True):
            shares[at], top[at] = one, _top(one)
        return self._judged(candidate, rows, top, _loss(shares, [row.answer for row in rows]))

    def _held_out(
        self, candidate: Candidate, rows: Sequence[Example], answers: Sequence[str]
    ) -> list[dict[str, float]]:  # fmt: skip
        """Return the shares that each row gets from a fit that had not seen its answer."""
        labels = self.task.labels
        if candidate.mode != "score":
            seen = [self._of(candidate.setup, row) for row in rows]
            return held_out_linear(seen, answers, candidate.setup.blocks(candidate.mode), labels)
        # A label with a single row is never held out; such rows get a blind guess.
        shares = [dict.fromkeys(labels, 1 / len(labels)) for _ in rows]
        for train, held in folds(answers) or [(np.arange(len(rows)), np.arange(len(rows)))]:
            reader = self._fit(candidate, [rows[at] for at in train])
            for at in held:
                shares[at] = reader.shares(self._of(candidate.setup, rows[at]))
        return shares

    def _judged(
        self, candidate: Candidate, rows: Sequence[Example], said: Sequence[tuple[str | None, float]],
        loss: float | None,
    ) -> Judged:  # fmt: skip
        predictions = [label for label, _ in said]
        right = [is_right(label, row.answer, self.task.labels) for label, row in zip(predictions, rows, strict=True)]
        fitting = [row for row in rows if self._fits(candidate.setup, row)]
        tokens = [self._of(candidate.setup, row).prompt_tokens for row in fitting]
        cost = sum(tokens) / len(tokens)
        score = sum(right) / len(right) if loss is None else -loss
        labels = self.task.labels
        macro = macro_f1([row.answer for row in rows], predictions, labels) if labels else None
        return Judged(candidate, predictions, [share for _, share in said], loss, right, macro, score, cost)

    def _fit(self, candidate: Candidate, rows: Sequence[Example]) -> Reader:
        rows = [row for row in rows if self._fits(candidate.setup, row)]
        seen, answers = [self._of(candidate.setup, row) for row in rows], [row.answer for row in rows]
        labels = self.task.labels
        if candidate.mode != "score":
            return fit_linear(seen, answers, candidate.setup.blocks(candidate.mode), labels)
        if candidate.prior == "affine":
            return fit_affine(seen, answers, labels)
        texts = set(prior_texts(rows, self.task, seed=self.seed))
        return PriorReader(mean_shares(
            one.scores.probabilities for one, row in zip(seen, rows, strict=True) if one.scores and row.text in texts
        ))  # fmt: skip

    # ------------------------------------------------------------------ observing

    def _of(self, setup: Observer, row: Example) -> Observation:
        return self._seen[id(setup), row.id]

    def _fits(self, setup: Observer, row: Example) -> bool:
        return (id(setup), row.id) not in self._too_long

    def _observe(self, setup: Observer, rows: Sequence[Example], mode: Mode) -> None:
        """Ask the weak model about rows under one prompt, one after the other, so that the engine keeps its front."""
        chain = Solver(setup, "generate", "none") if mode == "generate" else None
        for row in rows:
            if (id(setup), row.id) in self._seen or not self._fits(setup, row):
                continue
            try:
                if chain:
                    self._generate(chain, setup, row)
                else:
                    self._seen[id(setup), row.id] = setup.observe(row.text, self._blocks)
            except PromptTooLong as problem:
                self._too_long[id(setup), row.id] = str(problem)
            self._done += 1
            self.progress(setup_name(setup), self._done, max(self._done, self.planned))

    def _generate(self, chain: Solver, setup: Observer, row: Example) -> None:
        try:
            answer = chain.answer(row.text)
        except RejectedReply:
            self._said[id(setup), row.id], used, seconds = None, 0, 0.0
        else:
            self._said[id(setup), row.id] = answer.answer
            used, seconds = answer.usage.get("prompt_tokens", 0), answer.seconds
        self._seen[id(setup), row.id] = Observation(prompt_tokens=used, seconds=seconds)

    @cached_property
    def planned(self) -> int:
        """Rows to be observed, all prompts together, if none is dropped early."""
        return len(self.setups) * len(self.choose) + 2 * len(self.confirm)

    # ------------------------------------------------------------------ the recipe

    def outcome(self, best: Candidate) -> dict[str, Any]:
        """Return the parts of the recipe that were learned, the reader fitted again on all rows."""
        setup = best.setup
        if setup.arm == "knn":  # the rows to choose neighbours from are all of them now
            setup = self._setup("knn", rows=self.rows)
        reader, calibration = None, None
        if best.mode != "generate":
            self._observe(setup, self.rows, best.mode)
            reader = self._fit(Candidate(setup, best.mode, best.prior), self.rows)
            calibration = self._calibrate(best)
        if long := sum(not self._fits(setup, row) for row in self.rows):
            self.notes.append(
                f"{long} of {len(self.rows)} rows do not fit the weak model's context under the prompt that was "
                "chosen; they count as wrong"
            )
        shown = setup.neighbours.rows if setup.neighbours else setup.examples
        form = form_shown(setup.arm)
        text = getattr(setup.grimoire, form) if setup.grimoire and form else ""
        return {
            "arm": setup.arm, "mode": best.mode, "prior": best.prior,
            "cue": setup.cue.text if reader else "", "lists_labels": bool(reader) and setup.cue.lists_labels,
            "grimoire": Shown.of(text, id=setup.grimoire.id) if setup.grimoire and text else None,
            "examples": [Shown.of(row.text, row.answer, row.id) for row in shown],
            "reader": reader.to_dict() if reader else None,
            "calibration": (calibration.slope, calibration.offset) if calibration else None,
            "verdict": self.verdict, "warnings": self.notes,
            "trials": [self._trial(one) for one in sorted(self.judged, key=lambda one: (one.dropped, -one.score))],
        }  # fmt: skip

    def _calibrate(self, best: Candidate) -> Calibration:
        """Fit the calibration on the choose rows' cross-validated answers."""
        judged = next(one for one in self.judged if one.candidate == best)
        answered = [at for at, label in enumerate(judged.predictions) if label is not None]
        return fit_calibration([judged.shares[at] for at in answered], [judged.right[at] for at in answered])

    def _trial(self, one: Judged) -> Trial:
        shown = one.candidate.setup.grimoire if one.candidate.shows_grimoire else None
        return Trial(
            name=one.candidate.name, grimoire=shown.id if shown else None, n=len(one.right),
            accuracy=sum(one.right) / len(one.right), macro_f1=one.macro_f1, loss=one.loss, prompt_tokens=one.cost,
            dropped=one.dropped,
        )  # fmt: skip


def judge(low: float, high: float, p: float, ahead: float) -> Finding:
    """Return the verdict of a paired test: the interval, the exact test and the choose rows must agree.

    The confirm rows are few, and on invented candidates that are equal the test alone said "hurts" too often
    (benchmarks/LOG.md). The choose rows are other rows, judged by other fits, so they seldom agree with mere chance.

    Args:
        low: lower end of the interval of the difference with less without.
        high: upper end.
        p: exact McNemar test.
        ahead: by how much the candidate with a grimoire scored higher on the choose rows.
    """
    if low > 0 and p < LEVEL and ahead > 0:
        return "helps"
    return "hurts" if high < 0 and p < LEVEL and ahead < 0 else "no difference shown"


def _top(shares: Mapping[str, float]) -> tuple[str, float]:
    label = max(shares, key=lambda name: shares[name])
    return label, shares[label]


_TEMPERATURES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)


def _loss(shares: Sequence[Mapping[str, float]], answers: Sequence[str]) -> float:
    """Return the mean cross-entropy at the best temperature, all labels weighing alike.

    Candidates are compared by it, since on 60 rows it tells them apart with far less noise than accuracy or F1. The
    temperature makes those comparable that are right in the same places and only bolder.
    """
    weights, labels = balance(answers), list(shares[0])
    logs = np.log([[max(one[label], 1e-6) for label in labels] for one in shares])
    gold = [labels.index(answer) for answer in answers]

    def loss(temperature: float) -> float:
        tempered = logs / temperature
        tempered -= np.log(np.exp(tempered).sum(axis=1, keepdims=True))
        return float(-(weights * tempered[np.arange(len(gold)), gold]).mean())

    return min(map(loss, _TEMPERATURES))
