"""Grimoires that say nearly the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    pairs = [
        Pair(grimoires[one].id, grimoires[other].id, cosine, _rules(grimoires[one]) == _rules(grimoires[other]))
        for one, other, cosine in _near(vectors, near, [one.id for one in grimoires].index(of) if of else None)
    ]
    return sorted(pairs, key=lambda pair: (-pair.equal, -pair.cosine, pair.first, pair.second))


def _rules(grimoire: Grimoire) -> str:
    return fold(grimoire.profound or grimoire.simple)


def _near(vectors: "NDArray[np.float32]", near: float, only: int | None) -> Iterator[tuple[int, int, float]]:
    starts = range(0, len(vectors), _BLOCK) if only is None else [only]
    size = _BLOCK if only is None else 1
    for start in starts:  # in blocks: all cosines of 10,000 at once would take 400 MB
        cosines = vectors[start : start + size] @ vectors.T
        for row, other in zip(*(cosines >= near).nonzero(), strict=True):
            if start + row < other or (only is not None and other != only):
                yield int(start + row), int(other), round(min(float(cosines[row, other]), 1.0), 4)
