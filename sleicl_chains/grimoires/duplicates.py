"""Grimoires that say nearly the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from langchain_core.embeddings import Embeddings

from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.models.embedders import embed
from sleicl_chains.tasks.labels import fold

NEAR = 0.95
"""Cosine of two rule texts, by `wordllama`, from which on they count as near-duplicates. None of the 3,486 pairs of 84
guides that GPT-4 wrote for six tasks reaches it (the nearest, of one task, has .94); with a word changed or a line
added all 84 do, with a line dropped half."""
_BLOCK = 1024


@dataclass(frozen=True)
class Pair:
    """Two grimoires that say nearly the same."""

    first: str
    second: str
    cosine: float
    equal: bool
    """Whether their rules differ in nothing but case and white space."""


def near_duplicates(grimoires: Sequence[Grimoire], embeddings: Embeddings, *, near: float = NEAR) -> list[Pair]:
    """Return the pairs whose rules (the simple text, else the profound one) are near, the nearest first.

    Every pair is compared: some 0.2 s for 10,000 grimoires beside the embedding of each.
    """
    rules = [grimoire.simple or grimoire.profound for grimoire in grimoires]
    folded = list(map(fold, rules))
    pairs = [
        Pair(grimoires[one].id, grimoires[other].id, min(cosine, 1.0), folded[one] == folded[other])
        for one, other, cosine in _near(rules, embeddings, near)
    ]
    return sorted(pairs, key=lambda pair: (-pair.equal, -pair.cosine, pair.first, pair.second))


def _near(rules: list[str], embeddings: Embeddings, near: float) -> Iterator[tuple[int, int, float]]:
    import numpy as np

    vectors = embed(embeddings, rules)
    for start in range(0, len(rules), _BLOCK):  # in blocks: all cosines of 10,000 at once would take 400 MB
        cosines = vectors[start : start + _BLOCK] @ vectors.T
        for row, other in np.argwhere(cosines >= near):
            if start + row < other:
                yield int(start + row), int(other), round(float(cosines[row, other]), 4)
