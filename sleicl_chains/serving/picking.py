"""Which grimoire belongs to a message of a conversation: a new one, the one of the turn before, or none.

A message is cut into parts, since what is asked is often one sentence beside a long text. A grimoire leads by how near
a part is to its description or to a request that it names, less half of how near that part is to what people ask
besides (`talk.toml`). The first is taken where it leads by enough. Else the one of the turn before goes on, which needs
less, the less the more the message reads as a follow-up. `benchmarks/talks` has the conversations that this was set on
and measured with.

What is picked follows from the user's messages alone, in their order. So a server that is sent a whole talk picks as a
chat that has followed it.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.index import Indexed, described
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.models.embedders import embed

# No body holds its own opening mark: else a text of many of those would be read through from each.
_QUOTED = re.compile(r'```.*?```|"[^"]{15,}"|“[^“”]{15,}”|„[^„“”]{15,}[“”]|«[^«»]{15,}»', re.DOTALL)
_ASKS = "can|could|pls|please|make|is|what|which|how|do|does|did"
_PART_ENDS = re.compile(rf"\n|(?<=[.!?;:])\s+|\.\.+|\s[-–]\s|,\s+(?=(?:{_ASKS})\b)", re.IGNORECASE)
_WORD = re.compile(r"\w")
_FIRST_PARTS = 3
"""So many parts at the beginning are looked at, and the last one."""
_PART_LENGTH = 2000
"""So many characters of a part are compared."""
_LONG = 25
"""A message of more words brings a text along."""
_BESIDE = 0.5
"""Weight of how near a part is to what people ask besides."""
_BAR = 0.265
"""Least lead of a grimoire."""
_HELD, _TEXT, _FOLLOWS = 0.17, 0.25, 0.375
"""What the grimoire of the turn before has ahead: always, where the message brings a text, and per unit of how much
nearer it is to follow-ups than to other requests. All by `benchmarks/talks/fit.py`, rounded."""

_VECTORS: WeakKeyDictionary[GrimoireStore, tuple[NDArray[np.float32], NDArray[np.float32]]] = WeakKeyDictionary()
"""Kept beside the store: a server has a picker a request."""


@dataclass(frozen=True)
class Pick:
    """The grimoire of a turn, or none, and why."""

    grimoire: Grimoire | None = None
    why: str = "none fits"
    held: bool = False
    """Whether it goes on from the turn before."""


@dataclass(frozen=True, eq=False)
class Message:
    """A message as it is compared: its parts, and whether it brings a text along."""

    parts: tuple[str, ...]
    brings_text: bool

    @classmethod
    def of(cls, text: str) -> "Message":
        """Return it without the texts that are quoted in it, unless there is nothing else."""
        asked = _QUOTED.sub("\n", text)
        parts = [part.strip() for part in _PART_ENDS.split(asked) if _WORD.search(part)]
        brings = len(asked) < len(text) - 12 or len(text.split()) > _LONG
        if not parts:
            return cls((text.strip()[:200],), brings)
        taken = [part[:_PART_LENGTH] for part in (*parts[:_FIRST_PARTS], parts[-1])]
        if len(parts) > 1 and len(whole := " ".join(parts)) < 250:
            taken.append(whole)
        return cls(tuple(dict.fromkeys(taken)), brings)


@dataclass(frozen=True, eq=False)
class Compared:
    """A message beside a library."""

    index: Indexed
    vectors: NDArray[np.float32]
    """Of the message's parts: (n_parts, n_dims)."""
    near: NDArray[np.floating[Any]]
    """(n_parts, n_grimoires)."""
    leads: NDArray[np.floating[Any]]
    """`near` less half of how near the part is to what people ask besides: (n_parts, n_grimoires)."""
    brings_text: bool
    follows: float
    """How much nearer a part is to follow-ups than to other requests, at most; from -1 to 1."""

    @property
    def ahead(self) -> float:
        """What the grimoire of the turn before has ahead."""
        return _HELD + _TEXT * self.brings_text + _FOLLOWS * self.follows

    def why(self, row: int) -> str:
        """Say what a grimoire is near by."""
        part = int(self.leads[:, row].argmax())
        said = self.index.nearest_text(row, self.vectors[part])
        what = "its description" if said == described(self.index.grimoires[row]) else f"“{said}”"
        return f"near to {what} ({self.near[part, row]:.2f})"


@dataclass
class Picker:
    """Picks from a library, which is read again where it has changed. No model call; some milliseconds a message."""

    store: GrimoireStore

    def pick(self, text: str, before: Pick | None = None) -> Pick:
        """Return the pick of a message.

        Args:
            text: the user's message.
            before: the pick of the message before.

        Raises:
            StoreError: the library cannot be read.
        """
        found = self.compared(text)
        if found is None:
            return Pick()
        grimoires, lead = found.index.grimoires, found.leads.max(axis=0)
        before_id = before.grimoire.id if before and before.grimoire else ""
        held = next((row for row, one in enumerate(grimoires) if one.id == before_id), None)
        best = int(lead.argmax())
        if lead[best] >= _BAR:
            return Pick(grimoires[best], found.why(best), held=best == held)
        if held is not None and lead[held] + found.ahead >= _BAR:
            return Pick(grimoires[held], "goes on with the one before", held=True)
        return Pick()

    def compared(self, text: str) -> Compared | None:
        """Return how near a message is to each grimoire; None where there is nothing to compare."""
        index = self.store.indexed()
        if not index.grimoires or not text.strip():
            return None
        message = Message.of(text)
        vectors = embed(self.store.embeddings, message.parts, as_queries=True)
        follows, others = ((vectors @ known.T).max(axis=1) for known in _talk_vectors(self.store))  # (n_parts,) each
        near = np.array([index.nearness(vector) for vector in vectors])
        leads = near - _BESIDE * others[:, None]
        return Compared(index, vectors, near, leads, message.brings_text, float((follows - others).max()))

    def of_talk(self, texts: Iterable[str]) -> Pick:
        """Return the pick of the last of a talk's messages of the user."""
        pick = Pick()
        for text in texts:
            pick = self.pick(text, pick)
        return pick


def _talk_vectors(store: GrimoireStore) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the vectors of follow-ups, and of what people ask besides: (n_lines, n_dims) each; made once a store."""
    if store not in _VECTORS:
        lines = tomllib.loads((files("sleicl_chains.serving") / "talk.toml").read_text(encoding="utf-8"))
        _VECTORS[store] = embed(store.embeddings, lines["follow_ups"]), embed(store.embeddings, lines["others"])
    return _VECTORS[store]
