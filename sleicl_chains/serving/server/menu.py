"""What a server answers with: recipes by their tasks' names, and chat, with the grimoire that fits or a fixed one."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from sleicl_chains.answers import Answer
from sleicl_chains.errors import GrimoireNotFound, OptionError
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.models.reading import reading_problem
from sleicl_chains.tasks.cards import Task

if TYPE_CHECKING:
    from sleicl_chains.answering.recipes import Recipe

CHAT = "chat"
_BELIEVED_S = 60.0


@dataclass(frozen=True)
class Learned:
    """A recipe at work: the last message is a question, and its answer one of the task's."""

    id: str
    task: Task
    chain: Runnable[str, Answer]
    grimoire: str | None = None
    """Id of the grimoire that it shows."""
    scored: bool = False
    """Whether its answers come with probabilities."""


@dataclass(frozen=True)
class Chat:
    """The chat model behind the grimoire that fits each message, or behind one and the same."""

    id: str
    weak: BaseChatModel
    store: GrimoireStore
    grimoire: Grimoire | Literal["auto"] = "auto"
    unreadable: Callable[[], str] = lambda: ""
    """Tells why the model is shown no grimoire that was not chosen; see `Conversation`."""


class Readable:
    """Whether the chat's model can follow a guide: looked up once in a while, since its server is asked for it."""

    def __init__(self, weak: BaseChatModel, home: Home) -> None:
        self._weak, self._home = weak, home
        self._known: tuple[float, str] | None = None

    def problem(self) -> str:
        """Return why it cannot; empty where it may."""
        now = time.monotonic()
        if self._known is None or now - self._known[0] > _BELIEVED_S:
            self._known = now, reading_problem(self._weak, self._home)
        return self._known[1]


@dataclass(frozen=True)
class Menu:
    """All that is served.

    Args:
        recipes: by their tasks' names.
        weak: the model that chats; without one there is no chat.
        store: the library of its grimoires.
    """

    recipes: Mapping[str, Learned] = field(default_factory=dict)
    weak: BaseChatModel | None = None
    store: GrimoireStore | None = None

    @cached_property
    def _readable(self) -> Readable:
        assert self.weak and self.store
        return Readable(self.weak, self.store.home)

    def names(self) -> list[str]:
        """Return the ids of all models; the library is looked through."""
        if self.weak is None or self.store is None:
            return [*self.recipes]
        return [*self.recipes, CHAT, *(f"{CHAT}:{one.id}" for one in self.store.list())]

    def find(self, name: str) -> Learned | Chat | None:
        """Return the model of an id; None where there is none."""
        if found := self.recipes.get(name):
            return found
        kind, _, grimoire = name.partition(":")
        if kind != CHAT or self.weak is None or self.store is None:
            return None
        if not grimoire:
            return None if name.endswith(":") else Chat(name, self.weak, self.store, unreadable=self._readable.problem)
        try:
            return Chat(name, self.weak, self.store, self.store.get(grimoire))
        except GrimoireNotFound:
            return None


def learned(recipes: Iterable["tuple[Path, Recipe]"], home: Home, *, weak: str | None = None,
            options: Mapping[str, Any] | None = None, timeout_s: float = 300.0) -> dict[str, Learned]:  # fmt: skip
    """Return recipes at work, by their tasks' names.

    Args:
        recipes: and where they lie.
        home: where fetched weights are.
        weak: the model that the user named; a recipe for it may ask it wherever it is.
        options: that the user gave for it.
        timeout_s: how long an Ollama server may be silent, in seconds.

    Raises:
        OptionError: two have the same name, or one has that of the chat.
        RecipeRefused: a recipe's model is not on this machine, and the user has not named it.
        RecipeMismatch: a model is not the one that the recipe was learned for.
    """
    found: dict[str, Learned] = {}
    for path, recipe in recipes:
        name = recipe.task.name
        if name in found or name.partition(":")[0] == CHAT:
            other = "another recipe" if name in found else "the chat"
            raise OptionError(f"{path}: its task {name!r} has the name of {other}; serve them apart")
        own = weak == recipe.weak
        given = patience(recipe.weak, timeout_s) | dict(options or {} if own else {})
        found[name] = _at_work(recipe, home, weak if own else None, given)
    return found


def patience(weak: str, timeout_s: float) -> dict[str, Any]:
    """Return the options by which a model's server is asked no longer than a request lasts, and no second time.

    Who sent the request is told to try again, and decides.
    """
    return {"timeout_s": timeout_s, "deadline_s": timeout_s, "attempts": 1} if weak.startswith("ollama:") else {}


def _at_work(recipe: "Recipe", home: Home, weak: str | None, options: Mapping[str, Any]) -> Learned:
    from sleicl_chains.answering.opening import open_recipe_model
    from sleicl_chains.answering.solver import solver

    model = open_recipe_model(recipe, home, weak=weak, options=options)
    shown = recipe.shown_grimoire()
    chain = solver(recipe, model=model, home=home)
    return Learned(recipe.task.name, recipe.task, chain, shown.id if shown else None, recipe.reader is not None)


def near(name: str, names: Sequence[str]) -> list[str]:
    """Return a few names like one that there is not."""
    import difflib

    return difflib.get_close_matches(name, names, n=3, cutoff=0.5)
