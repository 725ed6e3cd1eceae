"""A lesson: the prompts of a plan asked, the pair tested, and one of them taken."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.calibration import fit_calibration
from sleicl_chains.answering.evidence import Observation
from sleicl_chains.answering.neighbours import Neighbours
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.readings import Mode, Prior
from sleicl_chains.answering.recipes import AlsoTried, Choice, Shown, TestedRow, Verdict
from sleicl_chains.errors import InputError
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.learning.choice import Candidate, choose, known_gain
from sleicl_chains.learning.crossfit import CrossFit
from sleicl_chains.learning.cut import Cut
from sleicl_chains.learning.plan import Plan
from sleicl_chains.learning.survey import Asked, foretold_seconds
from sleicl_chains.learning.verdict import Compared, also_tried, rights, verdict_on
from sleicl_chains.models.journal import Journal
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings


FIT_SECONDS = 2
"""Cross-fitting one prompt's readers on a hundred rows."""


@dataclass
class Lesson:
    """Follows a plan; `learn` opens it and writes the recipe."""

    task: Task
    parts: Cut
    plan: Plan
    weak: BaseChatModel
    grimoires: Sequence[Grimoire]
    mode: Mode
    prior: Prior
    seed: int
    space: "Embeddings"
    journal: Journal | None
    progress: Progress | None
    home: Home | None = None
    """Where it is looked up how well the model follows guides."""
    notes: list[str] = field(default_factory=list)
    _done: int = 0

    @cached_property
    def crossfit(self) -> CrossFit:
        """Fits on all rows of the test."""
        return CrossFit(self.task, self.parts.tested, self.seed)

    @cached_property
    def half(self) -> CrossFit:
        """Fits on the half of the rows that prompts which are only also tried are asked about."""
        return CrossFit(self.task, self.parts.tested[: len(self.parts.tested) // 2], self.seed)

    @cached_property
    def baseline(self) -> Asked:
        """The pair's prompt without a grimoire."""
        return self._asked(self.plan.baseline)

    @cached_property
    def pair(self) -> list[Asked]:
        """The same with the first grimoire; none without one."""
        return [self._asked(self.plan.pair)] if self.plan.pair else []

    @cached_property
    def cheaper(self) -> list[Asked]:
        """The prompts without examples."""
        return [self._asked(arm) for arm in self.plan.cheaper]

    @cached_property
    def others(self) -> list[Asked]:
        """The prompts that are also tried."""
        return [self._asked(arm, at, self.half.rows) for arm, at in self.plan.others]

    @property
    def beside(self) -> list[Asked]:
        """The prompts that the recipe may take in the baseline's place, the cheaper first."""
        return [*self.cheaper, *self.pair]

    @property
    def whole(self) -> list[Asked]:
        """The prompts that the recipe may take, asked about all rows."""
        return [self.baseline, *self.pair, *self.cheaper]

    @property
    def prompts(self) -> list[Asked]:
        """All of them, in the order in which they are asked."""
        return [*self.whole, *self.others]

    def forecast(self) -> str:
        """Ask a few questions, and say how long all will take."""
        if self.parts.untested:
            return f"One prompt alone is asked about {len(self.parts.tested)} rows."
        seconds = foretold_seconds(self.prompts) + len(self.prompts) * FIT_SECONDS
        kept = "; answers that the journal keeps take none of it" if self.journal else ""
        return f"About {max(1, round(seconds / 60))} min, by the first questions{kept}."

    def run(self) -> dict[str, Any]:
        """Ask, test and choose; return the parts of the recipe that were learned.

        Raises:
            InputError: the pair's prompt without a grimoire does not fit the context.
        """
        if self.parts.untested:
            return self._untested()
        for asked in self.prompts:
            self._ask(asked)
        verdict = self.verdict()
        tried = self.also_tried()
        choice = self.choice(verdict, tried)
        return {
            "verdict": verdict, "also_tried": tried, "choice": choice, "tested": self.tested(),
            "warnings": self.notes, **self.taken(choice),
        }  # fmt: skip

    def _untested(self) -> dict[str, Any]:
        """Take the prompt that did best on other tasks, and ask that one alone."""
        verdict = Verdict(finding="no difference shown", why=self.parts.untested)
        found = self.beside
        while True:
            choice = choose(self.baseline.arm, [self._candidate(one) for one in found], verdict, self.mode)
            self._ask(self.chosen(choice))
            if self.chosen(choice).fits:
                break
            found.remove(self.chosen(choice))
        return {"verdict": verdict, "choice": self._measured(choice), "warnings": self.notes, **self.taken(choice)}

    def _asked(self, arm: Arm, grimoire: int = 0, rows: Sequence[Example] | None = None) -> Asked:
        shown, kept = tuple(self.parts.shown), self.parts.tested
        observer = Observer(
            self.weak, self.task, arm, self.grimoires[grimoire] if arm.form else None,
            shown if arm.examples == "few-shot" else (),
            # From rows that it is not asked about: their answers have no say in what is made of them.
            Neighbours([*shown, *kept[len(self.half.rows) :]], self.space) if arm.examples == "knn" else None,
            # A cue is chosen by texts without their answers; by those outside of the test where there are any.
            cue_texts=tuple(row.text for row in shown or kept), embeddings=self.space, journal=self.journal,
        )  # fmt: skip
        return Asked(observer, self.mode, kept if rows is None else rows, self._note)

    def _note(self, prompt: str) -> None:
        """Count a question, and tell of it."""
        self._done += 1
        if self.progress:
            n = len(self.parts.tested)
            planned = n if self.parts.untested else self.plan.questions(n)
            self.progress(prompt, self._done, max(self._done, planned))

    def _ask(self, asked: Asked) -> None:
        asked.ask()
        if not asked.fits and asked is self.baseline:
            raise InputError(
                f"learn: {asked.arm} does not fit the weak model's context; give a larger one (--option n_ctx=8192), "
                "or show no examples (--shots 0)"
            )
        if not asked.fits:
            self.notes.append(f"{asked.observer.name} was left out: {next(iter(asked.complaints.values()))}")
        elif asked.too_long:
            self.notes.append(f"{asked.observer.name}: {asked.too_long} rows do not fit and count as wrong")

    def _compared(self, asked: Asked) -> Compared:
        """Compare a prompt with the baseline on the rows that it was asked about."""
        crossfit = self.crossfit if len(asked.rows) == len(self.crossfit.rows) else self.half
        ours, theirs = asked.held_out(crossfit), self.baseline.held_out(crossfit)
        return Compared(ours, theirs, crossfit.rows, self.task.labels)

    def verdict(self) -> Verdict:
        """Return what the one test says."""
        if not self.pair:
            return Verdict(finding="no difference shown", why="no grimoire was given")
        (asked,), first = self.pair, self.grimoires[0]
        if not asked.fits:
            return Verdict(finding="no difference shown", why=f"{asked.arm} does not fit the weak model's context")
        found = verdict_on((asked.arm, self.baseline.arm), self._compared(asked))
        return found.model_copy(update={"grimoire": first.id, "rows_known": first.provenance.rows_known})

    def also_tried(self) -> list[AlsoTried]:
        """Return how the other prompts did."""
        tried = [one for one in [*self.cheaper, *self.others] if one.fits]
        return also_tried([(one.arm, one.grimoire, self._compared(one)) for one in tried], len(self.crossfit.rows))

    def choice(self, verdict: Verdict, tried: Sequence[AlsoTried]) -> Choice:
        """Return which of the pair and its cheaper neighbours the recipe takes."""
        found = [one for one in self.beside if one.fits]
        p = {(one.arm, one.grimoire): one.p for one in tried}
        candidates = [self._candidate(one, self._compared(one), p.get((one.arm, one.grimoire))) for one in found]
        return self._measured(choose(self.baseline.arm, candidates, verdict, self.mode))

    def _measured(self, choice: Choice) -> Choice:
        """Add how good the chosen prompt is on rows that its reader was not fitted on, the probe beside it."""
        right = rights(self.chosen(choice).held_out(self.crossfit), self.crossfit.rows, self.task.labels)
        return choice.model_copy(update={"accuracy": float(right.mean()), "probe": self._probe(), "n": len(right)})

    def _candidate(self, asked: Asked, compared: Compared | None = None, p: float | None = None) -> Candidate:
        known = known_gain(self.weak, self.mode, asked.arm, self.baseline.arm, self.task.name, self.home)
        gains, scored = (compared.gains.tolist(), compared.scored) if compared else ([], [])
        return Candidate(asked.arm, bool(asked.grimoire), gains, known, p, scored)

    def chosen(self, choice: Choice) -> Asked:
        """Return the prompt of a choice."""
        return next(one for one in self.whole if one.arm == choice.arm)

    def _probe(self) -> float | None:
        """Return how often a linear model on embeddings is right on the same rows, fitted on the same others."""
        if not self.task.labels:
            return None
        from sleicl_chains.models.embedders import embed

        rows = self.crossfit.rows
        seen = [Observation(vector=vector) for vector in embed(self.space, [row.text for row in rows]).tolist()]
        return float(rights(self.crossfit.held_out(seen, [("vector",)]), rows, self.task.labels).mean())

    def tested(self) -> list[TestedRow]:
        """Return what the prompts that were asked about all rows made of each."""
        found = {one.arm: one.held_out(self.crossfit) for one in self.whole if one.fits}
        return [
            TestedRow(
                row=row.id,
                gold=row.answer,
                said={arm: (held[at].label, held[at].chance) for arm, held in found.items()},
            )
            for at, row in enumerate(self.crossfit.rows)
        ]

    def taken(self, choice: Choice) -> dict[str, Any]:
        """Return what the recipe keeps of the prompt that it takes, the reader fitted on all rows of the test."""
        asked = self.chosen(choice)
        observer, held = asked.observer, asked.held_out(self.crossfit)
        form, shown = observer.arm.form, observer.grimoire
        found: dict[str, Any] = {
            "arm": asked.arm, "mode": self.mode, "prior": self.prior,
            "grimoire": Shown.of(getattr(shown, form), id=shown.id) if shown and form else None,
            "examples": [Shown.of(row.text, row.answer, row.id) for row in observer.examples],
        }  # fmt: skip
        if self.mode == "generate":
            return found
        seen = [(asked.seen[row.id], row) for row in asked.rows if row.id in asked.seen]
        reader, _ = self.crossfit.fit(seen, asked.groups)
        answered = [
            (one.share, one.label == row.answer) for one, row in zip(held, asked.rows, strict=True) if one.label
        ]
        calibration = fit_calibration([share for share, _ in answered], [right for _, right in answered])
        return found | {
            "cue": observer.cue.text, "lists_labels": observer.cue.lists_labels, "reader": reader.to_dict(),
            "calibration": (calibration.slope, calibration.offset),
        }  # fmt: skip
