"""Ask a real Ollama what the tests replay, and keep its answers.

    OLLAMA_HOST=... python -m tests.support.record_ollama

The models are SmolLM2-135M-Instruct as `smollm2:135m` and Gemma 3 270M (base, no template) as `gemma3:270m-base`.
"""

import json
import re
from pathlib import Path
from typing import Any

import httpx

from sleicl_chains.models.ollama.address import server_address

INSTRUCT, BASE = "smollm2:135m", "gemma3:270m-base"
RECORDED = Path(__file__).parent / "recorded" / "ollama-0.24.0.json"
OPTIONS = {"num_ctx": 512, "temperature": 0.0, "seed": 0, "num_predict": 8}
CHAT = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "What colour is grass?"}]
LONG = [{"role": "user", "content": "word " * 600}]


def requests() -> dict[str, tuple[str, dict[str, Any] | None]]:
    """Return route and body of each answer to keep; GET without a body."""
    chat = {"model": INSTRUCT, "messages": CHAT, "options": OPTIONS, "truncate": False, "shift": False}
    score = {"raw": True, "prompt": "The sky is", "options": OPTIONS | {"num_predict": 1}, "stream": False}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    return {
        "version": ("/api/version", None),
        "tags": ("/api/tags", None),
        "show": ("/api/show", {"model": INSTRUCT}),
        "show base": ("/api/show", {"model": BASE}),
        "chat": ("/api/chat", {**chat, "stream": True}),
        "chat whole": ("/api/chat", {**chat, "stream": False}),
        "rendered": ("/api/chat", {**chat, "stream": False, "_debug_render_only": True}),
        "rendered base": ("/api/chat", {**chat, "model": BASE, "stream": False, "_debug_render_only": True}),
        "score": ("/api/generate", {**score, "model": INSTRUCT, "logprobs": True, "top_logprobs": 20}),
        "embed": ("/api/embed", {"model": INSTRUCT, "input": ["grass"], "truncate": False}),
        "too long": ("/api/chat", {**chat, "messages": LONG}),
        "embed too long": ("/api/embed", {"model": INSTRUCT, "input": ["word " * 9000], "truncate": False}),
        "missing": ("/api/chat", {**chat, "model": "nosuch"}),
        "no thinking": ("/api/chat", {**chat, "think": True}),
        "no tools": ("/api/chat", {**chat, "tools": [tool]}),
        "too many alternatives": ("/api/chat", {**chat, "logprobs": True, "top_logprobs": 50}),
        "bad option": ("/api/chat", {**chat, "options": {"num_ctx": "abc"}}),
        "no such route": ("/api/nosuch", {}),
    }


def main() -> None:
    """Write the recording."""
    found = {}
    with httpx.Client(base_url=server_address().url, timeout=120) as client:
        for name, (route, body) in requests().items():
            reply = client.get(route) if body is None else client.post(route, json=body)
            found[name] = {"status": reply.status_code, "lines": [_public(line) for line in reply.text.splitlines()]}
    RECORDED.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _public(line: str) -> str:
    """Return a line as any machine would give it: where the weights lie differs, and 576 numbers are not needed."""
    line = re.sub(r'(?<=[\s"])/[^\s"]*/blobs/', "/usr/share/ollama/.ollama/models/blobs/", line)
    return re.sub(r'"embeddings":\[\[([^,]+),([^,]+),[^\]]*\]\]', r'"embeddings":[[\1,\2]]', line)


if __name__ == "__main__":
    main()
