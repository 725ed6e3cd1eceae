"""Whole files of rows, answered one row after the other into another file, which a stop at any point leaves usable.

The output is its own record: after a stop its rows are compared with the input's, and what is missing is answered.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from langchain_core.runnables import Runnable

from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, OptionError, PromptTooLong, RejectedReply
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.evaluation.settings import settings_of
from sleicl_chains.files import open_file, parse_json, read_text, refuse_unwritable, write_whole
from sleicl_chains.hashes import short_hash
from sleicl_chains.serving.outputs import ADDED, Cells, Form, Lines, Writer, bad_line
from sleicl_chains.tasks.parquet import add_columns, write_parquet
from sleicl_chains.tasks.rows import LINES, PARQUET, TABLES, text_of
from sleicl_chains.tasks.streams import Stream, Streamed, count_rows, open_rows, stream_pipe, stream_rows

Chain = Runnable[str, Answer]

_WHAT = "the file to write as .csv, .tsv, .jsonl or .parquet, or - for stdout"


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


def answer_file(
    asking: Asking | Chain,
    source: str | Path | BinaryIO,
    output: str | Path,
    *,
    bad: Path | None = None,
    force: bool = False,
) -> Outcome:
    """Answer the rows of a file or a pipe into a file; what an earlier, stopped call has written is kept.

    Beside the output stand a file of bad rows, if there are any, and OUTPUT.batch.json, by which a later call knows
    that the output is its own.

    Args:
        asking: how; a chain is asked by the column `text`, one row at a time.
        source: the rows: .csv, .tsv, .jsonl, .json or .parquet, or an open pipe.
        output: its ending decides the form.
        bad: where bad rows go, by default OUTPUT.bad.jsonl.
        force: whether files that are there already are replaced.

    Raises:
        InputError: the input cannot be read, no row could be asked, or a file that would be written is there already
            and was not begun by the same call.
        ModelError: the model failed; the same call goes on from there.
    """
    asking = Asking(asking) if isinstance(asking, Runnable) else asking
    source, output = Path(source) if isinstance(source, str) else source, Path(output)
    bad = check_files(source, output, bad)
    with _alone(output):
        return _Run(asking, source, output, bad).answer(force=force)


def check_files(source: Path | BinaryIO, output: Path, bad: Path | None = None) -> Path:
    """Return the file of bad rows; ask no model for files that are not there or may not be written.

    Raises:
        InputError: one is not what it must be; see `answer_file`.
    """
    bad = bad or output.with_name(f"{output.name}.bad.jsonl")
    if output.suffix.lower() not in (*TABLES, *LINES, *PARQUET):
        raise OptionError(f"{output}: found the ending {output.suffix!r}; expected {_WHAT}")
    if os.path.realpath(bad) == os.path.realpath(output):
        raise OptionError(f"{bad}: answered and bad rows cannot go to one file; name another for the bad ones")
    for file in (output, bad):
        refuse_unwritable(file)
        if file.exists() and not file.is_file():
            raise InputError(f"{file}: is no regular file; expected {_WHAT}")
        if isinstance(source, Path) and file.exists() and source.exists() and file.samefile(source):
            raise InputError(f"{file}: the rows are read from this file; name another one to write")
    if isinstance(source, Path):
        open_rows(source).close()
    return bad


def answer_pipe(asking: Asking, source: Path | BinaryIO, output: BinaryIO, bad: BinaryIO) -> Outcome:
    """Answer the rows of a file or a pipe into a pipe, a table as a table and all else as one object a line.

    Args:
        asking: how.
        source: the rows.
        output: is not closed.
        bad: where bad rows go, one object a line; it is not closed either.

    Raises:
        InputError: the input cannot be read, or no row could be asked.
        ModelError: the model failed.
    """
    outcome = Outcome(output="-")
    with _streamed(source) as stream:
        _check_columns(stream, asking, source)
        form = _form(stream, asking, stream.sign if stream.form == "table" else "")
        output.write(form.head().encode())
        _answer(asking, _counted(stream.rows, set(), outcome), form, Writer(output, bad), outcome, _total(source))
    return _checked(outcome)


class _Run:
    """One output file and what stands beside it."""

    def __init__(self, asking: Asking, source: Path | BinaryIO, output: Path, bad: Path) -> None:
        self.asking, self.source, self.output, self.bad = asking, source, output, bad
        self.parquet = output.suffix.lower() in PARQUET
        self.rows = output.with_name(f"{output.name}.rows.jsonl") if self.parquet else output
        """Where rows are written as they come; a Parquet file can only be written whole."""
        self.card = output.with_name(f"{output.name}.batch.json")
        self.settings = short_hash(asking.settings, bad.name)
        self.read = sha256()
        """Of the rows of the input, where the output cannot be compared with them."""

    def answer(self, *, force: bool) -> Outcome:
        """Answer what is not answered yet."""
        with _streamed(self.source) as stream:
            _check_columns(stream, self.asking, self.source)
            if self.parquet:
                stream = replace(stream, rows=self._noted(stream.rows))
            return self._answer(stream, self._begin(force=force))

    def _noted(self, rows: Iterator[Streamed]) -> Iterator[Streamed]:
        for row in rows:
            self.read.update(repr((row.columns, row.raw)).encode(errors="backslashreplace"))
            yield row

    def _answer(self, stream: Stream, known: dict[str, Any]) -> Outcome:
        if self.parquet and self.output.exists() and (done := self._outcome(known)):
            deque(stream.rows, maxlen=0)  # goes through all of them
            if known.get("rows") != self.read.hexdigest():
                raise self._foreign(self.output, "it was made of other rows")
            return replace(done, kept=done.answered, seconds=0.0)
        outcome = Outcome(output=str(self.output), bad_file=str(self.bad))
        is_new, started = not self.rows.exists(), time.monotonic()
        try:
            self._write(stream, outcome)
            _checked(outcome)
        except BaseException:
            if is_new and not outcome.answered:  # the next try may be with other options
                for file in (self.rows, self.bad, self.card):
                    file.unlink(missing_ok=True)
            raise
        if not outcome.bad:
            self.bad.unlink()
            outcome.bad_file = ""
        outcome.seconds = time.monotonic() - started
        if self.parquet:
            self._convert(stream.form)
        self._note(outcome)
        return outcome

    def _write(self, stream: Stream, outcome: Outcome) -> None:
        form = _form(stream, self.asking, self._sign(stream))
        with ExitStack() as opened:
            bad = opened.enter_context(_appended(self.bad))
            written = opened.enter_context(_appended(self.rows))
            try:
                known = _known_bad(bad, outcome)
            except (ValueError, KeyError, TypeError):
                raise self._foreign(self.bad, "it is no file of bad rows") from None
            left = _unanswered(stream.rows, form, written, known, outcome, self._foreign)
            _answer(self.asking, left, form, Writer(written, bad), outcome, _total(self.source))

    def _begin(self, *, force: bool) -> dict[str, Any]:
        """Make sure that what is there is this call's, or is not there; return what is known of it."""
        files = [self.output, self.rows, self.bad]
        if force:
            for file in (*files, self.card):
                file.unlink(missing_ok=True)
        known = self._known() if self.card.exists() else None
        if known is None or known.get("settings") != self.settings:
            why = "not begun by this command" if known is None else "begun with another recipe, model or option"
            if there := [file for file in files if file.exists()]:
                raise self._foreign(there[0], f"it was {why}")
        elif self.output.exists() or self.rows.exists():
            return known
        self.bad.unlink(missing_ok=True)
        self._note(None)
        return {}

    def _outcome(self, known: dict[str, Any]) -> Outcome | None:
        """Return what became of the rows of a finished call."""
        try:
            return Outcome(**known["outcome"]) if known.get("outcome") else None
        except TypeError:
            raise self._foreign(self.card, "it is not what this command writes") from None

    def _known(self) -> dict[str, Any]:
        found = parse_json(read_text(self.card, "the card of a batch"), self.card, "the card of a batch")
        return found if isinstance(found, dict) else {}

    def _note(self, outcome: Outcome | None) -> None:
        """Write by what a later call knows the output; `outcome` where it is finished."""
        told = {"settings": self.settings, "outcome": outcome and outcome.to_dict(), "rows": self.read.hexdigest()}
        write_whole(self.card, json.dumps(told, ensure_ascii=False, indent=1) + "\n")

    def _foreign(self, file: Path | None, why: str) -> InputError:
        return InputError(f"{file or self.output}: is there already, and {why}; --force replaces it")

    def _sign(self, stream: Stream) -> str:
        """Return what separates the cells of the output; empty where it is no table."""
        ending = self.output.suffix.lower()
        usual = TABLES.get(ending, "")
        same = isinstance(self.source, Path) and self.source.suffix.lower() == ending
        return stream.sign if usual and same else usual

    def _convert(self, form: str) -> None:
        """Write the Parquet file; from a Parquet file the columns keep their types."""
        if form == "parquet" and isinstance(self.source, Path):
            add_columns(self.source, self.output, self._added(), self.asking.added)
        else:
            write_parquet(self.output, lambda: _objects(self.rows), self.asking.added)
        self.rows.unlink()

    def _added(self) -> Iterator[dict[str, Any] | None]:
        """Yield what is added to each row of the input; None for a bad one."""
        known = set()
        if self.bad.exists():
            known = {row["line"] for row in _objects(self.bad)}
        number = 0
        for row in _objects(self.rows):
            number += 1
            while number in known:
                yield None
                number += 1
            yield row
        while (number := number + 1) in known:
            yield None


def _streamed(source: Path | BinaryIO) -> Stream:
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


def _total(source: Path | BinaryIO) -> int:
    """Return how many rows are to be done; 0 where only the end will tell."""
    return count_rows(source) if isinstance(source, Path) else 0


def _form(stream: Stream, asking: Asking, sign: str) -> Form:
    """Return how rows are written; `sign` separates cells, without one they are objects."""
    if not sign:
        return Lines(asking.added)
    return Cells(stream.columns, sign, asking.added)


def _check_columns(stream: Stream, asking: Asking, source: Path | BinaryIO) -> None:
    name = source if isinstance(source, Path) else "stdin"
    whole = stream.form in ("table", "parquet")  # rows of JSON may differ
    if whole and asking.text_column not in stream.columns:
        found = ", ".join(stream.columns[:12])
        raise InputError(f"{name}: the column {asking.text_column!r} is missing; found {found}. Name it: --text-column")
    if clash := [one for one in asking.added if one in stream.columns]:
        raise OptionError(
            f"{name}: has a column {clash[0]!r} already, which would be added; --prefix model_ adds model_{clash[0]}"
        )


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Hold an output, or refuse one that another process writes."""
    from filelock import FileLock, Timeout

    place = output.with_name(f".{output.name}.lock")
    try:
        with FileLock(place, timeout=0):
            try:
                yield
            finally:
                place.unlink(missing_ok=True)
    except Timeout:
        raise InputError(f"{output}: another process is writing it; wait for its end, or name another file") from None


def _appended(path: Path) -> BinaryIO:
    """Open a file to read what it has and write on."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of our own."""
    with open_file(path) as file:
        for line in file:
            yield json.loads(line)


def _known_bad(file: BinaryIO, outcome: Outcome) -> set[int]:
    """Return the lines of rows that were found bad before; a last line that was cut is taken away."""
    known, end = set(), 0
    for line in file:
        if not line.endswith(b"\n"):
            break
        row = json.loads(line)
        known.add(row["line"])
        outcome.first_bad = outcome.first_bad or f"line {row['line']}: {row['reason']}"
        end += len(line)
    file.seek(end)
    file.truncate()
    outcome.bad = len(known)
    return known


def _unanswered(
    rows: Iterator[Streamed], form: Form, file: BinaryIO, known: set[int], outcome: Outcome,
    foreign: Callable[[None, str], InputError],
) -> Iterator[Streamed]:  # fmt: skip
    """Yield the rows that an output lacks, and put the file where the first of them is to be written."""
    head = form.head().encode()
    if not head.startswith(file.read(len(head))):
        raise foreign(None, "it has other columns")
    if file.tell() < len(head):
        file.seek(0)
        file.write(head)
    end, kept, left = len(head), form.kept(file), _counted(rows, known, outcome)
    try:
        for row in left:
            if row.problem:
                yield row
                continue
            if (found := next(kept, None)) is None:
                file.seek(end)
                file.truncate()  # half a row, if anything
                yield row
                yield from left
                return
            if found.told != form.told(row.columns):
                raise foreign(None, f"its row {outcome.kept + 1} is not the one of line {row.line} of the input")
            end, outcome.kept, outcome.answered = found.end, outcome.kept + 1, outcome.answered + 1
            outcome.invalid += not found.valid
        if next(kept, None):
            raise foreign(None, "it has more rows than the input")
    except ValueError as problem:
        raise foreign(None, f"{problem}") from None
    file.seek(end)
    file.truncate()


def _counted(rows: Iterator[Streamed], known: set[int], outcome: Outcome) -> Iterator[Streamed]:
    for row in rows:
        outcome.rows += 1
        if row.line not in known:
            yield row


def _answer(asking: Asking, rows: Iterator[Streamed], form: Form, writer: Writer, outcome: Outcome, total: int) -> None:
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


def _checked(outcome: Outcome) -> Outcome:
    """Return the outcome of rows of which some could be asked."""
    if not outcome.rows:
        raise InputError("the input holds no rows; expected at least one")
    if not outcome.answered:
        raise InputError(f"none of {outcome.rows} rows could be asked; the first bad one is {outcome.first_bad}")
    return outcome
