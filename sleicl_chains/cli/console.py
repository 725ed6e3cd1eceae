"""What the command line prints: tables on stdout, progress and notes on stderr."""

import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sleicl_chains.answering.arms import asks_a_model
from sleicl_chains.answering.priors import MEAN_ROWS
from sleicl_chains.cli.printing import for_stream, guard, say
from sleicl_chains.evaluation.evaluate import ArmResult, Comparison, Report
from sleicl_chains.statistics import wilson

if TYPE_CHECKING:
    from sleicl_chains.answering.recipes import Recipe, Verdict


def cell(text: str) -> Text:
    """Return what a table may hold: rich would pass on what a terminal obeys."""
    return Text(for_stream(text, sys.stdout))


class Meter:
    """Progress on stderr: first an estimate, then a bar, or a line now and then without a terminal.

    Args:
        arms: of an evaluation, or what else is done.
        foretells: whether to say how long it will take, by the pace of the first answers.
    """

    def __init__(self, arms: Iterable[str], *, foretells: bool = True) -> None:
        self._foretells = foretells
        self._model_arms = len([arm for arm in arms if asks_a_model(arm)])
        self._last_line = time.monotonic()
        self._first: float | None = None
        self._answered = 0
        self._bar = Progress(
            TextColumn("{task.description:>18}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.1f}/s"), TimeRemainingColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None, rate=0.0)

    def __enter__(self) -> Self:
        if self._bar.console.is_terminal:
            self._bar.start()
            guard()  # the bar has put streams of its own in place, to print above itself
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar.console.is_terminal:  # else it would print an empty line
            self._bar.stop()

    def __call__(self, arm: str, done: int, total: int) -> None:
        """Show that one more answer is there."""
        if not asks_a_model(arm):  # a baseline takes no time and would flatter the pace
            return
        now = time.monotonic()
        self._first = self._first or now  # the model's start and the first prior come before it
        self._answered += 1
        rate = (self._answered - 1) / max(now - self._first, 1e-9)
        if self._answered == 5 and self._foretells:
            self._estimate(total - done, rate)
        self._bar.update(self._task, description=arm, completed=done, total=total, rate=rate)
        if not self._bar.console.is_terminal and now - self._last_line > 15 and self._answered > 5:
            self._last_line = now
            say(f"{arm}: {done} of {total} answers, {rate:.1f}/s, about {_duration((total - done) / rate)} left")

    def _estimate(self, left: int, rate: float) -> None:
        """Say how long it will take, by the pace of the first arm; each other arm's prior is asked once, too."""
        calls = left + MEAN_ROWS * (self._model_arms - 1)
        if calls / rate > 10:
            say(f"About {_duration(calls / rate)} for {left} answers, by the pace of the first ones.")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def print_report(report: Report, notes: Sequence[str] = ()) -> None:
    """Print the table of an evaluation, and in words whether anything beats doing without a grimoire."""
    title = f"{report.task}: {report.n} rows, {report.weak}, {report.train_rows} training rows"
    table = Table(title=cell(title), title_justify="left", box=None, pad_edge=False)
    headings = ["arm", "mode", "accuracy", "95% interval", "macro-F1", "valid", "coverage", "vs zero-shot", "s"]
    for heading in [*headings, *(["deferred", "strong tokens"] if report.defers else [])]:
        table.add_column(heading, justify="left" if heading in ("arm", "mode") else "right", no_wrap=True)
    for arm in report.arms:
        table.add_row(*map(cell, [*_cells(arm), *(_deferred(arm) if report.defers else [])]))
    Console(width=max(120, Console().width)).print(table)
    for note in [*notes, *verdict(report)]:
        print(note)


def _cells(arm: ArmResult) -> list[str]:
    def rate(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    difference = ""
    if arm.difference is not None:
        difference = f"{arm.difference:+.3f} [{arm.difference_low:+.3f}, {arm.difference_high:+.3f}]"
    mode = arm.mode if arm.prior in ("none", "") else f"{arm.mode} / {arm.prior}"
    interval = f"{arm.low:.3f}-{arm.high:.3f}"
    return [
        arm.arm, "" if mode == "none" else mode, rate(arm.accuracy), interval, rate(arm.macro_f1), rate(arm.valid),
        rate(arm.coverage), difference, f"{arm.seconds_total:.1f}",
    ]  # fmt: skip


def _deferred(arm: ArmResult) -> list[str]:
    tokens = arm.strong_prompt_tokens_total + arm.strong_reply_tokens_total
    return [f"{arm.deferred:.3f}", str(tokens)] if arm.deferred else ["", ""]


def verdict(report: Report) -> list[str]:
    """Say in words what the table shows, the unwelcome too."""
    arms = {arm.arm: arm for arm in report.arms}
    lines = []
    if failed := sum(arm.failed for arm in report.arms):
        lines.append(f"{failed} answers failed (prompt too long or reply rejected); they count as wrong.")
    if unseen := [f"{arm.arm} {arm.unseen:.0%}" for arm in report.arms if arm.unseen > 0]:
        lines.append(
            f"Labels out of sight, scored by a floor: {', '.join(unseen)}. Ollama shows 20 tokens; "
            "embedded:ollama/NAME scores them all."
        )
    if report.grimoire:
        lines.append(_grimoire_verdict(report.grimoire))
    models = [arm for arm in report.arms if asks_a_model(arm.arm)]
    best = max(models, key=lambda arm: arm.accuracy, default=None)
    if best and "probe" in arms and arms["probe"].accuracy >= best.accuracy:
        lines.append("No arm beats the probe, a linear model on embeddings without any language model.")
    if best and report.majority is not None and report.majority >= best.accuracy:
        lines.append("No arm beats always answering with train's most frequent label.")
    return lines


def _span(difference: float, low: float, high: float, p: float) -> str:
    return f"{difference:+.3f} [{low:+.3f}, {high:+.3f}], " + (f"p = {p:.3f}" if p >= 0.001 else "p < 0.001")


def _grimoire_verdict(found: Comparison) -> str:
    """Say what the comparison shows, the unwelcome too: both the interval and the exact test must agree."""
    span = _span(found.difference, found.low, found.high, found.p)
    arms = f"{found.best_with}, the best arm with a grimoire, against {found.best_without}, the best without: {span}."
    if found.low > 0 and found.p < 0.05:
        return f"A grimoire helps on these rows. {arms} Both were picked on these very rows, which flatters the winner."
    if found.high < 0 and found.p < 0.05:
        return f"Grimoires hurt on these rows. {arms}"
    return f"No grimoire is shown to help here. {arms}"


def print_recipe(recipe: "Recipe") -> None:
    """Print what was tried, the verdict on the grimoire, and what the recipe does."""
    title = f"{recipe.task.name}: {recipe.weak}, {recipe.rows} labelled rows; cross-validated on those to choose on"
    table = Table(title=cell(title), title_justify="left", box=None, pad_edge=False)
    for heading in ("prompt and reading", "rows", "accuracy", "macro-F1", "loss", "prompt tokens"):
        table.add_column(heading, justify="left" if heading == "prompt and reading" else "right", no_wrap=True)
    for one in recipe.trials:
        name = f"{one.name} (dropped early)" if one.dropped else one.name
        numbers = [f"{value:.3f}" if value is not None else "" for value in (one.accuracy, one.macro_f1, one.loss)]
        table.add_row(cell(name), str(one.n), *numbers, f"{one.prompt_tokens:.0f}")
    Console(width=max(120, Console().width)).print(table)
    for line in [*recipe.warnings, *recipe_verdict(recipe)]:
        print(line)


def recipe_verdict(recipe: "Recipe") -> list[str]:
    """Say in words what the gate found, the unwelcome too."""
    found = recipe.verdict
    if found.difference is None or found.low is None or found.high is None or found.p is None:
        lines = [f"Verdict on the grimoire: {found.finding} ({found.why})."]
    else:
        span = _span(found.difference, found.low, found.high, found.p)
        lines = [
            f"Verdict on the grimoire: {found.finding}. {found.best_with} against {found.best_without} on "
            f"{found.n} rows set aside: {span}.{_undecided(found.finding, found.low, found.high, found.p)}"
        ]
    return [*lines, f"The recipe: {recipe.name}, read by {recipe.mode}.{_measured(found)}"]


def _undecided(finding: str, low: float, high: float, p: float) -> str:
    """Say why nothing is shown where the figures might look otherwise."""
    if finding != "no difference shown":
        return ""
    if low == high == 0:
        return " Both are right on the same rows, which is not to say that they always would be."
    if not low <= 0 <= high:
        against = "the exact test does" if p >= 0.05 else "the rows to choose on do"
        return f" The interval is all on one side, but {against} not agree; more rows would tell."
    return ""


def _measured(found: "Verdict") -> str:
    """Say how good what was chosen is on rows that it was not chosen on, the probe beside it."""
    if found.chosen is None:
        return ""
    low, high = wilson(round(found.chosen * found.n), found.n)
    line = f" On the {found.n} rows set aside it is right on {found.chosen:.3f} [{low:.3f}, {high:.3f}]"
    if found.probe is None:
        return f"{line}."
    as_well = ", which does as well or better" if found.probe >= found.chosen else ""
    return f"{line}, the probe, without any language model, on {found.probe:.3f}{as_well}."
