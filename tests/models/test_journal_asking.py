"""What is paid for is neither lost nor bought twice: journals that cannot be written, several that ask at once."""

import asyncio
import json
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from sleicl_chains.answering.solver import solver
from sleicl_chains.errors import RejectedReply, SleiclError
from sleicl_chains.files import Home
from sleicl_chains.models.abilities import LabelScores
from sleicl_chains.models.asking import aask, ask
from sleicl_chains.models.journal import Journal
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.command import SCRIPT, Desk, Parrot, environment, sleicl
from tests.support.fake_models import Scorer, Stater
from tests.support.openai_server import OpenAIServer, Reply

ASKED = {"n": 1}
QUESTION = [HumanMessage("q")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path) as journal:
        yield journal


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sleicl_chains.models.journal._PATIENCE_S", 0.1)


def never() -> dict[str, Any]:
    raise AssertionError("the model was asked")


def pending(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT count(*) FROM pending").fetchone()[0])
    finally:
        connection.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes, and does not end."""
    code = """if True:
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1])
        connection.execute("BEGIN IMMEDIATE")
        print(1, flush=True)
        input()
    """
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], **pipes) as process:
        assert process.stdout and process.stdout.readline() == "1\n"
        yield
        process.communicate("\n")


# ------------------------------------------------------------------ a journal that cannot be written

HINT = r"the journal cannot be used \(.*\); free it, or go without by --no-journal$"


@pytest.mark.usefixtures("impatient")
def test_a_locked_journal_is_found_before_the_model_is_asked_and_still_answers(path: Path) -> None:
    with Journal(path) as journal:
        journal.put(ASKED, {"a": 1})
    with Journal(path) as journal, locked(path):
        with pytest.raises(SleiclError, match=HINT):
            journal.once({"n": 2}, never)
        assert journal.once(ASKED, never) == {"a": 1}


def test_a_full_journal_is_found_before_the_model_is_asked(journal: Journal) -> None:
    journal.put(ASKED, {"text": "x" * 10_000})
    (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(SleiclError, match=f"disk is full.*{HINT[-12:]}"):
        journal.once({"n": 2}, never)


def test_a_reply_for_which_there_is_no_room_is_kept_beside_the_journal(journal: Journal, path: Path) -> None:
    long = {"text": "x" * 500_000}
    with pytest.warns(UserWarning, match="A reply could not be kept: .*disk is full.*; it is in .*-unsaved/"):
        journal._connection.execute("PRAGMA max_page_count = 20")
        assert journal.once(ASKED, lambda: long) == long
    (file,) = path.with_name("journal.sqlite-unsaved").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert journal.get(ASKED) == long and journal.once(ASKED, never) == long and len(journal) == 0
    with Journal(path) as other:  # which has room
        assert other.once(ASKED, never) == long and len(other) == 1
        assert not file.parent.exists()
    assert pending(path) == 1  # of a process that is over, so it holds nobody up
    with Journal(path) as third:
        assert third.once({"n": 2}, lambda: {"b": 1}) == {"b": 1}
    assert pending(path) == 0


@pytest.mark.usefixtures("impatient")
def test_a_journal_locked_while_the_model_answers(path: Path) -> None:
    """Accepted, rejected and async: what came is read later, and a rejected one is a record."""

    def refuse(message: object) -> None:
        raise RejectedReply("no good")

    with OpenAIServer(["a", "b", "c"]) as server, Journal(path) as journal:
        model = server.model()
        held = locked(path)
        invoke = type(model).invoke

        def slow(self: Any, *args: Any, **kwargs: Any) -> Any:
            said = invoke(self, *args, **kwargs)
            held.__enter__()
            return said

        with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning, match="locked"):
            patch.setattr(type(model), "invoke", slow)
            assert ask(model, QUESTION, journal).text == "a"
        with pytest.raises(SleiclError, match="locked"):
            asyncio.run(aask(model, [HumanMessage("r")], journal))
        assert len(server.requests) == 1
        assert ask(model, QUESTION, journal).text == "a"
        held.__exit__(None, None, None)
        with pytest.raises(RejectedReply):
            ask(model, [HumanMessage("s")], journal, check=refuse)
        assert len(journal) == 2 and len(server.requests) == 2
        assert asyncio.run(aask(model, QUESTION, journal)).text == "a" and len(server.requests) == 2


def asking(desk: Desk, server: Parrot, home: Path, *more: object) -> list[object]:
    return [
        "ask",
        "--task",
        desk.card,
        "--weak",
        "openai:m",
        *server.options,
        "--home",
        home,
        *more,
        "Where is my bill?",
    ]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    return Desk.at(tmp_path / "desk")


@pytest.mark.usefixtures("impatient")
def test_ask_and_write_with_a_locked_journal(desk: Desk, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    Journal(home.journal).close()
    source = ["--task", desk.card, "--rows", desk.train, "-n", 1, "--sampler", "random", "--home", home.root]
    with Parrot(lambda text: "billing, technical") as server, locked(home.journal):
        for command in (
            asking(desk, server, home.root),
            ["write", *source, "--strong", "openai:big", "--base-url", server.base_url],
        ):
            done = sleicl(*command)
            assert (done.status, done.out) == (1, "") and "(database is locked)" in done.err
            assert done.err.endswith("go without by --no-journal\n")
        assert server.requests == []
        assert sleicl(*asking(desk, server, home.root, "--no-journal")).status == 1  # two labels in one reply
        assert len(server.requests) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limits")
def test_ask_on_a_disk_without_room(desk: Desk, tmp_path: Path) -> None:
    """No file may grow beyond 8 kB, less than the journal's log needs."""
    home = Home(tmp_path / "home")
    Journal(home.journal).close()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    with Parrot(lambda text: "billing") as server:
        command = list(map(str, [SCRIPT, *asking(desk, server, home.root)]))
        done = subprocess.run(command, env=environment(), preexec_fn=limit, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "--no-journal" in done.stderr and done.stderr.count("\n") == 1
        assert server.requests == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="nothing is read-only for root")
def test_ask_with_a_read_only_journal(desk: Desk, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with Parrot(lambda text: "billing") as server:
        assert sleicl(*asking(desk, server, home.root)).out == "billing\n"
        home.journal.chmod(0o400)
        assert sleicl(*asking(desk, server, home.root)).out == "billing\n"  # it can be read
        done = sleicl(*asking(desk, server, home.root, "--arm", "zero-shot", "--option", "seed=1"))
        assert done.status == 1 and "read-only" in done.err.replace("readonly", "read-only")
        assert "--no-journal" in done.err and len(server.requests) == 1


def test_a_read_only_journal_is_read(path: Path) -> None:
    with Journal(path) as journal:
        journal.put(ASKED, {"a": 1})
    with Journal(path) as journal:
        journal._connection.execute("PRAGMA query_only = ON")  # for root, too
        assert journal.once(ASKED, never) == {"a": 1}
        with pytest.raises(SleiclError, match=f"readonly database.*{HINT[-12:]}"):
            journal.once({"n": 2}, never)


def test_a_journal_of_an_earlier_version(path: Path) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE calls (key TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL, at TEXT NOT NULL, "
        "rejected TEXT); CREATE UNIQUE INDEX accepted ON calls (key) WHERE rejected IS NULL;"
        "INSERT INTO calls VALUES ('" + "f0" * 32 + "', '{}', '{}', '2026-01-01T00:00:00+00:00', NULL)"
    )
    connection.close()
    with Journal(path) as journal:
        assert journal.once(ASKED, lambda: {"a": 1}) == {"a": 1} == journal.once(ASKED, never)
        assert len(journal) == 2
        assert journal.prune(timedelta(days=1)) == 1 and len(journal) == 1
        assert journal.get(ASKED) == {"a": 1}


def test_what_is_no_reply_is_left_where_it_is(path: Path) -> None:
    folder = path.with_name("journal.sqlite-unsaved")
    folder.mkdir(parents=True)
    (folder / "note.json").write_text("[1]")
    with Journal(path) as journal:
        assert journal.once(ASKED, lambda: {"a": 1}) == {"a": 1}
    assert [file.name for file in folder.iterdir()] == ["note.json"]


# ------------------------------------------------------------------ equal requests in flight


class Counter:
    """Gives a new number each time, slowly."""

    def __init__(self, seconds: float = 0.2) -> None:
        self.seconds, self.calls, self._lock = seconds, 0, threading.Lock()

    def __call__(self) -> dict[str, Any]:
        with self._lock:
            self.calls += 1
            mine = self.calls
        time.sleep(self.seconds)
        return {"n": mine}


def test_threads_ask_once_through_one_journal_and_through_several(path: Path) -> None:
    count = Counter()
    journals = [Journal(path) for _ in range(3)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda at: journals[at % 3].once(ASKED, count), range(8)))
    assert found == [{"n": 1}] * 8 and count.calls == 1 and pending(path) == 0
    for journal in journals:
        journal.close()
    assert list(path.with_name("journal.sqlite-asking").iterdir()) == []


def test_different_requests_do_not_wait_for_each_other(journal: Journal) -> None:
    together = threading.Barrier(4, timeout=10)

    def meet() -> dict[str, Any]:
        together.wait()
        return {}

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda n: journal.once({"n": n}, meet), range(4))) == [{}] * 4


@pytest.mark.parametrize("mode", ["generate", "score", "hidden"])
def test_a_batch_of_equal_questions_is_one_call(mode: Any, task: Task, journal: Journal) -> None:
    class Slow(Stater):
        def score_labels(self, prompt: str, labels: Any) -> LabelScores:
            time.sleep(0.1)
            return super().score_labels(prompt, labels)

        def read_state(self, prompt: str) -> Any:
            time.sleep(0.1)
            return super().read_state(prompt)

    train = [Example(text, label) for text, label in zip("abcdefgh", ["happy", "sad"] * 4, strict=True)]
    weak = Slow(reply=lambda prompt: "happy", feel=lambda prompt: [float(len(prompt) % 3), 1.0])
    chain = solver(weak, task, mode=mode, prior="none" if mode == "score" else None, train=train, journal=journal)
    first = chain.invoke("before")
    before = len(weak.calls)
    each = {"generate": 1, "score": 1, "hidden": 2}[mode]
    chain.batch(["same"] * 8)
    assert len(weak.calls) - before == each
    answers = asyncio.run(chain.abatch(["other"] * 8))
    assert len(weak.calls) - before == 2 * each
    assert len({answer.text for answer in [first, *answers]}) >= 1 and len(answers) == 8


def test_a_batch_over_http_buys_one_reply(task: Task, journal: Journal) -> None:
    def slowly(text: str) -> str:
        time.sleep(0.2)
        return "happy"

    with Parrot(slowly) as server:
        chain = solver(server.model(), task, journal=journal)
        assert [answer.label for answer in chain.batch(["same"] * 8)] == ["happy"] * 8
        assert len(server.requests) == 1
        assert [answer.label for answer in asyncio.run(chain.abatch(["new"] * 8))] == ["happy"] * 8
        assert len(server.requests) == 2


async def test_waiting_does_not_block_the_event_loop(journal: Journal) -> None:
    asked, ticks = 0, 0

    async def slow() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.5)
        return {"n": asked}

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    assert await asyncio.gather(*(journal.aonce(ASKED, slow) for _ in range(50))) == [{"n": 1}] * 50
    ticking.cancel()
    assert asked == 1 and ticks > 10


async def test_a_cancelled_task_lets_the_next_ask_and_loses_no_reply(journal: Journal, path: Path) -> None:
    begun = asyncio.Event()

    async def hang() -> dict[str, Any]:
        begun.set()
        await asyncio.sleep(60)
        return {}

    async def quick() -> dict[str, Any]:
        return {"n": 2}

    first = asyncio.create_task(journal.aonce(ASKED, hang))
    await begun.wait()
    second = asyncio.create_task(journal.aonce(ASKED, quick))
    await asyncio.sleep(0.05)
    first.cancel()
    assert await asyncio.wait_for(second, 5) == {"n": 2}
    with pytest.raises(asyncio.CancelledError):
        await first
    assert pending(path) == 0

    got = asyncio.Event()

    async def paid() -> dict[str, Any]:
        got.set()
        return {"n": 3}

    third = asyncio.create_task(journal.aonce({"n": 3}, paid))
    await got.wait()
    third.cancel()  # between the reply and the journal
    with pytest.raises(asyncio.CancelledError):
        await third
    assert journal.get({"n": 3}) == {"n": 3} and pending(path) == 0


def test_after_a_failure_the_next_one_asks(journal: Journal) -> None:
    failing = threading.Event()

    def fail() -> dict[str, Any]:
        failing.set()
        time.sleep(0.1)
        raise ConnectionError("gone")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(journal.once, ASKED, fail)
        assert failing.wait(5)
        second = pool.submit(journal.once, ASKED, lambda: {"n": 2})
        assert second.result(5) == {"n": 2}
        with pytest.raises(ConnectionError):
            first.result()


def test_a_call_within_the_same_call_does_not_wait_for_itself(journal: Journal) -> None:
    from langchain_core.runnables import RunnableLambda

    def again(n: int) -> dict[str, Any]:
        return journal.once(ASKED, lambda: {"inner": n})

    inner = RunnableLambda(again)

    def outer() -> dict[str, Any]:
        inner.batch([1, 2])  # in threads of their own
        return {"outer": 1}

    started = time.monotonic()
    found = journal.once(ASKED, outer)
    assert time.monotonic() - started < 5
    assert found == journal.get(ASKED) and "inner" in found


def test_waiting_has_a_bound(journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sleicl_chains.models.journal._LONGEST_WAIT_S", 0.2)
    over = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        hanging = pool.submit(journal.once, ASKED, lambda: {"late": over.wait(20)})
        while not path.with_name("journal.sqlite-asking").exists():
            time.sleep(0.01)
        assert pool.submit(journal.once, ASKED, lambda: {"n": 2}).result(10) == {"n": 2}
        over.set()
        assert hanging.result() == {"n": 2}  # the first one kept stays


def test_several_at_once_are_asked_for_together_and_overlapping_ones_wait(journal: Journal) -> None:
    asked: list[list[int]] = []
    numbers = [[0, 1, 2, 3], [3, 2, 1, 4]]

    def one(mine: list[int]) -> list[dict[str, Any]]:
        def together(places: list[int]) -> list[dict[str, Any]]:
            asked.append([mine[at] for at in places])
            time.sleep(0.2)
            return [{"n": mine[at]} for at in places]

        return journal.once_each([{"n": n} for n in mine], together)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(one, numbers))
    assert found == [[{"n": n} for n in mine] for mine in numbers]
    assert sorted(n for part in asked for n in part) == [0, 1, 2, 3, 4] and len(asked) == 2


CHILD = """if True:
    import json, sys, urllib.request
    from pathlib import Path
    from sleicl_chains.models.journal import Journal

    def ask():
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "q"}]}).encode()
        with urllib.request.urlopen(sys.argv[2] + "/chat/completions", body) as reply:
            return json.load(reply)["choices"][0]["message"]

    print("ready", flush=True)
    sys.stdin.readline()
    print(Journal(Path(sys.argv[1])).once({"n": 1}, ask)["content"], flush=True)
"""


@contextmanager
def children(count: int, path: Path, server: OpenAIServer) -> Iterator[list["subprocess.Popen[str]"]]:
    command = [sys.executable, "-c", CHILD, str(path), server.base_url]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen(command, **pipes) for _ in range(count)]
    try:
        for process in started:
            assert process.stdout and process.stdout.readline() == "ready\n"
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_processes_ask_once_and_a_killed_one_holds_nobody_up(path: Path) -> None:
    """The first hangs and is killed; of the two that waited for it, one here, one asks, and both have the reply."""
    with OpenAIServer([Reply(hang=True), "b"]) as server, children(2, path, server) as (first, second):
        go(first)
        assert server.arrived.acquire(timeout=30)
        go(second)
        assert not server.arrived.acquire(timeout=0.5)  # it waits
        with Journal(path) as journal, ThreadPoolExecutor(1) as pool:
            assert journal.get(ASKED) is None and pending(path) == 1  # what is pending is no answer
            third = pool.submit(journal.once, ASKED, lambda: {"content": "b"})
            time.sleep(0.2)
            assert not third.done()
            first.send_signal(signal.SIGKILL)
            assert second.stdout and second.stdout.readline() == "b\n"
            assert third.result(10)["content"] == "b"
            assert len(journal) == 1 and pending(path) == 0 and len(server.requests) <= 2


# ------------------------------------------------------------------ former keys


def formerly_kept(model: Any, journal: Journal) -> None:
    """Put what version 0.1.0 would have."""
    from sleicl_chains.models.identity import former_request

    message = {"type": "ai", "data": {"content": "old", "type": "ai"}}
    asked = former_request(model, QUESTION, {})
    journal.put(asked, {"message": message, "seconds": 1.0, "asked_at": "2026-01-01T00:00:00+00:00"})


SECRETIVE: list[Callable[[OpenAIServer], dict[str, Any]]] = [
    lambda server: {"base_url": f"{server.base_url}?api_key=hush-1"},
    lambda server: {"base_url": server.base_url.replace("://", "://user:hush%2Fx@")},
    lambda server: {"default_query": {"code": "hush-2", "api-key": ["hush-3"]}},
    lambda server: {"extra_body": {"credentials": {"user": "u", "value": "hush-4"}, "n": 1}},
    lambda server: {
        "extra_body": {"deep": [{"auth": ["hush-5"]}, {"x": "http://u:hush-6@h/?sig=hush-7&v=1#token=hush-8"}]}
    },
    lambda server: {"extra_body": {"password": 5551234567}},
]


def plain_settings(server: OpenAIServer) -> dict[str, Any]:
    return {"model": "strong-1", "api_key": SecretStr("k"), "max_retries": 0, "base_url": server.base_url}


@pytest.mark.parametrize("given", SECRETIVE)
def test_no_secret_is_on_disk_and_what_was_kept_with_it_is_still_found(given: Any, path: Path) -> None:
    with OpenAIServer(["new"]) as server, Journal(path) as journal:
        model = ChatOpenAI(**{**plain_settings(server), **given(server)})
        ask(model, QUESTION, journal)
        assert ask(model, QUESTION, journal).text == "new" and len(server.requests) == 1
        on_disk = b"".join(file.read_bytes() for file in path.parent.rglob("*") if file.is_file())
        assert b"strong-1" in on_disk and b"hush" not in on_disk and b"5551234567" not in on_disk
    with OpenAIServer([]) as server, Journal(path.with_name("old.sqlite")) as journal:
        model = ChatOpenAI(**{**plain_settings(server), **given(server)})
        formerly_kept(model, journal)
        assert ask(model, QUESTION, journal).text == "old" and server.requests == []


def test_scores_kept_under_a_former_identity_are_found(task: Task, journal: Journal) -> None:
    class Secretive(Scorer):
        @property
        def identity(self) -> dict[str, Any]:
            return {"server": "http://h/?key=hush"}

    weak = Secretive(think=lambda prompt: {"sad": 1.0})
    chain = solver(weak, task, mode="score", prior="none", journal=journal)
    first = chain.invoke("It rains.")
    (request, reply) = journal._connection.execute("SELECT request, reply FROM calls").fetchone()
    assert "hush" not in request
    with Journal(journal.path.with_name("old.sqlite")) as old:
        old.put({**json.loads(request), "model": {"server": "http://h/?key=hush"}}, json.loads(reply))
        assert solver(weak, task, mode="score", prior="none", journal=old).invoke("It rains.") == first
    assert len(weak.calls) == 1
