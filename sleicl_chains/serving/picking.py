"""Which grimoire belongs to a message of a conversation: a new one, the one of the turn before, or none.

What is picked follows from the user's messages alone, in their order. So a server that is sent a whole talk picks as a
chat that has followed it.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.models.embedders import embed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_QUOTED = re.compile(r'```.*?```|"[^"]{15,}"|“[^”]{15,}”|„[^“”]{15,}[“”]|«[^»]{15,}»', re.DOTALL)
_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class Pick:
    """The grimoire of a turn, or none, and why."""

    grimoire: Grimoire | None = None
    why: str = "none fits"
    held: bool = False
    """Whether it goes on from the turn before."""


@dataclass
class Picker:
    """Picks from a library, which is searched once a message.

    Args:
        store: the library.
        fits: least similarity of a request to what a grimoire is for.
    """

    store: GrimoireStore
    fits: float = 0.42

    def pick(self, text: str, before: Pick | None = None) -> Pick:
        """Return the pick of a message.

        Args:
            text: the user's message.
            before: the pick of the message before.

        Raises:
            StoreError: the library cannot be read.
        """
        held = before.grimoire if before else None
        asked = request_of(text)
        if not asked:  # nothing but a text: more of the same
            return _on(before, "a text alone, so the one before goes on")
        found = self.store.match(asked, k=1, threshold=-1.0)
        follow, other = self._kind(asked)
        best = found[0].score if found else -1.0
        if found and best >= self.fits and best > other and best >= follow:
            return Pick(found[0].grimoire, f"similarity {best:.2f}, {found[0].why}")
        if held and follow > other:
            return _on(before, "goes on with the one before")
        return Pick()

    def of_talk(self, texts: Iterable[str]) -> Pick:
        """Return the pick of the last of a talk's messages of the user."""
        pick = Pick()
        for text in texts:
            pick = self.pick(text, pick)
        return pick

    def _kind(self, asked: str) -> tuple[float, float]:
        """Return how near a request is to follow-ups, and to requests for something else."""
        vector = embed(self.store.embeddings, [asked], as_queries=True)[0]
        follow, other = (float((known @ vector).max()) for known in self._known)
        return follow, other

    @cached_property
    def _known(self) -> "tuple[NDArray[np.float32], NDArray[np.float32]]":
        lines = tomllib.loads((files("sleicl_chains.serving") / "talk.toml").read_text(encoding="utf-8"))
        follow, other = (embed(self.store.embeddings, lines[kind]) for kind in ("follow_ups", "others"))
        return follow, other


def request_of(text: str) -> str:
    """Return what a message asks, without the texts that are quoted in it; empty where there is nothing else."""
    asked = _QUOTED.sub(" ", text).strip()
    return asked if _WORD.search(asked) else ""


def _on(before: Pick | None, why: str) -> Pick:
    return replace(before, why=why, held=True) if before and before.grimoire else Pick()
