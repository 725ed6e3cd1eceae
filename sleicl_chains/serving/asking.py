"""Rows asked one after the other, wherever they come from and go to."""

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from langchain_core.runnables import Runnable

from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, OptionError, PromptTooLong, RejectedReply
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.evaluation.settings import settings_of
from sleicl_chains.hashes import short_hash
from sleicl_chains.serving.outputs import ADDED, Cells, Form, Lines, Writer, bad_line
from sleicl_chains.tasks.rows import text_of
from sleicl_chains.tasks.streams import Stream, Streamed, count_rows, stream_pipe, stream_rows

Chain = Runnable[str, Answer]


@dataclass
class Outcome:
    """What became of the rows."""

    rows: int = 0
    """Rows of the input, bad ones too."""
    answered: int = 0
    """Rows in the output, those of before a stop too."""
    kept: int = 0
    """How many of them were there before."""
    invalid: int = 0
    """Rows of which the model's reply gave no answer."""
    bad: int = 0
    """Rows that could not be asked."""
    first_bad: str = ""
    """Where the first of them stands, and why."""
    output: str = ""
    bad_file: str = ""
    """Where bad rows are; empty where there are none."""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `sleicl batch --json` prints."""
        return asdict(self) | {"seconds": round(self.seconds, 1)}


@dataclass(frozen=True)
class Asking:
    """How the rows are asked.

    Args:
        chain: answers a question, see `solver`.
        text_column: holds the question.
        prefix: stands before the names of the added columns.
        concurrency: how many rows are asked at once.
    """

    chain: Chain
    text_column: str = "text"
    prefix: str = ""
    concurrency: int = 1
    progress: Progress = field(default=lambda what, done, total: None)

    @property
    def added(self) -> tuple[str, ...]:
        """The names of the added columns."""
        return tuple(f"{self.prefix}{name}" for name in ADDED)

    @property
    def settings(self) -> str:
        """A digest of all that decides what is written for a row. A server may be asked which weights it has."""
        return short_hash(json.dumps([settings_of(self.chain), self.text_column, self.prefix]))


def streamed(source: Path | BinaryIO) -> Stream:
    """Return the rows, their columns known: of JSON those of the first good row."""
    stream = stream_rows(source) if isinstance(source, Path) else stream_pipe(source)
    if stream.columns:
        return stream
    begun = []
    for row in stream.rows:
        begun.append(row)
        if not row.problem:
            return replace(stream, rows=chain(begun, stream.rows), columns=tuple(row.columns))
    return replace(stream, rows=iter(begun))


def total_of(source: Path | BinaryIO) -> int:
    """Return how many rows are to be done; 0 where only the end will tell."""
    return count_rows(source) if isinstance(source, Path) else 0


def form_of(stream: Stream, asking: Asking, sign: str) -> Form:
    """Return how rows are written; `sign` separates cells, without one they are objects."""
    if not sign:
        return Lines(asking.added)
    return Cells(stream.columns, sign, asking.added)


def check_columns(stream: Stream, asking: Asking, source: Path | BinaryIO) -> None:
    """Refuse rows without the text's column, or with one of the added ones."""
    name = source if isinstance(source, Path) else "stdin"
    whole = stream.form in ("table", "parquet")  # rows of JSON may differ
    if whole and asking.text_column not in stream.columns:
        found = ", ".join(stream.columns[:12])
        raise InputError(f"{name}: the column {asking.text_column!r} is missing; found {found}. Name it: --text-column")
    if clash := [one for one in asking.added if one in stream.columns]:
        raise OptionError(
            f"{name}: has a column {clash[0]!r} already, which would be added; --prefix model_ adds model_{clash[0]}"
        )


def counted(rows: Iterator[Streamed], known: set[int], outcome: Outcome) -> Iterator[Streamed]:
    """Count the rows, and yield those whose lines are not known as bad."""
    for row in rows:
        outcome.rows += 1
        if row.line not in known:
            yield row


def answer_rows(
    asking: Asking, rows: Iterator[Streamed], form: Form, writer: Writer, outcome: Outcome, total: int
) -> None:
    """Ask the rows and write what comes, in their order; what was answered is written whatever happens."""

    def refuse(row: Streamed, reason: str) -> None:
        outcome.bad += 1
        outcome.first_bad = outcome.first_bad or f"line {row.line}: {reason}"
        writer.bad(bad_line(row.line, reason, row.columns or row.raw))

    try:
        for row, given in _asked(asking, _askable(asking, rows, form, refuse)):
            if isinstance(given, str):
                refuse(row, given)
            else:
                outcome.answered += 1
                outcome.invalid += not given[2]
                writer.row(form.written(row.columns, given))
            asking.progress("answers", outcome.answered + outcome.bad, total)
    finally:
        writer.flush()


def _askable(
    asking: Asking, rows: Iterator[Streamed], form: Form, refuse: Callable[[Streamed, str], None]
) -> Iterator[tuple[Streamed, str]]:
    """Yield the rows that can be asked, with their texts."""
    for row in rows:
        try:
            if row.problem:
                raise InputError(row.problem)
            form.written(row.columns, [None] * len(ADDED))  # before it is asked for in vain
            yield row, text_of("", row.columns, asking.text_column)
        except InputError as problem:
            refuse(row, str(problem).removeprefix(": "))


Given = tuple[str | None, float | None, bool, str | None] | str
"""Answer, probability, valid and error; or why a row could not be asked."""


def _asked(asking: Asking, rows: Iterator[tuple[Streamed, str]]) -> Iterator[tuple[Streamed, Given]]:
    """Yield the rows with what was answered, in their order; so many at once as are wanted, and a few waiting."""
    if asking.concurrency == 1:
        for row, text in rows:
            yield row, _given(asking.chain, text)
        return
    waiting: deque[tuple[Streamed, Future[Given]]] = deque()
    with ThreadPoolExecutor(asking.concurrency) as pool:
        try:
            for row, text in rows:
                waiting.append((row, pool.submit(_given, asking.chain, text)))
                if len(waiting) == 2 * asking.concurrency:
                    yield _done(waiting)
            while waiting:
                yield _done(waiting)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _done(waiting: deque[tuple[Streamed, "Future[Given]"]]) -> tuple[Streamed, Given]:
    row, future = waiting.popleft()
    return row, future.result()


def _given(chain: Chain, text: str) -> Given:
    """Ask one row. A reply that cannot be used is an answer that is not valid; a model that fails ends the work."""
    try:
        found = chain.invoke(text.strip())
    except (PromptTooLong, InputError) as problem:
        return str(problem)
    except RejectedReply as problem:
        return None, None, False, str(problem)
    chance = None if found.probability is None else round(found.probability, 6)
    return found.answer, chance, found.valid, _error(found)


def _error(found: Answer) -> str | None:
    """Return why there is no answer, or of a text what else should be known; a label that was given has no error."""
    if found.valid:
        return found.note or None if found.label is None else None
    return "; ".join(filter(None, [f"the reply gives no answer: {found.text!r:.200}", found.note]))


def checked(outcome: Outcome) -> Outcome:
    """Return the outcome; refuse one of no rows, or of none that could be asked."""
    if not outcome.rows:
        raise InputError("the input holds no rows; expected at least one")
    if not outcome.answered:
        raise InputError(f"none of {outcome.rows} rows could be asked; the first bad one is {outcome.first_bad}")
    return outcome
