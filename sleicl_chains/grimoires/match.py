"""Which grimoires of the library fit a new task, and why.

What fits is decided by one number, the similarity to the grimoire's description or to the nearest of the requests that
it names. The order comes from several rankings, fused by reciprocal ranks: of this number, the rules, the labels and
example texts, as far as they are given.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from sleicl_chains.errors import InputError
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.index import Indexed, described, folded
from sleicl_chains.models.embedders import MiniLM, Remembered, WordVectors, embed
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.texts import whole_text

Closeness = Literal["close", "related", "weak", "unknown"]
"""Where a similarity stands on its embeddings' scale; unknown where the embeddings have none."""
Ground = Literal["description", "requests", "rules", "labels", "texts"]


_Ranked = Literal["nearness", "rules", "labels", "texts"]


class Scale(NamedTuple):
    """What a similarity of descriptions means under some embeddings."""

    fits: float
    """From here on a grimoire counts as fitting."""
    close: float
    """From here on hardly anything that does not fit was seen."""


SCALES: dict[type[Embeddings], Scale] = {WordVectors: Scale(0.3, 0.42), MiniLM: Scale(0.42, 0.52)}
"""Set on the 100 descriptions of benchmarks/match and the starter library, by `score.py --thresholds` there. `fits` is
where two shares are largest together: of descriptions whose grimoire is among the three that fit, and of those, also
with their own grimoires removed, of which it is rightly said that nothing fits. Of the latter 84 of 91 are below
`close` with word vectors, and 90 of 91 with MiniLM."""

_RRF = 60
"""Damping of ranks: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion", SIGIR 2009."""
_DEEP = 60
"""How many of each ranking are fused."""
_WEIGHTS: dict[_Ranked, float] = {"nearness": 2.0, "rules": 1.0, "labels": 2.0, "texts": 1.0}
"""The first two set on try.jsonl too; no description there names labels or texts."""
_LEAST_WEIGHT = 8.5
"""Least length of a word's vector for a word that says what a text is about: `message` has 11, `want` 6, `the` 2."""
_ALIKE = 0.5
"""Least cosine of two words that are shown as near to each other."""
_QUOTED = re.compile(r"[\"“„”«»]([^\"“„”«»\n]{1,40})[\"“„”«»]")


@dataclass(frozen=True)
class Why:
    """Why a grimoire was found."""

    ground: Ground
    """In which ranking it stands highest."""
    closeness: Closeness
    words: tuple[tuple[str, str], ...] = ()
    """Words of the wish and the nearest ones in the grimoire's description, the nearest first; at most four."""
    labels: tuple[str, ...] = ()
    """Labels of the grimoire that the wish names too."""

    def __str__(self) -> str:
        """Return it as a sentence."""
        near = ", ".join(one if one == other else f"{one} ~ {other}" for one, other in self.words)
        parts = [
            f"by its {self.ground}" if self.ground != "texts" else "by your texts",
            f"words: {near}" if near else "",
            f"labels shared: {', '.join(self.labels)}" if self.labels else "",
        ]
        said = "" if self.closeness == "unknown" else f"{self.closeness}, "
        return said + "; ".join(filter(None, parts))


@dataclass(frozen=True)
class Match:
    """A grimoire that may fit a task."""

    grimoire: Grimoire
    score: float
    """Cosine similarity to the description or the nearest request, 0 to 1; what it means under the embeddings,
    `why.closeness` says."""
    why: Why

    @property
    def fits(self) -> bool | None:
        """Whether it counts as fitting; None where the embeddings have no scale."""
        return None if self.why.closeness == "unknown" else self.why.closeness != "weak"


@dataclass(frozen=True, eq=False)
class Wish:
    """What is looked for."""

    text: str
    labels: frozenset[str]
    vector: NDArray[np.float32]
    texts: NDArray[np.floating[Any]] | None
    """Mean vector of the example texts."""
    scale: Scale | None

    @classmethod
    def of(cls, wanted: str | Task, texts: Sequence[str], embeddings: Embeddings) -> "Wish":
        """Return it with its vectors; labels are those of the task, or what stands in quotes.

        Raises:
            InputError: the description is blank, or a text is not valid Unicode.
        """
        text = described(wanted) if isinstance(wanted, Task) else whole_text(wanted, "the description").strip()
        if not text:
            raise InputError("match: the description is empty; tell the task in a sentence")
        labels = wanted.labels if isinstance(wanted, Task) else _QUOTED.findall(text)
        vectors = embed(embeddings, [text, *(whole_text(one, "a text") for one in texts)], as_queries=True)
        return cls(text, folded(labels), vectors[0], vectors[1:].mean(axis=0) if texts else None, scale_of(embeddings))


def scale_of(embeddings: Embeddings) -> Scale | None:
    """Return the scale of `wordllama` and `minilm`; None for other embeddings, for which no threshold is known."""
    while isinstance(embeddings, Remembered):
        embeddings = embeddings.inner
    return SCALES.get(type(embeddings))


def matches(index: Indexed, wish: Wish, *, k: int, threshold: float | None = None) -> list[Match]:
    """Return the grimoires that fit, best first, at most `k`; none where none fits.

    Without a threshold and a scale nobody knows what fits: then the best are returned whatever their score.

    Args:
        index: the library.
        wish: what is looked for.
        k: at least 1.
        threshold: least similarity of the descriptions; by default that of the scale.
    """
    if not index.grimoires:
        return []
    least = threshold if threshold is not None else wish.scale.fits if wish.scale else -1.0
    nearness = index.nearness(wish.vector)
    rankings = _rankings(index, wish, nearness)
    fused: dict[int, float] = {}
    for ground, rows in rankings.items():
        for rank, row in enumerate(rows, 1):
            fused[row] = fused.get(row, 0.0) + _WEIGHTS[ground] / (_RRF + rank)
    order = sorted((row for row in fused if nearness[row] >= least), key=lambda row: (-fused[row], row))
    return [_match(index, row, float(nearness[row]), rankings, wish) for row in order[:k]]


def _rankings(index: Indexed, wish: Wish, nearness: NDArray[np.floating[Any]]) -> dict[_Ranked, list[int]]:
    """Return the first rows of each ranking, the best first."""
    found: dict[_Ranked, list[int]] = {
        "nearness": _first(nearness),
        "rules": _first(index.cosines("rules", wish.vector)),
        "labels": _by_labels(index, wish.labels),
    }
    if wish.texts is not None:
        found["texts"] = _first(index.cosines("task", wish.texts) + index.cosines("rules", wish.texts))
    return found


def _first(scores: NDArray[np.floating[Any]]) -> list[int]:
    """Return the rows of the largest scores; of equal ones the first."""
    # Sorting all of ten thousand would take longer than comparing them.
    rows = np.sort(np.argpartition(-scores, _DEEP)[:_DEEP]) if len(scores) > _DEEP else np.arange(len(scores))
    ordered: list[int] = rows[np.argsort(-scores[rows], kind="stable")].tolist()
    return ordered


def _by_labels(index: Indexed, wanted: frozenset[str]) -> list[int]:
    """Return the rows of the grimoires that share labels, by the share of both label sets that both have (Jaccard)."""
    shared = {row for label in wanted for row in index.by_label.get(label, ())}
    return sorted(shared, key=lambda row: (-_overlap(wanted, folded(index.grimoires[row].labels)), row))[:_DEEP]


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def _match(index: Indexed, row: int, nearness: float, rankings: dict[_Ranked, list[int]], wish: Wish) -> Match:
    grimoire = index.grimoires[row]
    ranks = {ranked: rows.index(row) for ranked, rows in rankings.items() if row in rows}
    first = min(ranks, key=lambda ranked: ranks[ranked])  # of equal ranks the first: nearness
    described_best = index.nearest_text(row, wish.vector) == described(grimoire)
    ground: Ground = first if first != "nearness" else "description" if described_best else "requests"
    shared = tuple(label for label in grimoire.labels if folded([label]) <= wish.labels)
    why = Why(ground, _closeness(nearness, wish.scale), near_words(wish.text, described(grimoire)), shared)
    return Match(grimoire, min(1.0, max(0.0, nearness)), why)


def _closeness(similarity: float, scale: Scale | None) -> Closeness:
    if scale is None:
        return "unknown"
    return "close" if similarity >= scale.close else "related" if similarity >= scale.fits else "weak"


def near_words(wish: str, description: str) -> tuple[tuple[str, str], ...]:
    """Return words of a wish with the nearest ones of a description, at most four pairs, the nearest first.

    Word vectors of `wordllama` say what is near, whatever embeddings the library has.
    """
    (ours, our_vectors), (theirs, their_vectors) = _content(wish), _content(description)
    if not ours or not theirs:
        return ()
    cosines = our_vectors @ their_vectors.T  # (n_ours, n_theirs)
    best = cosines.argmax(axis=1)
    pairs = sorted(zip(-cosines.max(axis=1), ours, (theirs[place] for place in best), strict=True))
    taken: dict[str, tuple[str, str]] = {}
    for distance, one, other in pairs:
        if -distance >= _ALIKE:
            taken.setdefault(other, (one, other))
    return tuple(taken.values())[:4]


@lru_cache(maxsize=1024)
def _content(text: str) -> tuple[list[str], NDArray[np.float32]]:
    """Return the words that say what a text is about, and their vectors: (n_words, n_dims), rows of unit length."""
    words = list(dict.fromkeys(re.findall(r"[^\W\d_]{2,}(?:['’-][^\W\d_]+)*", text.casefold())))
    sums = _words().sums(words)
    lengths = np.linalg.norm(sums, axis=1)
    heavy = lengths >= _LEAST_WEIGHT
    return [word for word, said in zip(words, heavy, strict=True) if said], sums[heavy] / lengths[heavy, None]


@cache
def _words() -> WordVectors:
    return WordVectors()
