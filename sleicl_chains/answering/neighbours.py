"""The labelled rows nearest to a question, for the arm `knn`."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example

if TYPE_CHECKING:
    import numpy as np
    from langchain_core.embeddings import Embeddings
    from numpy.typing import NDArray

NEIGHBOURS = 4
"""Examples that `knn` shows."""


class Neighbours:
    """Finds the nearest rows by cosine; the nearest comes last, next to the question.

    A row of the question's own text is never among them. Each row is embedded once. No randomness: rows equally near,
    to six digits, come in the order of their content hash; further digits differ between processors.
    """

    def __init__(self, rows: Sequence[Example], embeddings: "Embeddings", *, k: int = NEIGHBOURS) -> None:
        self.rows = sorted(rows, key=lambda row: row.id)
        self._embeddings, self._k = embeddings, k

    def __call__(self, question: str) -> tuple[Example, ...]:
        """Return at most k rows."""
        import numpy as np

        from sleicl_chains.models.embedders import embed

        # As in "What Makes Good In-Context Examples for GPT-3?" (arXiv 2101.06804), by sentence embeddings. These
        # vectors are of unit length, so that the product is the cosine.
        near = self._vectors @ embed(self._embeddings, [question])[0]
        order = [self.rows[at] for at in np.argsort(-near.round(6), kind="stable")]
        others = [row for row in order if fold(row.text) != fold(question)]
        return tuple(reversed(others[: self._k]))

    @cached_property
    def _vectors(self) -> "NDArray[np.float32]":
        from sleicl_chains.models.embedders import embed

        return embed(self._embeddings, [row.text for row in self.rows])
