"""Which grimoire belongs to a message of a conversation: a new one, the one of the turn before, or none.

What is picked follows from the user's messages alone, in their order. So a server that is sent a whole talk picks as a
chat that has followed it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.store import GrimoireStore


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
        threshold: least similarity of a message to what a grimoire is for; by default that of `GrimoireStore.match`.
    """

    store: GrimoireStore
    threshold: float | None = None
    _known: dict[tuple[str, ...], Pick] = field(default_factory=dict, repr=False)

    def pick(self, text: str, before: Pick | None = None) -> Pick:
        """Return the pick of a message.

        Args:
            text: the user's message.
            before: the pick of the message before.

        Raises:
            StoreError: the library cannot be read.
        """
        found = self.store.match(text, k=1, threshold=self.threshold) if text.strip() else []
        if found:
            hit = found[0]
            return Pick(hit.grimoire, f"similarity {hit.score:.2f}, {hit.why}")
        return Pick()

    def of_talk(self, texts: Iterable[str]) -> Pick:
        """Return the pick of the last of a talk's messages of the user."""
        pick = Pick()
        for text in texts:
            pick = self.pick(text, pick)
        return pick
