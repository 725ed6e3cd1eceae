"""The steps that several commands take."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleicl_chains.cli.printing import say
from sleicl_chains.errors import InputError, OptionError, SleiclError, StoreError
from sleicl_chains.files import Home

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from sleicl_chains.grimoires.grimoire import Grimoire
    from sleicl_chains.grimoires.store import GrimoireStore
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


def keep_written(grimoire: "Grimoire", home: Home) -> None:
    """Put what a strong model wrote into the library; where it cannot be, say so and go on: it was paid for."""
    try:
        say([f"The grimoire is kept as {store_of(home).add(grimoire)}."])
    except StoreError as problem:
        say([f"Warning: what was written is used, but is not in the library: {str(problem).rstrip('.')}."])


def space_of(name: str, home: Home, journal: "Journal | None") -> "Embeddings":
    """Return embeddings that are asked once a text: by the journal, or without one as long as the command runs."""
    from sleicl_chains.models.embedders import Remembered, embedder

    return embedder(name, home=home, journal=journal) if journal else Remembered(embedder(name, home=home))


def read(card: Path, rows: Path) -> tuple["Task", list["Example"]]:
    """Return a card's task and its rows."""
    from sleicl_chains.tasks.rows import load_examples

    task = read_card(card)
    return task, load_examples(rows, task)


def read_card(card: Path) -> "Task":
    """Return a card's task, with a warning while its description is still the one that `init` wrote."""
    from sleicl_chains.tasks.cards import load_task
    from sleicl_chains.tasks.infer import PLACEHOLDER

    task = load_task(card)
    if task.description == PLACEHOLDER:
        say([f"Warning: {card} still has the description that `sleicl init` wrote; models are shown it as it stands."])
    return task


def store_of(home: Home, embeddings: str | None = None) -> "GrimoireStore":
    """Return the home's store under the embeddings its index was last built with, or under new ones."""
    from sleicl_chains.grimoires.store import GrimoireStore
    from sleicl_chains.models.embedders import embedder

    return GrimoireStore(home, embedder(embeddings or home.index_embeddings, home=home))


def find_grimoire(name: str | None, task: "Task", home: Home) -> "Grimoire | None":
    """Return the grimoire of a file or an id."""
    from sleicl_chains.grimoires.grimoire import load_grimoire
    from sleicl_chains.models.template_tokens import TOKENS_REMOVED

    if name is None:
        return None
    found = load_grimoire(Path(name), task) if Path(name).is_file() else store_of(home).get(name)
    said = found.provenance.warnings if Path(name).is_file() else ()
    say(f"Warning: {name}: {warning}." for warning in said if TOKENS_REMOVED in warning)
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
