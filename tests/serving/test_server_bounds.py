"""What the server takes upon itself, and whom it lets in."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sleicl_chains.errors import OptionError
from sleicl_chains.files import Home
from sleicl_chains.serving.server.door import check_key
from sleicl_chains.serving.server.menu import Menu
from sleicl_chains.serving.server.queue import Job, Queue, QueueFull
from sleicl_chains.serving.server.replies import Begun
from sleicl_chains.serving.server.requests import Limits, headers_of
from tests.support.serving import Serving, Talker, desk, menu_of, serving


def body(text: str = "x", **more: object) -> dict[str, object]:
    return {"model": "chat", "messages": [{"role": "user", "content": text}], **more}


def complete(server: Serving, **more: object) -> httpx.Response:
    return httpx.post(f"{server.url}/chat/completions", json=body(**more), timeout=30)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home for all: each makes an index of its own."""
    return Home(tmp_path_factory.mktemp("home"))


async def test_a_queue_takes_turns_in_order_and_turns_away_what_is_too_much() -> None:
    queue, order, go = Queue(running=1, waiting=2), [], asyncio.Event()

    async def work(number: int) -> None:
        async with queue.place():
            await go.wait()
            order.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert (queue.running, queue.waiting) == (1, 2)
    with pytest.raises(QueueFull):
        async with queue.place():
            pass
    tasks[1].cancel()  # who goes makes room
    await asyncio.sleep(0)
    assert queue.waiting == 1
    go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [0, 2] and (queue.running, queue.waiting) == (0, 0)


async def test_a_job_ends_when_its_time_is_up_and_gives_its_place_back() -> None:
    queue = Queue(running=1, waiting=0)

    async def slow() -> "asyncio.AsyncGenerator[int, None]":  # type: ignore[name-defined]
        yield 1
        await asyncio.sleep(60)

    job, heard = Job(queue, slow(), 0.05), []
    with pytest.raises(TimeoutError):
        async for event in job:
            heard.append(event)
    assert heard == [1] and queue.running == 0


def test_of_many_at_once_each_gets_its_own_answer_or_a_503(library: Home) -> None:
    weak = Talker(pause_s=0.005)
    with serving(menu_of(weak, library), Limits(waiting=8)) as server:
        httpx.get(f"{server.address}/health")
        with ThreadPoolExecutor(32) as pool:
            replies = [*pool.map(lambda number: (number, complete(server, text=f"number {number}")), range(32))]
    served = [(number, one) for number, one in replies if one.status_code == 200]
    refused = [one for _, one in replies if one.status_code == 503]
    assert len(served) + len(refused) == 32 and len(served) >= 9 and refused
    for number, one in served:
        assert one.json()["choices"][0]["message"]["content"] == f"You said number {number}"
    assert {(one.headers["Retry-After"], one.json()["error"]["code"]) for one in refused} == {("1", "queue_full")}


def test_a_client_that_goes_stops_the_model(library: Home) -> None:
    weak = Talker(reply=lambda prompt: "word " * 500, pause_s=0.01)
    with serving(menu_of(weak, library)) as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/chat/completions", json=body(), timeout=4)
        with httpx.stream("POST", f"{server.url}/chat/completions", json=body(stream=True), timeout=30) as reply:
            next(reply.iter_lines())
        assert [line.split()[-1] for line in server.logged(2)] == ["499", "499"]
        for _ in range(100):
            if len(weak.stopped) == 2:
                break
            time.sleep(0.02)
        assert len(weak.stopped) == 2 and max(weak.stopped) < 499
        weak.reply = lambda prompt: "free again"
        assert complete(server).json()["choices"][0]["message"]["content"] == "free again"


def test_a_model_that_is_too_slow_is_a_503_before_the_first_word_and_an_error_after_it(library: Home) -> None:
    weak = Talker(reply=lambda prompt: "word " * 500, pause_s=60)
    with serving(menu_of(weak, library), Limits(seconds=2.5)) as server:
        late = complete(server)
        assert (late.status_code, late.json()["error"]["code"], late.headers["Retry-After"]) == (503, "timeout", "5")
        weak.pause_s = 0.05
        cut = complete(server, stream=True)
        assert cut.status_code == 200 and '"code": "timeout"' in cut.text.splitlines()[-2]


def test_a_request_that_is_too_large_is_not_read(library: Home) -> None:
    with serving(Menu({"desk": desk()})) as server:
        assert complete(server, text="x" * 2**20).status_code == 413
        streamed = httpx.post(f"{server.url}/chat/completions", content=iter([b"x" * 2**19] * 8))
        assert streamed.json()["error"]["code"] == "request_too_large"


@pytest.fixture
def keyed() -> Iterator[Serving]:
    with serving(Menu({"desk": desk()}), key="s3cret") as server:
        yield server


def test_a_key_is_wanted_everywhere_but_for_the_health(keyed: Serving) -> None:
    def status(path: str, key: str | None, **headers: str) -> int:
        shown = {"Authorization": key, **headers} if key else headers
        return httpx.get(f"{keyed.address}{path}", headers=shown).status_code

    assert [status(path, None) for path in ("/v1/models", "/metrics", "/nothing", "/health")] == [401, 401, 401, 200]
    assert [status("/v1/models", key) for key in ("Bearer s3cre", "Bearer s3cret2", "Bearer", "Basic s3cret")] == [
        401
    ] * 4
    assert [status("/v1/models", key) for key in ("Bearer s3cret", "bearer  s3cret")] == [200, 200]
    assert status("/v1/models", "Bearer s3cret", Host="example.org", Origin="https://example.org") == 200
    reply = httpx.get(f"{keyed.url}/models", headers={"Authorization": "Bearer x"})
    assert (reply.json()["error"]["code"], reply.headers["WWW-Authenticate"]) == ("invalid_api_key", "Bearer")
    assert "s3cret" not in "".join(keyed.log)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "[::1]"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
    ],
)
def test_without_a_key_pages_of_other_sites_are_kept_out(headers: dict[str, str], status: int) -> None:
    with serving(Menu({"desk": desk()})) as server:
        reply = httpx.get(f"{server.url}/models", headers=headers)
        assert reply.status_code == status
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_a_key_fits_a_header() -> None:
    check_key(None)
    check_key("long-enough")
    for key in ("two words here", "schlüssel", "line\nbreak"):
        with pytest.raises(OptionError, match="fit no HTTP header") as refused:
            check_key(key)
        assert key not in str(refused.value)


def test_errors_of_the_address_have_openais_shape() -> None:
    with serving(Menu({"desk": desk()})) as server:
        for method, path, status in (("GET", "/v1/x", 404), ("GET", "/docs", 404), ("PUT", "/v1/models", 405)):
            reply = httpx.request(method, f"{server.address}{path}")
            assert (reply.status_code, reply.json()["error"]["code"]) == (status, "unknown_url")
        assert httpx.get(f"{server.address}/api/tags").json() == {"error": "There is nothing at this address"}


def test_counts_are_plain_text_and_the_log_has_a_line_a_request_without_texts() -> None:
    with serving(Menu({"desk": desk()})) as server:
        httpx.get(f"{server.address}/health")
        httpx.get(f"{server.address}/v1/secret%0Aline")
        for model in ("desk", "my secret"):
            httpx.post(f"{server.url}/chat/completions", json=body("my secret") | {"model": model})
        log = server.logged(3)
        text = httpx.get(f"{server.address}/metrics").text
    assert [line.split(", ")[0] for line in log[:1]] == ["GET /v1/secret%0Aline 404"]
    assert "POST /v1/chat/completions desk 200, 0." in log[1] and log[1].endswith("+0 tokens")
    assert log[2] == "POST /v1/chat/completions 404" and "my secret" not in "".join(log) + text
    lines = text.splitlines()
    assert 'sleicl_requests_total{model="desk",status="200"} 1' in lines
    assert 'sleicl_requests_total{model="",status="404"} 2' in lines
    assert "sleicl_queue_length 0" in lines and "sleicl_running 0" in lines
    assert any(line.startswith('sleicl_tokens_total{model="desk",kind="prompt"} ') for line in lines)


def test_headers_are_ascii_whatever_a_library_says() -> None:
    told = headers_of(Begun("täsk-1", "near to \u201cGröße\r\nX: y\u201d \x1b[2J 🦉", ("tools",)))
    assert told == {
        "x-sleicl-grimoire": "t\\xe4sk-1",
        "x-sleicl-why": 'near to "Gr\\xf6\\xdfe  X: y"  [2J \\U0001f989',
        "x-sleicl-ignored": "tools",
    }


def test_a_server_that_is_told_to_end_finishes_what_runs(library: Home) -> None:
    weak = Talker(pause_s=0.1)
    found: list[httpx.Response] = []
    with serving(menu_of(weak, library)) as server:
        complete(server)  # the index is made
        asked = threading.Thread(target=lambda: found.append(complete(server, text="one two three four five")))
        asked.start()
        while len(weak.calls) < 2:
            time.sleep(0.01)
    asked.join(10)
    assert found[0].json()["choices"][0]["message"]["content"] == "You said one two three four five"


def test_a_body_that_trickles_holds_up_nobody_else() -> None:
    with serving(Menu({"desk": desk()})) as server:
        port = int(server.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            reply = httpx.post(f"{server.url}/chat/completions", json=body("Paid twice") | {"model": "desk"})
            assert reply.json()["choices"][0]["message"]["content"] == "billing"
