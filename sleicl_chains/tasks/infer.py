"""A first card, guessed from rows."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from sleicl_chains.errors import InputError, note
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold, plain
from sleicl_chains.tasks.rows import checked_rows, read_rows

PLACEHOLDER = "Say what is to be decided about the text, and what each answer means."
"""The description of a card that nobody has completed."""
_MANY = 50
"""Labels from which on it is said that there are so many."""
_TEXT_NAMES = ("text", "question", "sentence", "message", "content", "input", "body")
_ANSWER_NAMES = ("answer", "label", "category", "class", "target", "output")


def infer_task(path: str | Path, *, text_column: str | None = None, answer_column: str | None = None) -> Task:
    """Guess a card from rows: columns by name, labels from the answers; the description is left to a person.

    Answers that hardly repeat make an open-ended task; an `InputNote` says so, as it does where there are many labels.

    Raises:
        InputError: the rows cannot be read, the columns cannot be guessed, or two answers differ
            only in case or white space.
    """
    path = Path(path)
    rows = list(read_rows(path))
    columns = list(rows[0][1])
    guess = Task(
        name=path.stem.encode(errors="replace").decode(),
        description=PLACEHOLDER,
        text_column=text_column or _pick(path, columns, _TEXT_NAMES, "--text-column"),
        answer_column=answer_column or _pick(path, columns, _ANSWER_NAMES, "--answer-column"),
    )
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


def _pick(path: Path, columns: list[str], names: Sequence[str], option: str) -> str:
    found = next((column for name in names for column in columns if column.lower() == name), None)
    if found is None:
        listed = ", ".join(" ".join(name.split()) for name in columns)
        raise InputError(f"{path}: found the columns {listed}; say which one with {option}")
    return found
