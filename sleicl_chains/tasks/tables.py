"""Tables of cells, as spreadsheets and scripts write them: which sign separates the cells, and the rows."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sleicl_chains.errors import InputError

NAMES = {",": "','", ";": "';'", "\t": "tabs", "|": "'|'"}
"""Signs that separate cells, and what they are called."""
_HEAD = 50  # rows looked at
_DECLARED = re.compile(r'"?sep=([^\r\n"])"?(?:\r\n|\r|\n|\Z)', re.IGNORECASE)


def separator(text: str, usual: str) -> tuple[str, int]:
    """Return what separates the cells of a table, and where its text begins: a first line `sep=;` is left out.

    Each sign is tried on the first rows, quotes heeded: the one under which most rows have as many cells as the
    header is taken, of several the one with more cells, and then the usual one.
    """
    if declared := _DECLARED.match(text):
        return declared[1], declared.end()
    lines = text[:200_000]
    found = {sign: _fit(lines, sign, whole=len(lines) == len(text)) for sign in NAMES}
    best = max(found, key=lambda sign: (*found[sign], sign == usual))
    return (best if found[best][1] > 1 else usual), 0


def _fit(text: str, sign: str, *, whole: bool) -> tuple[float, int]:
    """Return the share of rows with as many cells as the header, and these cells; nothing under two of them."""
    rows: list[list[str]] = []
    try:
        found = (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=sign) if row)
        rows += islice(found, _HEAD)
    except csv.Error:
        pass
    if len(rows) < _HEAD and not whole:
        rows = rows[:-1]  # the last one is cut
    width = len(rows[0]) if rows else 0
    return (sum(len(row) == width for row in rows) / len(rows), width) if width > 1 else (0.0, width)


def table_rows(path: Path, text: str, sign: str, start: int = 0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows from a place in the text on, each with where it stands; rows of blank cells are left out.

    Raises:
        InputError: the table is broken, or a row has more or fewer cells than the header.
    """
    # Strict, or a quote that is never closed would swallow the rest of the file as one cell.
    reader = csv.reader(io.StringIO(text[start:], newline=""), delimiter=sign, strict=True)
    before = 1 if start else 0
    line = before + 1  # where a row begins; a quoted cell may hold more lines
    header: list[str] = []
    try:
        for cells in reader:
            where, line = f"{path}, line {line}", before + reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if header:
                yield where, by_column(where, header, cells, sign)
            else:
                header = header_of(where, cells)
    except csv.Error as problem:
        raise InputError(
            f"{path}, line {line}: not valid CSV ({problem}); expected quotes around cells that hold quotes, "
            f"{_plural(sign)} or line ends, and inner quotes doubled"
        ) from None


def _plural(sign: str) -> str:
    return "commas" if sign == "," else NAMES.get(sign, repr(sign))


def header_of(where: str, cells: list[str]) -> list[str]:
    """Return the names of the columns, which must differ; `where` they stand begins the complaint."""
    names = [name.strip() for name in cells]
    twice = next((name for name, times in Counter(names).items() if name and times > 1), None)
    if twice:
        raise InputError(f"{where}: found the column {twice!r} more than once; expected different names")
    return names


def by_column(where: str, header: list[str], cells: list[str], sign: str) -> dict[str, Any]:
    """Return a row's cells under the names of their columns; there must be as many as in the header."""
    if len(cells) != len(header):
        raise InputError(
            f"{where}: found {len(cells)} cells; expected the header's {len(header)}. "
            f"Quote cells that hold {_plural(sign)}"
        )
    return dict(zip(header, cells, strict=True))
