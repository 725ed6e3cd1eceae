"""Which model a chat takes where the user names none: a real HTTP server that has some models."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sleicl_chains.files import Home
from sleicl_chains.serving.weak import Choice, chat_models, default_model
from tests.support.ollama_server import Asked, OllamaServer, Said, recorded, said

MB = 10**6


def serving(sizes: dict[str, int], unable: str = "") -> OllamaServer:
    """Return a server of models, by their size in MB, whose weights nobody knows but those of `unable`."""
    known = recorded("show").objects[0]

    def shown(name: str) -> dict[str, Any]:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return known if name == unable else {**known, "modelfile": f"FROM /blobs/sha256-{digest}"}

    def answer(asked: Asked) -> Said | None:
        if asked.route == "/api/tags":
            return said({"models": [{"name": name, "model": name, "size": size * MB} for name, size in sizes.items()]})
        return said(shown(asked.body["model"])) if asked.route == "/api/show" else None

    return OllamaServer(answer)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have 10 GB of free memory, of which weights may take 8."""
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=10**10))


@pytest.mark.usefixtures("free")
def test_the_largest_that_fits_and_may_read_is_taken(home: Home) -> None:
    with serving(
        {"small:1b": 900, "unable:4b": 4000, "large:7b": 7900, "huge:70b": 40_000}, unable="unable:4b"
    ) as server:
        note = "reading not checked: sleicl models check ollama:large:7b"
        assert default_model(home, server.url) == Choice("ollama:large:7b", note)
        offers = {one.name: one.reading for one in chat_models(home, server.url)}
    assert list(offers) == ["ollama:huge:70b", "ollama:large:7b", "ollama:small:1b", "ollama:unable:4b"]
    assert [name for name, reading in offers.items() if reading] == ["ollama:unable:4b"]


@pytest.mark.usefixtures("free")
def test_none_is_taken_that_cannot_read_is_too_large_or_is_handed_on_to_a_cloud(home: Home) -> None:
    with serving({"unable:1b": 900, "huge:70b": 40_000, "far:120b-cloud": 0}, unable="unable:1b") as server:
        assert default_model(home, server.url) is None


def test_without_a_server_the_packaged_one_that_was_fetched_is_taken(
    home_with_weights: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = "http://127.0.0.1:9"
    empty = Home(tmp_path / "empty")
    assert default_model(empty, nobody) is None and chat_models(empty, nobody) == []
    assert [one.name for one in chat_models(home_with_weights, nobody)] == ["embedded:smollm2"]
    monkeypatch.setattr("sleicl_chains.serving.weak.READER", "smollm2")
    assert default_model(home_with_weights, nobody) == Choice("embedded:smollm2")
