"""Rows one at a time, from a file of any size or from a pipe; what is wrong with a row is told and stops nothing.

`rows.read_rows` reads a file whole and refuses it for one bad row, as learning and evaluation want it.
"""

import codecs
import csv
import io
import json
import re
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, TextIO

from sleicl_chains.errors import InputError, InputNote, note
from sleicl_chains.files import open_file, parse_json
from sleicl_chains.tasks.cards import kind
from sleicl_chains.tasks.parquet import parquet_columns, parquet_rows
from sleicl_chains.tasks.rows import LINES, PARQUET, TABLES, read_rows
from sleicl_chains.tasks.tables import by_column, header_of, separator
from sleicl_chains.tasks.texts import MARKS, sniffed, whole_text

Form = Literal["table", "lines", "list", "parquet"]
"""Cells, one object a line, one list of objects, or Parquet."""

_HEAD = 200_000
"""Characters by which the form and the separator are told."""
_LONGEST = 2**22
"""Characters of a line; a longer one is a bad row, and is not held."""
_TOO_LONG = f"found a line of more than {_LONGEST:,} characters"
_WHAT = "rows as .csv, .tsv, .jsonl, .json or .parquet"


@dataclass(frozen=True)
class Streamed:
    """A row as it came."""

    line: int
    """The line that it begins on; of a list or Parquet the number of the row. From 1 on."""
    columns: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    """What is wrong with it; empty where nothing is."""
    raw: str = ""
    """What stood there, where that is no row."""


@dataclass(frozen=True)
class Stream:
    """Rows to be gone through once; use as a context manager, which closes the file."""

    form: Form
    rows: Iterator[Streamed]
    columns: tuple[str, ...] = ()
    """Those of every row; empty where each row has its own."""
    sign: str = ","
    """What separates the cells of a table."""
    file: io.IOBase | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()


def stream_rows(path: Path) -> Stream:
    """Return the rows of a file; an `InputNote` says what was read otherwise than its ending lets expect.

    Memory does not grow with the file, but for a .json file, which is one value and read whole.

    Raises:
        InputError: the file cannot be read, or its table has no usable header.
    """
    ending = path.suffix.lower()
    if ending in PARQUET:
        rows = (Streamed(number, row) for number, row in enumerate(parquet_rows(path), 1))
        return Stream("parquet", rows, parquet_columns(path))
    if ending not in (*TABLES, *LINES, ".json"):
        raise InputError(f"{path}: found the ending {path.suffix!r}; expected {_WHAT}")
    if ending == ".json" or (ending in LINES and _begins_a_list(path)):
        return Stream("list", (Streamed(number, row) for number, (_, row) in enumerate(read_rows(path), 1)))
    encoding, said = _encoding_of(path)
    if said:
        note(f"{path}: read as {said}")
    return _stream(open_rows(path), encoding, str(path), TABLES.get(ending))


def stream_pipe(pipe: BinaryIO, name: str = "stdin") -> Stream:
    """Return the rows of a pipe: a table or one object a line, whichever it holds; see `stream_rows`."""
    source = io.BufferedReader(pipe) if isinstance(pipe, io.RawIOBase) else pipe
    start = source.peek(4)[:4] if isinstance(source, io.BufferedReader) else source.read(4)
    if start == b"PAR1":
        raise InputError(f"{name}: found Parquet, which is read from its end; give it as a file")
    rest: BinaryIO = source if isinstance(source, io.BufferedReader) else io.BytesIO(start + source.read())
    encoding = next((name for mark, name in MARKS if start.startswith(mark)), "utf-8-sig")
    return _stream(rest, encoding, name, None)


def count_rows(path: Path) -> int:
    """Return how many rows a file has, bad ones too; goes through it once, and leaves its notes to who reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputNote)
        with stream_rows(path) as stream:
            return sum(1 for _ in stream.rows)


def open_rows(path: Path) -> BinaryIO:
    """Open a file of rows as bytes.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return open_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; expected {_WHAT}") from None
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror}); expected {_WHAT}") from None


def _begins_a_list(path: Path) -> bool:
    with open_rows(path) as file:
        return file.read(_HEAD).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _encoding_of(path: Path) -> tuple[str, str]:
    """Return how a file is to be decoded, and what should be said of it; a file that is not UTF-8 is gone through."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_rows(path) as file:
        while part := file.read(2**20):
            if name := next((name for mark, name in MARKS if part.startswith(mark) and file.tell() == len(part)), ""):
                return name, name.upper()
            if b"\0" in part:
                raise InputError(f"{path}: found a zero byte, which no text holds; expected {_WHAT}")
            try:
                decoder.decode(part)
            except UnicodeDecodeError:
                return sniffed(part)
    return "utf-8-sig", ""


def _stream(file: BinaryIO, encoding: str, name: str, usual: str | None) -> Stream:
    """Return the rows of text; `usual` separates the cells of its kind of table, None where it may be another form."""
    # A byte that is no text is hidden in a surrogate, by which its row is told; the rows beside it are good.
    errors = "strict" if encoding.startswith("utf-16") or encoding.startswith("utf-32") else "surrogateescape"
    text = io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="")
    try:
        head = text.read(_HEAD)
        head += text.readline(_LONGEST) if len(head) == _HEAD else ""
        if not head.strip():
            raise InputError(f"{name}: the file holds no rows; expected at least one")
        if name.endswith(LINES) or (usual is None and head.lstrip().startswith("{")):
            return Stream("lines", _objects(_lines(head, text, "\n"), name), file=text)
        if usual is None and re.match(r"\s*\[\s*[{\]]", head):
            raise InputError(f"{name}: found one list of objects; write one object a line, or give it as a .json file")
        sign, start = separator(head, usual or ",")
        return _table(_records(_lines(head[start:], text, ""), sign, 2 if start else 1), name, sign, text)
    except UnicodeError as problem:
        text.close()
        raise InputError(f"{name}: is no {encoding.upper()} text ({problem}); expected {_WHAT}") from None
    except InputError:
        text.close()
        raise


def _lines(head: str, text: TextIO, newline: str) -> Iterator[str]:
    """Yield the lines of what was read and of what is still to come; of one that is too long the beginning alone."""
    for file in (io.StringIO(head, newline=newline), text):
        while line := _line(file):
            yield line
            while _is_cut(line):
                line = _line(file)


def _line(file: TextIO) -> str:
    try:
        return file.readline(_LONGEST)
    except UnicodeError as problem:
        raise InputError(f"found bytes that are no text in the encoding of the rest ({problem})") from None


def _is_cut(line: str) -> bool:
    return len(line) >= _LONGEST and not line.endswith(("\n", "\r"))


def _objects(lines: Iterable[str], name: str) -> Iterator[Streamed]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield Streamed(number, problem=_TOO_LONG) if _is_cut(line) else _object(number, line.rstrip("\r\n"), name)


def _object(number: int, line: str, name: str) -> Streamed:
    try:
        row = parse_json(whole_text(line, "the line"), Path(name), "one object a line", number)
        if not isinstance(row, dict):
            raise InputError(f"found {kind(row)}; expected an object with a text")
        if "\\ud" in line.lower():  # half of a pair, written as JSON writes it
            whole_text(json.dumps(row, ensure_ascii=False), "the row")
    except InputError as problem:
        return Streamed(number, problem=str(problem).removeprefix(f"{name}, line {number}: "), raw=line)
    return Streamed(number, row)


_Record = tuple[int, list[str], str, str]  # line, cells, what is wrong, what stood there


def _records(lines: Iterator[str], sign: str, number: int = 1) -> Iterator[_Record]:
    """Yield the records of a table, the first line having the number. After a broken one the next line is read."""
    waiting: deque[str] = deque()
    while True:
        taken: list[str] = []
        problem, cells = "", []
        try:
            cells = next(csv.reader(_fed(lines, waiting, taken), delimiter=sign, strict=True))
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"not valid CSV ({error})"
            # A quote that is never closed has taken in what follows: only its own line is lost.
            waiting.extendleft(reversed(taken[1:]))
            taken = taken[:1]
        if any(map(_is_cut, taken)):
            problem, taken = _TOO_LONG, [""]
        yield number, cells, problem, "".join(taken)
        number += len(taken)


def _fed(lines: Iterator[str], waiting: deque[str], taken: list[str]) -> Iterator[str]:
    """Yield the lines of one record, and keep them."""
    while (line := waiting.popleft() if waiting else next(lines, "")) != "":
        taken.append(line)
        yield line


def _table(records: Iterator[_Record], name: str, sign: str, file: io.IOBase) -> Stream:
    """Return the rows under a table's header."""
    for line, cells, problem, _ in records:
        where = f"{name}, line {line}"
        if problem:
            raise InputError(f"{where}: {problem}; expected the names of the columns")
        if any(cell.strip() for cell in cells):
            header = header_of(where, cells)
            if header.count("") > 1:
                raise InputError(f"{where}: found {header.count('')} columns without a name; expected different names")
            return Stream("table", _under(header, records, sign), tuple(header), sign, file)
    raise InputError(f"{name}: the file holds no rows; expected at least one")


def _under(header: list[str], records: Iterator[_Record], sign: str) -> Iterator[Streamed]:
    for line, cells, problem, raw in records:
        if problem:
            yield Streamed(line, problem=problem, raw=raw)
        elif any(cell.strip() for cell in cells):
            try:
                row = by_column("", header, cells, sign)
                whole_text(raw, "the row")
                yield Streamed(line, row)
            except InputError as wrong:
                yield Streamed(line, problem=str(wrong).removeprefix(": "), raw=raw)
