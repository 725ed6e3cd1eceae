"""An Ollama server on loopback that replays what a real one answered, or fails in a given way."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from sleicl_chains.models.ollama.model import OllamaModel

RECORDED = Path(__file__).parent / "recorded" / "ollama-0.24.0.json"


@dataclass(frozen=True)
class Said:
    """One answer of the server."""

    lines: tuple[str, ...] = ()
    status: int = 200
    hang: bool = False
    """Say nothing until the server is stopped."""
    drop: bool = False
    """Cut the connection after the lines, in the middle of the announced length."""
    pause_s: float = 0.0
    """Send the lines one by one, with so long a pause after each, until the client goes."""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def objects(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


def said(*values: object, status: int = 200) -> Said:
    """Return an answer of JSON lines."""
    return Said(tuple(json.dumps(value) for value in values), status)


@cache
def _recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return found


def recorded(name: str) -> Said:
    """Return what Ollama 0.24.0 answered to the request of that name in record_ollama.py."""
    entry = _recorded()[name]
    return Said(tuple(entry["lines"]), entry["status"])


def chat(text: str, *, model: str = "smollm2:135m", **last: Any) -> Said:
    """Return a streamed chat reply, a word a part; `last` changes its end."""
    words = [f"{word} " for word in text.split()]
    parts: list[dict[str, Any]] = [
        {"model": model, "message": {"role": "assistant", "content": word}, "done": False} for word in words
    ]
    end = {
        "model": model, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop",
        "prompt_eval_count": 20, "eval_count": len(words), "prompt_eval_duration": 10**8, "eval_duration": 10**8,
    }  # fmt: skip
    return said(*parts, {key: value for key, value in (end | last).items() if value is not None})


def generated(text: str) -> Said:
    """Return the same as /api/generate says it."""
    parts = [
        {key: value for key, value in part.items() if key != "message"} | {"response": part["message"]["content"]}
        for part in chat(text).objects
    ]
    return said(*parts)


def alternatives(shares: dict[str, float], *, prompt_tokens: int = 20) -> Said:
    """Return a reply to `logprobs` with these next tokens."""
    import math

    listed = [{"token": token, "logprob": math.log(p), "bytes": [*token.encode()]} for token, p in shares.items()]
    token = {**listed[0], "top_logprobs": listed}
    return said({"response": "x", "done": True, "prompt_eval_count": prompt_tokens, "logprobs": [token]})


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    route: str
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def render_only(self) -> bool:
        return bool(self.body.get("_debug_render_only"))


Answer = Callable[[Asked], Said | None]


def chatml(asked: Asked) -> Said:
    """Render a chat as SmolLM2's template does."""
    turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in asked.body["messages"])
    return said({"done": False, "_debug_info": {"rendered_template": f"{turns}<|im_start|>assistant\n"}})


class OllamaServer:
    """Use as a context manager; `answer` decides first, what it leaves is answered as the real server did.

    Args:
        answer: None for what it does not answer.
        version: what the server calls itself.
        port: of one that comes back where another was; 0 takes a free one.
    """

    def __init__(self, answer: Answer | None = None, *, version: str = "0.24.0", port: int = 0) -> None:
        self.answer = answer or (lambda asked: None)
        self.version = version
        self.asked: list[Asked] = []
        self.left = threading.Semaphore(0)
        """Released where a client went before the end of a reply that comes line by line."""
        self._stopping = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def sent(self, route: str) -> list[dict[str, Any]]:
        """Return the bodies that came to a route, without those that only ask for the rendering."""
        return [asked.body for asked in self.asked if asked.route == route and not asked.render_only]

    def __enter__(self) -> "OllamaServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def reply(self, asked: Asked) -> Said:
        self.asked.append(asked)
        return self.answer(asked) or self._as_recorded(asked)

    def _as_recorded(self, asked: Asked) -> Said:
        model = str(asked.body.get("model", ""))
        base = " base" if model.startswith("gemma3") else ""
        if asked.route == "/api/version":
            return said({"version": self.version})
        if asked.route == "/api/tags":
            return recorded("tags")
        if model and model not in ("smollm2:135m", "gemma3:270m-base"):
            return replace(recorded("missing"), lines=(json.dumps({"error": f"model '{model}' not found"}),))
        if asked.route == "/api/show":
            return recorded(f"show{base}")
        if asked.render_only:
            return recorded("rendered base") if base else chatml(asked)
        streamed = asked.body.get("stream", True)
        names = {"/api/chat": "chat" if streamed else "chat whole", "/api/generate": "score", "/api/embed": "embed"}
        return recorded(names.get(asked.route, "no such route"))


def _handler(server: OllamaServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each call waits 40 ms for nothing

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            answer = server.reply(Asked(self.path, body, {key.lower(): value for key, value in self.headers.items()}))
            if answer.hang:
                server._stopping.wait(30)
                self.close_connection = True
                return
            try:
                self._send(answer)
            except OSError:
                self.close_connection = True  # the client went away

        def _send(self, answer: Said) -> None:
            data = "".join(f"{line}\n" for line in answer.lines).encode()
            if answer.pause_s:
                self._trickle(answer)
                return
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/x-ndjson", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) + 100 * answer.drop))
            self.end_headers()
            self.wfile.write(data)
            if answer.drop:
                self.wfile.flush()
                self.close_connection = True

        def _trickle(self, answer: Said) -> None:
            self.send_response(answer.status)
            self.end_headers()
            self.close_connection = True
            try:
                for line in answer.lines:
                    self.wfile.write(f"{line}\n".encode())
                    if server._stopping.wait(answer.pause_s):
                        return
            except OSError:
                server.left.release()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


CHAT: list[BaseMessage] = [SystemMessage("Grimoire: grass is green."), HumanMessage("What colour is grass?")]
"""A prompt with a grimoire, for tests."""


def model(server: OllamaServer, name: str = "smollm2:135m", **options: Any) -> OllamaModel:
    """Return the guarded model on this server."""
    return OllamaModel(model=name, base_url=server.url, timeout_s=5, **options)


def answering(*replies: Said) -> OllamaServer:
    """Return a server that gives chats one reply after the other, the last one for ever."""
    left = list(replies)

    def answer(asked: Asked) -> Said | None:
        if asked.route != "/api/chat" or asked.render_only:
            return None
        return left.pop(0) if len(left) > 1 else left[0]

    return OllamaServer(answer)


def said_by(asked: Asked) -> Said | None:
    """Answer with the model and temperature that were asked for."""
    if asked.route != "/api/chat" or asked.render_only:
        return None
    return chat(f"{asked.body['model']} at {asked.body['options']['temperature']}")
