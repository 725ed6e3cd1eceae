"""The library of grimoires as a LangChain retriever."""

from collections.abc import Mapping
from typing import Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from sleicl_chains.grimoires.index import facts
from sleicl_chains.grimoires.store import GrimoireStore, Hit


class GrimoireRetriever(BaseRetriever):
    """The nearest grimoires as documents: the text, its id, and task, model, sampler and score as metadata."""

    store: GrimoireStore
    k: int = 4
    filters: Mapping[str, str] | None = None
    """Values that `task`, `strong_model` or `sampler` must have."""
    form: Literal["simple", "profound"] = "profound"
    """Which text is given; where it is empty, the other."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return [self._document(hit) for hit in self.store.search(query, self.k if k is None else k, self.filters)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return [
            self._document(hit) for hit in await self.store.asearch(query, self.k if k is None else k, self.filters)
        ]

    def _document(self, hit: Hit) -> Document:
        grimoire = hit.grimoire
        profound, simple = grimoire.profound, grimoire.simple
        text = (simple or profound) if self.form == "simple" else (profound or simple)
        return Document(text, id=grimoire.id, metadata={"grimoire": grimoire.id, **facts(grimoire), "score": hit.score})
