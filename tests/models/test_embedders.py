import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import SecretStr
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from sleicl_chains.errors import ModelError, ModelNotFound
from sleicl_chains.files import Home
from sleicl_chains.models.embedders import MiniLM, Remembered, WordVectors, embed, embedder, fingerprint, task_text
from sleicl_chains.models.identity import embedder_identity
from sleicl_chains.models.journal import Journal


class Given(Embeddings):
    """Gives whatever the test says."""

    def __init__(self, rows: list[list[float]], query: list[float] | None = None) -> None:
        self.rows = rows
        self.query = query or []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.rows

    def embed_query(self, text: str) -> list[float]:
        return self.query


# ------------------------------------------------------------------ word vectors


class TestWordVectorsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[WordVectors]:
        return WordVectors


class TestWordVectors(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[WordVectors]:
        return WordVectors


def test_a_word_vector_is_the_mean_of_its_tokens() -> None:
    """The tokens of "sun sun rain" are ▁sun, ▁sun and ▁rain, whose vectors those texts have alone."""
    words = WordVectors()
    table, tokenizer = words._table, words._tokenizer
    tokens = tokenizer.encode("sun sun rain", add_special_tokens=False).ids
    assert len(tokens) == 3 and tokens[0] == tokens[1]
    mean = (2 * table[tokens[0]] + table[tokens[2]]) / 3
    assert words.embed_query("sun sun rain") == pytest.approx((mean / np.linalg.norm(mean)).tolist(), abs=1e-6)


def test_word_vectors_are_the_same_everywhere_and_need_no_code_of_their_package() -> None:
    assert fingerprint(embedder()) == "256-bb58be599767"
    vectors = embed(embedder("wordllama"), ["a kitten", "a cat", "share prices fell"])
    assert vectors.shape == (3, 256) and vectors.dtype == np.float32
    assert (vectors[0] @ vectors[1:].T).tolist() == pytest.approx([0.577, -0.0189], abs=5e-4)
    assert "wordllama" not in sys.modules


def test_a_vector_does_not_depend_on_the_other_texts() -> None:
    texts = [f"text {number} " * (number % 7 + 1) for number in range(1500)]
    together = embed(embedder(), texts)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for place in (0, 1023, 1024, 1499):
        assert together[place].tolist() == embedder().embed_query(texts[place])


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\0", "日本語", "😀"])
def test_texts_without_words_have_a_vector_too(text: str) -> None:
    vector = embedder().embed_query(text)
    assert np.isfinite(vector).all() and np.linalg.norm(vector) == pytest.approx(1.0)


# ------------------------------------------------------------------ MiniLM


def field(number: int, value: bytes | str | int) -> bytes:
    """Return one field of a protocol buffer, which is what an ONNX file is."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def tensor_value(name: str, kind: int, dimensions: list[str]) -> bytes:
    shape = b"".join(field(1, field(2, dimension)) for dimension in dimensions)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, shape)))


def tiny_model(table: list[list[float]]) -> bytes:
    """Return a model that looks each token up in a table: the smallest one with MiniLM's inputs and output."""
    rows = np.array(table, dtype=np.float32)
    dims = b"".join(field(1, size) for size in rows.shape)
    weights = dims + field(2, 1) + field(8, "table") + field(9, rows.tobytes())
    node = field(1, "table") + field(1, "input_ids") + field(2, "last_hidden_state") + field(4, "Gather")
    inputs = [tensor_value(name, 7, ["batch", "sequence"]) for name in ("input_ids", "attention_mask")]
    graph = field(1, node) + field(2, "tiny") + field(5, weights) + b"".join(field(11, one) for one in inputs)
    graph += field(12, tensor_value("last_hidden_state", 1, ["batch", "sequence", "dims"]))
    return field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph)


@pytest.fixture
def minilm(tmp_path: Path) -> MiniLM:
    """Three words, "east" = (1, 0), "north" = (0, 1), any other = (1, 1), in files where MiniLM's would be."""
    folder = tmp_path / "weights" / "minilm"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(tiny_model([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "east": 1, "north": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    # As in the real file; with these on, the vectors would differ.
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(128)
    tokenizer.save(str(folder / "tokenizer.json"))
    found = embedder("minilm", home=Home(tmp_path))
    assert isinstance(found, MiniLM)
    return found


def test_minilm_is_the_mean_over_the_tokens(minilm: MiniLM) -> None:
    texts = ["east", "north north", "east north", "east east east north", "west"]
    half, most = 2**-0.5, 10**-0.5
    expected = [[1, 0], [0, 1], [half, half], [3 * most, most], [half, half]]
    assert minilm.embed_documents(texts) == [pytest.approx(vector) for vector in expected]
    assert minilm.embed_query("east") == [1.0, 0.0]


def test_minilm_reads_256_tokens(minilm: MiniLM) -> None:
    assert minilm.embed_query("east " * 256 + "north " * 100) == [1.0, 0.0]
    assert minilm.embed_query("east " * 255 + "north")[1] > 0


async def test_minilm_async(minilm: MiniLM) -> None:
    assert await minilm.aembed_documents(["east", "north"]) == [[1.0, 0.0], [0.0, 1.0]]


# ------------------------------------------------------------------ providers


def test_embeddings_of_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    from langchain_openai import OpenAIEmbeddings

    monkeypatch.setenv("OPENAI_API_KEY", "none")
    found = embedder("openai:text-embedding-3-small")
    assert isinstance(found, OpenAIEmbeddings)
    assert (found.model, found.check_embedding_ctx_length) == ("text-embedding-3-small", False)


@pytest.mark.parametrize("name", ["", "word2vec", "openai:", ":x"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        embedder(name)
    expected = "wordllama, minilm, ollama:NAME, openai:NAME or another PROVIDER:NAME"
    assert str(caught.value) == f"There are no embeddings called {name!r}; there are: {expected}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody:x", "Provider 'nobody' is not supported"),
        ("mistralai:x", "Please install it with `pip install langchain-mistralai`"),
    ],
)
def test_a_provider_that_refuses(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelNotFound, match=f"{name}.*: .*{message}.*There are: wordllama"):
        embedder(name)


# ------------------------------------------------------------------ use


def test_embed_gives_rows_of_unit_length() -> None:
    found = embed(Given([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0], [1e-300, 0.0]]), "abcd")
    assert found.tolist() == [pytest.approx(row) for row in [[0.6, 0.8], [1.0, 0.0], [0.0, -1.0], [1.0, 0.0]]]
    assert embed(Given([]), []).shape == (0, 0)
    assert embed(Given([], [0.0, 5.0]), ["a", "b"], as_queries=True).tolist() == [[0.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("rows", "found"),
    [([[1.0]], "(1, 1)"), ([[float("nan")], [1.0]], "(2, 1)"), ([[], []], "(2, 0)"), ([], "(0,)")],
)
def test_embed_refuses_what_are_no_vectors(rows: list[list[float]], found: str) -> None:
    with pytest.raises(ModelError) as caught:
        embed(Given(rows), ["a", "b"])
    assert str(caught.value) == (
        f"Given gave an array of shape {found} for 2 texts; expected one vector of finite numbers each"
    )


def test_an_embedder_that_fails_is_named() -> None:
    class Lost(Given):
        model = "nomic"

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise ConnectionError("no route\nto host.")

    with pytest.raises(ModelError, match=r"^Lost \(nomic\) could not embed: no route to host$"):
        embed(Lost([]), ["a"])
    with pytest.raises(ModelError, match="could not embed"):
        embed(Given([[1.0], [1.0, 2.0]]), ["a", "b"])  # rows of different lengths


def test_a_fingerprint_stands_noise_and_tells_embedders_apart() -> None:
    vector = np.array(DeterministicFakeEmbedding(size=64).embed_query("any"))
    plain = fingerprint(Given([vector.tolist()]))
    assert fingerprint(Given([(2 * vector + 1e-6).tolist()])) == plain
    assert fingerprint(Given([(-vector).tolist()])) != plain
    assert fingerprint(Given([vector[::-1].tolist()])) != plain
    assert fingerprint(Given([[*vector.tolist(), 0.0]])) != plain
    assert plain.startswith("64-") and len(plain) == 15


def test_the_text_of_a_task() -> None:
    assert task_text("trec", "classification", "What is asked?", ["who", "when"]) == (
        "trec\nclassification\nWhat is asked?\nwho, when"
    )
    assert task_text("trec", "", "", ()) == "trec"


class Counted(Embeddings):
    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(texts)
        return [[float(len(text)), 1.0] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [0.0, 1.0]


def test_remembered_embeddings_are_asked_once_a_text_and_in_one_call() -> None:
    inner = Counted()
    space = Remembered(inner)
    assert space.embed_documents(["a", "bb", "a"]) == [[1, 1], [2, 1], [1, 1]]
    assert space.embed_documents(["bb", "ccc"]) == [[2, 1], [3, 1]]
    assert inner.asked == [["a", "bb"], ["ccc"]]
    assert space.embed_query("a") == [0, 1]  # some embedders treat a query differently


# ------------------------------------------------------------------ journal


class Precise(Counted):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(texts)
        return [[len(text) / 3, 0.5] for text in texts]


@pytest.mark.parametrize("kind", [Counted, Precise])
def test_a_journal_keeps_vectors_as_they_are(kind: type[Counted], tmp_path: Path) -> None:
    first, again, expected = kind(), kind(), kind().embed_documents(["a", "bb", "ccc"])
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert Remembered(first, journal).embed_documents(["a", "bb", "a"]) == [expected[0], expected[1], expected[0]]
        space = Remembered(again, journal)
        assert space.embed_documents(["bb", "ccc", "a"]) == [expected[1], expected[2], expected[0]]
        assert first.asked == [["a", "bb"]] and again.asked == [["ccc"]]
        assert space.embed_query("a") == [0, 1] and len(journal) == 4  # a query is another request


def test_a_journal_keeps_no_broken_vectors(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.sqlite") as journal:
        broken: list[list[list[float]]] = [[[1.0]], [[float("nan")], [1.0]], [[], []]]
        for rows in broken:
            with pytest.raises(ModelError, match="Given gave an array of shape"):
                embed(Remembered(Given(rows), journal), ["a", "b"])
        assert len(journal) == 0


def test_a_journal_tells_embedders_apart(tmp_path: Path) -> None:
    from langchain_openai import OpenAIEmbeddings

    def known(**change: Any) -> str:
        settings = {"model": "m", "api_key": SecretStr("k"), "base_url": "http://u:pw@127.0.0.1:1/v1", **change}
        return json.dumps(embedder_identity(OpenAIEmbeddings(**settings)))

    assert known() == known(api_key=SecretStr("other"), max_retries=9, chunk_size=5) and "pw" not in known()
    assert len({known(), known(model="n"), known(dimensions=9), known(base_url="http://127.0.0.1:2/v1")}) == 4


def test_only_a_providers_vectors_go_into_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with Journal(tmp_path / "journal.sqlite") as journal:
        assert isinstance(embedder("wordllama", journal=journal), WordVectors)
        assert isinstance(embedder("openai:m", journal=journal), Remembered)
