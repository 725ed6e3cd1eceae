"""A kept run, read again: its report and its rows."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from sleicl_chains.answering.arms import asks_a_model
from sleicl_chains.errors import InputError, RunError
from sleicl_chains.evaluation.answered import AnsweredRow, complaint, read_rows
from sleicl_chains.evaluation.summary import (
    ArmResult,
    Report,
    compare,
    confidences,
    grimoire_of,
    is_right,
)
from sleicl_chains.files import REPORT_LIMIT, parse_json, read_text


@dataclass(frozen=True)
class Run:
    """A finished evaluation and its rows."""

    report: Report
    date: str
    """UTC, as 2026-01-31T12:00:00+00:00; empty when not known."""
    rows: Mapping[str, Sequence[AnsweredRow]]
    """By arm, each in the same order of rows."""
    verdict: Sequence[str] = ()
    """What was found, in words, where it was told by a test of its own and not from the table."""
    tried: tuple[str, Sequence[Sequence[str]]] | None = None
    """What else was tried: what against, and rows of cells, as `words.TRIED` names them."""

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels in the card's order where an arm scored them, else sorted; none for an open-ended task."""
        if all(arm.macro_f1 is None for arm in self.report.arms):
            return ()
        every = [row for rows in self.rows.values() for row in rows]
        scored = next((list(row.scores) for row in every if row.scores), [])
        named = {label for row in every for label in (row.gold, row.prediction) if label is not None}
        return tuple(scored + sorted(named - set(scored)))

    @cached_property
    def right(self) -> dict[str, list[bool]]:
        """Whether each answer is right, by arm."""
        return {
            arm: [is_right(row.prediction, row.gold, self.labels) for row in rows] for arm, rows in self.rows.items()
        }

    def confidences(self, arm: str) -> tuple[list[float], list[bool]] | None:
        """Return the probabilities of an arm's valid answers and whether they are right, as in the table."""
        return confidences(self.rows[arm], self.right[arm])

    def grimoire(self, arm: str) -> str | None:
        """Return the id of the grimoire that an arm shows; None where it shows none."""
        return grimoire_of(self.rows[arm])

    def cues(self, arm: str) -> list[str]:
        """Return what the weak model's turn began with, in each way that an arm's rows note."""
        return sorted({row.cue for row in self.rows[arm] if row.cue})

    def confusion(self, arm: str) -> dict[str, Counter[str | None]]:
        """Return how often each answer was given to the rows of each label; None stands for no answer.

        Empty for an open-ended task.
        """
        found: dict[str, Counter[str | None]] = {label: Counter() for label in self.labels}
        for row in self.rows[arm] if found else ():
            found[row.gold][row.prediction] += 1
        return found

    @cached_property
    def weak_arms(self) -> list[ArmResult]:
        """The arms in which the weak model answers, best first; of equals the earlier first."""
        return sorted((arm for arm in self.report.arms if asks_a_model(arm.arm)), key=lambda arm: -arm.accuracy)

    @property
    def pair(self) -> tuple[str, str] | None:
        """The two arms that the report compares, with a grimoire and without; None where it compares none."""
        found = self.report.grimoire
        return (found.best_with, found.best_without) if found else None

    def rows_right(self, arm: str, baseline: str, *, ours: bool, theirs: bool) -> list[int]:
        """Return the places of the rows that `arm` has right or wrong, as `ours` says, and `baseline` as `theirs`."""
        pairs = zip(self.right[arm], self.right[baseline], strict=True)
        return [at for at, pair in enumerate(pairs) if pair == (ours, theirs)]


def read_report(run: Path) -> Report:
    """Return the report of a finished run from its folder.

    What a version before or after this one did not or does not know is left at its default.

    Raises:
        RunError: the folder is no run, or its evaluation has not finished.
    """
    return _report(run, _summary(run))


def _summary(run: Path) -> dict[str, Any]:
    """Return what `summary.json` holds: the report, its date and the version that made it."""
    if not (run / "run.json").is_file():
        raise RunError(
            f"{run}: found no run.json; expected the folder of a run, which `sleicl evaluate` names after 'Rows:'"
        )
    if not (run / "summary.json").is_file():
        raise RunError(
            f"{run}: found no summary.json, so the evaluation has not finished; "
            f"the same `sleicl evaluate` command again, with --run {shlex.quote(str(run))}, goes on where it stopped"
        )
    file = run / "summary.json"
    try:
        found = parse_json(read_text(file, "a report", REPORT_LIMIT), file, "a report")
        return {**found, "arms": list(found["arms"])}
    except (InputError, KeyError, TypeError) as problem:
        raise _no_report(run, problem) from None


def _report(run: Path, found: Mapping[str, Any]) -> Report:
    try:
        return TypeAdapter(Report).validate_python({**found, "run": str(run)})
    except ValueError as problem:
        raise _no_report(run, problem) from None


def _no_report(run: Path, problem: Exception) -> RunError:
    why = complaint(problem)
    return RunError(f"{run}/summary.json: found no report ({why}); run the same `sleicl evaluate` again")


def read_run(folder: Path) -> Run:
    """Return a finished run.

    Raises:
        RunError: the folder is no run, its evaluation has not finished, or rows are missing.
    """
    summary = _summary(folder)
    report, date = _report(folder, summary), str(summary.get("date", ""))
    file = folder / "rows.jsonl"
    found: dict[str, dict[str, AnsweredRow]] = {arm.arm: {} for arm in report.arms}
    try:
        for row in read_rows(file):
            found.get(row.arm, {})[row.row] = row
    except InputError as problem:
        raise RunError(f"{problem}; the same `sleicl evaluate` again mends it") from None
    order = list(next(iter(found.values()), {}))
    if lacking := [arm for arm, rows in found.items() if len(rows) != report.n or rows.keys() != set(order)]:
        raise RunError(
            f"{file}: found {len(found[lacking[0]])} rows of {lacking[0]}; expected the {report.n} of the report; "
            "the same `sleicl evaluate` again answers what is missing"
        )
    return _compared(Run(report, date, {arm: [rows[key] for key in order] for arm, rows in found.items()}))


def _compared(run: Run) -> Run:
    """Return a run whose arms are compared as this version does it: earlier ones compared none, or others."""
    arms = [replace(arm, grimoire=run.grimoire(arm.arm)) for arm in run.report.arms]
    return replace(run, report=replace(run.report, arms=arms, grimoire=compare(run.right, arms)))
