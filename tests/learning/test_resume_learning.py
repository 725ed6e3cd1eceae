"""What learning and its recipe go through a `kill -9` with: no call is repeated and the end is the same."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from sleicl_chains.answering.recipes import Recipe
from sleicl_chains.files import Home
from sleicl_chains.models.journal import Journal
from tests.cli.test_resume import started, wait_for_requests
from tests.support.command import Desk, Parrot, by_length, comparable, learning, sleicl


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")


def plain(recipe: Path) -> dict[str, Any]:
    """Return a recipe without its date and its server's address."""
    return Recipe.load(recipe).model_dump(exclude={"date", "options", "model"})


def test_learn_goes_on_after_kill_9_and_repeats_no_call(tmp_path: Path) -> None:
    """48 rows and three prompts of a model that writes its answers; the fiftieth request is never answered."""
    desk = Desk.at(tmp_path / "desk", train=24)

    def command(server: Parrot, home: str) -> list[object]:
        folder = tmp_path / home
        folder.mkdir(exist_ok=True)
        return learning(
            desk, folder / "recipe.json", "--weak", "openai:m", *server.options, "--home", folder, "--json"
        )  # fmt: skip

    with Parrot(by_length, silent_at=50) as server:
        with started(*command(server, "a")) as process:
            wait_for_requests(server, 50)
            process.send_signal(signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL
        assert not (tmp_path / "a" / "recipe.json").exists()
        resumed = sleicl(*command(server, "a")).json()
        asked = [json.dumps(request["messages"]) for request in server.requests]
        assert asked.count(asked[49]) == 2 and len(asked) == len(set(asked)) + 1  # the one in flight
        again = sleicl(*command(server, "a")).json()
        assert len(server.requests) == len(asked) and again["trials"] == resumed["trials"]
    with Parrot(by_length) as server:
        whole = sleicl(*command(server, "b")).json()
        assert len(server.requests) == len(set(asked))
    assert (resumed["verdict"], resumed["trials"]) == (whole["verdict"], whole["trials"])
    assert plain(tmp_path / "a" / "recipe.json") == plain(tmp_path / "b" / "recipe.json")


def test_learn_with_the_embedded_model_goes_on_after_kill_9(tmp_path: Path, weights: Path) -> None:
    """Killed while it works, wherever that is; what it had asked is asked no more, and the choice is the same."""

    desk = Desk.at(tmp_path / "desk", train=8)

    def command(home: str) -> list[object]:
        place = Home(tmp_path / home)
        if not place.weights.exists():
            place.weights.mkdir(parents=True)
            (place.weights / "smollm2").symlink_to(weights)
        return learning(desk, place.root / "recipe.json", "--weak", "embedded:smollm2", "--home", place.root, "--json")

    def kept(home: str) -> int:
        journal = Home(tmp_path / home).journal
        if not journal.exists():
            return 0
        with Journal(journal) as found:
            return len(found)

    with started(*command("a")) as process:
        end = time.monotonic() + 60
        while kept("a") < 8 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL, "it was done before it could be killed"
    before = kept("a")
    assert 8 <= before < 32
    resumed, whole = sleicl(*command("a")).json(), sleicl(*command("b")).json()
    assert kept("a") == kept("b") == 32  # scores and state of sixteen rows
    assert [trial["name"] for trial in resumed["trials"]] == [trial["name"] for trial in whole["trials"]]
    for trial, same in zip(resumed["trials"], whole["trials"], strict=True):
        assert trial["accuracy"] == same["accuracy"] and trial["loss"] == pytest.approx(same["loss"], abs=1e-2)


def test_evaluate_with_a_recipe_goes_on_after_kill_9(tmp_path: Path) -> None:
    """A server's address is part of what tells its models apart, so it is one server all the time."""
    desk = Desk.at(tmp_path / "desk")

    def command(home: str) -> list[object]:
        source = ["--task", desk.card, "--rows", desk.test, "--recipe", tmp_path / "recipe.json"]
        weak = ["--weak", "openai:m", *server.options]
        return ["evaluate", *source, "--arms", "recipe", *weak, "--home", tmp_path / home, "--json"]

    with Parrot(by_length) as server:
        learned = learning(desk, tmp_path / "recipe.json", "--weak", "openai:m", *server.options)
        assert sleicl(*learned).status == 0
        paid = len(server.requests)
        server.silent_at = paid + 5
        with started(*command("a")) as process:
            wait_for_requests(server, paid + 5)
            process.send_signal(signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL
        resumed = sleicl(*command("a")).json()
        assert len(server.requests) == paid + 8 + 1  # eight rows, and the one in flight
        assert comparable(resumed) == comparable(sleicl(*command("b")).json())
