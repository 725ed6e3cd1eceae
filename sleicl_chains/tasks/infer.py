"""A first card, guessed from rows."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from sleicl_chains.errors import InputError
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import load_examples, read_rows

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
    _, first = next(read_rows(path))
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
