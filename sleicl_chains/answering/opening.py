"""From names and files to what they stand for: tasks, grimoires, models, recipes and solvers.

Whatever talks to a user opens things here. Nothing is printed: what a user should know is warned of.
"""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleicl_chains.errors import InputError, OptionError
from sleicl_chains.files import Home

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.language_models import BaseChatModel
    from langchain_core.runnables import Runnable

    from sleicl_chains.answering.arms import Arm
    from sleicl_chains.answering.readings import Mode, Prior
    from sleicl_chains.answering.recipes import Recipe
    from sleicl_chains.answers import Answer
    from sleicl_chains.grimoires.grimoire import Grimoire
    from sleicl_chains.grimoires.store import GrimoireStore
    from sleicl_chains.models.journal import Journal
    from sleicl_chains.tasks.cards import Task

Options = Mapping[str, Any]
"""A model's options as the user gave them, `base_url` among them."""
FEW_TEXTS = 12
"""Fewer texts for a prior than this are said to be few."""


def open_task(card: Path) -> "Task":
    """Return a card's task; warn while its description is still the one that `init` wrote."""
    from sleicl_chains.tasks.cards import load_task
    from sleicl_chains.tasks.infer import PLACEHOLDER

    task = load_task(card)
    if task.description == PLACEHOLDER:
        warnings.warn(
            f"{card} still has the description that `sleicl init` wrote; models are shown it as it stands", stacklevel=2
        )
    return task


def open_store(home: Home, embeddings: str | None = None, chroma_url: str | None = None) -> "GrimoireStore":
    """Return the home's store under the embeddings its index was last built with, or under new ones.

    The index lies in the home, or on the Chroma server at `chroma_url` or else `$SLEICL_CHROMA_URL`, which is asked no
    sooner than the index is needed.
    """
    from sleicl_chains.grimoires.store import GrimoireStore
    from sleicl_chains.models.embedders import embedder

    server = chroma_url or os.environ.get("SLEICL_CHROMA_URL") or None
    return GrimoireStore(home, embedder(embeddings or home.index_embeddings, home=home), client=server)


def open_space(name: str, home: Home, journal: "Journal | None") -> "Embeddings":
    """Return embeddings that are asked once a text: by the journal, or without one as long as they are held."""
    from sleicl_chains.models.embedders import embedder, remembered

    return remembered(embedder(name, home=home, journal=journal))


def open_texts(file: Path, task: "Task", evaluated: Iterable[str] = ()) -> list[str]:
    """Return the texts of a file for a prior; an `InputNote` says so where they are few.

    Args:
        file: rows without answers, or lines.
        task: names the column.
        evaluated: texts to leave out, with a warning: a prior of those would know the questions beforehand.

    Raises:
        InputError: the file cannot be read, or all of its texts are evaluated.
    """
    from sleicl_chains.errors import note
    from sleicl_chains.tasks.labels import fold
    from sleicl_chains.tasks.rows import load_texts

    taken, texts = set(map(fold, evaluated)), load_texts(file, task)
    kept = [text for text in texts if fold(text) not in taken]
    if not kept:
        raise InputError(f"All texts of {file} are among the evaluated ones; give others")
    if len(kept) < len(texts):
        warnings.warn(f"{len(texts) - len(kept)} texts of {file} are evaluated rows and were left out", stacklevel=3)
    if (different := len(set(map(fold, kept)))) < FEW_TEXTS:
        note(f"{file}: found {different} for the prior; a few dozen texts make it steadier")
    return kept


def open_grimoire(name: str, task: "Task | None", home: Home) -> "Grimoire":
    """Return the grimoire of a file or an id; warn where it is for labels that the task does not have."""
    from sleicl_chains.grimoires.grimoire import load_grimoire
    from sleicl_chains.models.template_tokens import TOKENS_REMOVED

    is_file = os.path.isfile(name)  # not of pathlib: it raises where the name is too long for the system
    found = load_grimoire(Path(name), task) if is_file else open_store(home).get(name)
    for warning in found.provenance.warnings if is_file else ():
        if TOKENS_REMOVED in warning:
            warnings.warn(f"{name}: {warning}", stacklevel=2)
    if task is None or not found.labels:
        return found
    labels = ", ".join(found.labels)
    if not task.labels:
        said = f"the grimoire {found.id} is for the labels {labels}; the task has none: answers will be free text"
        warnings.warn(said, stacklevel=2)
    elif set(found.labels) != set(task.labels):
        warnings.warn(f"the grimoire {found.id} is for other labels: {labels}", stacklevel=2)
    return found


def weak_options(task: "Task", given: Options) -> dict[str, Any]:
    """Return the options of the weak model; open-ended answers may be longer than a label."""
    return ({} if task.labels else {"max_tokens": 512}) | dict(given)


def open_weak(name: str | None, task: "Task", home: Home, options: Options | None = None) -> "BaseChatModel":
    """Return the weak model of a name, for a task.

    Raises:
        OptionError: there is no name.
        ModelNotFound: no model of that name can be had.
    """
    from sleicl_chains.models.names import weak_model
    from sleicl_chains.models.weights import READER

    if name is None:
        raise OptionError(
            f"--weak is missing: name a model, say embedded:{READER}, or give a --recipe, which names its own"
        )
    return weak_model(name, home=home, **weak_options(task, options or {}))


def open_recipe(path: Path, task: "Task | None" = None) -> "Recipe":
    """Return a recipe.

    Raises:
        InputError: it is none, or was learned for other labels than the task's.
        RecipeMismatch: a text in it was changed.
    """
    from sleicl_chains.answering.recipes import Recipe

    recipe = Recipe.load(path)
    if task and set(task.labels) != set(recipe.task.labels):
        found = ", ".join(task.labels) or "none"
        raise InputError(f"{path} was learned for the labels {', '.join(recipe.task.labels)}; the card has {found}")
    return recipe


def open_recipe_model(
    recipe: "Recipe", home: Home, *, weak: str | None = None, options: Options | None = None,
    embeddings: str | None = None,
) -> "BaseChatModel":  # fmt: skip
    """Return the weak model that a recipe is to be used with; nothing is sent before the user has named where to.

    Args:
        recipe: names a model, which is opened if it runs on this machine.
        home: where fetched weights lie.
        weak: the model's name as the user gave it.
        options: as the user gave them; they go before the recipe's own.
        embeddings: their name as the user gave it.

    Raises:
        RecipeRefused: something that is not on this machine was named by the recipe alone.
        RecipeMismatch: the user named a model of another kind.
    """
    given = options or {}
    recipe.check_consent(weak, base_url=given.get("base_url"), embeddings=embeddings)
    return open_weak(weak or recipe.weak, recipe.task, home, {**recipe.options, **given})


@dataclass(frozen=True)
class Shown:
    """What stands before the question and how answers are read, where no recipe says so; None for the default."""

    grimoire: str | None = None
    """An id or a file."""
    arm: "Arm | None" = None
    train: Path | None = None
    """Labelled rows, for priors, readers and the arm `knn`."""
    mode: "Mode | None" = None
    prior: "Prior | None" = None
    texts: Path | None = None
    """Texts without answers, for the prior."""

    @property
    def given(self) -> list[str]:
        """The names of those that are given."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


@dataclass(frozen=True)
class Opened:
    """A solver and the task that it solves."""

    chain: "Runnable[str, Answer]"
    task: "Task"


def open_solver(
    task: "Task | None", recipe: "Recipe | None", home: Home, *, weak: str | None = None,
    options: Options | None = None, embeddings: str | None = None, shown: Shown | None = None, seed: int = 0,
    defer_below: float | None = None, to: str | None = None, journal: "Journal | None" = None,
) -> Opened:  # fmt: skip
    """Return the solver that a recipe describes, or else a card, a model and what is shown.

    Without a card the task is the one that the grimoire is for. No question is asked; a server may be asked what its
    model is.

    Raises:
        OptionError: the task or the model is missing, or something is given that the recipe decides.
        RecipeRefused: something that is not on this machine was named by the recipe alone.
    """
    from sleicl_chains.models.names import strong_model

    shown = shown or Shown()
    second = strong_model(to, home=home) if to else None
    later: dict[str, Any] = {"journal": journal, "defer_below": defer_below, "to": second}
    if recipe:
        return Opened(_by_recipe(recipe, home, weak, options, embeddings, shown, later), recipe.task)
    grimoire = open_grimoire(shown.grimoire, task, home) if shown.grimoire is not None else None
    if task is None and grimoire:
        task = grimoire.to_task()
    if task is None:
        raise OptionError("--task is missing: give a card, or a --grimoire or --recipe, which have their own")
    return Opened(_by_card(task, grimoire, home, weak, options, embeddings, shown, seed, later), task)


def _by_recipe(
    recipe: "Recipe", home: Home, weak: str | None, options: Options | None, embeddings: str | None, shown: Shown,
    later: Mapping[str, Any],
) -> "Runnable[str, Answer]":  # fmt: skip
    from sleicl_chains.answering.solver import solver

    if shown.given:
        raise OptionError(
            f"--{shown.given[0]} does not go with --recipe, which says what is shown and how answers are read"
        )
    if embeddings and embeddings != recipe.embeddings:
        raise OptionError(
            f"--embeddings: found {embeddings}; the recipe was learned with {recipe.embeddings or 'none'}"
        )
    model = open_recipe_model(recipe, home, weak=weak, options=options, embeddings=embeddings)
    space = open_space(embeddings, home, later["journal"]) if embeddings else None
    return solver(recipe, model=model, embeddings=space, home=home, **later)


def _by_card(
    task: "Task", grimoire: "Grimoire | None", home: Home, weak: str | None, options: Options | None,
    embeddings: str | None, shown: Shown, seed: int, later: Mapping[str, Any],
) -> "Runnable[str, Answer]":  # fmt: skip
    from sleicl_chains.answering.arms import Arm
    from sleicl_chains.answering.priors import chosen_texts
    from sleicl_chains.answering.solver import solver
    from sleicl_chains.errors import note
    from sleicl_chains.grimoires.samplers import few_shot_examples
    from sleicl_chains.tasks.rows import load_examples

    arm = shown.arm or Arm(("profound" if grimoire.profound else "simple") if grimoire else "")
    model = open_weak(weak, task, home, options)
    rows: Sequence[Any] = load_examples(shown.train, task) if shown.train else []
    examples: Sequence[Any] = ()
    if rows and arm.examples == "few-shot":
        examples, what = few_shot_examples(task, rows, grimoire, seed=seed)
        note(f"few-shot shows {what}")
    unlabelled = open_texts(shown.texts, task) if shown.texts else []
    texts = chosen_texts(task, rows, unlabelled, seed=seed, shown=examples)
    space = open_space(embeddings, home, later["journal"]) if embeddings else None
    return solver(
        model, task, arm=arm, grimoire=grimoire, examples=examples, prior_texts=texts, train=rows, embeddings=space,
        mode=shown.mode, prior=shown.prior, **later,
    )  # fmt: skip
