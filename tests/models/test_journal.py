import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from ollama._types import Logprob
from pydantic import BaseModel, SecretStr

from sleicl_chains.errors import RejectedReply, SleiclError
from sleicl_chains.models.asking import aask, ask
from sleicl_chains.models.identity import identity, request_of
from sleicl_chains.models.journal import Journal
from tests.support.openai_server import OpenAIServer, Reply

ASKED = {"model": {"class": "M"}, "messages": ["é \ud83d"], "options": {}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path) as journal:
        yield journal


def rows(path: Path) -> list[tuple[str, str | None]]:
    """Replies and rejections, as another program reads them."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT reply, rejected FROM calls ORDER BY rowid").fetchall()
    finally:
        connection.close()


# ------------------------------------------------------------------ the file


def test_put_and_get(journal: Journal) -> None:
    assert journal.get(ASKED) is None and len(journal) == 0
    assert journal  # though it is empty
    journal.put(ASKED, {"text": "\udfff ☂", "seconds": 0.5})
    assert journal.get(dict(reversed(ASKED.items()))) == {"text": "\udfff ☂", "seconds": 0.5}
    assert journal.get({**ASKED, "options": {"stop": None}}) is None


def test_first_accepted_reply_stays_and_rejected_ones_never_answer(journal: Journal, path: Path) -> None:
    journal.put(ASKED, {"n": 1}, rejected="empty")
    assert journal.get(ASKED) is None
    for number in (2, 3):
        journal.put(ASKED, {"n": number})
    journal.put(ASKED, {"n": 4}, rejected="cut")
    assert journal.get(ASKED) == {"n": 2}
    assert rows(path) == [('{"n":1}', "empty"), ('{"n":2}', None), ('{"n":4}', "cut")]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_only_the_owner_can_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Journal(tmp_path / "new" / "journal.sqlite") as journal:
            journal.put(ASKED, {})
            files = {item.name: stat.S_IMODE(item.stat().st_mode) for item in (tmp_path / "new").iterdir()}
    finally:
        os.umask(before)
    assert files == {"journal.sqlite": 0o600, "journal.sqlite-shm": 0o600, "journal.sqlite-wal": 0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_two_journals_of_one_process_see_each_other(journal: Journal, path: Path) -> None:
    with Journal(path) as other:
        other.put(ASKED, {"n": 1})
        assert journal.get(ASKED) == {"n": 1}


def test_threads(journal: Journal) -> None:
    def one(number: int) -> bool:
        request = {"n": number % 100}
        journal.put(request, {"reply": number})
        return journal.get(request) is not None

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(400)))
    assert len(journal) == 100


def test_processes_killed_right_after_put_lose_nothing(path: Path) -> None:
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from sleicl_chains.models.journal import Journal
        print("ready", flush=True)
        sys.stdin.readline()
        journal = Journal(Path(sys.argv[1]))
        for number in range(100):
            journal.put({"who": sys.argv[2], "n": number}, {"who": sys.argv[2], "n": number})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), who], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for who in "abc"
    ]
    for process in started:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in started:  # all begin with a file that is not there yet
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        with process:
            process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    with Journal(path) as journal:
        kept = [journal.get({"who": who, "n": number}) for who in "abc" for number in range(100)]
    assert kept == [{"who": who, "n": number} for who in "abc" for number in range(100)]


def test_a_file_that_is_no_journal(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(SleiclError) as found:
        Journal(path)
    help = "move the file away, and a new one is begun"
    assert str(found.value) == f"{path}: the journal is damaged (file is not a database); {help}"


def test_a_file_with_a_damaged_page(path: Path) -> None:
    with Journal(path) as journal:
        for number in range(200):
            journal.put({"n": number}, {"text": "x" * 100})
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(SleiclError, match="the journal is damaged .*; move the file away"), Journal(path) as journal:
        journal.get({"n": 1})


def test_a_folder_in_its_place(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(SleiclError, match=r"the journal cannot be used \(unable to open database file\)"):
        Journal(path)
    with pytest.raises(SleiclError, match=r"the journal cannot be used \(.*Not a directory"):
        Journal(Path(__file__) / "home" / "journal.sqlite")


# ------------------------------------------------------------------ who is asked

OPENAI: dict[str, Any] = {"model": "m", "api_key": "sk-1", "base_url": "http://127.0.0.1:1/v1"}
OLLAMA: dict[str, Any] = {"model": "m", "base_url": "http://127.0.0.1:1"}


def test_identity_of_openai_and_ollama() -> None:
    server = {"server": "http://127.0.0.1:1/v1/", "openai_api_base": "http://127.0.0.1:1/v1"}
    assert identity(ChatOpenAI(temperature=0, **OPENAI)) == {
        "class": "ChatOpenAI",
        "model_name": "m",
        "temperature": 0.0,
        **server,
    }
    assert identity(ChatOllama(num_ctx=4096, reasoning=False, **OLLAMA)) == {
        "class": "ChatOllama",
        "model": "m",
        "num_ctx": 4096,
        "reasoning": False,
        "base_url": "http://127.0.0.1:1",
        "server": "http://127.0.0.1:1",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"temperature": 0.5},
        {"base_url": "http://127.0.0.1:2/v1"},
        {"max_tokens": 9},
        {"seed": 1},
        {"extra_body": {"max_tokens": 9}},
        {"model_kwargs": {"prediction": {"type": "content"}}},
    ],
)
def test_openai_settings_that_count(change: dict[str, Any]) -> None:
    assert identity(ChatOpenAI(**OPENAI)) == identity(ChatOpenAI(**OPENAI))
    assert identity(ChatOpenAI(**OPENAI)) != identity(ChatOpenAI(**{**OPENAI, **change}))


@pytest.mark.parametrize(
    "change",
    [{"model": "n"}, {"temperature": 0.5}, {"base_url": "http://127.0.0.1:2"}, {"num_ctx": 512}, {"num_predict": 9},
     {"seed": 1}, {"format": "json"}, {"reasoning": False}, {"stop": ["x"]}],
)  # fmt: skip
def test_ollama_settings_that_count(change: dict[str, Any]) -> None:
    assert identity(ChatOllama(**OLLAMA)) == identity(ChatOllama(**OLLAMA))
    assert identity(ChatOllama(**OLLAMA)) != identity(ChatOllama(**{**OLLAMA, **change}))


@pytest.mark.parametrize(
    "change",
    [{"api_key": "sk-2"}, {"max_retries": 7}, {"timeout": 3}, {"tags": ["x"]}, {"metadata": {"a": 1}}, {"name": "x"},
     {"default_headers": {"X-Trace": "1"}}, {"streaming": True}],
)  # fmt: skip
def test_settings_that_do_not_count(change: dict[str, Any]) -> None:
    assert identity(ChatOpenAI(**{**OPENAI, **change})) == identity(ChatOpenAI(**OPENAI))


def test_a_server_from_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def both() -> list[dict[str, Any]]:
        return [identity(ChatOpenAI(model="m", api_key=SecretStr("k"))), identity(ChatOllama(model="m"))]

    before = both()
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:7/v1")
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:7")
    after = both()
    assert [found["server"] for found in after] == ["http://127.0.0.1:7/v1/", "http://127.0.0.1:7"]
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_bound_arguments_count() -> None:
    bound = ChatOpenAI(**OPENAI).bind(stop=["x"], extra_headers={"Authorization": "Bearer b"})
    assert identity(bound) == {"bound": identity(ChatOpenAI(**OPENAI)), "kwargs": {"stop": ["x"]}}


def test_a_model_may_say_who_it_is() -> None:
    class Own(FakeListChatModel):
        @property
        def identity(self) -> dict[str, Any]:
            return {"file": Path("a.gguf"), "digest": "0f"}

    assert identity(Own(responses=["x"])) == {"file": "a.gguf", "digest": "0f"}


def test_other_models_are_told_by_their_parameters() -> None:
    class Private(GenericFakeChatModel):
        @property
        def _identifying_params(self) -> dict[str, Any]:
            return {"weights": "w1", "token": "hidden"}

    model = Private(messages=iter([AIMessage("a")]))
    assert identity(model) == {"class": "Private", "params": {"weights": "w1"}}
    assert model.invoke("q").text == "a"  # looking at it did not use it up
    with pytest.raises(TypeError, match="expected a chat model, found function"):
        identity(lambda: None)  # type: ignore[arg-type]  # the point of the test


def test_a_fakes_progress_does_not_count() -> None:
    model = FakeListChatModel(responses=["a", "b"])
    before = identity(model)
    model.invoke("q")
    assert identity(model) == before


def test_request_has_no_ids_of_runs_and_no_secrets() -> None:
    class Shape(BaseModel):
        a: int

    reply = AIMessage("y", id="run-1", response_metadata={"id": "chatcmpl-7"})
    usage = AIMessage("y", usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2})
    model = ChatOpenAI(**{**OPENAI, "base_url": "http://user:pw@127.0.0.1:1/v1"})
    options = {"stop": ["."], "max_tokens": 5, "extra_headers": {"X": "h"}, "extra_body": {"api_key": "k", "n": 1}}
    request = request_of(model, [SystemMessage("s"), reply, HumanMessage("q")], {**options, "shape": Shape(a=1)})
    assert request == request_of(
        model, [SystemMessage("s"), usage, HumanMessage("q")], {**options, "shape": Shape(a=1)}
    )
    assert request["messages"] == [
        {"type": "system", "data": {"content": "s", "type": "system"}},
        {"type": "ai", "data": {"content": "y", "type": "ai"}},
        {"type": "human", "data": {"content": "q", "type": "human"}},
    ]
    assert request["options"] == {"stop": ["."], "max_tokens": 5, "extra_body": {"n": 1}, "shape": {"a": 1}}
    assert request["model"]["server"] == "http://127.0.0.1:1/v1/"


# ------------------------------------------------------------------ asking


def refuse_empty(message: AIMessage) -> None:
    if not message.text:
        raise RejectedReply("empty")


def fake(*replies: AIMessage | str) -> BaseChatModel:
    return GenericFakeChatModel(messages=iter(replies))


QUESTION: list[BaseMessage] = [HumanMessage("q")]


def test_a_recalled_reply_is_the_fresh_one(journal: Journal) -> None:
    tokens = {"input_tokens": 3, "output_tokens": 1, "total_tokens": 4}
    said = AIMessage("a", usage_metadata=tokens, response_metadata={"logprobs": [Logprob(token="a", logprob=-0.5)]})
    fresh = ask(fake(said), QUESTION, journal)
    recalled = ask(fake(), QUESTION, journal)
    assert recalled == fresh
    assert (fresh.text, fresh.usage_metadata) == ("a", tokens)
    (logprob,) = fresh.response_metadata["logprobs"]
    assert (logprob["token"], logprob["logprob"]) == ("a", -0.5)
    assert 0 < fresh.response_metadata["seconds"] < 60
    assert fresh.response_metadata["asked_at"].endswith("+00:00")
    assert ask(fake(said), QUESTION, None).response_metadata.keys() == fresh.response_metadata.keys()


async def test_async_shares_the_journal(journal: Journal) -> None:
    fresh = await aask(fake("a"), QUESTION, journal)
    assert await aask(fake(), QUESTION, journal) == fresh == ask(fake(), QUESTION, journal)
    with pytest.raises(RejectedReply):
        await aask(fake(""), [HumanMessage("r")], journal, check=refuse_empty)


def test_options_and_prompt_are_part_of_the_request(journal: Journal) -> None:
    model = FakeListChatModel(responses=["a", "b", "c"])
    replies = [
        ask(model, QUESTION, journal),
        ask(model, QUESTION, journal, stop=["x"]),
        ask(model, [HumanMessage("r")], journal),
        ask(model, QUESTION, journal),
    ]
    assert [reply.text for reply in replies] == ["a", "b", "c", "a"]


def test_a_rejected_reply_is_recorded_and_asked_again(journal: Journal, path: Path) -> None:
    model = fake("", "a")
    with pytest.raises(RejectedReply) as caught:
        ask(model, QUESTION, journal, check=refuse_empty)
    assert caught.value.usage == {}  # not told by this model
    assert ask(model, QUESTION, journal, check=refuse_empty).text == "a"
    assert [(json.loads(reply)["message"]["data"]["content"], rejected) for reply, rejected in rows(path)] == [
        ("", "empty"),
        ("a", None),
    ]


def test_the_first_of_two_racing_replies_is_given_to_both(journal: Journal) -> None:
    class Slow(GenericFakeChatModel):
        def invoke(self, *args: Any, **kwargs: Any) -> AIMessage:
            reply = super().invoke(*args, **kwargs)
            ask(Other(messages=iter(["first"])), QUESTION, journal)
            return reply

    class Other(GenericFakeChatModel):
        identity: dict[str, Any] = {"same": 1}

    class Mine(Slow):
        identity: dict[str, Any] = {"same": 1}

    assert ask(Mine(messages=iter(["second"])), QUESTION, journal).text == "first"


def test_no_secret_reaches_the_file(path: Path) -> None:
    with OpenAIServer([Reply("a")]) as server, Journal(path) as journal:
        model = server.model(
            api_key="sk-very-secret-1",
            organization="org-1",
            default_headers={"Authorization": "Bearer very-secret-2"},
            extra_body={"access_token": "very-secret-3"},
        )
        ask(model, QUESTION, journal, extra_headers={"X-Key": "very-secret-4"})
        assert ask(model, QUESTION, journal, extra_headers={"X-Key": "very-secret-4"}).text == "a"
        assert len(server.requests) == 1
        on_disk = b"".join(file.read_bytes() for file in path.parent.rglob("*") if file.is_file())
    assert b"strong-1" in on_disk and b"very-secret" not in on_disk


def test_a_rejected_reply_says_what_it_cost() -> None:
    said = AIMessage("", usage_metadata={"input_tokens": 9, "output_tokens": 2, "total_tokens": 11})
    model = GenericFakeChatModel(messages=iter([said]))
    with pytest.raises(RejectedReply) as caught:
        ask(model, QUESTION, None, check=refuse_empty)
    assert caught.value.usage == {"prompt_tokens": 9, "reply_tokens": 2}
