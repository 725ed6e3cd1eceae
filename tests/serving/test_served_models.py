"""The server on real engines, and on an Ollama that is dead, slow or gone in the midst of a reply."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from openai import OpenAI

from sleicl_chains.answering.solver import solver
from sleicl_chains.files import Home
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.serving.server.menu import Learned, Menu
from sleicl_chains.serving.server.requests import Limits
from sleicl_chains.serving.weak import open_chat_model
from tests.support.ollama_server import Asked, OllamaServer, Said, chat
from tests.support.real_ollama import chat_model
from tests.support.recipes import TASK
from tests.support.serving import Serving, menu_of, serving

LIST = "notes-to-list-b5baed14"


def complete(server: Serving, **more: Any) -> httpx.Response:
    wanted = {"model": "chat", "messages": [{"role": "user", "content": "Hello"}], **more}
    return httpx.post(f"{server.url}/chat/completions", json=wanted, timeout=60)


@contextmanager
def on_ollama(url: str, home: Home, **limits: Any) -> Iterator[Serving]:
    weak = open_chat_model("ollama:smollm2:135m", home, {"base_url": url, "timeout_s": 5, "attempts": 1})
    with serving(menu_of(weak, home), Limits(**limits)) as server:
        yield server


def test_a_dead_ollama_is_a_503_that_says_what_helps(home: Home) -> None:
    with on_ollama("http://127.0.0.1:9", home) as server:
        for stream in (False, True):
            reply = complete(server, stream=stream)
            assert reply.status_code == 503 and int(reply.headers["Retry-After"]) >= 1
            assert "Start it with `ollama serve`" in reply.json()["error"]["message"]


def test_an_ollama_that_says_nothing_is_a_503_and_no_hang(home: Home) -> None:
    def silent(asked: Asked) -> Said | None:
        return Said(hang=True) if asked.route == "/api/chat" and not asked.render_only else None

    with OllamaServer(silent) as stub, on_ollama(stub.url, home, seconds=4) as server:
        began = time.monotonic()
        reply = complete(server)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "timeout")
        assert time.monotonic() - began < 15
        assert httpx.get(f"{server.url}/models", timeout=5).status_code == 200


def test_an_ollama_that_goes_in_the_midst_is_an_error_in_the_stream_and_comes_back(home: Home) -> None:
    broken = Said(chat("one two three").lines[:2], drop=True)
    says: list[Said] = [broken, chat("all well")]

    def answer(asked: Asked) -> Said | None:
        return says[0] if asked.route == "/api/chat" and not asked.render_only else None

    with OllamaServer(answer) as stub, on_ollama(stub.url, home) as server:
        cut = complete(server, stream=True)
        assert cut.status_code == 200 and '"content":"one ' in cut.text and "[DONE]" not in cut.text
        assert '"type": "server_error"' in cut.text.splitlines()[-2]
        del says[0]
        assert complete(server).json()["choices"][0]["message"]["content"] == "all well "


def test_options_of_a_request_reach_ollama_under_its_names(server: OllamaServer, home: Home) -> None:
    with on_ollama(server.url, home) as serving:
        options = {"max_completion_tokens": 9, "max_tokens": 5, "temperature": 0.3, "seed": 2**31 + 4, "stop": "#"}
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "title": "x"}}}
        assert complete(serving, **options, response_format=form).status_code == 200
    (sent,) = server.sent("/api/chat")
    assert sent["format"] == {"type": "object", "title": "x"}
    found = {name: sent["options"][name] for name in ("num_predict", "temperature", "seed", "stop", "num_ctx")}
    assert found == {"num_predict": 9, "temperature": 0.3, "seed": 4, "stop": ["#"], "num_ctx": 8192}


def test_a_client_that_goes_ends_the_request_at_ollama(home: Home) -> None:
    trickling = Said(chat("word " * 100).lines, pause_s=0.05)

    def answer(asked: Asked) -> Said | None:
        return trickling if asked.route == "/api/chat" and not asked.render_only else None

    with OllamaServer(answer) as stub, on_ollama(stub.url, home) as server:
        wanted = {"model": "chat", "messages": [{"role": "user", "content": "x"}], "stream": True}
        with httpx.stream("POST", f"{server.url}/chat/completions", json=wanted, timeout=30) as reply:
            next(reply.iter_lines())
        assert stub.left.acquire(timeout=5)


def check_all_clients(server: Serving, task_labels: tuple[str, ...]) -> None:
    """Ask a recipe and the chat, by four clients."""
    with OpenAI(base_url=server.url, api_key="none", timeout=120) as client:
        raw = client.chat.completions.with_raw_response.create(
            model=f"chat:{LIST}", messages=[{"role": "user", "content": "Buy milk, call Ana"}], max_tokens=8,
            temperature=0, stop=["zzz"], seed=1,
        )  # fmt: skip
        found = raw.parse()
        assert raw.headers["x-sleicl-grimoire"] == LIST and found.usage and found.usage.prompt_tokens > 300
        assert found.choices[0].message.content and 0 < found.usage.completion_tokens <= 8
        answer = client.chat.completions.create(
            model="desk", messages=[{"role": "user", "content": "I was charged twice"}], logprobs=True, top_logprobs=2
        ).choices[0]
        assert answer.message.content in task_labels and answer.logprobs and answer.logprobs.content
        assert {one.token for one in answer.logprobs.content[0].top_logprobs} == set(task_labels)
    settings: dict[str, Any] = {"base_url": server.url, "api_key": "none", "max_tokens": 6, "temperature": 0}
    assert "".join(one.text for one in ChatOpenAI(model="chat", **settings).stream("Say hello"))
    schema = {
        "type": "object", "properties": {"word": {"enum": ["yes", "no"]}}, "required": ["word"],
        "additionalProperties": False,  # by the standard a schema without it allows any others
    }  # fmt: skip
    asked = {"model": "chat", "messages": [{"role": "user", "content": "Hello"}], "stream": False, "format": schema}
    reply = httpx.post(f"{server.address}/api/chat", timeout=120, json=asked)
    assert json.loads(reply.json()["message"]["content"]) in ({"word": "yes"}, {"word": "no"})
    model = ChatOllama(model="chat", base_url=server.address, validate_model_on_init=True, num_predict=5)
    assert model.invoke("Hello").text
    assert model._client
    model._client.close()  # type: ignore[no-untyped-call]  # of the ollama package


@pytest.mark.slow
def test_all_clients_on_the_embedded_engine(home_with_weights: Home, weak: EmbeddedModel) -> None:
    talker = open_chat_model("embedded:smollm2", home_with_weights, {"n_ctx": 2048})
    learned = Learned("desk", TASK, solver(weak, TASK, prior="none"), scored=True)
    menu = Menu({"desk": learned}, talker, menu_of(talker, home_with_weights).store)
    with serving(menu, ollama_api=True) as server:
        check_all_clients(server, TASK.labels)


@pytest.mark.ollama
def test_all_clients_on_a_real_ollama(ollama: str, home: Home) -> None:
    talker = open_chat_model(f"ollama:{chat_model(ollama)}", home, {"num_ctx": 2048})
    learned = Learned("desk", TASK, solver(talker, TASK, prior="none"), scored=True)
    with serving(menu_of(talker, home, learned), ollama_api=True) as server:
        check_all_clients(server, TASK.labels)
