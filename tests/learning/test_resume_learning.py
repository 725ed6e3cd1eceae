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

ROWS = 40
"""Of which 8 are shown and 32 tested, under four prompts and, half of them, two more; after two calls of the strong
model."""


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")


def said(text: str) -> str:
    """Return what the weak model says, or the strong one, whose prompts hold many rows."""
    return by_length(text) if len(text) < 400 else f"Rule {len(text) % 7}: billing is money, technical is not."


def plain(recipe: Path) -> dict[str, Any]:
    """Return a recipe without its date and its server's address."""
    return Recipe.load(recipe).model_dump(exclude={"date", "options", "model"})


def command(desk: Desk, server: Parrot, home: Path) -> list[object]:
    home.mkdir(exist_ok=True)
    models = ["--weak", "openai:m", "--strong", "openai:big", *server.options]
    return learning(desk, home / "recipe.json", *models, "--home", home, "--json")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk.at(tmp_path_factory.mktemp("desk"), train=ROWS // 2)


@pytest.fixture(scope="module")
def whole(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run that nobody disturbs."""
    home = tmp_path_factory.mktemp("whole")
    with Parrot(said) as server, pytest.MonkeyPatch.context() as patched:
        patched.setenv("OPENAI_API_KEY", "sk-none")
        patched.setenv("OPENAI_BASE_URL", server.base_url)
        assert sleicl(*command(desk, server, home)).status == 0
        assert len(server.requests) == 2 + 4 * 32 + 2 * 16
    return plain(home / "recipe.json")


@pytest.mark.parametrize("at", [2, 60, 150], ids=["while it is written", "in the pair", "in what is also tried"])
def test_learn_goes_on_after_kill_9_and_repeats_no_call(
    at: int, desk: Desk, whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request is never answered, and there it is killed."""
    home = tmp_path / "a"
    with Parrot(said, silent_at=at) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        with started(*command(desk, server, home)) as process:
            wait_for_requests(server, at)
            process.send_signal(signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL
        assert not (home / "recipe.json").exists()
        resumed = sleicl(*command(desk, server, home))
        assert resumed.status == 0, resumed.err
        asked = [json.dumps([request["model"], request["messages"]]) for request in server.requests]
        assert asked.count(asked[at - 1]) == 2 and len(asked) == len(set(asked)) + 1  # the one in flight
        assert len(set(asked)) == 2 + 4 * 32 + 2 * 16
        assert plain(home / "recipe.json") == whole
        again = sleicl(*command(desk, server, home))
        assert len(server.requests) == len(asked) and again.json()["verdict"] == resumed.json()["verdict"]
        assert plain(home / "recipe.json") == whole
    assert whole["verdict"]["n"] == 32 and [one["arm"] for one in whole["also_tried"]] == [
        "zero-shot", "profound", "simple+few-shot", "simple"
    ]  # fmt: skip


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
        while kept("a") < 3 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL, "it was done before it could be killed"
    before = kept("a")
    assert 3 <= before < 10
    resumed, whole = sleicl(*command("a")).json(), sleicl(*command("b")).json()
    assert kept("a") == kept("b") == 10  # of sixteen rows six are shown
    assert [resumed["choice"][key] for key in ("arm", "mode", "n")] == ["few-shot", "score", 10]
    assert resumed["choice"] == whole["choice"]


def test_evaluate_with_a_recipe_goes_on_after_kill_9(tmp_path: Path) -> None:
    """A server's address is part of what tells its models apart, so it is one server all the time."""
    desk = Desk.at(tmp_path / "desk")

    def command(home: str) -> list[object]:
        source = ["--task", desk.card, "--rows", desk.test, "--recipe", tmp_path / "recipe.json"]
        weak = ["--weak", "openai:m", *server.options]
        return ["evaluate", *source, "--arms", "recipe", *weak, "--home", tmp_path / home, "--json"]

    with Parrot(by_length) as server:
        learned = learning(desk, tmp_path / "recipe.json", "--weak", "openai:m", *server.options, "--json")
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
