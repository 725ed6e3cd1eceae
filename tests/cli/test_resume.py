"""What survives `kill -9` and Ctrl-C: the same command again pays for nothing twice and ends the same."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sleicl_chains.files import Home
from tests.support.command import (
    SCRIPT,
    Desk,
    Parrot,
    by_length,
    comparable,
    environment,
    hear_interrupts,
    rows,
    sleicl,
    write_rows,
)
from tests.support.openai_server import OpenAIServer, Reply

ARMS = "zero-shot,few-shot"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk.at(tmp_path_factory.mktemp("desk"))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")


@contextmanager
def started(*command: object) -> Iterator["subprocess.Popen[str]"]:
    """Start the installed script; it does not outlive the block."""
    process = subprocess.Popen(
        [SCRIPT, *map(str, command)], env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=hear_interrupts,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_requests(server: OpenAIServer, count: int) -> None:
    for number in range(count):
        assert server.arrived.acquire(timeout=60), f"only {number} requests came"


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file that somebody may be writing."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


def test_write_goes_on_after_kill_9(desk: Desk, tmp_path: Path) -> None:
    """The second of two calls hangs and is killed; the first is not bought again."""
    texts = ["billing is money, technical is not", "billing: money"]

    def command(server: OpenAIServer, home: str) -> list[object]:
        source = ["--task", desk.card, "--rows", desk.train, "-n", 1, "--sampler", "random", "--home", tmp_path / home]
        return ["write", *source, "--strong", "openai:big", "--base-url", server.base_url]

    with OpenAIServer([texts[0], Reply(hang=True), texts[1]]) as server:
        with started(*command(server, "a")) as process:
            wait_for_requests(server, 2)
            process.send_signal(signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL
        resumed = sleicl(*command(server, "a"))
        assert len(server.requests) == 3
        assert server.prompt(2) == server.prompt(1) != server.prompt(0)
    with OpenAIServer(texts) as server:
        whole = sleicl(*command(server, "b"))
    assert resumed.status == 0 and resumed.out == whole.out
    files = [Home(tmp_path / name).grimoires / f"{whole.out.strip()}.md" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def evaluation(desk: Desk, home: Path, server: Parrot) -> list[object]:
    source = ["--task", desk.card, "--rows", desk.test, "--train", desk.train, "--home", home]
    return ["evaluate", *source, "--weak", "openai:m", *server.options, "--arms", ARMS, "--json"]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_evaluate_goes_on_after_a_stop_between_two_answers(desk: Desk, tmp_path: Path, end: signal.Signals) -> None:
    """The eleventh request is never answered: ten rows are on disk, and one request is lost."""
    with Parrot(by_length, silent_at=11) as server:
        command = evaluation(desk, tmp_path / "a", server)
        with started(*command) as process:
            wait_for_requests(server, 11)
            process.send_signal(end)
            out, err = process.communicate(timeout=20)
        if end == signal.SIGINT:
            assert (process.returncode, out) == (130, "")
            assert err == "sleicl: stopped; the same command goes on from here\n"
        else:
            assert process.returncode == -signal.SIGKILL
        (run,) = Home(tmp_path / "a").runs.iterdir()
        before = lines(run / "rows.jsonl")
        assert len(before) == 10 and len(server.requests) == 11
        resumed = sleicl(*command).json()
        assert lines(run / "rows.jsonl")[:10] == before
        assert len(server.requests) == 16 + 1  # 16 different prompts, and the one in flight
        assert len({json.dumps(request["messages"]) for request in server.requests}) == 16
        assert sleicl(*command).json() == resumed and len(server.requests) == 17
    with Parrot(by_length) as server:
        whole = sleicl(*evaluation(desk, tmp_path / "b", server)).json()
        assert len(server.requests) == 16
    assert comparable(resumed) == comparable(whole)


def test_a_lost_run_folder_is_made_again_from_the_journal(desk: Desk, tmp_path: Path) -> None:
    with Parrot(by_length) as server:
        first = sleicl(*evaluation(desk, tmp_path / "home", server)).json()
        (Path(first["run"]) / "rows.jsonl").unlink()
        assert sleicl(*evaluation(desk, tmp_path / "home", server)).json() == first
        assert len(server.requests) == 16


def test_evaluate_with_the_embedded_model_goes_on_after_kill_9(tmp_path: Path, weights: Path) -> None:
    """Killed while it works, wherever that is; the answers are those of a run that nobody stopped."""
    desk = Desk.at(tmp_path / "desk")
    write_rows(desk.test, rows("test", 6))

    def command(home: str) -> list[object]:
        place = Home(tmp_path / home)
        if not place.weights.exists():
            place.weights.mkdir(parents=True)
            (place.weights / "smollm2").symlink_to(weights)
        source = ["--task", desk.card, "--rows", desk.test, "--weak", "embedded:smollm2", "--home", place.root]
        return ["evaluate", *source, "--arms", "zero-shot", "--run", place.root / "run", "--json"]

    file = tmp_path / "a" / "run" / "rows.jsonl"
    with started(*command("a")) as process:
        end = time.monotonic() + 60
        while len(lines(file)) < 4 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL, "it was done before it could be killed"
    before = lines(file)
    assert 4 <= len(before) < 12
    resumed = sleicl(*command("a")).json()
    assert lines(file)[: len(before)] == before and len(lines(file)) == 12
    whole = sleicl(*command("b")).json()
    other = lines(tmp_path / "b" / "run" / "rows.jsonl")
    assert [(row["row"], row["prediction"]) for row in lines(file)] == [(r["row"], r["prediction"]) for r in other]
    for row, same in zip(lines(file), other, strict=True):
        assert row["scores"] == pytest.approx(same["scores"], abs=1e-3)
    numbers = ("accuracy", "valid", "prompt_tokens_total")
    assert [resumed["arms"][0][key] for key in numbers] == [whole["arms"][0][key] for key in numbers]
