"""One output file of a batch: its own record, from which the same call goes on after a stop."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from sleicl_chains.errors import InputError
from sleicl_chains.files import open_file, parse_json, read_text, write_whole
from sleicl_chains.hashes import short_hash
from sleicl_chains.serving.asking import (
    Asking,
    Outcome,
    answer_rows,
    check_columns,
    checked,
    counted,
    form_of,
    streamed,
    total_of,
)
from sleicl_chains.serving.outputs import Form, Writer
from sleicl_chains.tasks.parquet import add_columns, write_parquet
from sleicl_chains.tasks.rows import PARQUET, TABLES
from sleicl_chains.tasks.streams import Stream, Streamed


class Job:
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
        with streamed(self.source) as stream:
            check_columns(stream, self.asking, self.source)
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
            checked(outcome)
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
        form = form_of(stream, self.asking, self._sign(stream))
        with ExitStack() as opened:
            bad = opened.enter_context(_appended(self.bad))
            written = opened.enter_context(_appended(self.rows))
            try:
                known = _known_bad(bad, outcome)
            except (ValueError, KeyError, TypeError):
                raise self._foreign(self.bad, "it is no file of bad rows") from None
            left = _unanswered(stream.rows, form, written, known, outcome, self._foreign)
            answer_rows(self.asking, left, form, Writer(written, bad), outcome, total_of(self.source))

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
    end, kept, left = len(head), form.kept(file), counted(rows, known, outcome)
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
