"""What the command line prints: tables on stdout, progress and notes on stderr."""

import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import wrap
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from sleicl_chains.answering.arms import asks_a_model
from sleicl_chains.answering.priors import MEAN_ROWS
from sleicl_chains.cli.printing import for_stream, guard, quoted, say
from sleicl_chains.evaluation.summary import ArmResult, Report
from sleicl_chains.evaluation.words import TRIED, recipe_verdict, tried_against, tried_cells, verdict

if TYPE_CHECKING:
    from sleicl_chains.answering.recipes import Recipe


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
        self._begun: set[str] = set()
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
        """Show that one more answer is there; `total` is 0 where only the end will tell."""
        if not asks_a_model(arm):  # a baseline takes no time and would flatter the pace
            return
        now = time.monotonic()
        self._first = self._first or now  # the model's start and the first prior come before it
        self._answered += 1
        self._begun.add(arm)
        rate = (self._answered - 1) / max(now - self._first, 1e-9)
        if self._answered == 5 and self._foretells and total:
            self._estimate(arm, done, total, rate)
        self._bar.update(self._task, description=arm, completed=done, total=total or None, rate=rate)
        if not self._bar.console.is_terminal and now - self._last_line > 15 and self._answered > 5:
            self._last_line = now
            left = f", about {_duration(self._left(total - done, rate))} left" if total else ""
            say(f"{arm}: {done}{f' of {total}' if total else ''} answers, {rate:.1f}/s{left}")

    def _estimate(self, arm: str, done: int, total: int, rate: float) -> None:
        seconds = self._left(total - done, rate)
        if seconds > 10:
            say(f"{arm}: {done} of {total} answers, about {_duration(seconds)} left by the pace of the first ones")

    def _left(self, answers: int, rate: float) -> float:
        """Return the seconds that so many answers will take; each arm to come has its prior asked about first."""
        return (answers + MEAN_ROWS * max(0, self._model_arms - len(self._begun))) / rate


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def print_report(report: Report) -> None:
    """Print the table of an evaluation, its notes, and in words whether anything beats doing without a grimoire."""
    title = f"{report.task}: {report.n} rows, {report.weak}, {report.train_rows} training rows"
    headings = ["arm", "mode", "accuracy", "95% interval", "macro-F1", "valid", "coverage", "vs zero-shot", "s"]
    headings += ["deferred", "strong tokens"] if report.defers else []
    rows = [[*_cells(arm), *(_deferred(arm) if report.defers else [])] for arm in report.arms]
    _print_table(title, headings, rows, left=2)
    for line in [*report.notes, *verdict(report)]:
        print(line)


def _print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a table; on a terminal too narrow for it, each row as a paragraph. The first `left` columns hold words."""
    table = Table(title=cell(title) if title else None, title_justify="left", box=None, pad_edge=False)
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="left" if at < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(cell, row))
    console = Console()
    wide = Console(width=1000)
    if console.is_terminal and console.width < wide.measure(table).maximum:
        _print_narrow(title, headings, rows, console.width)
        return
    (console if console.is_terminal else wide).print(table)


def _print_narrow(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    if title:
        print("\n".join(wrap(title, width)))
    for name, *cells in rows:
        pairs = [f"{heading} {cell}" for heading, cell in zip(headings[1:], cells, strict=True) if cell]
        told = ", ".join(pair.replace(" ", "\xa0") for pair in pairs)  # a line ends between pairs, not within one
        lines = wrap(told, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
        print("\n".join([name, *lines]).replace("\xa0", " "))


def _cells(arm: ArmResult) -> list[str]:
    def rate(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    difference = ""
    if arm.difference is not None:
        difference = f"{arm.difference:+.3f} [{arm.difference_low:+.3f}, {arm.difference_high:+.3f}]"
    interval = f"{arm.low:.3f}-{arm.high:.3f}"
    return [
        arm.arm, arm.reading, rate(arm.accuracy), interval, rate(arm.macro_f1), rate(arm.valid),
        rate(arm.coverage), difference, f"{arm.seconds_total:.1f}",
    ]  # fmt: skip


def _deferred(arm: ArmResult) -> list[str]:
    tokens = arm.strong_prompt_tokens_total + arm.strong_reply_tokens_total
    return [f"{arm.deferred:.3f}", str(tokens)] if arm.asked_strong else ["", ""]


def print_recipe(recipe: "Recipe", after: str = "") -> None:
    """Print what was learned in at most five lines, and what was also tried.

    Args:
        recipe: as `learn` wrote it.
        after: what to do next.
    """
    for line in [*recipe.warnings, *recipe_verdict(recipe, after)]:
        print(line)
    if recipe.also_tried:
        print(f"\nAlso tried, {tried_against(recipe)}")  # as a title it would be broken at the table's width
        _print_table("", TRIED, tried_cells(recipe), left=2)


def after_learning(recipe: "Recipe", file: Path, card: str = "CARD") -> str:
    """Return what to do with a recipe that was learned: see its test, and try it on other rows."""
    name = quoted(file)
    own = f"on rows of their own: sleicl evaluate --task {card} --rows TEST --recipe {name}"
    if not recipe.tested:
        return own
    return f"sleicl report {name} shows {'the pair row by row' if recipe.verdict.pair else 'its test'}; {own}"
