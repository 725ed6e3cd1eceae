"""Models by name: which class comes, where it looks, what it sends, and what is said when there is none."""

import importlib
from pathlib import Path

import pytest
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI

from sleicl_chains.errors import ModelNotFound
from sleicl_chains.files import Home
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.models.names import strong_model, weak_model
from sleicl_chains.models.paste import PasteModel
from tests.support.command import sleicl
from tests.support.openai_server import OpenAIServer


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")


def test_packaged_weights(home_with_weights: Home) -> None:
    model = weak_model("embedded:smollm2", home=home_with_weights, n_ctx=512, threads=1)
    assert isinstance(model, EmbeddedModel)
    assert (model.n_ctx, model.max_tokens, model.model_name) == (512, 64, "embedded:smollm2")
    assert model.path.parent == home_with_weights.weights / "smollm2"
    # Without a home the one of the environment is meant.
    assert weak_model("embedded:smollm2", n_ctx=512, threads=1) == model
    strong = strong_model("embedded:smollm2")
    assert isinstance(strong, EmbeddedModel) and strong.max_tokens == 1024


def test_a_file_of_weights(tmp_path: Path) -> None:
    file = tmp_path / "own.gguf"
    file.write_bytes(b"GGUF")
    model = weak_model(f"embedded:{file}")
    assert isinstance(model, EmbeddedModel) and (model.path, model.model_name) == (file, "embedded:own.gguf")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("n_ctx=abc", "own.gguf: n_ctx='abc': Input should be a valid integer"),
        ("temperature=warm", "own.gguf: temperature='warm': Input should be a valid number"),
        ("path=/x", "own.gguf: an embedded model has no path; leave it out"),
        ("name=x", "--option: name is no option of a model; leave it out"),
    ],
)
def test_an_option_that_is_no_number_is_one_line(tmp_path: Path, option: str, said: str) -> None:
    file = tmp_path / "own.gguf"
    file.write_bytes(b"GGUF")
    card = tmp_path / "task.toml"
    card.write_text('name = "sky"\ndescription = "Name its colour."\nlabels = ["blue", "green"]\n', encoding="utf-8")
    done = sleicl("ask", "--task", card, "--weak", f"embedded:{file}", "--option", option, "Hello")
    assert done.status == 2 and said in done.err and len(done.err.strip().splitlines()) == 1, done.err


def test_a_file_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("HOME", str(tmp_path))
    model = weak_model("embedded:~/own.gguf")
    assert isinstance(model, EmbeddedModel) and model.path == tmp_path / "own.gguf"


def test_paste(tmp_path: Path) -> None:
    model = strong_model(f"paste:{tmp_path}/letters")
    assert isinstance(model, PasteModel) and model.folder == tmp_path / "letters"
    assert list(tmp_path.iterdir()) == []  # nothing is made before the first call


def test_openai(key: None) -> None:
    weak, strong = weak_model("openai:some-1"), strong_model("openai:some-1", temperature=0.3)
    assert isinstance(weak, ChatOpenAI) and isinstance(strong, ChatOpenAI)
    assert (weak.model_name, weak.temperature, weak.max_tokens, weak.extra_body) == ("some-1", 0.0, 64, None)
    assert (strong.temperature, strong.max_tokens, strong.extra_body) == (0.3, 4096, None)
    plain = strong_model("openai:some-1")  # some strong models take no temperature but their own
    assert isinstance(plain, ChatOpenAI) and plain.temperature is None


def test_ollama() -> None:
    model = weak_model("ollama:qwen2.5:0.5b", base_url="http://127.0.0.1:9")
    assert isinstance(model, ChatOllama)
    assert (model.model, model.base_url, model.temperature) == ("qwen2.5:0.5b", "http://127.0.0.1:9", 0.0)


def test_a_server_of_ones_own_is_told_the_limit_in_both_words(key: None) -> None:
    """Some servers know only `max_tokens`, which LangChain replaces by `max_completion_tokens`."""
    with OpenAIServer(["a", "b", "c"]) as server:
        assert weak_model("openai:m", base_url=server.base_url).invoke("q").text == "a"
        assert strong_model("openai:m", base_url=server.base_url, max_tokens=7).invoke("q").text == "b"
        body = {"top_k": 1, "max_tokens": 5}
        assert weak_model("openai:m", base_url=server.base_url, extra_body=body).invoke("q").text == "c"
    limits = [(request["max_completion_tokens"], request["max_tokens"]) for request in server.requests]
    assert limits == [(64, 64), (7, 7), (64, 5)]
    assert [request["temperature"] for request in (server.requests[0], server.requests[2])] == [0.0, 0.0]
    assert "temperature" not in server.requests[1] and server.requests[2]["top_k"] == 1
    assert body == {"top_k": 1, "max_tokens": 5}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "smollm2",
            "'smollm2' names no provider; expected, say, embedded:qwen2.5-coder-1.5b, ollama:smollm2, openai:smollm2 ",
        ),
        ("nobody:gpt", "LangChain knows no provider 'nobody'; expected, say, embedded:qwen2.5-coder-1.5b"),
        ("groq:llama", "langchain-groq"),
        (
            "paste:letters",
            "a pasted model writes grimoires; expected one that answers, say embedded:qwen2.5-coder-1.5b",
        ),
        ("embedded:nothing", "embedded:nothing: found neither packaged weights nor a file of that name; expected embe"),
    ],
)
def test_a_model_that_is_not_to_be_had(name: str, expected: str) -> None:
    with pytest.raises(ModelNotFound) as found:
        weak_model(name)
    assert expected in str(found.value) and "\n" not in str(found.value)


def test_weights_that_are_no_chat_model(home: Home) -> None:
    (home.weights / "minilm").mkdir(parents=True)
    for name in ("model.onnx", "tokenizer.json"):
        (home.weights / "minilm" / name).touch()
    with pytest.raises(ModelNotFound, match="these weights are no chat model; there is embedded:qwen2.5-coder-1.5b"):
        weak_model("embedded:minilm", home=home)


def test_the_module_imports_no_provider() -> None:
    assert not {"ChatOpenAI", "init_chat_model"} & set(vars(importlib.import_module("sleicl_chains.models.names")))
