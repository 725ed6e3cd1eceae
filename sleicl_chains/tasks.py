"""What the user brings: a task card and its examples. Loading, checking and splitting them.

Every complaint is one line that names the file, the line, what was found and what was expected.
"""

import csv
import hashlib
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from sleicl_chains.errors import InputError

if TYPE_CHECKING:
    from langchain_core.documents import Document

Row = tuple[str, dict[str, Any]]  # where it stands ("rows.csv, line 3"), and its columns
Item = TypeVar("Item")


def fold(text: str) -> str:
    """Return `text` without differences of case and white space, to tell duplicates."""
    return " ".join(text.casefold().split())


@dataclass(frozen=True)
class Example:
    """A text and its right answer."""

    text: str
    answer: str
    id: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        content = f"{self.text}\0{self.answer}".encode()
        object.__setattr__(self, "id", hashlib.sha256(content).hexdigest()[:16])


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
        return labels

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits that change with anything on the card that a model sees."""
        seen = [self.name, self.task_type, self.description, *self.labels]
        return hashlib.sha256("\0".join(seen).encode()).hexdigest()[:16]


# ------------------------------------------------------------------ reading


def read_text(path: Path, what: str) -> str:
    """Return a UTF-8 file's text.

    Raises:
        InputError: the file is missing, a folder, or of another encoding.
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
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        found = f"byte 0x{data[problem.start]:02x}"
        raise InputError(f"{path}, line {line}: found {found}, which is not UTF-8; expected {what} in UTF-8") from None


def load_task(path: str | Path) -> Task:
    """Read a task card from TOML or JSON.

    Raises:
        InputError: the file cannot be read, or a key is missing, unknown or of the wrong type.
    """
    path = Path(path)
    text = read_text(path, "a task card (TOML or JSON)")
    try:
        card = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as problem:
        raise InputError(f"{path}: not a valid {path.suffix.lstrip('.') or 'TOML'} card: {problem}") from None
    if not isinstance(card, dict):
        raise InputError(f"{path}: found {_kind(card)}; expected an object with name, description and labels")
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
    return f"key {where!r}: found {first['input']!r}; {first['msg'].removeprefix('Value error, ')}"


def load_examples(path: str | Path, task: Task) -> list[Example]:
    """Read rows from JSONL, JSON (a list of objects) or CSV; 100,000 take about a second.

    Raises:
        InputError: the file cannot be read or is empty, or a row lacks a column, holds something
            that is not text, or has a label that the card does not name.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path, str], Iterator[Row]]] = {
        ".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows, ".tsv": _csv_rows,
    }  # fmt: skip
    if path.suffix.lower() not in readers and not path.is_dir():
        raise InputError(f"{path}: found the ending {path.suffix!r}; expected rows as .jsonl, .json or .csv")
    text = read_text(path, "rows as .jsonl, .json or .csv")
    check = _row_checker(task)
    examples = [check(where, row) for where, row in readers[path.suffix.lower()](path, text)]
    if not examples:
        raise InputError(f"{path}: the file holds no rows; expected at least one")
    return examples


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


def _jsonl_rows(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except ValueError as problem:
                raise InputError(f"{where}: not valid JSON ({problem}); expected one object a line") from None
            yield where, _an_object(where, row)


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    try:
        rows = json.loads(text) if text.strip() else []
    except ValueError as problem:
        raise InputError(f"{path}: not valid JSON ({problem}); expected a list of objects") from None
    if not isinstance(rows, list):
        raise InputError(f"{path}: found {_kind(rows)}; expected a list of objects")
    for number, row in enumerate(rows, 1):
        where = f"{path}, row {number}"
        yield where, _an_object(where, row)


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    # Not splitlines(): a quoted cell may hold line ends of any kind.
    reader = csv.DictReader(iter(text.splitlines(keepends=True)), delimiter="\t" if path.suffix == ".tsv" else ",")
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row:
                raise InputError(
                    f"{where}: found more cells than the header's {len(reader.fieldnames or ())}; "
                    "quote cells that hold commas"
                )
            yield where, row
    except csv.Error as problem:
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({problem})") from None


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
    labels = frozenset(task.labels)

    def check(where: str, row: Mapping[str, Any]) -> Example:
        text = _cell(where, row, task.text_column)
        answer = _cell(where, row, task.answer_column).strip()
        if labels and answer not in labels:
            raise InputError(f"{where}: found the label {answer!r}; {_expected_label(answer, task.labels)}")
        try:
            return Example(text, answer)
        except UnicodeEncodeError:
            raise InputError(f"{where}: the text holds half of a surrogate pair; expected valid Unicode") from None

    return check


def _cell(where: str, row: Mapping[str, Any], column: str) -> str:
    if column not in row:
        found = ", ".join(repr(name) for name in row) or "nothing"
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
    shown = ", ".join(repr(label) for label in labels[:12]) + (" ..." if len(labels) > 12 else "")
    return f"{hint}expected one of {shown}"


# ------------------------------------------------------------------ splitting


class Split(NamedTuple):
    """Disjoint parts of a list of examples: the strong model reads `write`; choices are made on `dev`."""

    write: list[Example]
    dev: list[Example]
    test: list[Example]


def distinct(examples: Iterable[Example]) -> list[Example]:
    """Return the first example of each text, texts compared after folding case and white space."""
    seen: dict[str, Example] = {}
    for example in examples:
        seen.setdefault(fold(example.text), example)
    return list(seen.values())


def shuffled(examples: Iterable[Example], seed: int) -> list[Example]:
    """Return the examples in an order fixed by `seed` and their content alone.

    Sorting by a hash instead of drawing random numbers makes the order the same in every process,
    on every machine and Python version, and independent of the order in the file.
    """
    return sorted(examples, key=lambda e: hashlib.sha256(f"{seed}:{e.text}\0{e.answer}".encode()).digest())


def stratified(examples: Iterable[Example], seed: int) -> list[Example]:
    """Return the examples in a seeded order of which every prefix has nearly the labels' shares."""
    groups: dict[str, list[Example]] = {}
    for example in shuffled(examples, seed):
        groups.setdefault(example.answer, []).append(example)
    places = [((rank + 0.5) / len(group), example) for group in groups.values() for rank, example in enumerate(group)]
    return [example for _, example in sorted(places, key=lambda place: (place[0], place[1].answer))]


def split(examples: Sequence[Example], *, seed: int, sizes: Sequence[float] | Mapping[str, float]) -> Split:
    """Cut examples into disjoint, label-stratified parts without duplicates.

    Args:
        examples: rows; of texts equal after folding case and white space the first one is kept.
        seed: decides which rows go where.
        sizes: for write, dev and test in this order, or by name: whole numbers are rows, numbers
            between 0 and 1 shares of the distinct rows. A part that is not named stays empty.

    Raises:
        InputError: a size is negative, or the parts ask for more distinct rows than there are.
    """
    rows = stratified(distinct(examples), seed)
    named = dict(sizes) if isinstance(sizes, Mapping) else dict(zip(Split._fields, sizes, strict=False))
    if set(named) - set(Split._fields) or len(sizes) > len(Split._fields):
        raise InputError(f"sizes: found {sizes!r}; expected at most write, dev and test")
    counts = [_rows_of(named.get(part, 0), len(rows)) for part in Split._fields]
    if sum(counts) > len(rows):
        raise InputError(f"sizes: {sum(counts)} rows asked for; found {len(rows)} distinct ones in {len(examples)}")
    source = iter(rows)
    return Split(*(list(islice(source, count)) for count in counts))


def _rows_of(size: float, available: int) -> int:
    if size < 0 or (size > 1 and size != int(size)):
        raise InputError(f"sizes: found {size!r}; expected a whole number of rows or a share from 0 to 1")
    return int(size * available) if isinstance(size, float) and size <= 1 else int(size)


# ------------------------------------------------------------------ writing a first card

_TEXT_NAMES = ("text", "question", "sentence", "message", "content", "input", "body")
_ANSWER_NAMES = ("answer", "label", "category", "class", "target", "output")


def infer_task(path: str | Path, *, text_column: str | None = None, answer_column: str | None = None) -> Task:
    """Guess a card from rows: columns by name, labels from the answers; the description is left to a person.

    More than fifty answers, or answers that are mostly different, make an open-ended task.

    Raises:
        InputError: the rows cannot be read or the columns cannot be guessed.
    """
    path = Path(path)
    reader = {".csv": _csv_rows, ".tsv": _csv_rows, ".json": _json_rows}.get(path.suffix.lower(), _jsonl_rows)
    first = next(reader(path, read_text(path, "rows as .jsonl, .json or .csv")), None)
    if first is None:
        raise InputError(f"{path}: the file holds no rows; expected at least one")
    columns = list(first[1])
    guess = Task(
        name=path.stem,
        description="Say what is to be decided about the text, and what each answer means.",
        text_column=text_column or _pick(path, columns, _TEXT_NAMES, "--text-column"),
        answer_column=answer_column or _pick(path, columns, _ANSWER_NAMES, "--answer-column"),
    )
    answers = [example.answer for example in load_examples(path, guess)]
    labels = tuple(dict.fromkeys(answers))
    is_open = len(labels) > 50 or len(labels) > len(answers) / 2
    return guess.model_copy(update={"task_type": "question answering"} if is_open else {"labels": labels})


def _pick(path: Path, columns: list[str], names: Sequence[str], option: str) -> str:
    found = next((column for name in names for column in columns if column.lower() == name), None)
    if found is None:
        raise InputError(f"{path}: found the columns {', '.join(columns)}; say which one with {option}")
    return found


def card_text(task: Task) -> str:
    """Return the task as a TOML card."""
    lines = [f"{key} = {_toml_string(value)}" for key, value in task.model_dump(exclude={"labels"}).items()]
    if task.labels:
        lines.insert(3, "labels = [" + ", ".join(map(_toml_string, task.labels)) + "]")
    return "\n".join(lines) + "\n"


def _toml_string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one character where TOML is stricter
