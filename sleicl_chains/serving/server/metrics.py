"""What a server counts, and how it tells it: as plain text for Prometheus, and as a line a request."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from sleicl_chains.serving.server.queue import Queue


@dataclass
class Record:
    """What is noted of one request; never a text."""

    model: str = ""
    """Empty where the request names none that is served."""
    prompt_tokens: int = 0
    reply_tokens: int = 0
    status: int = 0
    """What became of it: of a stream that broke off, what it would have been before its first word."""
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.began

    def line(self, method: str, path: str) -> str:
        """Return it as a line of a log."""
        tokens = f", {self.prompt_tokens}+{self.reply_tokens} tokens" if self.prompt_tokens else ""
        asked = " ".join(filter(None, (method, path, self.model)))
        return f"{time.strftime('%H:%M:%S')} {asked} {self.status}, {self.seconds:.2f} s{tokens}"


class Metrics:
    """Counts of all requests since the start."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self._requests: Counter[tuple[str, str]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()

    def count(self, record: Record) -> None:
        """Add a request that is over."""
        self._requests[record.model, str(record.status)] += 1
        self._seconds[record.model] += record.seconds  # type: ignore[assignment]  # a Counter adds floats as well
        for kind, count in (("prompt", record.prompt_tokens), ("reply", record.reply_tokens)):
            if count:
                self._tokens[record.model, kind] += count

    def text(self) -> str:
        """Return the counts in Prometheus's text format."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield "# TYPE sleicl_requests_total counter"
        for (model, status), count in sorted(self._requests.items()):
            yield f"sleicl_requests_total{_labels(model=model, status=status)} {count}"
        yield "# TYPE sleicl_request_seconds_total counter"
        for model, seconds in sorted(self._seconds.items()):
            yield f"sleicl_request_seconds_total{_labels(model=model)} {seconds:.3f}"
        yield "# TYPE sleicl_tokens_total counter"
        for (model, kind), count in sorted(self._tokens.items()):
            yield f"sleicl_tokens_total{_labels(model=model, kind=kind)} {count}"
        yield "# TYPE sleicl_queue_length gauge"
        yield f"sleicl_queue_length {self.queue.waiting}"
        yield "# TYPE sleicl_running gauge"
        yield f"sleicl_running {self.queue.running}"


def _labels(**labels: str) -> str:
    told = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(told) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
