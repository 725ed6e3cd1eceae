"""A kept run, read again: its report and its rows."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sleicl_chains.answering.arms import asks_a_model
from sleicl_chains.errors import RunError
from sleicl_chains.evaluation.evaluate import (
    ArmResult,
    Comparison,
    Report,
    compare,
    confidences,
    is_right,
    shows_grimoire,
)

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
        """Return the id of the grimoire that an arm shows; None where it shows none."""
        return next((row["grimoire"] for row in self.rows[arm] if row["grimoire"]), None)

    def cues(self, arm: str) -> list[str]:
        """Return what the weak model's turn began with, in each way that an arm's rows note."""
        return sorted({row["cue"] for row in self.rows[arm] if row.get("cue")})

    def confusion(self, arm: str) -> dict[str, Counter[str | None]]:
        """Return how often each answer was given to the rows of each label; None stands for no answer.

        Empty for an open-ended task.
        """
        found: dict[str, Counter[str | None]] = {label: Counter() for label in self.labels}
        for row in self.rows[arm] if found else ():
            found[row["gold"]][row["prediction"]] += 1
        return found

    @cached_property
    def weak_arms(self) -> list[ArmResult]:
        """The arms in which the weak model answers, best first; of equals the earlier first."""
        return sorted((arm for arm in self.report.arms if asks_a_model(arm.arm)), key=lambda arm: -arm.accuracy)

    @cached_property
    def pair(self) -> tuple[str, str] | None:
        """The best arm with a grimoire, and the best without of the same mode, or else of any; None without both."""
        shown = [arm for arm in self.weak_arms if shows_grimoire(arm.arm, self.rows[arm.arm])]
        plain = [arm for arm in self.weak_arms if arm not in shown]
        if not shown or not plain:
            return None
        alike = [arm for arm in plain if arm.mode == shown[0].mode]
        return shown[0].arm, (alike or plain)[0].arm

    def changed(self, arm: str, baseline: str) -> tuple[list[int], list[int]]:
        """Return which rows only `arm` has right and which only `baseline` has, by their place."""
        pairs = list(enumerate(zip(self.right[arm], self.right[baseline], strict=True)))
        return [at for at, (a, b) in pairs if a and not b], [at for at, (a, b) in pairs if b and not a]


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
            f"the same `sleicl evaluate` command again, with --run {run}, goes on where it stopped"
        )
    try:
        found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        return {**found, "arms": list(found["arms"])}
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise _no_report(run, problem) from None


def _report(run: Path, found: Mapping[str, Any]) -> Report:
    known = {field.name for field in fields(Report)} - {"arms", "grimoire", "run"}
    pair = found.get("grimoire")
    try:
        return Report(
            arms=[ArmResult(**_known(arm, ArmResult)) for arm in found["arms"]],
            grimoire=Comparison(**_known(pair, Comparison)) if pair else None,
            run=str(run),
            **{name: found[name] for name in known & found.keys()},
        )
    except (TypeError, AttributeError) as problem:
        raise _no_report(run, problem) from None


def _no_report(run: Path, problem: Exception) -> RunError:
    return RunError(f"{run}/summary.json: found no report ({problem}); run the same `sleicl evaluate` again")


def _known(found: Mapping[str, Any], kind: type[ArmResult] | type[Comparison]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in found.items() if name in names}


def read_run(folder: Path) -> Run:
    """Return a finished run.

    Raises:
        RunError: the folder is no run, its evaluation has not finished, or rows are missing.
    """
    summary = _summary(folder)
    report, date = _report(folder, summary), str(summary.get("date", ""))
    file = folder / "rows.jsonl"
    found: dict[str, dict[str, Row]] = {arm.arm: {} for arm in report.arms}
    try:
        for line in file.read_bytes().splitlines():  # of a text it would break at more than line feeds
            row = json.loads(line)
            found.get(row["arm"], {})[row["row"]] = row
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise RunError(f"{file} cannot be read ({problem}); the same `sleicl evaluate` again mends it") from None
    order = list(next(iter(found.values()), {}))
    if lacking := [arm for arm, rows in found.items() if len(rows) != report.n or rows.keys() != set(order)]:
        raise RunError(
            f"{file}: found {len(found[lacking[0]])} rows of {lacking[0]}; expected the {report.n} of the report; "
            "the same `sleicl evaluate` again answers what is missing"
        )
    run = Run(report, date, {arm: [rows[key] for key in order] for arm, rows in found.items()})
    # Earlier versions compared no arms, or took a recipe for an arm without a grimoire.
    return replace(run, report=replace(report, grimoire=compare(run.right, run.rows)))
