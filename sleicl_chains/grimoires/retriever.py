"""The library of grimoires as a LangChain retriever."""

from typing import Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from sleicl_chains.grimoires.filters import Filters
from sleicl_chains.grimoires.index import facts
from sleicl_chains.grimoires.store import GrimoireStore, Hit


class GrimoireRetriever(BaseRetriever):
    """The nearest grimoires as documents: the text, its id, and task, model, sampler and score as metadata."""

    store: GrimoireStore
    k: int = 4
    filters: Filters | None = None
    """Values that `task`, `strong_model`, `sampler`, `task_type`, `language` or `labels` must have."""
    score_threshold: float | None = None
    """Least score, 0 to 1, of a document; without one the nearest are given however far they are."""
    form: Literal["simple", "profound"] = "profound"
    """Which text is given; where it is empty, the other."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return self._documents(self.store.search(query, self.k if k is None else k, self.filters))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return self._documents(await self.store.asearch(query, self.k if k is None else k, self.filters))

    def _documents(self, hits: list[Hit]) -> list[Document]:
        least = self.score_threshold
        return [self._document(hit) for hit in hits if least is None or hit.score >= least]

    def _document(self, hit: Hit) -> Document:
        grimoire = hit.grimoire
        profound, simple = grimoire.profound, grimoire.simple
        text = (simple or profound) if self.form == "simple" else (profound or simple)
        return Document(text, id=grimoire.id, metadata={"grimoire": grimoire.id, **facts(grimoire), "score": hit.score})
