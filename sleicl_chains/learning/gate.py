"""The gate: which prompt and which reading suit this weak model on this task, and whether a grimoire helps.

The labelled rows are cut once. On *choose* every candidate is fitted, raced and judged by cross-validation. On
*confirm* one paired test is made: the best candidate with a grimoire against the best one without. Then
the winner is fitted again on all rows and written into a recipe.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

from langchain_core.language_models import BaseChatModel

from sleicl_chains.answering.arms import Arm, Form
from sleicl_chains.answering.neighbours import Neighbours
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.priors import prior_texts
from sleicl_chains.answering.readings import Mode, Prior
from sleicl_chains.answering.recipes import Finding, Shown, Verdict
from sleicl_chains.errors import InputError
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.samplers import own_examples, typical_examples
from sleicl_chains.learning.cut import Cut
from sleicl_chains.learning.judging import Candidate, Judge, Judged
from sleicl_chains.learning.survey import Survey, fresh_characters
from sleicl_chains.models.abilities import StateReader, scoring_problem
from sleicl_chains.models.journal import Journal
from sleicl_chains.statistics import mcnemar, paired_difference
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

LEVEL = 0.05
"""The chance of "helps" or "hurts" where there is no difference, both together."""
_PILOT = 4
"""Questions by which the time is foretold."""

Notice = Callable[[str], None]
"""Called with a line for the person who waits."""


@dataclass
class Gate:
    """Chooses a prompt and a reading, and tests whether a grimoire helps; `learn` opens it and writes the recipe."""

    task: Task
    cut: Cut
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

    @property
    def tested(self) -> bool:
        """Whether there are rows enough to set some aside for a test."""
        return bool(self.cut.confirm)

    @cached_property
    def setups(self) -> list[Observer]:
        """All prompts: without a grimoire first, the cheaper first."""
        found = [self._setup(Arm())]
        if self.tested:
            found += [self._setup(Arm(examples="few-shot")), self._setup(Arm(examples="knn"))]
        for grimoire in self.grimoires:
            for form in (form for form in get_args(Form) if form and getattr(grimoire, form)):
                found.append(self._setup(Arm(form), grimoire))
                if self.tested:
                    found.append(self._setup(Arm(form, "few-shot"), grimoire))
        return found

    def _setup(self, arm: Arm, grimoire: Grimoire | None = None) -> Observer:
        choose = self.cut.choose
        return Observer(
            self.weak, self.task, arm, grimoire, tuple(self.shown) if arm.examples == "few-shot" else (),
            Neighbours(choose, self.space) if arm.examples == "knn" else None,
            cue_texts=tuple(prior_texts(choose, self.task, seed=self.seed)), embeddings=self.space,
            journal=self.journal,
        )  # fmt: skip

    @cached_property
    def shown(self) -> list[Example]:
        """The examples of few-shot prompts, out of the choose rows: a grimoire's own, else k-means ones."""
        rows = self.cut.choose
        own = own_examples(self.grimoires, rows)
        return own or typical_examples(self.task, rows, seed=self.seed)

    @cached_property
    def readings(self) -> list[tuple[Mode, Prior]]:
        """How the answers of this model can be read."""
        if not self.task.labels or scoring_problem(self.weak):
            return [("generate", "none")]
        hidden: list[tuple[Mode, Prior]] = [("hidden", "none")] if isinstance(self.weak, StateReader) else []
        return [("score", "mean"), ("score", "affine"), *hidden, ("fusion", "none"), ("blend", "none")]

    @cached_property
    def survey(self) -> Survey:
        """The weak model's answers so far, and the way to more."""
        planned = len(self.setups) * len(self.cut.choose) + 2 * len(self.cut.confirm)
        return Survey(self.setups[0].evidence, self.progress, planned)

    @cached_property
    def judge(self) -> Judge:
        """Fits and judges candidates."""
        return Judge(self.task, self.survey, self.seed)

    def run(self) -> Candidate:
        """Race, confirm and return the candidate that the recipe takes."""
        if not self.tested:
            self.notes.append(f"{self.cut.untested}, so only the plainest prompts were compared and nothing was tested")
        kept = "; answers that the journal keeps take none of it" if self.journal else ""
        self.notice(f"At most about {math.ceil(self._expected_seconds() / 60)} min, by the first questions{kept}.")
        self.race()
        best_without = self._best(lambda one: not one.candidate.shows_grimoire)
        best_with = self._best(lambda one: one.candidate.shows_grimoire)
        if best_with is None or best_without is None:
            self.verdict = self.verdict.model_copy(update={"why": self._one_sided(best_with)})
            return self._only(best_without or best_with)
        if not self.tested:
            self.verdict = self.verdict.model_copy(update={"why": self.cut.untested})
            return best_without.candidate
        self.verdict = self._test(best_with, best_without)
        return best_with.candidate if self.verdict.finding == "helps" else best_without.candidate

    def _expected_seconds(self) -> float:
        """Return the seconds that all questions take, at a price for each and for each character that is read anew.

        The first is measured on the shortest prompt, the second on one question under the longest.
        """
        short, long, choose = self.setups[0], self.setups[-1], self.cut.choose
        each, _ = self._pace(short, choose[:_PILOT])
        whole, characters = self._pace(long, choose[:1])
        a_character = max(0.0, whole - each) / characters
        asked = [(setup, choose) for setup in self.setups] + [(long, self.cut.confirm)] * 2
        return sum(len(rows) * each + a_character * fresh_characters(setup, rows) for setup, rows in asked)

    def _pace(self, setup: Observer, rows: Sequence[Example]) -> tuple[float, int]:
        """Ask about rows; return the median of the seconds, and the characters that were read anew."""
        self.survey.ask(setup, rows, self.readings[0][0])
        seconds = [self.survey.of(setup, row).seconds for row in rows if self.survey.fits(setup, row)]
        return statistics.median(seconds) if seconds else 0.0, fresh_characters(setup, rows)

    def _one_sided(self, best_with: Judged | None) -> str:
        """Why there are not two kinds of candidates to compare."""
        if best_with:
            return "no prompt without a grimoire fits the weak model's context"
        if self.grimoires:
            return "no prompt with a grimoire fits the weak model's context"
        return self.cut.untested or "no grimoire was given"  # a strong model is not asked where nothing can be tested

    def _only(self, best: Judged | None) -> Candidate:
        """Return the best candidate where only one kind fits, measured on the confirm rows but not tested."""
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
        # Round 1: every prompt, on the first half of the rows alone. Few rows without a test are not halved.
        rows = self.cut.choose
        half = rows[: len(rows) // 2] if self.tested else rows
        early = [one for setup in self.setups for one in self._judge(setup, half)]
        if half is rows:
            self.judged = early
            return
        # Those leave that are two standard errors behind the best of their kind, with a grimoire or without.
        kept = [setup for setup in self.setups if not _clearly_behind(setup, early)]
        for one in early:
            one.dropped = one.candidate.setup not in kept
        # Round 2: the others on all rows. Who left keeps its figures of the half, and is marked so.
        self.judged = [one for setup in kept for one in self._judge(setup, rows)]
        self.judged += [one for one in early if one.dropped]

    def _judge(self, setup: Observer, rows: Sequence[Example]) -> list[Judged]:
        """Judge every reading of one prompt; none where it does not fit the context for most rows."""
        self.survey.ask(setup, rows, self.readings[0][0])
        long = [row for row in rows if not self.survey.fits(setup, row)]
        if 2 * len(long) > len(rows):
            self.notes.append(f"{setup.name} was left out: {self.survey.complaint(setup, long[0])}")
            return []
        return [self.judge.judge(Candidate(setup, mode, prior), rows) for mode, prior in self.readings]

    def _best(self, kind: Callable[[Judged], bool]) -> Judged | None:
        """Return the plain choice of a kind, or the one of least loss where that is clearly better.

        The least loss among thirty candidates on 60 rows is often luck: where it was always followed, the recipe came
        out below the plain choice (benchmarks/LOG.md).
        """
        these = [one for one in self.judged if kind(one) and not one.dropped]
        best, plain = _least_loss(these), _least_loss(_plain(these))
        return best if best and plain and best.clearly_better(plain) else plain

    def _test(self, best_with: Judged, best_without: Judged) -> Verdict:
        """Make the one paired test, on rows that nothing was fitted or chosen on."""
        ours, theirs = (self._right_on_confirm(one.candidate) for one in (best_with, best_without))
        difference, low, high = paired_difference(ours, theirs)
        p = mcnemar(ours, theirs)
        finding = finding_of(low, high, p, best_without.loss - best_with.loss)
        chosen = ours if finding == "helps" else theirs
        return Verdict(
            finding=finding, best_with=best_with.candidate.name, best_without=best_without.candidate.name,
            difference=difference, low=low, high=high, p=p, n=len(ours), probe=self._probe_on_confirm(),
            chosen=sum(chosen) / len(chosen),
        )  # fmt: skip

    def _right_on_confirm(self, candidate: Candidate) -> list[bool]:
        self.survey.ask(candidate.setup, self.cut.confirm, candidate.mode)
        return self.judge.right(candidate, self.cut.choose, self.cut.confirm)

    def _probe_on_confirm(self) -> float | None:
        if not self.task.labels:
            return None
        from sleicl_chains.evaluation.baselines import probe

        chain, rows = probe(self.task, self.cut.choose, self.space), self.cut.confirm
        return sum(chain.invoke(row.text).label == row.answer for row in rows) / len(rows)

    def outcome(self, best: Candidate) -> dict[str, Any]:
        """Return the parts of the recipe that were learned, the reader fitted again on all rows."""
        setup, rows = best.setup, self.cut.rows
        reads = best.mode != "generate"
        if setup.arm.examples == "knn":  # neighbours come from all rows now; the cue is the one that was tested
            cue = setup.cue if reads else None
            setup = replace(setup, neighbours=Neighbours(rows, self.space), given_cue=cue)
        reader, calibration = None, None
        if reads:
            self.survey.ask(setup, rows, best.mode)
            reader = self.judge.fit(Candidate(setup, best.mode, best.prior), rows)
            calibration = next(one for one in self.judged if one.candidate == best).calibration()
        if long := sum(not self.survey.fits(setup, row) for row in rows):
            self.notes.append(
                f"{long} of {len(rows)} rows do not fit the weak model's context under the prompt that was "
                "chosen; they count as wrong"
            )
        shown = setup.neighbours.rows if setup.neighbours else setup.examples
        form = setup.arm.form
        text = getattr(setup.grimoire, form) if setup.grimoire and form else ""
        return {
            "arm": setup.arm.name, "mode": best.mode, "prior": best.prior,
            "cue": setup.cue.text if reader else "", "lists_labels": bool(reader) and setup.cue.lists_labels,
            "grimoire": Shown.of(text, id=setup.grimoire.id) if setup.grimoire and text else None,
            "examples": [Shown.of(row.text, row.answer, row.id) for row in shown],
            "reader": reader.to_dict() if reader else None,
            "calibration": (calibration.slope, calibration.offset) if calibration else None,
            "verdict": self.verdict, "warnings": self.notes,
            "trials": [one.trial() for one in sorted(self.judged, key=lambda one: (one.dropped, one.loss))],
        }  # fmt: skip


def _least_loss(these: Sequence[Judged]) -> Judged | None:
    """Return the candidate of least loss; equal ones go to the cheaper prompt."""
    return min(these, key=lambda one: (one.loss, one.cost), default=None)


def _plain(these: Sequence[Judged]) -> Sequence[Judged]:
    """Return the candidates to take in doubt: those read by `blend`, and of these the few-shot one if it is there."""
    pooled = [one for one in these if one.candidate.mode == "blend"]
    return [one for one in pooled if one.candidate.setup.arm == Arm(examples="few-shot")] or pooled or these


def _clearly_behind(setup: Observer, early: Sequence[Judged]) -> bool:
    """Say whether a prompt's best reading loses to the best of its kind by two standard errors, paired by row."""
    mine = _least_loss([one for one in early if one.candidate.setup is setup])
    if mine is None:
        return True  # it does not fit the context
    rivals = [one for one in early if one.candidate.shows_grimoire == mine.candidate.shows_grimoire]
    best = _least_loss(rivals) or mine
    # Equal prompts win each row that they differ on with chance 1/2, so won - lost has the standard deviation
    # sqrt(won + lost): McNemar's test in its normal approximation.
    won = sum(a and not b for a, b in zip(best.right, mine.right, strict=True))
    lost = sum(b and not a for a, b in zip(best.right, mine.right, strict=True))
    return won - lost > 2 * math.sqrt(won + lost)


def finding_of(low: float, high: float, p: float, ahead: float) -> Finding:
    """Return the finding of a paired test: the interval, the exact test and the choose rows must agree.

    The confirm rows are few, and on invented candidates that are equal the test alone said "hurts" too often
    (benchmarks/LOG.md). The choose rows are other rows, judged by other fits, so they seldom agree with mere chance.

    Args:
        low: lower end of the interval of the difference with less without.
        high: upper end.
        p: exact McNemar test.
        ahead: by how much the candidate with a grimoire had less loss on the choose rows.
    """
    if low > 0 and p < LEVEL and ahead > 0:
        return "helps"
    return "hurts" if high < 0 and p < LEVEL and ahead < 0 else "no difference shown"
