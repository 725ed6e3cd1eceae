"""The server as Ollama's own client and LangChain's see it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import ollama
import pytest
from langchain_ollama import ChatOllama

from sleicl_chains.errors import PromptTooLong, ServerDown
from sleicl_chains.files import Home
from tests.support.serving import Serving, Talker, desk, menu_of, serving

LIST = "notes-to-list-b5baed14"


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Serving, Talker]]:
    talker = Talker()
    home = Home(tmp_path_factory.mktemp("home"))
    with serving(menu_of(talker, home, desk()), ollama_api=True) as server:
        yield server, talker


@pytest.fixture
def talker(running: tuple[Serving, Talker]) -> Iterator[Talker]:
    talker = running[1]
    talker.calls.clear()
    yield talker
    talker.fails_at = None


@pytest.fixture
def server(running: tuple[Serving, Talker]) -> Serving:
    return running[0]


@pytest.fixture
def client(server: Serving) -> Iterator[ollama.Client]:
    with ollama.Client(host=server.address) as found:
        yield found


def test_models_are_listed_and_shown(server: Serving, client: ollama.Client) -> None:
    names = [one.model for one in client.list().models]
    assert names[:2] == ["desk", "chat"] and f"chat:{LIST}" in names
    assert [one.model for one in client.ps().models] == ["desk", "chat"]
    shown = client.show("chat:latest")
    assert shown.capabilities == ["completion"] and shown.modelinfo == {"general.architecture": "sleicl"}
    assert client.show("desk").modelfile == "# Say who handles it.\n"
    assert httpx.get(server.address).text == "Ollama is running"
    assert httpx.get(f"{server.address}/api/version").json() == {"version": "0.24.0"}
    with pytest.raises(ollama.ResponseError, match="There is no model 'dusk' here") as refused:
        client.show("dusk")
    assert refused.value.status_code == 404


def test_a_chat_is_answered_whole_and_streamed(client: ollama.Client, talker: Talker) -> None:
    options = {"num_predict": 9, "temperature": 0.1, "seed": 3, "stop": ["#"], "num_ctx": 999}
    whole = client.chat("chat", ask("Hello"), options=options)
    assert (whole.message.content, whole.done, whole.done_reason) == ("You said Hello", True, "stop")
    assert (whole.prompt_eval_count, whole.eval_count) == (2, 3)
    assert talker.calls == [("human: Hello", {"max_tokens": 9, "temperature": 0.1, "seed": 3, "stop": ["#"]})]
    parts = [*client.chat("chat:latest", ask("a b"), stream=True)]
    assert [one.message.content for one in parts] == ["You", " said", " a", " b", ""]
    assert [one.done for one in parts] == [False] * 4 + [True] and parts[-1].eval_count == 4


def test_generate_is_a_chat_of_one_message(client: ollama.Client, talker: Talker) -> None:
    assert client.generate("chat", "Hello", system="Be brief.").response == "You said Hello"
    assert talker.calls[0][0] == "system: Be brief.\nhuman: Hello"
    assert [one.response for one in client.generate("desk", "Paid twice", stream=True)] == ["billing", ""]
    assert client.generate("chat").done_reason == "load" and client.chat("chat").done_reason == "load"


def test_a_reply_is_held_to_json(client: ollama.Client, talker: Talker) -> None:
    client.chat("chat", ask("x"), format="json")
    assert talker.calls[0][1] == {"held_to": {"type": "object"}}
    assert json.loads(client.chat("desk", ask("Paid twice"), format="json").message.content or "") == {
        "answer": "billing"
    }


def test_a_field_of_null_is_one_that_is_not_there(server: Serving, talker: Talker) -> None:
    nulls = {name: None for name in ("stream", "options", "format", "system", "tools", "think")}
    reply = httpx.post(f"{server.address}/api/generate", json={"model": "chat", "prompt": "Hello", **nulls})
    assert reply.status_code == 200 and len(reply.text.splitlines()) == 4  # a stream: three words and the end
    assert "x-sleicl-ignored" not in reply.headers and talker.calls == [("human: Hello", {})]


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("tools", {"tools": [{"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}]}),
        ("messages.0.images", {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}),
        ("format", {"model": "desk", "format": {"properties": {"a": {"type": "string"}}}}),
    ],
)
def test_what_is_not_served_is_refused_by_name(client: ollama.Client, field: str, more: dict[str, Any]) -> None:
    with pytest.raises(ollama.ResponseError, match=f"^{field}: ") as refused:
        client.chat(**{"model": "chat", "messages": ask("x"), **more})
    assert refused.value.status_code == 400


def test_failures_have_a_status_or_end_the_stream(client: ollama.Client, talker: Talker) -> None:
    talker.fails_at, talker.problem = 0, PromptTooLong("The prompt has 9,000 tokens")
    with pytest.raises(ollama.ResponseError, match="The prompt has 9,000 tokens") as refused:
        client.chat("chat", ask("x"))
    assert refused.value.status_code == 400
    talker.fails_at, talker.problem = 2, ServerDown("No Ollama server answers")
    heard = []
    with pytest.raises(ollama.ResponseError, match="No Ollama server answers"):
        for part in client.chat("chat", ask("x"), stream=True):
            heard.append(part.message.content)
    assert heard == ["You", " said"]


def test_a_request_of_a_command_line_needs_no_content_type(server: Serving) -> None:
    reply = httpx.post(
        f"{server.address}/api/generate", content=b'{"model": "desk", "prompt": "Paid twice", "stream": false}',
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )  # fmt: skip
    assert reply.json()["response"] == "billing"


@contextmanager
def opened(server: Serving, name: str, **settings: Any) -> Iterator[ChatOllama]:
    """Open LangChain's model, and close what it leaves open."""
    model = ChatOllama(model=name, base_url=server.address, validate_model_on_init=True, **settings)
    try:
        yield model
    finally:
        assert model._client
        model._client.close()  # type: ignore[no-untyped-call]  # of the ollama package


def test_langchains_model_of_ollama_finds_its_model_and_chats(server: Serving) -> None:
    with opened(server, "chat", temperature=0.2) as model:
        found = model.invoke([("system", "Be brief."), ("user", "Hello")])
        assert found.text == "You said Hello" and found.usage_metadata and found.usage_metadata["output_tokens"] == 3
        assert "".join(one.text for one in model.stream("a b")) == "You said a b"
    with opened(server, f"chat:{LIST}") as model:
        assert model.invoke("x").text == "You said x"
    with opened(server, "desk") as model:
        assert model.invoke("Paid twice").text == "billing"
