"""Where requests go: proxies, keys, and servers of one's own that speak as OpenAI's does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sleicl_chains.errors import KeyMissing, ModelError, OptionError
from sleicl_chains.models.addresses import is_loopback
from sleicl_chains.models.embedders import embedder
from sleicl_chains.models.identity import identity
from sleicl_chains.models.names import strong_model, weak_model
from tests.support.command import Desk, sleicl
from tests.support.ollama_server import OllamaServer
from tests.support.openai_server import OpenAIServer


class Counting(ThreadingHTTPServer):
    """A proxy, or an embeddings server, that notes what was asked and with which key."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.daemon_threads = True
        self.seen: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Counting

    def do_POST(self) -> None:
        self.server.seen.append((self.path, self.headers["Authorization"]))
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        vectors = [{"index": at, "embedding": [1.0, 2.0]} for at, _ in enumerate(asked.get("input", []))]
        body = json.dumps({"data": vectors, "model": "m", "usage": {}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def other() -> Iterator[Counting]:
    with Counting() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


PROXIES = ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def no_proxy_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "OPENAI_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("variable", PROXIES)
async def test_no_proxy_is_asked_for_loopback(variable: str, other: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, other.url)
    with OpenAIServer(["a", "b", "c"]) as server:
        model = weak_model("openai:m", base_url=server.base_url)
        assert model.invoke("q").text == "a"
        assert (await model.ainvoke("q")).text == "b"
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert strong_model("openai:m").invoke("q").text == "c"
    assert other.seen == []


def test_embeddings_ask_no_proxy_for_loopback(other: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    with Counting() as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{other.url}/v1")
        assert embedder("openai:m").embed_query("text") == [1.0, 2.0]
        assert proxy.seen == [] and other.seen == [("/v1/embeddings", "Bearer none-needed")]
        proxy.shutdown()


def test_a_proxy_that_the_user_names_is_asked(other: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_PROXY", other.url)
    with OpenAIServer([]) as server, pytest.raises(Exception, match="."):  # it is no model
        weak_model("openai:m", base_url=server.base_url).invoke("q")
    assert other.seen[0][0].startswith(server.base_url)


def test_what_is_sent_where_leaves_the_identity_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all replies of servers on this machine would be bought again."""
    found = identity(weak_model("openai:m", base_url="http://127.0.0.1:9/v1"))
    assert found == {
        "class": "ChatOpenAI", "server": "http://127.0.0.1:9/v1/", "model_name": "m", "temperature": 0.0,
        "openai_api_base": "http://127.0.0.1:9/v1", "max_tokens": 64, "extra_body": {"max_tokens": 64},
    }  # fmt: skip
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    assert identity(weak_model("openai:m", base_url="http://127.0.0.1:9/v1", timeout=3)) == found


# ------------------------------------------------------------------ SOCKS


def _socks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")


def test_a_socks_proxy_without_its_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _socks(monkeypatch)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    calls: list[Any] = [
        lambda: weak_model("openai:m", base_url="https://10.0.0.5:1/v1"),
        lambda: embedder("openai:m"),
        lambda: weak_model("ollama:m", base_url="http://10.0.0.5:1").invoke("q"),
        lambda: embedder("ollama:m").embed_query("q"),
    ]
    monkeypatch.setenv("OLLAMA_HOST", "10.0.0.5:1")
    for call in calls:
        with pytest.raises(ModelError, match="SOCKS proxy .*run `pip install socksio`, or .*NO_PROXY") as found:
            call()
        assert "\n" not in str(found.value)


def test_a_socks_proxy_is_not_asked_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    _socks(monkeypatch)
    with OllamaServer() as server:
        assert weak_model("ollama:smollm2:135m", base_url=server.url).invoke("What colour is grass?").text
    with OpenAIServer(["a"]) as compatible:
        assert weak_model("openai:m", base_url=compatible.base_url).invoke("q").text == "a"


# ------------------------------------------------------------------ keys


def test_openai_without_a_key_says_which_to_set(tmp_path: Any) -> None:
    for call in (lambda: weak_model("openai:m"), lambda: embedder("openai:m")):
        with pytest.raises(
            KeyMissing, match="openai:m needs a key: set OPENAI_API_KEY. .*--base-url http://127.*OPENAI_BASE_URL"
        ):
            call()
    desk = Desk.at(tmp_path)
    done = sleicl("ask", "Hello?", "--task", desk.card, "--weak", "openai:m")
    assert done.status == 1 and done.err.startswith("sleicl: openai:m needs a key: set OPENAI_API_KEY.")


def test_a_server_of_ones_own_needs_no_key(other: Counting, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    desk = Desk.at(tmp_path)
    with OpenAIServer(["billing"]) as server:
        done = sleicl(
            "ask", "Where is my bill?", "--task", desk.card, "--weak", "openai:m", "--base-url", server.base_url
        )
        assert (done.status, done.out) == (0, "billing\n"), done.err
    # A key that is set is the one that is sent, and one that is named comes before it.
    monkeypatch.setenv("OPENAI_BASE_URL", f"{other.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    embedder("openai:m").embed_query("text")
    assert other.seen == [("/v1/embeddings", "Bearer sk-1")]
    with pytest.raises(KeyMissing):
        monkeypatch.delenv("OPENAI_API_KEY")
        weak_model("openai:m", base_url="https://eu.api.openai.com/v1")


@pytest.mark.parametrize("url", ["http://10.0.0.5:8000/v1", "http://box.lan/v1", "http://user:pw@box.lan/v1"])
@pytest.mark.filterwarnings("ignore:The user name and password go to")
def test_openais_key_is_never_sent_in_clear(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    with pytest.raises(OptionError, match="OPENAI_API_KEY would go to http://.*/v1 unencrypted; use https://") as found:
        weak_model("openai:m", base_url=url)
    assert "pw" not in str(found.value)
    weak_model("openai:m", base_url=url, api_key="sk-of-that-server")
    monkeypatch.setenv("OPENAI_API_BASE", url)
    with pytest.raises(OptionError, match="unencrypted"):
        embedder("openai:m")


def test_a_key_that_would_go_in_clear_ends_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "sk-1")
    desk = Desk.at(tmp_path)
    ask = ["ask", "Hello?", "--task", desk.card, "--weak", "ollama:m", "--base-url"]
    done = sleicl(*ask, "http://10.0.0.5:1")
    assert done.status == 2 and "OLLAMA_API_KEY would go to http://10.0.0.5:1 unencrypted" in done.err
    done = sleicl(*ask, "http://127.0.0.1:1/v1")
    assert done.status == 2 and "drop /v1 for Ollama's own protocol (http://127.0.0.1:1)" in done.err
    done = sleicl("models", "list", "--base-url", "127.0.0.1:1/v1")
    assert done.status == 2 and "drop /v1" in done.err


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1/v1", True), ("http://127.9.9.9", True), ("http://[::1]:1", True),
        ("http://LOCALHOST", True), ("http://localhost.:1", True),
        ("http://[::ffff:127.0.0.1]", True), ("http://192.168.0.1", False),
        ("http://localhost.example.com", False), ("http://127.0.0.1.example.com", False), ("http://[", False),
        ("http://127.0.0.1@box.lan", False),
    ],
)  # fmt: skip
def test_what_is_this_machine(url: str, here: bool) -> None:
    assert is_loopback(url) is here
