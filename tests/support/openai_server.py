"""A chat completions server on loopback that replays a script and keeps what it was asked."""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from langchain_openai import ChatOpenAI


@dataclass(frozen=True)
class Reply:
    text: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 100
    completion_tokens: int = 10
    hang: bool = False
    """Answer only when the server is stopped."""


class OpenAIServer:
    """Use as a context manager; the n-th request gets the n-th reply, and a request too many HTTP 400."""

    def __init__(self, replies: Sequence[Reply | str]) -> None:
        self.replies = [Reply(reply) if isinstance(reply, str) else reply for reply in replies]
        self.requests: list[dict[str, Any]] = []
        self.arrived = threading.Semaphore(0)
        """Released once a request."""
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    def model(self, **options: Any) -> ChatOpenAI:
        settings = {"model": "strong-1", "api_key": "sk-no-such-key", "max_retries": 0, "timeout": 10}
        return ChatOpenAI(base_url=self.base_url, **{**settings, **options})

    def prompt(self, number: int) -> str:
        """Return the last message of a request."""
        return str(self.requests[number]["messages"][-1]["content"])

    def __enter__(self) -> "OpenAIServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _answer(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
            self.arrived.release()
        if number >= len(self.replies):
            return 400, {"error": {"message": f"no reply is scripted for request {number + 1}"}}
        reply = self.replies[number]
        if reply.hang:
            self._stopping.wait()
        return 200, _completion(reply, request["model"])


def _completion(reply: Reply, model: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": reply.text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": reply.finish_reason}],
        "usage": {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        },
    }


def _handler(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each call waits 40 ms for nothing

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, reply = server._answer(request)
            body = json.dumps(reply).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the client was killed

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
