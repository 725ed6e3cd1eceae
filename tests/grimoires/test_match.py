"""Which grimoires fit a task: by hand where vectors are few, and by the shipped library as it is."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from sleicl_chains.errors import InputError
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.grimoires.index import Field, Indexed
from sleicl_chains.grimoires.match import SCALES, Match, Why, Wish, matches, near_words
from sleicl_chains.grimoires.shelf import Library
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.models.embedders import Remembered, WordVectors
from sleicl_chains.tasks.cards import Task


def grimoire(id: str, *labels: str, description: str = "") -> Grimoire:
    return Grimoire(id, id, "", description, labels, f"The rules of {id}.", "", Provenance())


def library(
    *grimoires: Grimoire, task: list[list[float]], rules: list[list[float]], requests: Sequence[list[float]] = ()
) -> Indexed:
    """Return an index of vectors by hand; none needs unit length."""
    given: dict[Field, Sequence[list[float]]] = {"task": task, "rules": rules, "requests": requests}
    vectors = {field: np.array(rows, dtype=np.float32).reshape(-1, 2) for field, rows in given.items()}
    return Indexed(Library({one.id: one for one in grimoires}), vectors)


def wish(*labels: str, texts: list[float] | None = None, scaled: bool = True) -> Wish:
    """Return a wish to the east."""
    mean = None if texts is None else np.array(texts)
    east = np.array([1.0, 0.0], dtype=np.float32)
    return Wish("something", frozenset(labels), east, mean, SCALES[WordVectors] if scaled else None)


A, B, C = grimoire("a", "x", "y"), grimoire("b", "y", "z"), grimoire("c", "q")
INDEX = library(A, B, C, task=[[0.9, 0], [0.5, 0], [0.3, 0]], rules=[[0.1, 0], [0.2, 0], [0.3, 0]])


def found(hits: list[Match]) -> list[str]:
    return [hit.grimoire.id for hit in hits]


def test_ranks_are_fused_by_hand() -> None:
    """2/(60 + rank) of the descriptions and 1/(60 + rank) of the rules.

    a is 1st and 3rd: 2/61 + 1/63 = .048660; b 2nd and 2nd: 3/62 = .048387; c 3rd and 1st: 2/63 + 1/61 = .048139.
    """
    assert found(matches(INDEX, wish(), k=3)) == ["a", "b", "c"]
    # And 2/(60 + rank) of the labels: b shares both (Jaccard 1), a one of three: b .048387 + 2/61, a .048660 + 2/62.
    assert found(matches(INDEX, wish("y", "z"), k=3)) == ["b", "a", "c"]
    assert found(matches(INDEX, wish(), k=1)) == ["a"]


def test_example_texts_sharpen_the_order_and_not_what_fits() -> None:
    index = library(A, B, task=[[0.5, 0], [0.4, 1]], rules=[[0.5, 0], [0.4, 1]])
    assert found(matches(index, wish(), k=2)) == ["a", "b"]
    assert matches(index, wish(texts=[0, 1]), k=2)[1].why.ground == "texts"
    low = library(A, task=[[0.2, 0.9]], rules=[[0.2, 0.9]])
    assert matches(low, wish(texts=[0, 1]), k=2) == []


def test_a_grimoire_is_as_near_as_its_nearest_request() -> None:
    """The nearest of b's requests counts, .95 - .05, before its description's .5; a has none, so .8."""
    asked = replace(B, requests=("One way to ask.", "Another."))
    index = library(A, asked, task=[[0.8, 0], [0.5, 0]], rules=[[0, 0], [0.1, 0]], requests=[[0.1, 0], [0.95, 0]])
    assert np.allclose(index.nearness(wish().vector), [0.8, 0.9])
    hits = matches(index, wish(), k=2)
    assert [(hit.grimoire.id, round(hit.score, 3), hit.why.ground) for hit in hits] == [
        ("b", 0.9, "requests"),
        ("a", 0.8, "description"),
    ]
    assert index.nearest_text(1, wish().vector) == "Another."


def test_what_fits_is_decided_by_the_descriptions_alone() -> None:
    far = library(A, B, task=[[0.2, 0], [0.3, 0]], rules=[[1, 0], [0, 0]])
    assert found(matches(far, wish("x", "y"), k=3)) == ["b"], "a's rules and labels are equal, its description is not"
    assert matches(library(A, task=[[0.2, 0]], rules=[[1, 0]]), wish(), k=3) == []
    assert set(found(matches(far, wish(), k=3, threshold=0.0))) == {"a", "b"}


def test_closeness_and_fits() -> None:
    hits = {hit.grimoire.id: hit for hit in matches(INDEX, wish(), k=3, threshold=0.0)}
    assert [hits[id].why.closeness for id in "abc"] == ["close", "close", "related"]
    low = library(A, task=[[-0.2, 0]], rules=[[0, 0]])
    (weak,) = matches(low, wish(), k=1, threshold=-1.0)
    assert (weak.why.closeness, weak.fits, weak.score) == ("weak", False, 0.0)
    (unknown,) = matches(low, wish(scaled=False), k=1, threshold=-1.0)
    assert (unknown.why.closeness, unknown.fits) == ("unknown", None)


def test_why_in_words() -> None:
    assert str(Why("description", "close")) == "close, by its description"
    pairs = (("junk", "spam"), ("mail", "mail"))
    said = str(Why("labels", "related", pairs, ("yes", "no")))
    assert said == "related, by its labels; words: junk ~ spam, mail; labels shared: yes, no"
    assert str(Why("texts", "unknown")) == "by your texts"


def test_ground_and_labels_of_a_hit() -> None:
    task = Task(name="t", description="something", labels=("Y", "not x"))
    one = grimoire("one", "y", "not_x")
    index = library(C, one, task=[[0.9, 0], [0.5, 0]], rules=[[0, 0], [1, 0]])
    hits = matches(index, wish(*Wish.of(task, (), Same()).labels), k=2)
    assert [(hit.grimoire.id, hit.why.ground, hit.why.labels) for hit in hits] == [
        ("one", "rules", ("y", "not_x")),
        ("c", "description", ()),
    ]


class Same(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, 0.0] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0, 0.0]


def test_labels_in_quotes_are_named() -> None:
    asked = Wish.of("Is it \"Good\" or “not-bad”? It's mine, isn't it.", (), Same())
    assert asked.labels == {"good", "not bad"}
    with pytest.raises(InputError, match="the description is empty"):
        Wish.of(" ", (), Same())


def test_near_words() -> None:
    pairs = near_words("I want to know which comments are junk.", "Say whether a comment or message is spam or junk")
    assert pairs == (("junk", "junk"), ("comments", "comment"))
    assert near_words("of the to", "spam") == near_words("Translate it", "") == ()
    assert near_words("a poem about rivers", "invoices and their totals") == ()


def test_many_are_found_as_few_are() -> None:
    """Beyond sixty a ranking is cut, which must not change its top."""
    rng = np.random.default_rng(0)
    many = [grimoire(f"g{number:03}") for number in range(300)]
    vectors = rng.normal(size=(300, 2)).astype(np.float32).tolist()
    whole = matches(library(*many, task=vectors, rules=vectors), wish(), k=60)
    order = sorted(range(300), key=lambda row: -vectors[row][0])
    assert found(whole) == [f"g{row:03}" for row in order if vectors[row][0] >= 0.3][:60]


# ------------------------------------------------------------------ the shipped library


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> GrimoireStore:
    return GrimoireStore(tmp_path_factory.mktemp("match"))


def tasks(hits: list[Match]) -> list[str]:
    return [hit.grimoire.task for hit in hits]


def test_a_described_task_finds_its_grimoire(shipped: GrimoireStore) -> None:
    hits = shipped.match("Is this e-mail junk or not?")
    assert tasks(hits)[0] == "spam" and all(hit.fits for hit in hits)
    assert hits[0].why.words[0] == ("junk", "junk")
    card = Task(name="mood", description="Say how a comment feels.", labels=("positive", "negative", "neutral"))
    (best, *_) = shipped.match(card, texts=["I love it", "never again"])
    assert best.grimoire.task == "sentiment" and best.why.labels == card.labels


async def test_match_async(shipped: GrimoireStore) -> None:
    assert await shipped.amatch("Is this e-mail junk or not?", k=1) == shipped.match("Is this e-mail junk or not?", k=1)


def test_none_fits(shipped: GrimoireStore) -> None:
    assert shipped.match("Translate our menu from Portuguese to French.") == []
    nearest = shipped.match("Translate our menu from Portuguese to French.", threshold=0.0, k=1)
    assert [hit.why.closeness for hit in nearest] == ["weak"]
    with pytest.raises(InputError, match="match: found k=0"):
        shipped.match("spam", k=0)


def test_an_empty_library_and_unknown_embeddings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = GrimoireStore(tmp_path / "home", DeterministicFakeEmbedding(size=16))
    hits = unknown.match("Is this e-mail junk or not?", k=2)
    assert [(hit.fits, hit.why.closeness) for hit in hits] == [(None, "unknown")] * 2
    monkeypatch.setattr("sleicl_chains.grimoires.shelf.data_folder", lambda name: tmp_path / "nothing")
    assert GrimoireStore(Home(tmp_path / "other"), Remembered(WordVectors())).match("spam") == []
