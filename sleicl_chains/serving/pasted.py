"""A few rows that somebody pastes, answered one by one: how a recipe does on one's own texts."""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from langchain_core.runnables import Runnable

from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, PromptTooLong, RejectedReply
from sleicl_chains.statistics import wilson
from sleicl_chains.tasks.cards import Task, plain_text
from sleicl_chains.tasks.rows import Example, check_answers, text_of
from sleicl_chains.tasks.streams import Streamed, stream_pipe
from sleicl_chains.tasks.tables import NAMES
from sleicl_chains.tasks.texts import whole_text

ROWS = 200
BYTES = 10**6
_NAME = "the pasted rows"


@dataclass(frozen=True)
class Row:
    """A text, and its right answer where that was given."""

    text: str
    answer: str | None = None


@dataclass(frozen=True)
class Tried:
    """A row with what the model made of it."""

    row: Row
    answer: str | None = None
    probability: float | None = None
    valid: bool = False
    note: str = ""

    @property
    def right(self) -> bool | None:
        """Whether the label is the right one; None where that is not known."""
        return None if self.row.answer is None else self.answer == self.row.answer


def pasted_rows(text: str, task: Task) -> list[Row]:
    """Return the rows of a text: one a line, or a table or JSON lines where it begins so.

    A table is one whose first line names the task's text column. Answers may be left out, of all rows or of some; those
    of an open-ended task are not looked at, since its replies are right in many words.

    Raises:
        InputError: there are none, too many, or one is no row or has an answer that is no label of the task.
    """
    _check_size(text)
    first = text.lstrip().partition("\n")[0]
    named = {cell.strip().strip('"') for cell in re.split("|".join(map(re.escape, NAMES)), first)}
    if task.text_column in named or first.startswith("{"):
        rows = _of_table(text, task)
    else:
        rows = [Row(line.strip()) for line in text.splitlines() if line.strip()]
    if not rows:
        raise InputError(f"{_NAME}: found none; paste one text a line, or CSV with the column {task.text_column!r}")
    if len(rows) > ROWS:
        raise InputError(f"{_NAME}: found {len(rows)}; at most {ROWS} are tried here, `sleicl batch` takes whole files")
    return rows


def _check_size(text: str) -> None:
    size = len(whole_text(text, _NAME).encode())
    if size > BYTES:
        raise InputError(f"{_NAME}: found {size:,} bytes; at most {BYTES:,} are taken here, `sleicl batch` takes files")


def _of_table(text: str, task: Task) -> list[Row]:
    with stream_pipe(io.BytesIO(text.lstrip().encode()), _NAME) as stream:
        rows = [_row(row, task) for row in stream.rows]
    check_answers([Example(row.text, row.answer) for row in rows if row.answer is not None], task)
    return rows


def _row(row: Streamed, task: Task) -> Row:
    where = f"{_NAME}, line {row.line}"
    if row.problem:
        raise InputError(f"{where}: {row.problem}")
    found = row.columns.get(task.answer_column) if task.labels else None
    answer = found.strip() if isinstance(found, str) else plain_text(found)
    return Row(text_of(where, row.columns, task.text_column), answer or None)


def tried(chain: Runnable[str, Answer], rows: Sequence[Row]) -> Iterator[Tried]:
    """Yield each row answered; a row that cannot be asked, or a reply that is none, is one without an answer.

    Raises:
        ModelError: the model does not answer.
    """
    for row in rows:
        try:
            found = chain.invoke(row.text.strip())
        except (InputError, PromptTooLong, RejectedReply) as problem:
            yield Tried(row, note=str(problem))
        else:
            note = found.note if found.valid else "; ".join(filter(None, [f"said {found.text!r:.100}", found.note]))
            yield Tried(row, found.answer, found.probability, found.valid, note)


def summary(results: Sequence[Tried]) -> str:
    """Return how many are right, with the 95% interval of that share, and how many have no valid answer.

    Of 3 right ones of 4: "3 of 4 right: 75% (95% interval 30% to 95%)".
    """
    known = [one.right for one in results if one.right is not None]
    invalid = sum(not one.valid for one in results)
    parts = []
    if known:
        low, high = wilson(sum(known), len(known))
        parts.append(f"{sum(known)} of {len(known)} right: {sum(known) / len(known):.0%} "
                     f"(95% interval {low:.0%} to {high:.0%})")  # fmt: skip
    if invalid:
        parts.append(f"{invalid} without a valid answer")
    return "; ".join(parts)
