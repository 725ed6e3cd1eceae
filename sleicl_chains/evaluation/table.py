"""The arms of one table, built from names: baselines, and the weak model with what each arm shows it."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from sleicl_chains.answering.arms import BASELINES, READINGS, RECIPE, Arm, names_grimoire
from sleicl_chains.answering.consent import stays_here
from sleicl_chains.answering.opening import (
    Options,
    Shown,
    open_grimoire,
    open_recipe,
    open_recipe_model,
    open_space,
    open_texts,
    open_weak,
)
from sleicl_chains.answering.priors import MEAN_ROWS, chosen_texts
from sleicl_chains.answering.readings import Mode, Prior
from sleicl_chains.answering.solver import solver
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, OptionError
from sleicl_chains.evaluation.baselines import majority, probe
from sleicl_chains.evaluation.evaluate import evaluate, run_name
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.evaluation.summary import Report
from sleicl_chains.evaluation.words import situation
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.grimoires.samplers import few_shot_examples
from sleicl_chains.models.abilities import scoring_problem, state_size
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.reading import reading_problem
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold, prefixed
from sleicl_chains.tasks.rows import Example, among, load_examples, text_id

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from sleicl_chains.answering.recipes import Recipe


@dataclass
class ArmBuilder:
    """Builds the arms of one table; `notes` gathers what a reader of the table should know."""

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
    texts: Sequence[str] = ()
    """Texts without answers; given, the priors `mean` and `domain` are of them and not of `train`."""
    notes: list[str] = field(default_factory=list)

    def default_names(self) -> list[str]:
        """Return the arms that this task, these rows and this grimoire allow."""
        names = ["zero-shot"]
        if self.train:
            names = ["majority", *(["probe"] if self.task.labels else []), "zero-shot", "few-shot"]
        else:
            self.notes.append("without --train there are no arms majority, probe and few-shot")
        forms = [form for form in ("simple", "profound") if self.grimoire and getattr(self.grimoire, form)]
        beside = [f"{form}+few-shot" for form in forms if self.train]
        return [*names, *forms, *beside, *(["recipe"] if self.recipe else [])]

    def leaked(self, evaluated: Sequence[Example]) -> int:
        """Return how many evaluated rows the grimoire or the recipe was made from, near-copies too, and note it."""
        written = self.grimoire.provenance.among(evaluated) if self.grimoire else []
        learned = self.recipe.among(evaluated) if self.recipe else []
        if written:
            self._note(f"the grimoire was written from {len(written)} of the evaluated rows: its figures flatter it")
        if self.grimoire and not self.grimoire.provenance.rows_known:
            told = " one by one, only in words" if self.grimoire.provenance.rows else ""
            self._note(f"which rows the grimoire was written from is not known{told}: evaluated ones may be among them")
        if learned:
            self._note(f"the recipe was learned from {len(learned)} of the evaluated rows: its figures flatter it")
        if trained := _overlap(self.train, evaluated):
            self._note(f"{trained} of the evaluated rows are training rows too: what learns from those is flattered")
        return len({id(row) for row in [*written, *learned]})

    def seen(self, name: str, evaluated: Sequence[Example]) -> int:
        """Return how many evaluated rows an arm was written from, fitted on, or shows; 0 for one of no known name."""
        if name in BASELINES:
            return _overlap(self.train, evaluated)
        if name == RECIPE:
            return len(self.recipe.among(evaluated)) if self.recipe else 0
        try:
            shown = Arm.of(name)
        except OptionError:
            return 0
        taught = [text_id(row.text) for row in self._rows_of(shown)]
        written = self.grimoire.provenance if self.grimoire and shown.form else Provenance()
        return len(among(evaluated, written.examples, [*written.text_ids, *taught]))

    def _rows_of(self, arm: Arm) -> Sequence[Example]:
        """Return the training rows that an arm shows or is fitted on."""
        mode = arm.reading or self.mode
        scored = mode in (None, "score") and self.task.labels and not self._unscored
        # The prior `affine` is fitted on rows whatever texts there are.
        prior_of_rows = self.prior == "affine" or not self.texts and self.prior not in ("none", "content-free")
        if arm.examples == "knn" or mode in READINGS or (scored and prior_of_rows):
            return self.train
        return self.examples if arm.examples == "few-shot" else ()

    def build(self, names: Sequence[str] | None = None) -> dict[str, Runnable[str, Answer]]:
        """Return a solver for each name, the default ones without names.

        Raises:
            InputError: a name is unknown or stands twice, or an arm lacks its rows or grimoire.
        """
        chosen = list(names or self.default_names())
        for name in chosen:
            if name not in (*BASELINES, RECIPE):
                Arm.of(name)
        if len(set(chosen)) < len(chosen):
            raise OptionError(f"An arm stands twice in {','.join(chosen)}; give each once")
        if self._unscored:
            self._note(f"answers are generated and parsed: {self._unscored}")
        for shorter, longer in prefixed(self.task.labels)[:1]:
            self._note(
                f"the label {shorter!r} begins {longer!r}: where labels are scored, it has what the longer leaves; "
                "names that begin otherwise are told apart better"
            )
        self._note_reading(chosen)
        if not self.task.labels:
            self._note("open-ended: right is what equals the gold text but for case, white space and a final full stop")
        return {name: self._arm(name) for name in chosen}

    def _note_reading(self, names: Sequence[str]) -> None:
        """Say whether the model is known not to read what some arm shows it, or else what suits so many rows."""
        if not any(map(names_grimoire, names)):
            return
        if problem := reading_problem(self.weak, self.home):
            self._note(problem)
        elif self.task.labels and not self._unscored:
            self._note(situation(len(self.train), gives_state=state_size(self.weak) is not None))

    def evaluate(
        self,
        solvers: Mapping[str, Runnable[str, Answer]],
        examples: Sequence[Example],
        weak_name: str,
        *,
        run: Path | None = None,
        runs: Path | None = None,
        max_concurrency: int = 1,
        progress: Progress | None = None,
    ) -> Report:
        """Evaluate the arms, in `run` or else in a folder of `runs` that the same evaluation finds again.

        The report's majority is filled in even where the table has no such arm.
        """
        folder = run or (runs / run_name(self.task, solvers, examples) if runs else None)
        self.leaked(examples)
        floor = None
        if self.train and "majority" not in solvers:
            floor = evaluate({"majority": majority(self.task, self.train)}, examples, task=self.task).majority
        return evaluate(
            solvers,
            examples,
            run=folder,
            task=self.task,
            weak=weak_name,
            train_rows=len(self.train),
            max_concurrency=max_concurrency,
            progress=progress,
            notes=self.notes,
            seen={name: self.seen(name, examples) for name in solvers},
            majority=floor,
        )

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
        shown = Arm.of(name)
        mode: Mode | None = shown.reading or self.mode
        examples = self.examples if shown.examples == "few-shot" else []
        texts = chosen_texts(self.task, self.train, self.texts, seed=self.seed, shown=examples)
        prior = self.prior or ("mean" if texts else "content-free")
        if prior == "mean" and mode in (None, "score") and self.task.labels and not self._unscored:
            labelled = "training texts, of each label as many as there are rows"
            over = "texts without answers" if self.texts else labelled
            self._note(
                f"prior mean: over at most {MEAN_ROWS} {over}; one call each, once an arm, not counted in the table"
            )
        if mode in READINGS:
            self._note(
                f"{mode}: read by a linear model of what it looks at, fitted on the {len(self.train)} training rows"
            )
        return solver(
            self.weak,
            self.task,
            arm=shown,
            grimoire=self.grimoire,
            examples=examples,
            mode=mode,
            prior=prior,
            prior_texts=texts,
            train=self.train,
            embeddings=self.embeddings,
            journal=self.journal,
            name=name,
        )

    def _recipe(self) -> Runnable[str, Answer]:
        if self.recipe is None:
            raise InputError("The arm 'recipe' needs a recipe; give one with --recipe")
        self._note(f"recipe: {self.recipe.name}, learned from {self.recipe.rows} labelled rows")
        # Embeddings of a provider are the caller's, which the probe reads too; others the recipe opens itself.
        space = None if stays_here(self.recipe.embeddings) else self.embeddings
        return solver(self.recipe, model=self.weak, embeddings=space, journal=self.journal, home=self.home)

    @cached_property
    def examples(self) -> list[Example]:
        """The examples of the few-shot arms: the grimoire's own where train has them, else k-means ones."""
        if not self.train:
            raise InputError("The few-shot arms take their examples from training rows; give some with --train")
        found, what = few_shot_examples(self.task, self.train, self.grimoire, seed=self.seed)
        self._note(f"few-shot shows {what}")
        return found

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _overlap(train: Sequence[Example], evaluated: Sequence[Example]) -> int:
    """Return how many evaluated rows have a training row's folded text."""
    known = {fold(row.text) for row in train}
    return sum(fold(row.text) in known for row in evaluated)


def without_overlap(train: Sequence[Example], evaluated: Sequence[Example]) -> tuple[list[Example], int]:
    """Return the training rows whose folded text is not evaluated, and how many were dropped."""
    taken = {fold(example.text) for example in evaluated}
    kept = [example for example in train if fold(example.text) not in taken]
    return kept, len(train) - len(kept)


def limited(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """Return the `limit` rows with the smallest content hash, the same ones for every arm, model and seed."""
    return list(examples) if limit is None else sorted(examples, key=lambda example: example.id)[:limit]


def open_table(
    task: Task, evaluated: Sequence[Example], home: Home, *, weak: str | None = None, options: Options | None = None,
    recipe: Path | None = None, embeddings: str = "wordllama", shown: Shown | None = None, seed: int = 0,
    journal: Journal | None = None,
) -> ArmBuilder:  # fmt: skip
    """Return the builder of a table's arms from names and files; warn of training rows that are evaluated.

    Raises:
        OptionError: neither a model nor a recipe is named.
        InputError: all training rows are evaluated.
        RecipeRefused: something that is not on this machine was named by the recipe alone.
    """
    shown = shown or Shown()
    learned = open_recipe(recipe, task) if recipe else None
    model = (
        open_recipe_model(learned, home, weak=weak, options=options, embeddings=embeddings)
        if learned
        else open_weak(weak, task, home, options)
    )
    return ArmBuilder(
        task, model, open_space(embeddings, home, journal), recipe=learned, home=home,
        train=_kept_rows(shown.train, task, evaluated) if shown.train else (),
        grimoire=open_grimoire(shown.grimoire, task, home) if shown.grimoire else None,
        mode=shown.mode, prior=shown.prior, seed=seed, journal=journal,
        texts=open_texts(shown.texts, task, [row.text for row in evaluated]) if shown.texts else (),
    )  # fmt: skip


def _kept_rows(file: Path, task: Task, evaluated: Sequence[Example]) -> list[Example]:
    """Return the training rows of a file that are not evaluated."""
    kept, dropped = without_overlap(load_examples(file, task), evaluated)
    if dropped and not kept:
        raise InputError(f"All rows of {file} are among the evaluated ones; put some of them in a file of their own")
    if dropped:
        warnings.warn(f"{dropped} rows of {file} are among the evaluated ones and were left out of it", stacklevel=3)
    return kept
