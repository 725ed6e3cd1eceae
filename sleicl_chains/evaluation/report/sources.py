"""The texts of a kept run, which its rows leave out: where they are, and whether they are still the same."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from sleicl_chains.errors import RunError, SleiclError
from sleicl_chains.evaluation.answered import row_keys
from sleicl_chains.evaluation.report.runs import Run
from sleicl_chains.files import REPORT_LIMIT, Home, parse_json, read_text, write_whole
from sleicl_chains.grimoires.grimoire import Grimoire, load_grimoire
from sleicl_chains.tasks.cards import load_task
from sleicl_chains.tasks.rows import load_examples

SOURCES = "sources.json"
"""In a run's folder: where its texts are."""


@dataclass(frozen=True)
class Source:
    """Where the text of a grimoire is."""

    kind: Literal["file", "store", "recipe"]
    place: str
    """A path, in the store an id."""
    sha256: str
    """Of both texts, so that one changed since is not taken for the one that was shown."""

    @classmethod
    def of(cls, grimoire: Grimoire, name: str) -> "Source":
        """Return the source of a grimoire that was named by a file or an id."""
        if os.path.isfile(name):
            return cls("file", str(Path(name).resolve()), _digest(grimoire))
        return cls("store", name, _digest(grimoire))

    @classmethod
    def of_recipe(cls, grimoire: Grimoire, file: Path) -> "Source":
        """Return the source of a grimoire that a recipe shows."""
        return cls("recipe", str(file.resolve()), _digest(grimoire))


@dataclass(frozen=True)
class Texts:
    """The texts of a run, as far as they were found."""

    questions: Mapping[str, str] = field(default_factory=dict)
    """By row key; of every row or of none."""
    grimoires: Mapping[str, Grimoire] = field(default_factory=dict)
    """By id."""
    missing: Sequence[str] = ()
    """What could not be found, and why."""


def note_sources(run: Path, *, rows: Path, card: Path, grimoires: Mapping[str, Source], home: Home) -> None:
    """Note in a run's folder where its texts are, grimoires by their ids; for the owner's eyes alone."""
    places = {"rows": str(rows.resolve()), "card": str(card.resolve()), "home": str(home.root.resolve())}
    whole = places | {"grimoires": {id: asdict(source) for id, source in grimoires.items()}}
    write_whole(run / SOURCES, json.dumps(whole, indent=1) + "\n", mode=0o600)


def find_texts(folder: Path, run: Run, home: Home | None = None) -> Texts:
    """Return the run's questions and its grimoires from where its evaluation took them."""
    try:
        found = parse_json(read_text(folder / SOURCES, SOURCES, REPORT_LIMIT), folder / SOURCES, SOURCES)
        rows, card = Path(found["rows"]), Path(found["card"])
        place = home or Home(Path(found["home"]))
        sources = {id: Source(**source) for id, source in found["grimoires"].items()}
    except (SleiclError, KeyError, TypeError, AttributeError):
        return Texts(missing=[f"The run does not say where its texts are: it has no {SOURCES} that can be read."])
    questions, *missing = _questions(rows, card, run)
    grimoires = {}
    for id in sorted({id for arm in run.rows if (id := run.grimoire(arm))}):
        try:
            grimoires[id] = _grimoire(id, sources, card, place)
        except SleiclError as problem:
            place_of = [Path(sources[id].place)] if id in sources and sources[id].kind != "store" else []
            missing.append(f"The grimoire {id} could not be found: {_sentence(problem, place_of)}")
    return Texts(questions, grimoires, [line for line in missing if line])


def _questions(rows: Path, card: Path, run: Run) -> tuple[dict[str, str], str]:
    """Return the questions by row key, and what is to be said where they are not there."""
    wanted = [row.row for row in next(iter(run.rows.values()))]
    try:
        examples = load_examples(rows, load_task(card))
    except SleiclError as problem:
        return {}, f"The questions could not be found: {_sentence(problem, [rows, card])}"
    found = {key: example.text for key, example in zip(row_keys(examples), examples, strict=True)}
    if lost := sum(key not in found for key in wanted):
        return {}, f"The questions could not be found: {rows} has changed and lacks {lost} of the {len(wanted)} rows."
    return {key: found[key] for key in wanted}, ""


def _grimoire(id: str, sources: Mapping[str, Source], card: Path, home: Home) -> Grimoire:
    if id not in sources:
        raise RunError("the run does not say where it is from")
    source = sources[id]
    found = _loaded(source, card, home)
    if found is None or _digest(found) != source.sha256:
        raise RunError(f"{source.place} has other texts than the run was shown")
    return found


def _loaded(source: Source, card: Path, home: Home) -> Grimoire | None:
    if source.kind == "file":
        return load_grimoire(Path(source.place), load_task(card) if os.path.isfile(card) else None)
    if source.kind == "recipe":
        from sleicl_chains.answering.recipes import Recipe

        return Recipe.load(source.place).shown_grimoire()
    from sleicl_chains.grimoires.store import GrimoireStore

    return GrimoireStore(home).get(source.place)


def _digest(grimoire: Grimoire) -> str:
    return hashlib.sha256("\0".join([grimoire.profound, grimoire.simple]).encode()).hexdigest()


def _sentence(problem: Exception, files: Sequence[Path]) -> str:
    """Return a complaint for the page, without a word of what stands in the files.

    The run's folder says which files are read, and it may be a stranger's: what `load_task` and others quote from a
    file that is none of theirs would get onto a page that is passed on.
    """
    if isinstance(problem, RunError) or any(not file.exists() for file in files):
        return f"{str(problem).rstrip('.')}."
    where = " and ".join(map(str, files)) or "the library"
    return f"{where} cannot be read as what the run was shown."
