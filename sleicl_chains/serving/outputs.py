"""Rows with their answers as they are written, and as they are found again after a stop."""

import base64
import csv
import io
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from sleicl_chains.errors import InputError

ADDED = ("answer", "probability", "valid", "error")
"""Columns that are added, after those of the input."""
_LONGEST_CELL = csv.field_size_limit()
"""Characters; Python's reader refuses more."""
_SAFE_S = 1.0
"""How often what was written is made safe against a power cut, in seconds."""


class Kept(NamedTuple):
    """A whole row that was found in an output."""

    told: str
    """The columns of the input in it, as `told` writes them."""
    valid: bool
    end: int
    """Where it ends, in bytes."""


@dataclass(frozen=True)
class Lines:
    """One object a line."""

    added: tuple[str, ...] = ADDED
    """What the added columns are called."""

    def head(self) -> str:
        """Return what stands before the first row."""
        return ""

    def told(self, row: Mapping[str, Any]) -> str:
        """Return a row of the input in a form in which it can be compared."""
        return json.dumps(row, ensure_ascii=False, default=_plain)

    def written(self, row: Mapping[str, Any], added: Sequence[Any]) -> str:
        """Return a row with the values of the added columns.

        Raises:
            InputError: it cannot be written, and a reason to call it bad.
        """
        if clash := sorted(set(self.added) & set(row)):
            raise InputError(f"has a column {clash[0]!r} already, which the first rows lack")
        return (
            json.dumps({**row, **dict(zip(self.added, added, strict=True))}, ensure_ascii=False, default=_plain) + "\n"
        )

    def kept(self, file: BinaryIO) -> Iterator[Kept]:
        """Yield the whole rows of an output from after its head on, up to its end or to one that was cut.

        Raises:
            ValueError: it has another form.
        """
        end = file.tell()
        for line in file:
            if not line.endswith(b"\n"):
                return
            row, end = json.loads(line), end + len(line)
            if not isinstance(row, dict) or not set(self.added) <= set(row):
                raise ValueError("it has other columns")
            own = {name: value for name, value in row.items() if name not in self.added}
            yield Kept(self.told(own), row[self.added[2]] is True, end)


@dataclass(frozen=True)
class Cells:
    """A table, whose columns are those of the input's first row."""

    columns: tuple[str, ...]
    sign: str = ","
    added: tuple[str, ...] = ADDED

    def head(self) -> str:
        """Return the names of the columns."""
        return self._line([*self.columns, *self.added])

    def told(self, row: Mapping[str, Any]) -> str:
        """Return a row of the input in a form in which it can be compared."""
        return self._line([_cell(row.get(name)) for name in self.columns])

    def written(self, row: Mapping[str, Any], added: Sequence[Any]) -> str:
        """Return a row with the values of the added columns; see `Lines.written`."""
        if more := [name for name in row if name not in self.columns]:
            raise InputError(
                f"has a column {more[0]!r}, which the first row lacks; write .jsonl, where rows may differ"
            )
        cells = [*(_cell(row.get(name)) for name in self.columns), *map(_cell, added)]
        if any(len(cell) > _LONGEST_CELL for cell in cells):
            raise InputError(f"has more than {_LONGEST_CELL:,} characters in a cell; write .jsonl, which takes them")
        return self._line(cells)

    def kept(self, file: BinaryIO) -> Iterator[Kept]:
        """Yield the whole rows of an output; see `Lines.kept`."""
        for cells, end in self._records(file):
            if len(cells) != len(self.columns) + len(self.added):
                raise ValueError("it has rows of another length")
            yield Kept(self._line(cells[: len(self.columns)]), cells[-2] == "true", end)

    def _records(self, file: BinaryIO) -> Iterator[tuple[list[str], int]]:
        end, last = file.tell(), b""

        def lines() -> Iterator[str]:
            nonlocal end, last
            for last in file:
                end += len(last)
                yield last.decode()

        try:
            for cells in csv.reader(lines(), delimiter=self.sign, strict=True):
                if not last.endswith(b"\r\n"):
                    return
                yield cells, end
        except csv.Error:
            if file.read(1):
                raise ValueError("it is no table") from None

    def _line(self, cells: Sequence[str]) -> str:
        # A line feed alone would leave cells with a carriage return without quotes.
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=self.sign, lineterminator="\r\n").writerow(cells)
        return text.getvalue()


Form = Lines | Cells


def bad_line(line: int, reason: str, row: Mapping[str, Any] | str) -> str:
    """Return the line about a bad row; in ASCII, for what makes it bad may be what no encoding holds."""
    return json.dumps({"line": line, "reason": reason, "row": row}, default=_plain) + "\n"


def _cell(value: Any) -> str:
    """Return a value as a cell: text as it is, nothing as an empty cell, all else as JSON writes it."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    plain = value if isinstance(value, bool | int | float | list | dict) else _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    """Return as text what Parquet holds and JSON does not: dates, decimals, bytes."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


class Writer:
    """Writes answered rows and bad ones, each as soon as the model's next answer could take longer than a moment.

    A bad row is always in its file before a later answered one is in the other, so that after a kill each row of the
    input is in one of both or was not done.
    """

    def __init__(self, rows: BinaryIO, bad: BinaryIO) -> None:
        self._files = (bad, rows)
        self._waiting: tuple[list[str], list[str]] = ([], [])
        self._safe = time.monotonic()

    def row(self, line: str) -> None:
        """Write an answered row."""
        self._add(1, line)

    def bad(self, line: str) -> None:
        """Write a bad row."""
        self._add(0, line)

    def _add(self, which: int, line: str) -> None:
        self._waiting[which].append(line)
        if time.monotonic() - self._safe > _SAFE_S or len(self._waiting[which]) > 1000:
            self.flush()

    def flush(self) -> None:
        """Write what waits, and have the system write it to its disk."""
        for file, lines in zip(self._files, self._waiting, strict=True):
            file.write("".join(lines).encode())
            lines.clear()
            file.flush()
            if _is_file(file):
                os.fsync(file.fileno())
        self._safe = time.monotonic()


def _is_file(file: BinaryIO) -> bool:
    import stat

    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, ValueError):  # io.UnsupportedOperation is both
        return False
