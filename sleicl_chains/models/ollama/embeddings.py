"""`ollama:NAME` embeddings: what does not fit is refused; Ollama would embed its beginning and say nothing."""

from collections.abc import Iterator
from typing import Any

from langchain_core.embeddings import Embeddings

from sleicl_chains.errors import GarbledReply, PromptTooLong
from sleicl_chains.models.ollama.address import server_address
from sleicl_chains.models.ollama.failures import PromptRefused
from sleicl_chains.models.ollama.server import Server

_BATCH = 64
"""Texts a request: a large one would hit the time-out before its first answer."""


class OllamaEmbeddings(Embeddings):
    """Embeddings of an Ollama server.

    Args:
        model: its name there.
        base_url: the server; `$OLLAMA_HOST` by default.
        num_ctx: context in tokens; the model's own by default.
        timeout_s: longest silence of the server.
    """

    def __init__(
        self, model: str, *, base_url: str | None = None, num_ctx: int | None = None, timeout_s: float = 600.0
    ) -> None:
        self.model, self.num_ctx = model, num_ctx
        self.server = Server(server_address(base_url), timeout_s=timeout_s)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector a text, in requests of 64.

        Raises:
            PromptTooLong: a text does not fit the context; says which.
            ModelNotFound: the server has no such model.
        """
        return [vector for start in range(0, len(texts), _BATCH) for vector in self._batch(texts, start)]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of one text. Raises as `embed_documents` does."""
        return self.embed_documents([text])[0]

    def _batch(self, texts: list[str], start: int) -> list[list[float]]:
        part = texts[start : start + _BATCH]
        try:
            return self._vectors(part)
        except PromptRefused:
            return [vector for text in part for vector in self._alone(text)]

    def _alone(self, text: str) -> Iterator[list[float]]:
        """Embed one text of a refused batch, to find out which it is."""
        try:
            yield from self._vectors([text])
        except PromptRefused:
            raise PromptTooLong(
                f"ollama:{self.model} cannot embed the text {text[:40]!r} of {len(text)} characters: it does not fit "
                "the model's context. Shorten it, or use embeddings with a longer context"
            ) from None

    def _vectors(self, texts: list[str]) -> list[list[float]]:
        options = {} if self.num_ctx is None else {"options": {"num_ctx": self.num_ctx}}
        body: dict[str, Any] = {"model": self.model, "input": texts, "truncate": False, **options}
        found = self.server.post("/api/embed", body).get("embeddings")
        if not isinstance(found, list) or len(found) != len(texts):
            count = len(found) if isinstance(found, list) else "none"
            raise GarbledReply(f"ollama:{self.model}: found {count} vectors for {len(texts)} texts; expected one each")
        return found
