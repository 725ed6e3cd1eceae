"""A first card, guessed from rows."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from sleicl_chains.errors import InputError, first_complaint, note
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold, plain
from sleicl_chains.tasks.rows import Row, checked_rows, read_rows, text_of

PLACEHOLDER = "Say what is to be decided about the text, and what each answer means."
"""The description of a card that nobody has completed."""
_MANY = 50
"""Labels from which on it is said that there are so many."""
_TEXT_NAMES = ("text", "question", "sentence", "message", "content", "input", "body")
_ANSWER_NAMES = ("answer", "label", "category", "class", "target", "output")


def infer_task(
    path: str | Path, *, text_column: str | None = None, answer_column: str | None = None, labels: Sequence[str] = ()
) -> Task:
    """Guess a card from rows: columns by name, labels from the answers; the description is left to a person.

    Answers that hardly repeat make an open-ended task, and so does a file without any; an `InputNote` says so, as it
    does where there are many labels.

    Args:
        path: the rows.
        text_column: its name.
        answer_column: its name.
        labels: all possible answers, where they are known.

    Raises:
        InputError: the rows cannot be read, no column looks like the text's, two answers differ only in case or white
            space, or one is none of the labels.
    """
    path = Path(path)
    rows = list(read_rows(path))
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    answers = answer_column or _named(columns, _ANSWER_NAMES)
    guess = _card(
        labels,
        name=path.stem.encode(errors="replace").decode(),
        description=PLACEHOLDER,
        text_column=text_column or _text_column(path, columns),
        answer_column=answers or "answer",
    )
    if answers is None:
        return _unanswered(path, rows, columns, guess)
    if labels:
        checked_rows(rows, guess, str(path))
        return guess
    counts = Counter(example.answer for example in checked_rows(rows, guess, str(path)))
    if why := _why_open(counts):
        note(f"{path}: {why}, so the card is open-ended; if they are labels, add labels = [...] to it")
        return guess.model_copy(update={"task_type": "question answering"})
    _refuse_twins(path, list(counts))
    if len(counts) > _MANY:
        low, high = min(counts.values()), max(counts.values())
        note(f"{path}: {len(counts)} different answers, {low} to {high} rows each, are taken as labels")
    if len(counts) == 1:
        note(f"{path}: all rows have the answer {next(iter(counts))!r}; one label leaves nothing to decide")
    return guess.model_copy(update={"labels": tuple(counts)})


def _card(labels: Sequence[str], **about: str) -> Task:
    try:
        return Task(labels=tuple(labels), **about)
    except ValidationError as problem:
        first = first_complaint(problem)
        raise InputError(f"--labels: found {first.found}; {first.wanted}") from None


def _unanswered(path: Path, rows: Sequence[Row], columns: Sequence[str], guess: Task) -> Task:
    """Return the card of rows that no column answers."""
    for where, row in rows:
        text_of(where, row, guess.text_column)
    if guess.labels:
        return guess
    note(
        f"{path}: found no answers (columns {_listed(columns)}), so the card is open-ended; if there are labels, give "
        "--labels a,b,c or add labels = [...] to it. --answer-column names the column of answers"
    )
    return guess.model_copy(update={"task_type": "question answering"})


def _why_open(counts: Counter[str]) -> str:
    """Return why answers are no labels; empty if they are."""
    once = sum(count == 1 for count in counts.values())
    if 2 * len(counts) > counts.total():
        return f"{counts.total()} rows have {len(counts)} different answers"
    # A long tail of numbers or names is free text with some luck; labels come back.
    if len(counts) > _MANY and 3 * once > len(counts):
        return f"{once} of {len(counts)} different answers stand in one row alone"
    return ""


def _refuse_twins(path: Path, labels: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(plain(" ".join(label.split())), label)
        if other != label and fold(other) == fold(label):
            raise InputError(
                f"{path}: found the answers {other!r} and {label!r}; expected labels that differ by more than "
                "case and white space"
            )
        if other != label:
            found = f"the answers {other!a} and {label!a}, which look the same"
            raise InputError(f"{path}: found {found}; write both with the same characters")


def _text_column(path: Path, columns: Sequence[str]) -> str:
    found = _named(columns, _TEXT_NAMES)
    if found is None:
        raise InputError(f"{path}: found the columns {_listed(columns)}; say which one with --text-column")
    return found


def _named(columns: Sequence[str], names: Sequence[str]) -> str | None:
    return next((column for name in names for column in columns if column.lower() == name), None)


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(" ".join(name.split()) for name in columns)
