"""One answered row of a run, as it lies in `rows.jsonl`; the file's keys are named here alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from sleicl_chains.answering.readings import GROUPS
from sleicl_chains.answers import NO_STRONG_ANSWER, Answer
from sleicl_chains.errors import RunError
from sleicl_chains.files import ROWS_LIMIT, read_file
from sleicl_chains.tasks.rows import Example


@dataclass(frozen=True)
class AnsweredRow:
    """What one arm answered to one row. What earlier versions did not note is at its default."""

    arm: str
    row: str
    """The row's key; see `row_keys`."""
    gold: str
    prediction: str | None
    valid: bool
    mode: str = ""
    prior: str = "none"
    grimoire: str | None = None
    note: str = ""
    probability: float | None = None
    coverage: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    reply: str = ""
    """In mode `generate` the model's own words."""
    cue: str = ""
    lists_labels: bool = False
    unseen: tuple[str, ...] = ()
    usage: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    deferred: bool = False

    @classmethod
    def of(cls, arm: str, key: str, gold: str, answer: Answer) -> "AnsweredRow":
        """Return the row of an answer."""
        return cls(
            arm=arm,
            row=key,
            gold=gold,
            prediction=answer.answer,
            valid=answer.valid,
            mode=answer.mode,
            prior=answer.prior,
            grimoire=answer.grimoire,
            note=answer.note,
            probability=answer.probability,
            coverage=answer.coverage,
            scores=dict(answer.scores),
            reply=answer.text if answer.mode == "generate" else "",
            cue=answer.cue,
            lists_labels=answer.lists_labels,
            unseen=answer.unseen,
            usage=dict(answer.usage),
            seconds=answer.seconds,
            deferred=answer.deferred,
        )

    @classmethod
    def from_dict(cls, found: object) -> "AnsweredRow":
        """Return a row that JSON held; keys of a version to come are left out.

        Raises:
            ValueError: it is none.
        """
        row = _checker().validate_python(found)
        # Earlier versions called an answer deferred that the strong model had been asked for but had not given.
        unanswered = row.deferred and row.note.startswith(NO_STRONG_ANSWER)
        return replace(row, deferred=False) if unanswered else row

    def to_dict(self) -> dict[str, Any]:
        """Return what is written: without a reply where none was read, and the cue where there was one."""
        left_out = set() if self.mode == "generate" else {"reply"}
        left_out |= set() if self.mode in GROUPS else {"cue", "lists_labels", "unseen"}
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name not in left_out}


@cache
def _checker() -> TypeAdapter[AnsweredRow]:
    return TypeAdapter(AnsweredRow)


def row_keys(examples: Sequence[Example]) -> list[str]:
    """Return a key for each row: its content hash, and a number from the second of equal rows on."""
    seen: dict[str, int] = {}
    keys = []
    for example in examples:
        seen[example.id] = seen.get(example.id, 0) + 1
        keys.append(example.id if seen[example.id] == 1 else f"{example.id}#{seen[example.id]}")
    return keys


def read_rows(file: Path) -> list[AnsweredRow]:
    """Return the rows of a file of a run; the file is left as it is.

    Raises:
        RunError: a line is no answered row.
        InputError: the file cannot be read.
    """
    rows = []
    data = read_file(file, "the rows of a run", ROWS_LIMIT)
    for number, line in enumerate(data.split(b"\n"), 1):  # of a text it would break at more than that
        if line.strip():
            rows.append(_row(f"{file}, line {number}", line))
    return rows


def _row(where: str, line: bytes) -> AnsweredRow:
    try:
        return AnsweredRow.from_dict(json.loads(line))
    except (ValueError, RecursionError) as problem:
        raise RunError(
            f"{where}: found no answered row ({complaint(problem)}). Mend that line or delete it: the same "
            "`sleicl evaluate` again, with this folder as --run, asks for what is missing"
        ) from None


def complaint(problem: Exception) -> str:
    """Return what is wrong with JSON that was read, on one line, without the text that was found."""
    if isinstance(problem, ValidationError):
        first = problem.errors(include_url=False)[0]
        return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
    if isinstance(problem, UnicodeDecodeError):
        return f"byte 0x{problem.object[problem.start]:02x} is no UTF-8"
    return " ".join(str(problem).split())
