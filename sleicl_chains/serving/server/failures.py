"""What goes wrong with a request, as clients of OpenAI and of Ollama understand it."""

from collections.abc import Mapping
from typing import Any

from sleicl_chains.errors import (
    InputError,
    ModelError,
    PromptTooLong,
    RejectedReply,
    ServerDown,
    SleiclError,
    Unsupported,
)
from sleicl_chains.serving.server.queue import QueueFull


class Failure(Exception):
    """A request that gets an error for an answer.

    Args:
        status: HTTP status.
        message: for a person.
        code: for a program.
        param: the field that is at fault.
        retry_s: after how many seconds the same request may succeed. Clients ignore 0.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None,
        retry_s: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers: dict[str, str] = {} if retry_s is None else {"Retry-After": str(retry_s)}

    @property
    def kind(self) -> str:
        """OpenAI's word for whose fault it is."""
        return "server_error" if self.status >= 500 else "invalid_request_error"

    def body(self, path: str = "") -> dict[str, Any]:
        """Return the reply's body, as the API to which a path belongs has it."""
        if path.startswith("/api/"):
            return {"error": self.message}
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def wrong(param: str, message: str) -> Failure:
    """Return the failure of a request one of whose fields cannot be taken."""
    return Failure(400, f"{param}: {message}", param=param, code="unsupported_value")


def failure_of(problem: Exception) -> Failure:
    """Return what a client is told of a problem; of one that is not ours only its kind."""
    if isinstance(problem, Failure):
        return problem
    if isinstance(problem, QueueFull):
        return Failure(503, "The queue is full; try again in a moment", code="queue_full", retry_s=1)
    if isinstance(problem, TimeoutError):
        return Failure(503, "The model did not answer in the time that a request may take", code="timeout", retry_s=5)
    if isinstance(problem, PromptTooLong):
        return Failure(400, str(problem), code="context_length_exceeded", param="messages")
    if isinstance(problem, InputError | Unsupported):
        return Failure(400, str(problem), code="invalid_request")
    if isinstance(problem, RejectedReply) and not getattr(problem, "retryable", False):
        return Failure(502, str(problem), code="rejected_reply")
    if isinstance(problem, ModelError):
        return Failure(503, str(problem), code="model_unavailable", retry_s=5 if isinstance(problem, ServerDown) else 1)
    if isinstance(problem, SleiclError):
        return Failure(500, str(problem), code="internal_error")
    return Failure(500, f"The server failed ({type(problem).__name__})", code="internal_error")


def first_complaint_of(errors: list[Mapping[str, Any]]) -> Failure:
    """Return pydantic's first complaint about a request's body."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])[:100]
    said = str(first["msg"]).removeprefix("Value error, ")
    return Failure(400, f"{where}: {said}" if where else said, param=where or None, code="invalid_request")
