"""What the server of the page lets in and out."""

import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message

from sleicl_chains.serving.web_server import BODY, Guard, _bounded, refusal


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {"host": "127.0.0.1:7860"}, None),
        ("/", {"host": "localhost"}, None),
        ("/", {"host": "[::1]:7860"}, None),
        ("/", {"host": "127.0.0.2:7860"}, None),
        ("/", {"host": "elsewhere.example:7860"}, 403),
        ("/", {}, 403),
        ("/gradio_api/queue/join", {"host": "localhost:1", "origin": "http://localhost:1"}, None),
        ("/gradio_api/queue/join", {"host": "localhost:1", "origin": "http://localhost:2"}, 403),
        ("/gradio_api/queue/join", {"host": "localhost:1", "origin": "http://elsewhere.example"}, 403),
        ("/gradio_api/queue/join", {"host": "localhost:1", "origin": "null"}, 403),
        ("/gradio_api/upload", {"host": "localhost"}, 404),
        ("/gradio_api/file=/etc/passwd", {"host": "localhost"}, 404),
        ("/gradio_api/proxy=http://elsewhere.example", {"host": "localhost"}, 404),
        ("/gradio_api/run/predict", {"host": "localhost", "content-length": str(BODY)}, None),
        ("/gradio_api/run/predict", {"host": "localhost", "content-length": str(BODY + 1)}, 413),
        ("/gradio_api/run/predict", {"host": "localhost", "content-length": "-1"}, 413),
    ],
)
def test_who_is_let_in(path: str, headers: dict[str, str], status: int | None) -> None:
    found = refusal(path, Headers(headers))
    assert (found[0] if found else None) == status


def test_a_page_for_others_has_any_name_but_serves_no_other_page() -> None:
    headers = {"host": "elsewhere.example", "origin": "https://elsewhere.example"}
    assert refusal("/", Headers(headers), here=False) is None
    assert refusal("/", Headers({**headers, "origin": "https://third.example"}), here=False) == (
        403, "requests of other pages are refused",
    )  # fmt: skip


def _client() -> TestClient:
    async def echo(request: Request) -> Response:
        return PlainTextResponse("here")

    return TestClient(Guard(Starlette(routes=[Route("/", echo)])), "http://localhost")


def test_the_browser_is_told_to_fetch_nothing_from_elsewhere() -> None:
    found = _client().get("/")
    assert found.text == "here"
    policy = found.headers["content-security-policy"].split("; ")
    assert {"default-src 'self'", "connect-src 'self'", "script-src-attr 'none'", "form-action 'self'"} < set(policy)
    assert not [rule for rule in policy if "*" in rule or "http" in rule]
    assert found.headers["x-dns-prefetch-control"] == "off"


async def test_a_body_is_bounded_whatever_length_it_claims() -> None:
    async def part() -> Message:
        return {"type": "http.request", "body": b"x" * (BODY // 4), "more_body": True}

    receive = _bounded(part)
    assert [(await receive())["type"] for _ in range(5)] == ["http.request"] * 4 + ["http.disconnect"]
