"""A reply of an Ollama server, accepted only when it is whole."""

from collections.abc import Mapping
from typing import Any

from sleicl_chains.errors import CutReply, RejectedReply

_REPEATS = 30
"""After so many equal tokens in a row Ollama ends a reply without a word (llm/server.go, v0.24.0)."""


class Reply:
    """Follows the parts of one reply.

    Args:
        model: the name to print.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.begun = False
        self._said = self._thought = 0
        self._called = self._ended = False
        self._count = 0
        self._last, self._repeats = "", 0

    def checked(self, part: Mapping[str, Any]) -> dict[str, Any]:
        """Return a part in the form of /api/chat, whose end also says `finish_reason`.

        Raises:
            RejectedReply: the server only loaded or unloaded the model.
        """
        message = dict(part.get("message") or {"role": "assistant", "content": part.get("response") or ""})
        content = str(message.get("content") or "")
        thinking = str(message.get("thinking") or part.get("thinking") or "")
        message["content"] = content
        self.begun = True
        self._said += len(content.strip())
        self._thought += len(thinking)
        self._called = self._called or bool(message.get("tool_calls"))
        self._follow((content or thinking).strip())
        kept = {key: value for key, value in part.items() if key not in ("response", "context", "thinking")}
        if part.get("done") is not True:
            return {**kept, "message": message}
        self._ended = True
        self._count = int(part.get("prompt_eval_count") or 0)
        reason = part.get("done_reason") or "stop"
        if reason in ("load", "unload"):
            raise RejectedReply(f"{self.model} was only {reason}ed and said nothing; the prompt has no user message")
        return {**kept, "message": message, "done_reason": reason, "finish_reason": reason}

    def _follow(self, token: str) -> None:
        self._repeats = self._repeats + 1 if token == self._last else 0
        self._last = token

    def end(self) -> int:
        """Return how many tokens of the prompt the server read, once all parts have come.

        Raises:
            CutReply: the last part is missing.
            RejectedReply: there is no text, or thinking alone.
        """
        if not self._ended:
            raise self._cut()
        if self._said or self._called:
            return self._count
        if self._thought:
            raise RejectedReply(
                f"{self.model} only thought ({self._thought} characters) and gave no answer; turn thinking off "
                "(reasoning=False) or allow more tokens (--option num_predict=2048)"
            )
        raise RejectedReply(f"{self.model} gave an empty reply; ask in other words, or take a larger model")

    def _cut(self) -> CutReply:
        if self._repeats >= _REPEATS:
            problem = CutReply(
                f"{self.model} said {self._last!r} {self._repeats + 1} times in a row, and Ollama ended the reply "
                "there. A few worked examples (few-shot) or --option repeat_penalty=1.1 may help"
            )
            problem.retryable = False
            return problem
        return CutReply(f"{self.model}: the reply broke off before its end; the server's log may say why")
