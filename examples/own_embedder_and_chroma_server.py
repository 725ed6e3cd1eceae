"""How do I search the library with my own embeddings, on a Chroma server that others use too?"""

import os
from collections import Counter
from zlib import crc32

import chromadb
from langchain_core.embeddings import Embeddings

from sleicl_chains import GrimoireRetriever, GrimoireStore


class Triples(Embeddings):
    """A stand-in for yours: how often each three letters occur. Any LangChain embeddings will do."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector a text."""
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question."""
        places = Counter(crc32(text[at : at + 3].lower().encode()) % 512 for at in range(len(text) - 2))
        return [float(places[place]) for place in range(512)]


# chroma run --path library --port 8000
client = chromadb.HttpClient(host="127.0.0.1", port=int(os.environ.get("CHROMA_PORT", "8000")))
store = GrimoireStore(embeddings=Triples(), client=client)
print(store.rebuild() > 0)  # the index is made anew for other embeddings; the Markdown files are the truth

retriever = GrimoireRetriever(store=store, k=1)
for document in retriever.invoke("Classify customer messages of an online shop by the team that handles them."):
    print(document.id, "|", document.page_content.splitlines()[0])
