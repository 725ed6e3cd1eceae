"""What a server has, the file it keeps for a model, embeddings, and `sleicl models list` and `check`."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sleicl_chains.errors import ModelError, ModelNotFound, PromptTooLong, ServerDown, Unsupported
from sleicl_chains.files import Home
from sleicl_chains.models.embedders import embed, embedder
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.ollama.address import Address
from sleicl_chains.models.ollama.embeddings import OllamaEmbeddings
from sleicl_chains.models.ollama.installed import weights_file
from sleicl_chains.models.ollama.server import Server
from tests.support.command import SCRIPT, sleicl
from tests.support.ollama_server import Asked, OllamaServer, Said, alternatives, chat, recorded, said


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OllamaServer]:
    with OllamaServer(_able) as running:
        monkeypatch.setenv("OLLAMA_HOST", running.url)
        yield running


def _able(asked: Asked) -> Said | None:
    """A model that keeps to a schema."""
    if asked.route == "/api/generate" and asked.body.get("logprobs"):
        return alternatives({" blue": 0.5, " green": 0.1})
    if asked.route != "/api/chat" or asked.render_only:
        return None
    return chat('{"colour": "green"}') if "format" in asked.body else None


def showing(modelfile: str) -> OllamaServer:
    return OllamaServer(lambda asked: said({"modelfile": modelfile}) if asked.route == "/api/show" else None)


# ------------------------------------------------------------------ the file of weights


def test_the_file_of_a_model_is_opened_by_the_engine(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = next(weights.glob("*.gguf")).resolve()
    with showing(f'# FROM smollm2\n\nFROM {file}\nTEMPLATE "x"\n') as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        weak = weak_model("embedded:ollama/smollm2:135m", n_ctx=512, threads=1)
    assert isinstance(weak, EmbeddedModel) and weak.path == file
    assert weak.model_name == "embedded:ollama/smollm2:135m"
    assert weak.score_labels("The sky is", ["blue", "green"]).requests == 1


@pytest.mark.parametrize(
    ("modelfile", "error", "words"),
    [
        ("FROM /nowhere/blobs/sha256-1", ModelNotFound, r"cannot be read \(No such file.*chmod a\+r.*ollama:m"),
        ("FROM {folder}/text", Unsupported, r"no GGUF file \(found b'just'\); use ollama:m"),
        ("FROM {folder}/text\nADAPTER /x", Unsupported, "has an adapter, which the engine would leave out"),
        ("FROM {folder}/text\nFROM {folder}/eyes", Unsupported, "the model is 2 files"),
        ("FROM other", ModelNotFound, "names no file of weights"),
    ],
)
def test_a_file_that_cannot_be_opened(
    modelfile: str, error: type[ModelError], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("just text")
    with showing(modelfile.format(folder=tmp_path)) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        with pytest.raises(error, match=words):
            weak_model("embedded:ollama/m")


def test_a_template_that_only_ollama_has_is_warned_of(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = next(weights.glob("*.gguf")).read_bytes()
    (tmp_path / "bare.gguf").write_bytes(data.replace(b"tokenizer.chat_template", b"tokenizer.chat_templatX"))
    shown = {"modelfile": f"FROM {tmp_path}/bare.gguf", "template": "{{ range .Messages }}"}
    with OllamaServer(lambda asked: said(shown) if asked.route == "/api/show" else None) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        with pytest.warns(UserWarning, match="Ollama has a chat template that the file lacks; here it gets text"):
            weak_model("embedded:ollama/m")


def test_without_a_local_server_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    with pytest.raises(ServerDown, match="`ollama serve`"):
        weak_model("embedded:ollama/m")
    with pytest.raises(ModelNotFound, match="is on another machine, so its files cannot be opened; use ollama:m"):
        weights_file(Server(Address("http://box.lan:11434")), "m")


# ------------------------------------------------------------------ embeddings


def test_vectors_of_a_server(server: OllamaServer) -> None:
    found = embed(embedder("ollama:smollm2:135m"), ["grass"])
    assert found.shape == (1, 2) and np.linalg.norm(found) == pytest.approx(1)
    assert server.sent("/api/embed") == [{"model": "smollm2:135m", "input": ["grass"], "truncate": False}]


async def test_vectors_in_parts_and_asynchronously() -> None:
    def answer(asked: Asked) -> Said | None:
        return said({"embeddings": [[len(text), 1.0] for text in asked.body["input"]]}) if asked.body else None

    with OllamaServer(answer) as server:
        texts = ["x" * number for number in range(1, 131)]
        vectors = await OllamaEmbeddings("m", base_url=server.url).aembed_documents(texts)
        assert [vector[0] for vector in vectors] == list(range(1, 131))
        assert [len(body["input"]) for body in server.sent("/api/embed")] == [64, 64, 2]


def test_the_text_that_does_not_fit_is_named() -> None:
    def answer(asked: Asked) -> Said | None:
        if asked.route != "/api/embed":
            return None
        texts = asked.body["input"]
        return recorded("embed too long") if any(len(text) > 9 for text in texts) else said(
            {"embeddings": [[1.0]] * len(texts)}
        )  # fmt: skip

    with OllamaServer(answer) as server:
        embeddings = OllamaEmbeddings("m", base_url=server.url)
        with pytest.raises(PromptTooLong, match="cannot embed the text 'far too long' of 12 characters"):
            embeddings.embed_documents(["short", "far too long", "short"])
        with pytest.raises(PromptTooLong, match="cannot embed the text 'far too long'"):
            embed(embeddings, ["far too long"])


# ------------------------------------------------------------------ commands


def test_list_shows_what_the_server_has(server: OllamaServer, home: Home) -> None:
    rows = sleicl("models", "list", "--json").json()
    assert rows[1].pop("reading")["follows_guides"] is False  # that of the packaged weights, whose file it is
    assert rows[1] == {
        "name": "ollama:smollm2:135m", "megabytes": 98, "parameters": "134.52M", "quantization": "Q4_1",
        "context": 8192, "template": True, "capabilities": ["completion"],
        "weights": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }  # fmt: skip
    assert [row["name"] for row in rows] == [
        "ollama:gemma3:270m-base", "ollama:smollm2:135m", "smollm2", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b",
        "minilm",
    ]  # fmt: skip
    assert [row["reading"] and row["reading"]["follows_guides"] for row in rows[2:]] == [False, False, True, None]
    first = sleicl("models", "list").out.splitlines()[0]
    assert first.split("\t") == [
        "ollama:gemma3:270m-base", "253 MB", "268.10M Q4_K_M", "context 32768", "no chat template", "completion",
        "does not follow guides (.24, chance .25)",
    ]  # fmt: skip


def test_list_without_a_server_says_so_and_shows_the_rest(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    done = sleicl("models", "list")
    assert done.status == 0 and "smollm2" in done.out
    assert done.err.startswith("No Ollama server answers at http://127.0.0.1:9") and done.err.count("\n") == 1


@pytest.mark.parametrize("host", ["127.0.0.1:99999", "127.0.0.1:abc", "http://[::1"])
def test_a_bad_address_is_misuse_in_every_command(host: str, home: Home) -> None:
    """In a process of its own: the ollama package reads the variable when it is imported."""
    done = subprocess.run(
        [SCRIPT, "models", "check", "ollama:m"], env={**os.environ, "OLLAMA_HOST": host}, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("sleicl: There is no Ollama server at"), done.stderr


def test_list_beside_something_else_at_the_address(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with OllamaServer(lambda asked: Said(("<html>It works!</html>",))) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        done = sleicl("models", "list")
    assert done.status == 0 and "smollm2" in done.out and "does not speak as Ollama does" in done.err


def checked(name: str, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = sleicl("models", "check", name, "--json", *more).json()
    return found


def test_check_of_a_model_without_fault(server: OllamaServer, home: Home) -> None:
    found = checked("ollama:smollm2:135m")
    assert found.pop("reading")["follows_guides"] is False  # known: it is the file of the packaged weights
    assert found.pop("prompt_tokens_per_second") > 0 and found.pop("reply_tokens_per_second") > 0
    assert found == {
        "name": "ollama:smollm2:135m", "server": f"0.24.0 at {server.url}",
        "model": "smollm2:135m (dc1c96f62850, Q4_1)", "megabytes": 98, "template": True, "layout": "chat",
        "context": "4096 tokens (trained with 8192)", "label_probabilities": True, "schema": True, "off": [],
    }  # fmt: skip
    lines = sleicl("models", "check", "ollama:smollm2:135m").out.splitlines()
    assert "template: True" in lines and not any("<-" in line for line in lines if not line.startswith("reading: "))


@pytest.mark.filterwarnings("default")  # the command prints them
def test_check_says_what_is_off_and_how_to_fix_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def old(asked: Asked) -> Said | None:
        if asked.route != "/api/chat":
            return None
        return chat("no JSON") if asked.body["stream"] else recorded("chat whole")

    with OllamaServer(old, version="0.12.3") as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        done = sleicl("models", "check", "ollama:smollm2:135m", "-o", "num_ctx=9000", "--json")
    off = {entry["what"]: entry["fix"] for entry in done.json()["off"]}
    assert set(off) == {"server", "layout", "context", "label_probabilities", "schema"}
    assert off["context"] == "the server lowers 9000 to it; say --option num_ctx=8192"
    assert "update Ollama" in off["server"] and "generated and parsed" in off["label_probabilities"]
    assert "Warning: ollama:smollm2:135m: Ollama 0.12.3 does not show rendered prompts" in done.err
    assert "Warning: Ollama 0.12.3 was not tried; 0.24.0 was." in done.err


def test_check_of_a_base_model(server: OllamaServer, home: Home) -> None:
    found = checked("ollama:gemma3:270m-base")
    assert (found["template"], found["layout"]) == (False, "completion")
    assert found["off"][0]["fix"].startswith("a base model: prompts are sent as text to continue")


def test_check_of_a_model_for_embeddings(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = recorded("show").objects[0] | {"capabilities": ["embedding"]}
    with OllamaServer(lambda asked: said(shown) if asked.route == "/api/show" else None) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        found = checked("ollama:smollm2:135m")
        fix = "this is an embedding model; use it with --embeddings"
        assert (found["off"], found["reading"]) == ([{"what": "answers", "fix": fix}], None)


def test_check_of_a_missing_model(server: OllamaServer, home: Home) -> None:
    done = sleicl("models", "check", "ollama:phi3")
    assert done.status == 1 and "Run `ollama pull phi3`. It has: gemma3:270m-base, smollm2:135m" in done.err


def test_a_server_of_ones_own_is_named_by_base_url(home: Home) -> None:
    with OllamaServer(_able) as server:
        done = sleicl("models", "check", "ollama:smollm2:135m", "--base-url", server.url, "--json")
        assert json.loads(done.out)["off"] == []
