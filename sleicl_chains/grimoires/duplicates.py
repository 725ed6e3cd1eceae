"""Grimoires that say nearly the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.tasks.labels import fold

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NEAR = 0.98
"""Cosine of two texts of rules, by `wordllama`, from which on they count as near-duplicates. None of the 3,486 pairs of
84 guides that GPT-4 wrote for six tasks reaches it: the nearest, of one task, has .958. With a word changed, a line
dropped or a line added all 84 do: the least has .988."""
_BLOCK = 1024


@dataclass(frozen=True)
class Pair:
    """Two grimoires that say nearly the same."""

    first: str
    second: str
    cosine: float
    equal: bool
    """Whether their rules differ in nothing but case and white space."""


def near_duplicates(
    grimoires: Sequence[Grimoire], vectors: "NDArray[np.float32]", *, of: str | None = None, near: float = NEAR
) -> list[Pair]:
    """Return the pairs whose rules are near, the nearest first.

    Args:
        grimoires: any number.
        vectors: of their rules, (n_grimoires, n_dims), rows of unit length.
        of: the id of one, with which alone the others are compared; else every pair is.
        near: least cosine.
    """
    row = [grimoire.id for grimoire in grimoires].index(of) if of else None
    cosines = {(one, other): cosine for one, other, cosine in _near(vectors, near, row)}
    texts = [fold(grimoire.text()) for grimoire in grimoires]
    for one, other in _equal(texts, row):  # embedders may tell capitals from small letters
        cosines.setdefault((one, other), _rounded(vectors[one] @ vectors[other]))
    pairs = [
        Pair(grimoires[one].id, grimoires[other].id, cosine, texts[one] == texts[other])
        for (one, other), cosine in cosines.items()
    ]
    return sorted(pairs, key=lambda pair: (-pair.equal, -pair.cosine, pair.first, pair.second))


def _equal(texts: list[str], row: int | None) -> Iterator[tuple[int, int]]:
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    if row is not None:
        yield from ((row, other) for other in places[texts[row]] if other != row)
        return
    for same in places.values():
        yield from combinations(same, 2)


def _rounded(cosine: "np.float32") -> float:
    return round(min(float(cosine), 1.0), 4)


def _near(vectors: "NDArray[np.float32]", near: float, only: int | None) -> Iterator[tuple[int, int, float]]:
    starts = range(0, len(vectors), _BLOCK) if only is None else [only]
    size = _BLOCK if only is None else 1
    for start in starts:  # in blocks: all cosines of 10,000 at once would take 400 MB
        cosines = vectors[start : start + size] @ vectors.T
        for row, other in zip(*(cosines >= near).nonzero(), strict=True):
            if start + row < other or (only is not None and other != only):
                yield int(start + row), int(other), _rounded(cosines[row, other])
