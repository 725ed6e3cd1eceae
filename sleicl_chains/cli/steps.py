"""The steps that several commands take."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleicl_chains._folders import Home
from sleicl_chains.errors import OptionError

if TYPE_CHECKING:
    from sleicl_chains.journal import Journal
    from sleicl_chains.tasks import Example, Task


def journal_of(home: Home, off: bool) -> "Journal | None":
    """Return the home's journal, unless it is turned off."""
    from sleicl_chains.journal import Journal

    return None if off else Journal(home.journal)


def read(card: Path, rows: Path) -> tuple["Task", list["Example"]]:
    """Return a card's task and its rows."""
    from sleicl_chains.opening import open_task
    from sleicl_chains.tasks import load_examples

    task = open_task(card)
    return task, load_examples(rows, task)


def model_options(given: list[str] | None, base_url: str | None = None) -> dict[str, Any]:
    """Return NAME=VALUE pairs as keywords: numbers, true and false as such, anything else as text."""
    options: dict[str, Any] = {"base_url": base_url} if base_url else {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise OptionError(f"--option: found {pair!r}; expected NAME=VALUE, such as n_ctx=8192")
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
