"""The arms of one table, built from names: baselines, and the weak model with what each arm shows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from sleicl_chains._folders import Home
from sleicl_chains.answers import Answer, Arm, Mode, Prior
from sleicl_chains.baselines import BASELINES, majority, probe
from sleicl_chains.errors import InputError, OptionError
from sleicl_chains.evaluation import Progress, Report, evaluate, run_name
from sleicl_chains.grimoires import Grimoire
from sleicl_chains.journal import Journal
from sleicl_chains.labels import prefixed
from sleicl_chains.observations import GROUPS
from sleicl_chains.observer import scoring_problem
from sleicl_chains.priors import MEAN_ROWS, prior_texts
from sleicl_chains.solvers import solver
from sleicl_chains.tasks import Example, Task, fold

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from sleicl_chains.recipes import Recipe

RECIPE = "recipe"
"""The arm that does as a recipe says."""

READINGS: tuple[Mode, ...] = tuple(mode for mode in GROUPS if mode != "score")
"""Modes that an arm's name may end in, such as `simple+hidden`."""


def parts_of(name: str) -> tuple[Arm, Mode | None]:
    """Return what an arm of a table shows and, where its name says so, how it is read.

    Raises:
        OptionError: there is no such arm.
    """
    shown, plus, last = name.rpartition("+")
    reading = next((mode for mode in READINGS if plus and mode == last), None)
    arm = next((arm for arm in get_args(Arm) if arm == (shown if reading else name)), None)
    if arm is None:
        endings = " or ".join(f"+{mode}" for mode in READINGS)
        raise OptionError(
            f"There is no arm {name!r}; expected {', '.join(BASELINES)}, {RECIPE}, or a prompt "
            f"({', '.join(get_args(Arm))}), which may end in {endings}"
        )
    return arm, reading


FEW_SHOT_PER_LABEL = 4
"""Examples a label in the arm `few-shot` where the grimoire has none of its own (the paper's k)."""


def own_examples(grimoires: Sequence[Grimoire], rows: Sequence[Example]) -> list[Example]:
    """Return the rows that a grimoire was written from, the first whose rows are all there; else none."""
    by_id = {row.id: row for row in rows}
    for grimoire in grimoires:
        own = grimoire.provenance.examples
        if own and all(id in by_id for id in own):
            return [by_id[id] for id in own]
    return []


def typical_examples(
    task: Task, rows: Sequence[Example], *, seed: int, embeddings: "Embeddings | None" = None
) -> list[Example]:  # fmt: skip
    """Return a few rows of each label, drawn by k-means. Random by `seed` alone.

    Args:
        task: has the labels.
        rows: labelled ones.
        seed: of the k-means.
        embeddings: `wordllama` by default, whatever the answers are read with: with other embeddings no prompt has to
            be asked anew.
    """
    from sleicl_chains.samplers import sampler

    draw = sampler("kmeans", per_label=FEW_SHOT_PER_LABEL, seed=seed, embeddings=embeddings)
    return draw.invoke({"task": task, "examples": list(rows)})


@dataclass
class ArmBuilder:
    """What the arms of one table have in common; `notes` gathers what a reader of the table should know."""

    task: Task
    weak: BaseChatModel
    embeddings: "Embeddings"
    train: Sequence[Example] = ()
    grimoire: Grimoire | None = None
    mode: Mode | None = None
    prior: Prior | None = None
    seed: int = 0
    journal: Journal | None = None
    recipe: "Recipe | None" = None
    home: Home | None = None
    """Where fetched weights lie."""
    notes: list[str] = field(default_factory=list)

    def default_names(self) -> list[str]:
        """Return the arms that this task, these rows and this grimoire allow."""
        names = ["zero-shot"]
        if self.train:
            names = ["majority", *(["probe"] if self.task.labels else []), "zero-shot", "few-shot"]
        else:
            self.notes.append("without --train there are no arms majority, probe and few-shot")
        learned = ["recipe"] if self.recipe else []
        return [
            *names,
            *(form for form in ("simple", "profound") if self.grimoire and getattr(self.grimoire, form)),
            *learned,
        ]

    def leaked(self, evaluated: Sequence[Example]) -> int:
        """Return how many evaluated rows the grimoire or the recipe has seen, and note it under the table."""
        ids = {example.id for example in evaluated}
        written = ids & set(self.grimoire.provenance.examples if self.grimoire else ())
        learned = ids & set(self.recipe.learned_from if self.recipe else ())
        if written:
            self._note(f"the grimoire was written from {len(written)} of the evaluated rows: its figures flatter it")
        if learned:
            self._note(f"the recipe was learned from {len(learned)} of the evaluated rows: its figures flatter it")
        return len(written | learned)

    def build(self, names: Sequence[str] | None = None) -> dict[str, Runnable[str, Answer]]:
        """Return a solver for each name, the default ones without names.

        Raises:
            InputError: a name is unknown or stands twice, or an arm lacks its rows or grimoire.
        """
        chosen = list(names or self.default_names())
        for name in chosen:
            if name not in (*BASELINES, RECIPE):
                parts_of(name)
        if len(set(chosen)) < len(chosen):
            raise OptionError(f"An arm stands twice in {','.join(chosen)}; give each once")
        if self._unscored:
            self._note(f"answers are generated and parsed: {self._unscored}")
        for shorter, longer in prefixed(self.task.labels)[:1]:
            self._note(
                f"the label {shorter!r} begins {longer!r}: where labels are scored, it has what the longer leaves; "
                "names that begin otherwise are told apart better"
            )
        if not self.task.labels:
            self._note("open-ended: right is what equals the gold text but for case, white space and a final full stop")
        return {name: self._arm(name) for name in chosen}

    def evaluate(
        self, solvers: Mapping[str, Runnable[str, Answer]], examples: Sequence[Example], weak_name: str, *,
        run: Path | None = None, runs: Path | None = None, max_concurrency: int = 1, progress: Progress | None = None,
    ) -> Report:  # fmt: skip
        """Evaluate the arms, in `run` or else in a folder of `runs` that the same evaluation finds again.

        The report's majority is filled in even where the table has no such arm.
        """
        folder = run or (runs / run_name(self.task, solvers, examples) if runs else None)
        report = evaluate(
            solvers, examples, run=folder, task=self.task, weak=weak_name, train_rows=len(self.train),
            max_concurrency=max_concurrency, progress=progress,
        )  # fmt: skip
        if report.majority is None and self.train:
            floor = evaluate({"majority": majority(self.task, self.train)}, examples, task=self.task)
            report = replace(report, majority=floor.majority)
        return report

    @cached_property
    def _unscored(self) -> str:
        """Why answers are generated although the task has labels; empty where they are not."""
        return scoring_problem(self.weak) if self.mode is None and self.task.labels else ""

    def _arm(self, name: str) -> Runnable[str, Answer]:
        if name == "majority":
            return majority(self.task, self.train)
        if name == "probe":
            return probe(self.task, self.train, self.embeddings)
        if name == RECIPE:
            return self._recipe()
        shown, reading = parts_of(name)
        mode: Mode | None = reading or self.mode
        examples = self.examples if "few-shot" in shown else []
        texts = prior_texts(self.train, self.task, seed=self.seed, shown=examples) if self.train else []
        prior = self.prior or ("mean" if texts else "content-free")
        if prior == "mean" and mode in (None, "score") and self.task.labels and not self._unscored:
            self._note(
                f"prior mean: over at most {MEAN_ROWS} training texts, of each label as many as there are rows; "
                "one call each, once an arm, not counted in the table"
            )
        if mode in READINGS:
            self._note(
                f"{mode}: read by a linear model of what it looks at, fitted on the {len(self.train)} training rows"
            )
        return solver(
            self.weak, self.task, arm=shown, grimoire=self.grimoire, examples=examples, mode=mode, prior=prior,
            prior_texts=texts, train=self.train, embeddings=self.embeddings, journal=self.journal, name=name,
        )  # fmt: skip

    def _recipe(self) -> Runnable[str, Answer]:
        if self.recipe is None:
            raise InputError("The arm 'recipe' needs a recipe; give one with --recipe")
        self._note(f"recipe: {self.recipe.name}, learned from {self.recipe.rows} labelled rows")
        return solver(self.recipe, model=self.weak, journal=self.journal, home=self.home)

    @cached_property
    def examples(self) -> list[Example]:
        """The examples of the few-shot arms: the grimoire's own where train has them, else k-means ones."""
        if not self.train:
            raise InputError("The few-shot arms take their examples from training rows; give some with --train")
        if own := own_examples([self.grimoire] if self.grimoire else [], self.train):
            self._note("few-shot shows the grimoire's own examples")
            return own
        self._note(f"few-shot shows {FEW_SHOT_PER_LABEL} k-means examples a label from --train")
        return typical_examples(self.task, self.train, seed=self.seed)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def without_overlap(train: Sequence[Example], evaluated: Sequence[Example]) -> tuple[list[Example], int]:
    """Return the training rows whose folded text is not evaluated, and how many were dropped."""
    taken = {fold(example.text) for example in evaluated}
    kept = [example for example in train if fold(example.text) not in taken]
    return kept, len(train) - len(kept)


def limited(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """Return the `limit` rows with the smallest content hash, the same ones for every arm, model and seed."""
    return list(examples) if limit is None else sorted(examples, key=lambda example: example.id)[:limit]
