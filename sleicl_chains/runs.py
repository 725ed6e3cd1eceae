"""A kept run, read again: its report, its rows, and the texts that the rows leave out."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sleicl_chains._folders import Home, write_whole
from sleicl_chains.errors import RunError, SleiclError
from sleicl_chains.evaluation import (
    ArmResult,
    Report,
    asks_a_model,
    confidences,
    is_right,
    read_report,
    read_summary,
    row_keys,
)
from sleicl_chains.grimoires import Grimoire, load_grimoire
from sleicl_chains.tasks import load_examples, load_task

SOURCES = "sources.json"
"""Where the texts of a run are; the rows themselves hold none."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Run:
    """A finished evaluation and its rows."""

    report: Report
    date: str
    """UTC, as 2026-01-31T12:00:00+00:00; empty when not known."""
    rows: Mapping[str, Sequence[Row]]
    """By arm, each in the same order of rows."""

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels in the card's order where an arm scored them, else sorted; none for an open-ended task."""
        if all(arm.macro_f1 is None for arm in self.report.arms):
            return ()
        every = [row for rows in self.rows.values() for row in rows]
        scored = next((list(row["scores"]) for row in every if row["scores"]), [])
        named = {label for row in every for label in (row["gold"], row["prediction"]) if label is not None}
        return tuple(scored + sorted(named - set(scored)))

    @cached_property
    def right(self) -> dict[str, list[bool]]:
        """Whether each answer is right, by arm."""
        return {
            arm: [is_right(row["prediction"], row["gold"], self.labels) for row in rows]
            for arm, rows in self.rows.items()
        }

    def confidences(self, arm: str) -> tuple[list[float], list[bool]] | None:
        """Return the probabilities of an arm's valid answers and whether they are right, as in the table."""
        return confidences(self.rows[arm], self.right[arm])

    def grimoire(self, arm: str) -> str | None:
        """Return the id of the grimoire that an arm was shown most often; None where it was shown none."""
        shown = Counter(row["grimoire"] for row in self.rows[arm] if row["grimoire"])
        return shown.most_common(1)[0][0] if shown else None

    @cached_property
    def weak_arms(self) -> list[ArmResult]:
        """The arms in which the weak model answers, best first; of equals the earlier first."""
        return sorted((arm for arm in self.report.arms if asks_a_model(arm.arm)), key=lambda arm: -arm.accuracy)


def read_run(folder: Path) -> Run:
    """Return a finished run.

    Raises:
        RunError: the folder is no run, its evaluation has not finished, or rows are missing.
    """
    report, date = read_report(folder), str(read_summary(folder).get("date", ""))
    file = folder / "rows.jsonl"
    found: dict[str, dict[str, Row]] = {arm.arm: {} for arm in report.arms}
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found.get(row["arm"], {})[row["row"]] = row
    except (OSError, ValueError, KeyError) as problem:
        raise RunError(f"{file} cannot be read ({problem}); the same `sleicl evaluate` again mends it") from None
    order = list(next(iter(found.values()), {}))
    if lacking := [arm for arm, rows in found.items() if len(rows) != report.n or rows.keys() != set(order)]:
        raise RunError(
            f"{file}: found {len(found[lacking[0]])} rows of {lacking[0]}; expected the {report.n} of the report; "
            "the same `sleicl evaluate` again answers what is missing"
        )
    return Run(report, date, {arm: [rows[key] for key in order] for arm, rows in found.items()})


# ------------------------------------------------------------------ texts


@dataclass(frozen=True)
class Texts:
    """The texts of a run, as far as they were found."""

    questions: Mapping[str, str] = field(default_factory=dict)
    """By row key; of every row or of none."""
    grimoire: Grimoire | None = None
    missing: Sequence[str] = ()
    """What could not be found, and why."""


def note_sources(run: Path, *, rows: Path, card: Path, grimoire: str | None, home: Home) -> None:
    """Note in a run's folder where its texts are, for the owner's eyes alone."""
    shown = str(Path(grimoire).resolve()) if grimoire and Path(grimoire).is_file() else grimoire
    places = {"rows": str(rows.resolve()), "card": str(card.resolve()), "grimoire": shown}
    whole = json.dumps(places | {"home": str(home.root.resolve())}, indent=1) + "\n"
    write_whole(run / SOURCES, whole, mode=0o600)


def find_texts(folder: Path, run: Run, home: Home | None = None) -> Texts:
    """Return the run's questions and its grimoire from where its evaluation took them."""
    try:
        sources = json.loads((folder / SOURCES).read_text(encoding="utf-8"))
        rows, card, name = Path(sources["rows"]), Path(sources["card"]), sources["grimoire"]
        place = home or Home(Path(sources["home"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Texts(missing=[f"The run does not say where its texts are: there is no {SOURCES} that can be read."])
    questions, why = _questions(rows, card, run)
    grimoire, what = _grimoire(name, card, place, run)
    return Texts(questions, grimoire, [line for line in (why, what) if line])


def _questions(rows: Path, card: Path, run: Run) -> tuple[dict[str, str], str]:
    wanted = [row["row"] for row in next(iter(run.rows.values()))]
    try:
        examples = load_examples(rows, load_task(card))
    except SleiclError as problem:
        return {}, f"The questions could not be found: {problem}."
    found = {key: example.text for key, example in zip(row_keys(examples), examples, strict=True)}
    if lost := sum(key not in found for key in wanted):
        return {}, f"The questions could not be found: {rows} has changed and lacks {lost} of the {len(wanted)} rows."
    return {key: found[key] for key in wanted}, ""


def _grimoire(name: str | None, card: Path, home: Home, run: Run) -> tuple[Grimoire | None, str]:
    shown = {id for arm in run.rows if (id := run.grimoire(arm))}
    if not shown:
        return None, ""
    if name is None:
        return None, "The grimoire could not be found: the run does not say which file or id it has."
    try:
        found = load_grimoire(Path(name), load_task(card)) if Path(name).is_file() else _stored(name, home)
    except SleiclError as problem:
        return None, f"The grimoire could not be found: {problem}."
    if found.id not in shown:
        return None, f"The grimoire has changed: found {found.id}; the run was shown {', '.join(sorted(shown))}."
    return found, ""


def _stored(name: str, home: Home) -> Grimoire:
    from sleicl_chains.embedders import embedder
    from sleicl_chains.store import GrimoireStore

    return GrimoireStore(home, embedder(home=home)).get(name)
