"""Labelled rows: reading and checking them.

Every complaint is one line that names the file, the line, what was found and what was expected.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleicl_chains.errors import SHORT, InputError, note
from sleicl_chains.files import ROWS_LIMIT, parse_json
from sleicl_chains.hashes import short_hash
from sleicl_chains.tasks.cards import Task, kind, plain_text
from sleicl_chains.tasks.labels import fold, plain
from sleicl_chains.tasks.parquet import parquet_rows
from sleicl_chains.tasks.tables import NAMES, separator, table_rows
from sleicl_chains.tasks.texts import read_encoded, whole_text

if TYPE_CHECKING:
    from langchain_core.document_loaders import BaseLoader
    from langchain_core.documents import Document

Row = tuple[str, dict[str, Any]]  # where it stands ("rows.csv, line 3"), and its columns


def text_id(text: str) -> str:
    """Return sixteen hex digits of a text as `fold` leaves it: the same for near-copies, whatever their answer."""
    return short_hash(fold(text))


@dataclass(frozen=True)
class Example:
    """A text and its right answer."""

    text: str
    answer: str
    id: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        content = whole_text(f"{self.text}\0{self.answer}", "the example")
        object.__setattr__(self, "id", short_hash(content))


def among(rows: Iterable[Example], ids: Iterable[str], text_ids: Iterable[str]) -> list[Example]:
    """Return the rows whose id, or whose folded text's hash, is among those given."""
    known, texts = set(ids), set(text_ids)
    return [row for row in rows if row.id in known or text_id(row.text) in texts]


def load_examples(path: str | Path, task: Task) -> list[Example]:
    """Read rows from JSONL, JSON (a list of objects), CSV or Parquet; 100,000 take about a second.

    What the file has otherwise than these formats plainly do, such as semicolons, UTF-16 or numbers for answers, is
    taken and said in an `InputNote`. Parquet wants the extra `parquet`.

    Raises:
        InputError: the file cannot be read or is empty, or a row lacks a column, holds something
            that is not text, or has a label that the card does not name.
    """
    return checked_rows(read_rows(Path(path)), task, str(path))


def load_texts(path: str | Path, task: Task) -> list[str]:
    """Read texts without answers: the text column of rows as `load_examples` reads them, or the lines of a .txt file.

    A .txt file whose first line has tabs is a table, as it is for `load_examples`.

    Raises:
        InputError: the file cannot be read or is empty, or a row lacks the column or holds something else.
    """
    path = Path(path)
    lines = path.suffix.lower() == ".txt"
    text, encoding = read_encoded(path, "texts, one a line", ROWS_LIMIT) if lines else ("", None)
    if not lines or "\t" in text.partition("\n")[0]:
        return [text_of(where, row, task.text_column) for where, row in read_rows(path)]
    if encoding:
        note(f"{path}: read as {encoding}")
    found = [line.strip() for line in text.split("\n") if line.strip()]
    if not found:
        raise InputError(f"{path}: the file holds no texts; expected one a line")
    return found


def examples_from_documents(documents: "Iterable[Document] | BaseLoader", task: Task) -> list[Example]:
    """Turn documents, or what any LangChain loader loads, into examples.

    The text is a document's content, the answer its metadata under the card's `answer_column`.

    Raises:
        InputError: a document has no such metadata, or its answer is not a label of the card.
    """
    from langchain_core.document_loaders import BaseLoader

    rows = (
        (f"document {number}", {**document.metadata, task.text_column: document.page_content})
        for number, document in enumerate(documents.lazy_load() if isinstance(documents, BaseLoader) else documents, 1)
    )
    return checked_rows(rows, task, "documents")


def examples_from_rows(rows: Iterable[Mapping[str, Any]], task: Task) -> list[Example]:
    """Turn mappings into examples: a `datasets.Dataset`, the records of a data frame, rows of a database.

    Text and answer stand under the card's `text_column` and `answer_column`.

    Raises:
        InputError: a row is no mapping, lacks a column, holds something that is not text, or has a label that the card
            does not name, as the numbers of a `datasets.ClassLabel` are.
    """
    return checked_rows(
        ((f"row {number}", _a_mapping(number, row)) for number, row in enumerate(rows, 1)), task, "rows"
    )


def _a_mapping(number: int, row: object) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise InputError(f"row {number}: found {kind(row)}; expected a mapping with a text and an answer")
    return dict(row)


def checked_rows(rows: Iterable[Row], task: Task, source: str) -> list[Example]:
    """Return the examples of rows; an `InputNote` says what was taken as text, and which texts have two labels.

    Raises:
        InputError: a row is no example of the task.
    """
    examples: list[Example] = []
    places: list[str] = []
    written: dict[str, str] = {}  # of answers that were no text, by place
    for where, row in rows:
        text = text_of(where, row, task.text_column)
        answer = _answer(where, row, task.answer_column)
        if not isinstance(row[_column(row, task.answer_column)], str):
            written[where] = answer
        _check_label(where, answer, task.labels, numbered=where in written)
        examples.append(Example(text, whole_text(answer, where)))
        places.append(where)
    if written:
        first = f"{next(iter(written))}: {next(iter(written.values()))!r}"
        note(f"{source}: {len(written)} answers that are numbers, true or false are taken as text ({first})")
    if task.labels:
        _note_contradictions(source, examples, places)
    return examples


def _note_contradictions(source: str, examples: Sequence[Example], places: Sequence[str]) -> None:
    """Say how many texts stand with two labels."""
    first: dict[str, int] = {}
    found: dict[str, tuple[int, int]] = {}
    for at, example in enumerate(examples):
        before = first.setdefault(fold(example.text), at)
        if examples[before].answer != example.answer:
            found.setdefault(fold(example.text), (before, at))
    if found:
        one, other = next(iter(found.values()))
        note(
            f"{source}: {len(found)} texts stand with different labels, such as {SHORT.repr(examples[one].text)} "
            f"with {examples[one].answer!r} ({places[one]}) and {examples[other].answer!r} ({places[other]})"
        )


TABLES = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t"}
"""Endings of tables, and what usually separates their cells."""
LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
_SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")
_ROWS = "rows as .jsonl, .json, .csv or .parquet"


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file unchecked, each with its place; there is at least one.

    An `InputNote` says what was read otherwise than the ending lets expect.
    """
    ending = path.suffix.lower()
    if ending in PARQUET:
        return _at_least_one(path, _parquet_rows(path))
    if ending not in (*TABLES, *LINES, ".json") and not os.path.isdir(path):
        mend = ". Save the sheet as 'CSV UTF-8'" if ending in _SPREADSHEETS else ""
        raise InputError(f"{path}: found the ending {path.suffix!r}; expected {_ROWS}{mend}")
    text, encoding = read_encoded(path, _ROWS, ROWS_LIMIT)
    rows, form = _table(path, text, ending) if ending in TABLES else _objects(path, text, ending)
    if encoding or form:
        note(f"{path}: {f'read as {encoding}' if encoding else ''}{', ' if encoding and form else ''}{form}")
    return _at_least_one(path, rows)


def _at_least_one(path: Path, rows: Iterator[Row]) -> Iterator[Row]:
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: the file holds no rows; expected at least one")
    return chain([first], rows)


def _parquet_rows(path: Path) -> Iterator[Row]:
    return ((f"{path}, row {number}", row) for number, row in enumerate(parquet_rows(path), 1))


def _table(path: Path, text: str, ending: str) -> tuple[Iterator[Row], str]:
    """Return the rows, and what should be said of the table."""
    sign, start = separator(text, TABLES[ending])
    said = start or ending == ".txt" or sign != TABLES[ending]
    form = f"cells separated by {NAMES.get(sign, repr(sign))}" if said else ""
    return table_rows(path, text, sign, start), form + (", as its first line says" if start else "")


def _objects(path: Path, text: str, ending: str) -> tuple[Iterator[Row], str]:
    """Return the rows of JSON, and what should be said of its form: what it holds counts, not the ending."""
    if _is_lines(text, ending):
        return _jsonl_rows(path, text), "" if ending in LINES else "taken as one object a line"
    rows = parse_json(text, path, "a list of objects") if text.strip() else []
    form = "taken as one list of objects" if ending in LINES and rows else ""
    if isinstance(rows, dict) and len(rows) == 1 and isinstance(next(iter(rows.values())), list):
        ((key, rows),) = rows.items()
        form = f"taken is the list under its one key {key!r}"
    if not isinstance(rows, list):
        lists = [key for key, value in rows.items() if isinstance(value, list)] if isinstance(rows, dict) else []
        mend = f". Save the list under {lists[0]!r} alone" if lists else ""
        raise InputError(f"{path}: found {kind(rows)}; expected a list of objects{mend}")
    places = ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))
    return ((where, _an_object(where, row)) for where, row in places), form


def _is_lines(text: str, ending: str) -> bool:
    """Say whether JSON is one object a line; where that cannot be told, the ending decides."""
    start = text.lstrip()
    line, _, rest = start.partition("\n")
    if start.startswith("["):
        return False
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return ending in LINES
    if not isinstance(first, dict):
        return ending in LINES
    wraps = len(first) == 1 and isinstance(next(iter(first.values())), list)
    return bool(rest.strip()) or (ending in LINES and not wraps)


def _jsonl_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):  # a string may hold the other line ends of splitlines()
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _an_object(where, parse_json(line, path, "one object a line", number))


def _an_object(where: str, row: object) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InputError(f"{where}: found {kind(row)}; expected an object with a text and an answer")
    return row


def check_answers(rows: Iterable[Example], task: Task) -> None:
    """Refuse a row whose answer is none of the labels.

    Raises:
        InputError: there is one.
    """
    for row in rows:
        _check_label(SHORT.repr(row.text), row.answer, task.labels)


def _check_label(where: str, answer: str, labels: Sequence[str], *, numbered: bool = False) -> None:
    if labels and answer not in labels:
        # As `datasets` stores them; a card whose labels are numbers has another fault.
        stands_for = numbered and answer.isdecimal() and not any(label.isdecimal() for label in labels)
        mend = ". If numbers stand for labels, write the names; datasets has them in features" if stands_for else ""
        raise InputError(f"{where}: found the label {SHORT.repr(answer)}; {_expected_label(answer, labels)}{mend}")


def _column(row: Mapping[str, Any], column: str) -> str:
    return column if column in row else column.strip()  # the names in a table lose the white space around them


def _cell(where: str, row: Mapping[str, Any], column: str) -> Any:
    name = _column(row, column)
    if name not in row:
        found = _listed(row) or "nothing"
        raise InputError(
            f"{where}: the column {column!r} is missing; found {found}. "
            "The card can name other columns: text_column, answer_column"
        )
    value = row[name]
    if isinstance(value, str) and not value.strip():
        raise InputError(f"{where}: found nothing in {column!r}; expected text")
    return value


def text_of(where: str, row: Mapping[str, Any], column: str) -> str:
    """Return the text of a row.

    Raises:
        InputError: the column is missing, or holds nothing or something else; begins with `where` the row stands.
    """
    value = _cell(where, row, column)
    if not isinstance(value, str):
        raise InputError(
            f"{where}: found {kind(value)} in {column!r}; expected text. Put it in quotes, or leave the row out"
        )
    return whole_text(value, where)


def _answer(where: str, row: Mapping[str, Any], column: str) -> str:
    """Return the answer as text; numbers, true and false as JSON writes them."""
    value = _cell(where, row, column)
    if isinstance(value, str):
        return value.strip()
    if (written := plain_text(value)) is None:
        mend = "Join it into one text" if isinstance(value, list | dict) else "Give the row an answer, or leave it out"
        raise InputError(f"{where}: found {kind(value)} in {column!r}; expected text. {mend}")
    return written


def _expected_label(found: str, labels: Sequence[str]) -> str:
    twin = next((label for label in labels if plain(label) == plain(found) and fold(label) != fold(found)), None)
    if twin is not None:
        return f"the card's label looks the same but has other characters, {twin!a} for {found!a}; use one for both"
    near = get_close_matches(fold(found), [fold(label) for label in labels], n=1)
    hint = next((f"did you mean {label!r}? " for label in labels if near and fold(label) == near[0]), "")
    return f"{hint}expected one of {_listed(labels)}"


def _listed(names: Iterable[str]) -> str:
    shown = [SHORT.repr(name) for name in names]
    return ", ".join(shown[:12]) + (" ..." if len(shown) > 12 else "")
