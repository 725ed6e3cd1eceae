"""Running `sleicl` as a user does, and rows from the example task that are few and short."""

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sleicl_chains.cli import main
from tests.support.openai_server import OpenAIServer, Reply, _completion

SUPPORT = Path(__file__).parent.parent.parent / "examples" / "support"
SCRIPT = Path(sys.executable).with_name("sleicl")
LABELS = ("billing", "technical")
CARD = """
name = "desk"
task_type = "topic classification"
description = "Classify each customer message by the team that handles it."
labels = ["billing", "technical"]
"""


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


def sleicl(*arguments: object, stdin: str = "") -> Done:
    """Run `main()` in this process, which starts it a few seconds sooner than a new one."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv, sys.stdin
    sys.argv, sys.stdin = ["sleicl", *map(str, arguments)], io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        raise AssertionError("main() always ends by SystemExit")
    except SystemExit as ended:
        return Done(int(ended.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv, sys.stdin = before


def hear_interrupts() -> None:
    """For a child process: what is started in the background of a shell is deaf to Ctrl-C, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment for a child, with a key that buys nothing."""
    return {**os.environ, "OPENAI_API_KEY": "sk-none", **more}


def rows(name: str, each: int) -> list[dict[str, str]]:
    """Return the shortest rows of two labels of the example task."""
    lines = (SUPPORT / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    found = sorted((json.loads(line) for line in lines), key=lambda row: len(row["text"]))
    return [row for label in LABELS for row in [row for row in found if row["answer"] == label][:each]]


def write_rows(path: Path, found: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Desk:
    """A card with two labels, and training and test rows of each."""

    folder: Path

    @classmethod
    def at(cls, folder: Path, *, train: int = 4) -> "Desk":
        """Write it, with so many training and four test rows of each label."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "card.toml").write_text(CARD, encoding="utf-8")
        write_rows(folder / "train.jsonl", rows("train", train))
        write_rows(folder / "test.jsonl", rows("test", 4))
        return cls(folder)

    @property
    def card(self) -> Path:
        return self.folder / "card.toml"

    @property
    def train(self) -> Path:
        return self.folder / "train.jsonl"

    @property
    def test(self) -> Path:
        return self.folder / "test.jsonl"

    def texts(self, name: str) -> list[str]:
        return [json.loads(line)["text"] for line in (self.folder / f"{name}.jsonl").read_text("utf-8").splitlines()]


def learning(desk: Desk, recipe: Path, *more: object) -> list[object]:
    """Return a command that learns from the training rows."""
    return ["learn", "--task", desk.card, "--rows", desk.train, "--recipe", recipe, *more]


class Parrot(OpenAIServer):
    """Answers by what the last message says, and falls silent at one request if so told."""

    def __init__(self, reply: Callable[[str], str | Reply], *, silent_at: int | None = None) -> None:
        super().__init__([])
        self.reply = reply
        self.silent_at = silent_at

    def __enter__(self) -> "Parrot":
        super().__enter__()
        return self

    @property
    def options(self) -> list[str]:
        return ["--base-url", self.base_url]

    def shown(self, number: int) -> list[tuple[str, str]]:
        """Return a request's messages as role and text."""
        return [(message["role"], message["content"]) for message in self.requests[number]["messages"]]

    def _answer(self, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
        self.arrived.release()
        if number == self.silent_at:
            self._stopping.wait()
        said = self.reply(str(request["messages"][-1]["content"]))
        return 200, _completion(Reply(said) if isinstance(said, str) else said, request["model"])


def by_length(text: str) -> str:
    """A weak model's reply that depends on the question: a label, the label in a sentence, or none."""
    return ("billing", "The answer is: technical.", "I cannot say", "technical")[len(text) % 4]


def comparable(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report without its times and places."""
    arms = [{key: value for key, value in arm.items() if key != "seconds_total"} for arm in report["arms"]]
    return {**{key: value for key, value in report.items() if key != "run"}, "arms": arms}
