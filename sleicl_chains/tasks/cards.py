"""A task card: what is asked, and of which columns. Loading, checking and writing one.

Every complaint is one line that names the file, the line, what was found and what was expected.
"""

import json
import math
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from sleicl_chains.errors import InputError, first_complaint, note
from sleicl_chains.files import SURROGATE, parse_json
from sleicl_chains.tasks.labels import fold, plain
from sleicl_chains.tasks.texts import read_encoded


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

    @field_validator("*")
    @classmethod
    def _whole(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if any(SURROGATE.search(text) for text in value):
            raise ValueError("expected valid Unicode, without halves of surrogate pairs")
        return value

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
        if "" in folded or "" in map(plain, labels):
            raise ValueError("a label must not be blank")
        if len(set(folded)) < len(folded):
            raise ValueError("labels must differ by more than case and white space")
        seen: dict[str, str] = {}
        for label in labels:
            if (other := seen.setdefault(plain(label), label)) != label:
                raise ValueError(f"the labels {other!a} and {label!a} look the same; keep one of them")
        return tuple(label.strip() for label in labels)


def load_task(path: str | Path) -> Task:
    """Read a task card from TOML or JSON.

    Raises:
        InputError: the file cannot be read, or a key is missing, unknown or of the wrong type.
    """
    path = Path(path)
    text, encoding = read_encoded(path, "a task card (TOML or JSON)")
    if encoding:
        note(f"{path}: read as {encoding}")
    expected = "an object with name, description and labels"
    card = parse_json(text, path, expected) if path.suffix.lower() == ".json" else _from_toml(text, path)
    if not isinstance(card, dict):
        raise InputError(f"{path}: found {kind(card)}; expected {expected}")
    if taken := [label for label in _listed_labels(card) if plain_text(label) is not None]:
        card["labels"] = [plain_text(label) or label for label in card["labels"]]
        note(
            f"{path}: {len(taken)} labels that are numbers, true or false are taken as text ({plain_text(taken[0])!r})"
        )
    try:
        task = Task.model_validate(card)
    except ValidationError as problem:
        raise InputError(f"{path}: {_complaint(problem)}") from None
    if len(task.labels) == 1:
        note(f"{path}: there is one label alone, so every answer is {task.labels[0]!r}; name the others in labels")
    return task


def _listed_labels(card: dict[str, Any]) -> list[Any]:
    labels = card.get("labels")
    return labels if isinstance(labels, list) else []


def _complaint(problem: ValidationError) -> str:
    first, known = first_complaint(problem), ", ".join(Task.model_fields)
    if first.kind == "extra_forbidden":
        return f"unknown key {first.where!r}; expected keys: {known}"
    if first.kind == "missing":
        return f"key {first.where!r} is missing; expected keys: {known}"
    plain = {"string_type": "expected text", "tuple_type": "expected a list of texts"}
    return f"key {first.where!r}: found {first.found}; {plain.get(first.kind, first.wanted)}"


_MANY_DOTS = re.compile(r"(?:[^\s.=,]{1,80}[ \t]*\.[ \t]*){100}")


def _from_toml(text: str, path: Path) -> dict[str, Any]:
    try:
        # The time for a key grows with the square of its parts: one of 20,000 takes seconds.
        if _MANY_DOTS.search(text):
            raise RecursionError
        return tomllib.loads(text)
    except RecursionError:
        found = "nested too deeply"
    except tomllib.TOMLDecodeError as problem:
        found = str(problem)
    raise InputError(f"{path}: not valid TOML ({found}); expected a task card")


def card_text(task: Task) -> str:
    """Return the task as a TOML card."""
    lines = [f"{key} = {_toml_string(value)}" for key, value in task.model_dump(exclude={"labels"}).items()]
    if task.labels:
        lines.insert(3, "labels = [" + ", ".join(map(_toml_string, task.labels)) + "]")
    return "\n".join(lines) + "\n"


def _toml_string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # the one character where TOML is stricter


def plain_text(value: object) -> str | None:
    """Return a number, true or false as JSON writes it; None for anything else, such as NaN."""
    if not isinstance(value, bool | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return json.dumps(value)


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
