"""Labelled rows: reading and checking them.

Every complaint is one line that names the file, the line, what was found and what was expected.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleicl_chains.errors import InputError
from sleicl_chains.files import read_text
from sleicl_chains.tasks.cards import SHORT, Task, from_json, kind
from sleicl_chains.tasks.labels import fold

if TYPE_CHECKING:
    from langchain_core.documents import Document

Row = tuple[str, dict[str, Any]]  # where it stands ("rows.csv, line 3"), and its columns


@dataclass(frozen=True)
class Example:
    """A text and its right answer."""

    text: str
    answer: str
    id: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        content = f"{self.text}\0{self.answer}".encode()
        object.__setattr__(self, "id", hashlib.sha256(content).hexdigest()[:16])


def load_examples(path: str | Path, task: Task) -> list[Example]:
    """Read rows from JSONL, JSON (a list of objects) or CSV; 100,000 take about a second.

    Raises:
        InputError: the file cannot be read or is empty, or a row lacks a column, holds something
            that is not text, or has a label that the card does not name.
    """
    check = _row_checker(task)
    return [check(where, row) for where, row in read_rows(Path(path))]


def examples_from_documents(documents: Iterable["Document"], task: Task) -> list[Example]:
    """Turn the documents of any LangChain loader into examples.

    The text is a document's content, the answer its metadata under the card's `answer_column`.

    Raises:
        InputError: a document has no such metadata, or its answer is not a label of the card.
    """
    check = _row_checker(task)
    return [
        check(f"document {number}", {**document.metadata, task.text_column: document.page_content})
        for number, document in enumerate(documents, 1)
    ]


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file unchecked, each with its place; there is at least one."""
    readers: dict[str, Callable[[Path, str], Iterator[Row]]] = {
        ".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows, ".tsv": _csv_rows,
    }  # fmt: skip
    wanted = "rows as .jsonl, .json or .csv"
    if path.suffix.lower() not in readers and not path.is_dir():
        raise InputError(f"{path}: found the ending {path.suffix!r}; expected {wanted}")
    text = read_text(path, wanted)
    rows = readers[path.suffix.lower()](path, text)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: the file holds no rows; expected at least one")
    return chain([first], rows)


def _jsonl_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):  # a string may hold the other line ends of splitlines()
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _an_object(where, from_json(line, path, "one object a line", number))


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    rows = from_json(text, path, "a list of objects") if text.strip() else []
    if not isinstance(rows, list):
        raise InputError(f"{path}: found {kind(rows)}; expected a list of objects")
    for number, row in enumerate(rows, 1):
        where = f"{path}, row {number}"
        yield where, _an_object(where, row)


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    # Strict, or a quote that is never closed would swallow the rest of the file as one cell.
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1  # the line where a row begins; a quoted cell may hold more lines
    header: list[str] = []
    try:
        for cells in reader:
            where, start = f"{path}, line {start}", reader.line_num + 1
            if cells and not header:
                header = _header(where, cells)
            elif cells:
                yield where, _by_column(where, header, cells)
    except csv.Error as problem:
        raise InputError(
            f"{path}, line {start}: not valid CSV ({problem}); expected quotes around cells that hold quotes, "
            "commas or line ends, and inner quotes doubled"
        ) from None


def _header(where: str, names: list[str]) -> list[str]:
    twice = next((name for name, times in Counter(names).items() if name and times > 1), None)
    if twice:
        raise InputError(f"{where}: found the column {twice!r} more than once; expected different names")
    return names


def _by_column(where: str, header: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        raise InputError(
            f"{where}: found {len(cells)} cells; expected the header's {len(header)}. Quote cells that hold commas"
        )
    return dict(zip(header, cells, strict=True))


def _an_object(where: str, row: object) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InputError(f"{where}: found {kind(row)}; expected an object with a text and an answer")
    return row


def _row_checker(task: Task) -> Callable[[str, Mapping[str, Any]], Example]:
    def check(where: str, row: Mapping[str, Any]) -> Example:
        text = _cell(where, row, task.text_column)
        answer = _cell(where, row, task.answer_column).strip()
        _check_label(where, answer, task.labels)
        try:
            return Example(text, answer)
        except UnicodeEncodeError:
            raise InputError(f"{where}: the text holds half of a surrogate pair; expected valid Unicode") from None

    return check


def check_answers(rows: Iterable[Example], task: Task) -> None:
    """Refuse a row whose answer is none of the labels.

    Raises:
        InputError: there is one.
    """
    for row in rows:
        _check_label(SHORT.repr(row.text), row.answer, task.labels)


def _check_label(where: str, answer: str, labels: Sequence[str]) -> None:
    if labels and answer not in labels:
        raise InputError(f"{where}: found the label {SHORT.repr(answer)}; {_expected_label(answer, labels)}")


def _cell(where: str, row: Mapping[str, Any], column: str) -> str:
    if column not in row:
        found = _listed(row) or "nothing"
        raise InputError(
            f"{where}: the column {column!r} is missing; found {found}. "
            "The card can name other columns: text_column, answer_column"
        )
    value = row[column]
    if not isinstance(value, str):
        raise InputError(f"{where}: found {kind(value)} in {column!r}; expected text")
    if not value.strip():
        raise InputError(f"{where}: found nothing in {column!r}; expected text")
    return value


def _expected_label(found: str, labels: Sequence[str]) -> str:
    near = get_close_matches(fold(found), [fold(label) for label in labels], n=1)
    hint = next((f"did you mean {label!r}? " for label in labels if near and fold(label) == near[0]), "")
    return f"{hint}expected one of {_listed(labels)}"


def _listed(names: Iterable[str]) -> str:
    shown = [SHORT.repr(name) for name in names]
    return ", ".join(shown[:12]) + (" ..." if len(shown) > 12 else "")
