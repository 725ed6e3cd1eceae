"""The steps that several commands take."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleicl_chains.cli.printing import say
from sleicl_chains.errors import InputError, OptionError, SleiclError, StoreError
from sleicl_chains.files import Home

if TYPE_CHECKING:
    from sleicl_chains.grimoires.grimoire import Grimoire
    from sleicl_chains.models.journal import Journal
    from sleicl_chains.tasks.cards import Task
    from sleicl_chains.tasks.rows import Example


def journal_of(home: Home, off: bool) -> "Journal | None":
    """Return the home's journal, unless it is turned off."""
    from sleicl_chains.models.journal import Journal

    try:
        return None if off else Journal(home.journal)
    except SleiclError as problem:
        raise type(problem)(
            f"{str(problem).rstrip('.')}; --no-journal keeps no record, --home names another folder"
        ) from problem


def journal_or_none(home: Home) -> "Journal | None":
    """Return the home's journal; none where the home cannot be written to, for work that is done without it."""
    try:
        return journal_of(home, off=False)
    except SleiclError:
        return None


def keep_written(grimoire: "Grimoire", home: Home) -> None:
    """Put what a strong model wrote into the library; where it cannot be, say so and go on: it was paid for."""
    from sleicl_chains.answering.opening import open_store

    try:
        say([f"The grimoire is kept as {open_store(home).add(grimoire)}."])
    except (StoreError, InputError) as problem:
        say([f"Warning: what was written is used, but is not in the library: {str(problem).rstrip('.')}."])


def read(card: Path, rows: Path) -> tuple["Task", list["Example"]]:
    """Return a card's task and its rows."""
    from sleicl_chains.answering.opening import open_task
    from sleicl_chains.tasks.rows import load_examples

    task = open_task(card)
    return task, load_examples(rows, task)


def wanted_task(given: str) -> "str | Task":
    """Return the task of a card, or else the text itself; what looks like a card's path and is not there is refused."""
    from sleicl_chains.answering.opening import open_task

    is_card = Path(given).suffix in (".toml", ".json") and (len(given.split()) == 1 or os.path.isfile(given))
    return open_task(Path(given)) if is_card else given


def model_options(given: list[str] | None, base_url: str | None = None) -> dict[str, Any]:
    """Return NAME=VALUE pairs as keywords: numbers, true and false as such, anything else as text."""
    options: dict[str, Any] = {"base_url": base_url} if base_url else {}
    for pair in given or []:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise OptionError(f"--option: found {pair!r}; expected NAME=VALUE, such as n_ctx=8192")
        if name in ("name", "home"):
            raise OptionError(f"--option: {name} is no option of a model; leave it out")
        try:
            options[name] = json.loads(value)
        except (ValueError, RecursionError):
            options[name] = value
    return options


def read_stdin() -> str:
    """Return all of stdin.

    Raises:
        InputError: it is not text in stdin's encoding.
    """
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as problem:
        found = f"byte 0x{problem.object[problem.start]:02x}, which is not {problem.encoding.upper()} text"
        raise InputError(f"stdin, byte {problem.start + 1}: found {found}; give it as UTF-8") from None


def print_json(value: Any) -> None:
    """Print an object on stdout; where its encoding cannot hold a character, as JSON writes it in ASCII."""
    text = json.dumps(value, ensure_ascii=False, indent=1)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=1)
    print(text)
