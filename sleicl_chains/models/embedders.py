"""Texts to vectors: an embedder that needs no network, a stronger small one, and those of any provider.

Everything here is a LangChain `Embeddings`; async use comes from its defaults.
"""

import base64
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from sleicl_chains.errors import ModelError, ModelNotFound, SleiclError, one_line
from sleicl_chains.files import Home
from sleicl_chains.hashes import short_hash

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    from sleicl_chains.models.journal import Journal

_NAMES = "wordllama, minilm, ollama:NAME, openai:NAME or another PROVIDER:NAME"


def embedder(name: str = "wordllama", *, home: Home | None = None, journal: "Journal | None" = None) -> Embeddings:
    """Return the embeddings of that name.

    Args:
        name: `wordllama` (word vectors inside an installed package), `minilm` (a small transformer,
            fetched on first use), or PROVIDER:NAME as LangChain's `init_embeddings` takes it.
        home: where fetched weights lie.
        journal: keeps the vectors of a provider, so that no text is embedded twice. The two others are quicker anew.

    Raises:
        ModelNotFound: there are no embeddings of that name, their files cannot be had, or the
            provider refuses.
        KeyMissing: the provider wants a key, and none is set.
        OptionError: a key would be sent unencrypted.
    """
    if name == "wordllama":
        return WordVectors()
    if name == "minilm":
        from sleicl_chains.models.weights import fetch

        return MiniLM(fetch("minilm", home or Home.at()))
    return Remembered(_of_provider(name), journal) if journal else _of_provider(name)


class WordVectors(Embeddings):
    """Means of the static word vectors in the `wordllama` package: (n, 256), rows of unit length.

    Needs no network and no model run: about 15,000 short texts a second. Word order does not count.
    A text gets the same vector on every machine, whatever else is embedded with it.
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector a text."""
        return [
            self._vector(encoding.ids)
            for start in range(0, len(texts), 1024)  # in parts, so that 100,000 texts fit into memory
            for encoding in self._tokenizer.encode_batch(texts[start : start + 1024], add_special_tokens=False)
        ]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of one text."""
        return self.embed_documents([text])[0]

    def sums(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of a few words before they are made 1 long: (n_words, 256).

        The length says how much a word weighs in the mean of a text: below about 8 for `the` or `want`, more for words
        that say what the text is about.
        """
        # One by one: for so few, threads cost more than they save.
        tokens = [self._tokenizer.encode(word, add_special_tokens=False).ids or [0] for word in words]
        sums = [self._table[ids].sum(axis=0) for ids in tokens]
        return np.array(sums, dtype=np.float32).reshape(len(words), self._table.shape[1])

    def _vector(self, tokens: list[int]) -> list[float]:
        # Each different token once: a book takes no more memory than the table of all words. The sum
        # is in double precision, whose rounding does not reach the single precision of the result.
        # A text without tokens stands for itself as the unknown token, number 0.
        ids, counts = np.unique(tokens or [0], return_counts=True)
        total = (self._table[ids] * counts[:, None]).sum(axis=0)
        vector: list[float] = (total / np.sqrt(np.square(total).sum())).astype(np.float32).tolist()
        return vector

    @cached_property
    def _table(self) -> NDArray[np.float32]:
        from safetensors.numpy import load_file

        weights = load_file(_wordllama_folder() / "weights" / "l2_supercat_256.safetensors")
        return weights["embedding.weight"].astype(np.float32)  # (32000, 256)

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        path = _wordllama_folder() / "tokenizers" / "l2_supercat_tokenizer_config.json"
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_padding()
        return tokenizer


def _wordllama_folder() -> Path:
    # Found, but not imported: its code is not needed.
    found = importlib.util.find_spec("wordllama")
    if found is None or found.origin is None:
        raise ModelNotFound("wordllama: the package of the word vectors is not installed; run `pip install wordllama`")
    return Path(found.origin).parent


class MiniLM(Embeddings):
    """Sentence vectors of all-MiniLM-L6-v2 as int8 ONNX: (n, 384), rows of unit length.

    About 6 ms a short text on one core; what stands after 256 tokens is not read.

    Args:
        folder: holds `model.onnx` and `tokenizer.json`.
        threads: of the model run. More help with long texts only, and may change a vector's last bits.
    """

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        self._folder = folder
        self._threads = threads

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector a text."""
        # One text a run: without padding a vector cannot depend on the other texts of a batch.
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of one text."""
        encoding = self._tokenizer.encode(text)
        given = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        inputs = {name: np.array([given[name]], dtype=np.int64) for name in self._inputs}
        states = self._session.run(None, inputs)[0][0]  # (n_tokens, n_dims)
        mask = np.array(encoding.attention_mask, dtype=np.float32)
        mean = (states * mask[:, None]).sum(axis=0) / mask.sum()
        vector: list[float] = (mean / np.linalg.norm(mean)).tolist()
        return vector

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open model out: embeddings are pickled and deep-copied with the chains that use them."""
        return {"_folder": self._folder, "_threads": self._threads}

    @cached_property
    def _session(self) -> "InferenceSession":
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = self._threads
        return InferenceSession(self._folder / "model.onnx", options, providers=["CPUExecutionProvider"])

    @cached_property
    def _inputs(self) -> list[str]:
        return [node.name for node in self._session.get_inputs()]

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        # The file asks for padding and a cut at 128.
        tokenizer.no_padding()
        tokenizer.enable_truncation(256)
        return tokenizer


class Remembered(Embeddings):
    """Other embeddings, asked once a text; what they gave is kept in a journal, or else as long as this object is."""

    def __init__(self, inner: Embeddings, journal: "Journal | None" = None) -> None:
        self.inner, self.journal = inner, journal
        self._known: dict[str, list[float]] = {}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector a text; those not seen before are asked for in one call.

        Raises:
            ModelError: the inner ones gave something that is not a finite vector a text; nothing of it is kept.
        """
        different = list(dict.fromkeys(texts))
        known = self._kept(different) if self.journal else self._in_memory(different)
        return [known[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a text that is searched for; without a journal these are not kept."""
        if self.journal is None:
            return self.inner.embed_query(text)
        kept = self.journal.once(
            self._request("query", text), lambda: self._replies([self.inner.embed_query(text)], 1)[0]
        )
        return _unpacked(kept)

    def _in_memory(self, texts: list[str]) -> dict[str, list[float]]:
        if new := [text for text in texts if text not in self._known]:
            vectors = _checked(self.inner, self.inner.embed_documents(new), len(new))
            self._known |= {text: [float(x) for x in vector] for text, vector in zip(new, vectors, strict=True)}
        return self._known

    def _kept(self, texts: list[str]) -> dict[str, list[float]]:
        assert self.journal is not None

        def ask(places: list[int]) -> list[dict[str, str]]:
            return self._replies(self.inner.embed_documents([texts[place] for place in places]), len(places))

        kept = self.journal.once_each([self._request("document", text) for text in texts], ask)
        return {text: _unpacked(reply) for text, reply in zip(texts, kept, strict=True)}

    def _replies(self, found: Sequence[Sequence[float]], count: int) -> list[dict[str, str]]:
        return [_packed(vector) for vector in _checked(self.inner, found, count)]

    def _request(self, kind: str, text: str) -> dict[str, Any]:
        return {"op": "embed", "as": kind, "text": text, "model": self._identity}

    @cached_property
    def _identity(self) -> dict[str, Any]:
        from sleicl_chains.models.identity import embedder_identity

        return embedder_identity(self.inner)


def remembered(embeddings: Embeddings) -> Embeddings:
    """Return embeddings that are asked once a text; those that are already stay as they are."""
    return embeddings if isinstance(embeddings, Remembered) else Remembered(embeddings)


def _packed(vector: NDArray[np.float64]) -> dict[str, str]:
    """Write a vector as base64, in single precision where that is exact, as providers send it."""
    single = vector.astype("<f4")
    kind, values = ("<f4", single) if (single == vector).all() else ("<f8", vector.astype("<f8"))
    return {"vector": base64.b64encode(values.tobytes()).decode(), "numbers": kind}


def _unpacked(reply: Mapping[str, str]) -> list[float]:
    values: list[float] = np.frombuffer(base64.b64decode(reply["vector"]), dtype=reply["numbers"]).tolist()
    return values


def _of_provider(name: str) -> Embeddings:
    from langchain.embeddings import init_embeddings

    provider, _, model = name.partition(":")
    if not provider or not model:
        raise ModelNotFound(f"There are no embeddings called {name!r}; there are: {_NAMES}")
    if provider == "ollama":
        from sleicl_chains.models.ollama.embeddings import OllamaEmbeddings

        return OllamaEmbeddings(model)
    from sleicl_chains.models.addresses import openai_options
    from sleicl_chains.models.names import not_opened

    try:
        # With this check on, LangChain fetches OpenAI's tokenizer from the internet.
        options = openai_options({"check_embedding_ctx_length": False}) if provider == "openai" else {}
        return init_embeddings(name, **options)
    except SleiclError:
        raise
    except Exception as problem:  # each provider has errors of its own, such as a missing key
        meant = not_opened(name, problem)
        if isinstance(meant, ModelNotFound):
            meant = ModelNotFound(f"{meant}. There are: {_NAMES}")
        raise meant from None


def embed(embeddings: Embeddings, texts: Iterable[str], *, as_queries: bool = False) -> NDArray[np.float32]:
    """Return the vectors of texts: (n_texts, n_dims), rows of unit length.

    A text whose vector is zero gets the first axis instead, so that every cosine is defined.

    Args:
        embeddings: any LangChain embeddings.
        texts: in the order of the rows; no text makes an array of no rows.
        as_queries: some embedders treat what is searched for differently from what is searched in.

    Raises:
        ModelError: the embedder failed, or gave something that is not a finite vector a text.
    """
    texts = list(texts)
    if not texts:
        return np.zeros((0, 0), dtype=np.float32)
    try:
        found: Sequence[Sequence[float]] = (
            [embeddings.embed_query(text) for text in texts] if as_queries else embeddings.embed_documents(texts)
        )
        vectors = _checked(embeddings, found, len(texts))
    except SleiclError:
        raise
    except Exception as problem:  # each client has errors of its own: no connection, no such model
        raise ModelError(f"{_name(embeddings)} could not embed: {one_line(problem).rstrip('.')}") from problem
    norms = np.linalg.norm(vectors, axis=1)
    vectors[norms == 0, 0] = norms[norms == 0] = 1.0
    rows: NDArray[np.float32] = (vectors / norms[:, None]).astype(np.float32)
    return rows


def _checked(embeddings: Embeddings, found: Sequence[Sequence[float]], count: int) -> NDArray[np.float64]:
    """Return the vectors as an array, (n_texts, n_dims)."""
    vectors = np.array(found, dtype=np.float64)
    if vectors.ndim != 2 or len(vectors) != count or not vectors.size or not np.isfinite(vectors).all():
        raise ModelError(
            f"{_name(embeddings)} gave an array of shape {vectors.shape} for {count} texts; "
            "expected one vector of finite numbers each"
        )
    return vectors


def fingerprint(embeddings: Embeddings) -> str:
    """Return a short name of the vector space, the same for the same embedder on any machine.

    It is made of one sentence's vector: the number of dimensions, then a hash of which eight of them
    stand out and to which side. A hash of the rounded numbers themselves would change with the last
    bits, which differ between processors; these eight do not.
    """
    vector = embed(embeddings, ["A grimoire holds what a strong model has learned about a task."])[0]
    largest = sorted(np.argsort(-np.abs(vector), kind="stable")[:8].tolist())
    marks = [(place, bool(vector[place] > 0)) for place in largest]
    return f"{len(vector)}-{short_hash(repr(marks))[:12]}"


def task_text(name: str, task_type: str, description: str, labels: Sequence[str]) -> str:
    """Return the text that stands for a task when tasks are compared by their vectors."""
    return "\n".join(filter(None, [name, task_type, description, ", ".join(labels)]))


def _name(embeddings: Embeddings) -> str:
    while isinstance(embeddings, Remembered):
        embeddings = embeddings.inner
    model = getattr(embeddings, "model", None)
    return f"{type(embeddings).__name__} ({model})" if model else type(embeddings).__name__
