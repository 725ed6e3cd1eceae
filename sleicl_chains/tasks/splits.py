"""Disjoint parts of the examples, and seeded orders that are the same everywhere."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from sleicl_chains.errors import InputError
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FOLDS = 5
"""Folds of every cross-validation."""


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
        examples: rows in any order; of texts equal after folding case and white space one is kept.
        seed: decides which rows go where.
        sizes: for write, dev and test in this order, or by name: whole numbers are rows, numbers
            between 0 and 1 shares of the distinct rows. A part that is not named stays empty.

    Raises:
        InputError: a size is negative, or the parts ask for more distinct rows than there are.
    """
    rows = stratified(distinct(shuffled(examples, seed)), seed)
    named = dict(sizes) if isinstance(sizes, Mapping) else dict(zip(Split._fields, sizes, strict=False))
    if set(named) - set(Split._fields) or len(sizes) > len(Split._fields):
        raise InputError(f"sizes: found {sizes!r}; expected at most write, dev and test")
    counts = [_rows_of(named.get(part, 0), len(rows)) for part in Split._fields]
    if sum(counts) > len(rows):
        raise InputError(f"sizes: {sum(counts)} rows asked for; found {len(rows)} distinct ones in {len(examples)}")
    source = iter(rows)
    return Split(*(list(islice(source, count)) for count in counts))


def _rows_of(size: float, available: int) -> int:
    if not (0 <= size <= 1 or (size > 1 and float(size).is_integer())):  # false for NaN as well
        raise InputError(f"sizes: found {size!r}; expected a whole number of rows or a share from 0 to 1")
    # A little is added before rounding down, because 0.29 * 100 is 28.999999999999996.
    return int(size * available + 1e-9) if isinstance(size, float) and size <= 1 else int(size)


def folds(answers: Sequence[str]) -> list[tuple["NDArray[np.int_]", "NDArray[np.int_]"]]:
    """Return (train, held out) row numbers of a stratified cross-validation; none where hardly a label has two rows.

    Labels with a single row never leave the training part.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedKFold

    counts = Counter(answers)
    rare = min((count for count in counts.values() if count > 1), default=0)
    parts = min(FOLDS, max(rare, 3), max(counts.values(), default=0))
    usable = [at for at, answer in enumerate(answers) if counts[answer] > 1]
    single = np.array([at for at, answer in enumerate(answers) if counts[answer] == 1], dtype=int)
    if rare == 0 or len(usable) < 2 * parts or sum(count > 1 for count in counts.values()) < 2:
        return []
    rows = np.array(usable)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it warns where a label has fewer rows than folds
        found = list(StratifiedKFold(parts, shuffle=True, random_state=0).split(rows, [answers[at] for at in usable]))
    return [(np.concatenate([rows[train], single]), rows[held]) for train, held in found]


def balance(answers: Sequence[str]) -> "NDArray[np.float64]":
    """Return a weight a row, so that every label weighs alike and all weights add up to the number of rows."""
    counts = Counter(answers)
    import numpy as np

    return np.array([len(answers) / (len(counts) * counts[answer]) for answer in answers])
