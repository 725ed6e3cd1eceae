"""The steps that several commands take."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleicl_chains._folders import Home
from sleicl_chains.errors import OptionError

if TYPE_CHECKING:
    from sleicl_chains.grimoires import Grimoire
    from sleicl_chains.journal import Journal
    from sleicl_chains.store import GrimoireStore
    from sleicl_chains.tasks import Example, Task


def journal_of(home: Home, off: bool) -> "Journal | None":
    """Return the home's journal, unless it is turned off."""
    from sleicl_chains.journal import Journal

    return None if off else Journal(home.journal)


def read(card: Path, rows: Path) -> tuple["Task", list["Example"]]:
    """Return a card's task and its rows."""
    from sleicl_chains.tasks import load_examples

    task = read_card(card)
    return task, load_examples(rows, task)


def read_card(card: Path) -> "Task":
    """Return a card's task, with a warning while its description is still the one that `init` wrote."""
    from sleicl_chains.tasks import PLACEHOLDER, load_task

    task = load_task(card)
    if task.description == PLACEHOLDER:
        say([f"Warning: {card} still has the description that `sleicl init` wrote; models are shown it as it stands."])
    return task


def store_of(home: Home, embeddings: str | None = None) -> "GrimoireStore":
    """Return the home's store under the embeddings its index was last built with, or under new ones."""
    from sleicl_chains.embedders import embedder
    from sleicl_chains.store import GrimoireStore

    return GrimoireStore(home, embedder(embeddings or home.index_embeddings, home=home))


def find_grimoire(name: str | None, task: "Task", home: Home) -> "Grimoire | None":
    """Return the grimoire of a file or an id."""
    from sleicl_chains.grimoires import load_grimoire

    if name is None:
        return None
    found = load_grimoire(Path(name), task) if Path(name).is_file() else store_of(home).get(name)
    if task.labels and found.labels and set(found.labels) != set(task.labels):
        say([f"Warning: the grimoire {found.id} is for other labels: {', '.join(found.labels)}."])
    return found


def weak_options(task: "Task", given: list[str] | None, base_url: str | None = None) -> dict[str, Any]:
    """Return the options of the weak model; open-ended answers may be longer than a label."""
    limit = {} if task.labels else {"max_tokens": 512}
    return limit | model_options(given, base_url)


def model_options(given: list[str] | None, base_url: str | None = None) -> dict[str, Any]:
    """Return NAME=VALUE pairs as keywords: numbers, true and false as such, anything else as text."""
    options: dict[str, Any] = {"base_url": base_url} if base_url else {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise OptionError(f"--option: found {pair!r}; expected NAME=VALUE, such as n_ctx=8192")
        if name in ("name", "home"):  # arguments of what opens a model, and no options of any
            raise OptionError(f"--option: a model has no option {name!r}; leave it out")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def print_json(value: Any) -> None:
    """Print an object on stdout."""
    print(json.dumps(value, ensure_ascii=False, indent=1))


def say(lines: Iterable[str]) -> None:
    """Print notes on stderr."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)
