"""A task card: what is asked, and of which columns. Loading, checking and writing one.

Every complaint is one line that names the file, the line, what was found and what was expected.
"""

import json
import reprlib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from sleicl_chains.errors import InputError
from sleicl_chains.files import read_text
from sleicl_chains.tasks.labels import fold

SHORT = reprlib.Repr()  # for complaints: nobody wants a whole book in one line
SHORT.maxstring = 80


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


def load_task(path: str | Path) -> Task:
    """Read a task card from TOML or JSON.

    Raises:
        InputError: the file cannot be read, or a key is missing, unknown or of the wrong type.
    """
    path = Path(path)
    text = read_text(path, "a task card (TOML or JSON)")
    expected = "an object with name, description and labels"
    card = from_json(text, path, expected) if path.suffix.lower() == ".json" else _from_toml(text, path)
    if not isinstance(card, dict):
        raise InputError(f"{path}: found {kind(card)}; expected {expected}")
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
    return f"key {where!r}: found {SHORT.repr(first['input'])}; {wanted}"


def _from_toml(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        found = "nested too deeply"
    except tomllib.TOMLDecodeError as problem:
        found = str(problem)
    raise InputError(f"{path}: not valid TOML ({found}); expected a task card")


def from_json(text: str, path: Path, expected: str, line: int = 0) -> Any:
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


def card_text(task: Task) -> str:
    """Return the task as a TOML card."""
    lines = [f"{key} = {_toml_string(value)}" for key, value in task.model_dump(exclude={"labels"}).items()]
    if task.labels:
        lines.insert(3, "labels = [" + ", ".join(map(_toml_string, task.labels)) + "]")
    return "\n".join(lines) + "\n"


def _toml_string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one character where TOML is stricter


def kind(value: object) -> str:
    """Return what a JSON value is, in words."""
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
