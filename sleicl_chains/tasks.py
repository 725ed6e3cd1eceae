"""What the user brings: a task card and its examples. Loading, checking and splitting them.

Every complaint is one line that names the file, the line, what was found and what was expected.
"""

import csv
import hashlib
import io
import json
import reprlib
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from sleicl_chains.errors import InputError

if TYPE_CHECKING:
    from langchain_core.documents import Document

Row = tuple[str, dict[str, Any]]  # where it stands ("rows.csv, line 3"), and its columns

_SHORT = reprlib.Repr()  # for complaints: nobody wants a whole book in one line
_SHORT.maxstring = 80


def fold(text: str) -> str:
    """Return `text` without differences of case and white space, to tell duplicates."""
    return " ".join(text.casefold().split())


def text_id(text: str) -> str:
    """Return sixteen hex digits of a text as `fold` leaves it: the same for near-copies, whatever their answer."""
    return hashlib.sha256(fold(text).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Example:
    """A text and its right answer."""

    text: str
    answer: str
    id: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        content = f"{self.text}\0{self.answer}".encode()
        object.__setattr__(self, "id", hashlib.sha256(content).hexdigest()[:16])


def among(rows: Iterable[Example], ids: Iterable[str], text_ids: Iterable[str]) -> list[Example]:
    """Return the rows whose id, or whose folded text's hash, is among those given."""
    known, texts = set(ids), set(text_ids)
    return [row for row in rows if row.id in known or text_id(row.text) in texts]


class Task(BaseModel):
    """A task card: what is asked, and of which columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    task_type: str = "classification"
    """The kind of task in a few words; the paper's prompts name it."""
    description: str
    labels: tuple[str, ...] = ()
    """All possible answers; none for an open-ended task."""
    text_column: str = "text"
    answer_column: str = "answer"

    @field_validator("name", "description")
    @classmethod
    def _not_blank(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be blank")
        return value

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        folded = [fold(label) for label in labels]
        if "" in folded:
            raise ValueError("a label must not be blank")
        if len(set(folded)) < len(folded):
            raise ValueError("labels must differ by more than case and white space")
        return tuple(label.strip() for label in labels)


# ------------------------------------------------------------------ reading


def read_text(path: Path, what: str) -> str:
    """Return a UTF-8 file's text.

    Raises:
        InputError: the file is missing, a folder, of another encoding, or not text at all.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; expected {what}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder; expected {what}") from None
    except OSError as problem:
        raise InputError(f"{path}: cannot be read ({problem.strerror}); expected {what}") from None
    try:
        text = data.decode("utf-8-sig")
        place = data.find(b"\0")  # valid UTF-8, but no text file holds one
    except UnicodeDecodeError as problem:
        place = problem.start
    if place < 0:
        return text
    line = data.count(b"\n", 0, place) + 1
    raise InputError(f"{path}, line {line}: found byte 0x{data[place]:02x}, which is not UTF-8 text; expected {what}")


def load_task(path: str | Path) -> Task:
    """Read a task card from TOML or JSON.

    Raises:
        InputError: the file cannot be read, or a key is missing, unknown or of the wrong type.
    """
    path = Path(path)
    text = read_text(path, "a task card (TOML or JSON)")
    expected = "an object with name, description and labels"
    card = _from_json(text, path, expected) if path.suffix.lower() == ".json" else _from_toml(text, path)
    if not isinstance(card, dict):
        raise InputError(f"{path}: found {_kind(card)}; expected {expected}")
    try:
        return Task.model_validate(card)
    except ValidationError as problem:
        raise InputError(f"{path}: {_first_complaint(problem)}") from None


def _first_complaint(problem: ValidationError) -> str:
    first = problem.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    known = ", ".join(Task.model_fields)
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}; expected keys: {known}"
    if first["type"] == "missing":
        return f"key {where!r} is missing; expected keys: {known}"
    plain = {"string_type": "expected text", "tuple_type": "expected a list of texts"}
    wanted = plain.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"key {where!r}: found {_SHORT.repr(first['input'])}; {wanted}"


def _from_toml(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        found = "nested too deeply"
    except tomllib.TOMLDecodeError as problem:
        found = str(problem)
    raise InputError(f"{path}: not valid TOML ({found}); expected a task card")


def _from_json(text: str, path: Path, expected: str, line: int = 0) -> Any:
    """Return the value; `line` is where the text stands, if it is not the whole file."""
    try:
        return json.loads(text)
    except RecursionError:
        found = "nested too deeply"
    except json.JSONDecodeError as problem:
        line, found = line or problem.lineno, f"{problem.msg}, column {problem.colno}"
    except ValueError:
        found = "a number of too many digits"
    where = f"{path}, line {line}" if line else f"{path}"
    raise InputError(f"{where}: not valid JSON ({found}); expected {expected}")


def load_examples(path: str | Path, task: Task) -> list[Example]:
    """Read rows from JSONL, JSON (a list of objects) or CSV; 100,000 take about a second.

    Raises:
        InputError: the file cannot be read or is empty, or a row lacks a column, holds something
            that is not text, or has a label that the card does not name.
    """
    check = _row_checker(task)
    return [check(where, row) for where, row in _rows(Path(path))]


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


def _rows(path: Path) -> Iterator[Row]:
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
            yield where, _an_object(where, _from_json(line, path, "one object a line", number))


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    rows = _from_json(text, path, "a list of objects") if text.strip() else []
    if not isinstance(rows, list):
        raise InputError(f"{path}: found {_kind(rows)}; expected a list of objects")
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
        raise InputError(f"{where}: found {_kind(row)}; expected an object with a text and an answer")
    return row


def _kind(value: object) -> str:
    names = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


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
        _check_label(_SHORT.repr(row.text), row.answer, task.labels)


def _check_label(where: str, answer: str, labels: Sequence[str]) -> None:
    if labels and answer not in labels:
        raise InputError(f"{where}: found the label {_SHORT.repr(answer)}; {_expected_label(answer, labels)}")


def _cell(where: str, row: Mapping[str, Any], column: str) -> str:
    if column not in row:
        found = _listed(row) or "nothing"
        raise InputError(
            f"{where}: the column {column!r} is missing; found {found}. "
            "The card can name other columns: text_column, answer_column"
        )
    value = row[column]
    if not isinstance(value, str):
        raise InputError(f"{where}: found {_kind(value)} in {column!r}; expected text")
    if not value.strip():
        raise InputError(f"{where}: found nothing in {column!r}; expected text")
    return value


def _expected_label(found: str, labels: Sequence[str]) -> str:
    near = get_close_matches(fold(found), [fold(label) for label in labels], n=1)
    hint = next((f"did you mean {label!r}? " for label in labels if near and fold(label) == near[0]), "")
    return f"{hint}expected one of {_listed(labels)}"


def _listed(names: Iterable[str]) -> str:
    shown = [_SHORT.repr(name) for name in names]
    return ", ".join(shown[:12]) + (" ..." if len(shown) > 12 else "")


# ------------------------------------------------------------------ writing a first card

PLACEHOLDER = "Say what is to be decided about the text, and what each answer means."
"""The description of a card that nobody has completed."""
_TEXT_NAMES = ("text", "question", "sentence", "message", "content", "input", "body")
_ANSWER_NAMES = ("answer", "label", "category", "class", "target", "output")


def infer_task(path: str | Path, *, text_column: str | None = None, answer_column: str | None = None) -> Task:
    """Guess a card from rows: columns by name, labels from the answers; the description is left to a person.

    More than fifty answers, or answers that are mostly different, make an open-ended task.

    Raises:
        InputError: the rows cannot be read, the columns cannot be guessed, or two answers differ
            only in case or white space.
    """
    path = Path(path)
    _, first = next(_rows(path))
    columns = list(first)
    guess = Task(
        name=path.stem,
        description=PLACEHOLDER,
        text_column=text_column or _pick(path, columns, _TEXT_NAMES, "--text-column"),
        answer_column=answer_column or _pick(path, columns, _ANSWER_NAMES, "--answer-column"),
    )
    answers = [example.answer for example in load_examples(path, guess)]
    labels = tuple(dict.fromkeys(answers))
    is_open = len(labels) > 50 or len(labels) > len(answers) / 2
    if is_open:
        return guess.model_copy(update={"task_type": "question answering"})
    for one, other in combinations(labels, 2):
        if fold(one) == fold(other):
            raise InputError(
                f"{path}: found the answers {one!r} and {other!r}; expected labels that differ by more than "
                "case and white space"
            )
    return guess.model_copy(update={"labels": labels})


def _pick(path: Path, columns: list[str], names: Sequence[str], option: str) -> str:
    found = next((column for name in names for column in columns if column.lower() == name), None)
    if found is None:
        listed = ", ".join(" ".join(name.split()) for name in columns)
        raise InputError(f"{path}: found the columns {listed}; say which one with {option}")
    return found


def card_text(task: Task) -> str:
    """Return the task as a TOML card."""
    lines = [f"{key} = {_toml_string(value)}" for key, value in task.model_dump(exclude={"labels"}).items()]
    if task.labels:
        lines.insert(3, "labels = [" + ", ".join(map(_toml_string, task.labels)) + "]")
    return "\n".join(lines) + "\n"


def _toml_string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one character where TOML is stricter
