"""The library of grimoires as a LangChain retriever."""

from collections.abc import Sequence
from typing import Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict

from sleicl_chains.errors import InputError
from sleicl_chains.grimoires.filters import Filters
from sleicl_chains.grimoires.index import facts
from sleicl_chains.grimoires.match import Match
from sleicl_chains.grimoires.store import GrimoireStore, Hit


class GrimoireRetriever(BaseRetriever):
    """The nearest grimoires as documents: the text, its id, and task, model, sampler and score as metadata.

    With `search_type="match"` those that fit, as `GrimoireStore.match` has it, and in the metadata why.
    """

    store: GrimoireStore
    k: int = 4
    search_type: Literal["nearest", "match"] = "nearest"
    """Whether the nearest are given, or those that fit."""
    filters: Filters | None = None
    """Values that `task`, `strong_model`, `sampler`, `task_type`, `language` or `labels` must have."""
    score_threshold: float | None = None
    """Least score, 0 to 1, of a document; without one the nearest are given however far they are, or those that fit."""
    form: Literal["simple", "profound"] = "profound"
    """Which text is given; where it is empty, the other."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return self._documents(self._found(query, self.k if k is None else k))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return self._documents(await run_in_executor(None, self._found, query, self.k if k is None else k))

    def _found(self, query: str, k: int) -> Sequence[Hit | Match]:
        if self.search_type == "nearest":
            return self.store.search(query, k, self.filters)
        if self.filters:
            raise InputError("GrimoireRetriever: `filters` go with search_type='nearest' alone; leave one of both out")
        return self.store.match(query, k=k, threshold=self.score_threshold)

    def _documents(self, hits: Sequence[Hit | Match]) -> list[Document]:
        least = self.score_threshold
        return [self._document(hit) for hit in hits if least is None or hit.score >= least]

    def _document(self, hit: Hit | Match) -> Document:
        grimoire = hit.grimoire
        about = {"grimoire": grimoire.id, **facts(grimoire), "score": hit.score}
        why = {"why": str(hit.why)} if isinstance(hit, Match) else {}
        return Document(grimoire.text(self.form), id=grimoire.id, metadata=about | why)
