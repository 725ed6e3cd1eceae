"""Embeddings that cost money are asked for once a text, by all commands together."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sleicl_chains.files import Home
from tests.support.command import Desk, Parrot, sleicl


class Provider(Parrot):
    """Gives vectors as well as replies."""

    def __init__(self) -> None:
        super().__init__(lambda text: "billing")
        self.batches: list[list[str]] = []

    def __enter__(self) -> "Provider":
        super().__enter__()
        return self

    @property
    def embedded(self) -> Counter[str]:
        return Counter(text for batch in self.batches for text in batch)

    def _answer(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "input" not in request:
            return super()._answer(request)
        with self._lock:
            self.batches.append(request["input"])
        vectors = [[float(len(text) % 7), float(text.count("e")), 1.0] for text in request["input"]]
        data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return 200, {"object": "list", "model": request["model"], "data": data, "usage": usage}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    return Desk.at(tmp_path / "desk", train=12)


SPACE = ["--embeddings", "openai:vectors"]


def evaluating(desk: Desk, server: Provider, home: Home, *more: object) -> list[object]:
    source = [
        "--task",
        desk.card,
        "--rows",
        desk.test,
        "--train",
        desk.train,
        "--home",
        home.root,
        *SPACE,
        *server.options,
    ]
    return ["evaluate", *source, "--weak", "openai:m", "--arms", "majority,probe,zero-shot,knn", "--json", *more]


@pytest.mark.parametrize("more", [[], ["--no-journal"]])
def test_evaluate_embeds_each_text_once(
    desk: Desk, home: Home, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    with Provider() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        first = sleicl(*evaluating(desk, server, home, *more)).json()
        assert set(server.embedded.values()) == {1}
        assert set(server.embedded) >= {*desk.texts("train"), *desk.texts("test")}
        assert max(map(len, server.batches)) == 24  # the training rows in one request
        if not more:
            before = len(server.batches)
            other = sleicl(*evaluating(desk, server, home, "--run", home.root / "other")).json()
            assert len(server.batches) == before and other["arms"][1]["accuracy"] == first["arms"][1]["accuracy"]


def test_sample_learn_and_ask_share_the_vectors(
    desk: Desk, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ["--task", desk.card, "--rows", desk.train, "--home", home.root, *SPACE]
    with Provider() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        drawn = sleicl("sample", *source)
        assert drawn.status == 0 and set(server.embedded) == set(desk.texts("train"))
        assert sleicl("sample", *source).out == drawn.out
        sleicl(*evaluating(desk, server, home))
        recipe = tmp_path / "recipe.json"
        assert sleicl("learn", *source, "--weak", "openai:m", *server.options, "--recipe", recipe).status == 0
        named = ("--weak", "openai:m", *server.options)
        asked = ("ask", "--recipe", recipe, *named, "--home", home.root, desk.texts("train")[0])
        assert sleicl(*asked).out == "billing\n"
        assert set(server.embedded.values()) == {1}
