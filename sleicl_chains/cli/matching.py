"""`sleicl grimoires match`: from a new task to the grimoires that fit it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleicl_chains.answering.opening import open_store, open_weak
from sleicl_chains.cli.options import BaseUrl, ChromaOption, HomeOption, JsonOption, MaybeWeak, ModelOption, NoJournal
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import journal_of, model_options, print_json, wanted_task
from sleicl_chains.errors import OptionError
from sleicl_chains.files import Home

if TYPE_CHECKING:
    from sleicl_chains.grimoires.match import Match
    from sleicl_chains.grimoires.store import GrimoireStore
    from sleicl_chains.learning.rerank import Tried
    from sleicl_chains.tasks.cards import Task

_ORDER = (
    "Best first by description, requests, rules, labels and texts together; "
    "the number is the similarity to the first two."
)
_TEXTS = 50
"""Of so many rows at most the texts sharpen the order."""


def match(
    wanted: Annotated[str, typer.Argument(metavar="TEXT|CARD", help="Your task in a sentence, or a task card's path.")],
    rows: Annotated[
        Path | None, typer.Option("--rows", help="Some of your texts, which sharpen the order; --weak needs answers.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many at most.")] = 3,
    weak: MaybeWeak = None,
    base_url: BaseUrl = None,
    option: ModelOption = None,
    as_json: JsonOption = False,
    no_journal: NoJournal = False,
    chroma_url: ChromaOption = None,
    home: HomeOption = None,
) -> None:
    """Find the grimoires that fit a new task, and say why; with --rows and --weak, try them on your rows."""
    place = Home.at(home)
    asked = wanted_task(wanted)
    task = None if isinstance(asked, str) else asked
    if weak and (task is None or rows is None):
        raise OptionError("--weak tries the grimoires on labelled rows: give a card in place of the text, and --rows")
    store = open_store(place, chroma_url=chroma_url)
    found = store.match(asked, texts=_texts(rows, task), k=k)
    say(store.problems)
    if not found:
        say(_none(store, asked, place.index_embeddings))
    results: Sequence[Tried] = ()
    if found and task and rows and weak:
        results = _try(found, task, rows, weak, place, model_options(option, base_url), no_journal)
    if as_json:
        print_json({"matches": [_object(one, results) for one in _ordered(found, results)]})
        return
    for one in results:
        print(_line(one))
    if len(found) > 1 and not results:
        say([_ORDER])
    for hit in () if results else found:
        print(f"{hit.score:.3f}\t{hit.grimoire.id}\t{hit.grimoire.task}\t{hit.why}\t{', '.join(hit.grimoire.labels)}")
    if found:
        first = _ordered(found, results)[0].grimoire.id
        file = f"sleicl batch {first} IN -o OUT --weak MODEL"
        say([f"Next: sleicl ask --grimoire {first} --weak MODEL QUESTION; for a whole file {file}."])


def _texts(rows: Path | None, task: "Task | None") -> list[str]:
    from sleicl_chains.tasks.cards import Task
    from sleicl_chains.tasks.rows import load_texts

    return load_texts(rows, task or Task(name="rows", description="rows"))[:_TEXTS] if rows else []


def _none(store: "GrimoireStore", wanted: "str | Task", embeddings: str) -> list[str]:
    """Return that nothing fits, what is nearest, and what would help."""
    nearest = store.match(wanted, k=1, threshold=0.0)
    said = [
        f"None fits. Nearest: {one.grimoire.id} ({one.grimoire.task}), similarity {one.score:.2f}." for one in nearest
    ] or ["None fits."]
    # On the descriptions on which both were set (benchmarks/match) they had the right one first more often.
    stronger = ["Other embeddings tell more apart: sleicl grimoires rebuild --embeddings minilm"]
    return [
        *said,
        *(stronger if embeddings == "wordllama" else []),
        "Describe it in other words, say what goes in and which answers there are; or let a strong model write a "
        "grimoire for it: sleicl write --task CARD --rows ROWS --strong MODEL (without rows --sampler none).",
    ]


def _try(
    found: "Sequence[Match]",
    task: "Task",
    rows: Path,
    weak: str,
    place: Home,
    options: dict[str, Any],
    no_journal: bool,
) -> "Sequence[Tried]":
    from sleicl_chains.cli.console import Meter
    from sleicl_chains.learning.rerank import tried, undecided
    from sleicl_chains.tasks.rows import load_examples

    examples = load_examples(rows, task)
    model = open_weak(weak, task, place, options)
    with Meter(["zero-shot"], foretells=False) as meter:
        results = tried(found, task, examples, model, journal=journal_of(place, no_journal), progress=meter)
    if note := undecided(results):
        say(f"Note: {note}.")
    seen = {one.match.grimoire.id: one.seen for one in results if one.seen}
    say(f"Warning: {id} was written from {n} of the {len(examples)} rows." for id, n in seen.items())
    return results


def _ordered(found: "Sequence[Match]", results: "Sequence[Tried]") -> "Sequence[Match]":
    return list({one.match.grimoire.id: one.match for one in results}.values()) or found


def _object(hit: "Match", results: "Sequence[Tried]") -> dict[str, Any]:
    about = {"id": hit.grimoire.id, "task": hit.grimoire.task, "score": round(hit.score, 4), "why": str(hit.why)}
    about["labels"] = list(hit.grimoire.labels)
    keys = ("form", "right", "zero_shot", "n", "difference", "low", "high", "p", "decided", "seen")
    mine = [{key: getattr(one, key) for key in keys} for one in results if one.match is hit]
    return about | ({"tried": mine} if mine else {})


def _line(one: "Tried") -> str:
    return (
        f"{one.difference:+.2f} [{one.low:+.2f}, {one.high:+.2f}]\t{one.right} of {one.n} right, "
        f"{one.zero_shot} without\t{one.match.grimoire.id}\t{one.form}\t{one.match.why}"
    )
