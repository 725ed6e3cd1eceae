"""`sleicl chat` with piped input, and which model it takes."""

import os
from pathlib import Path

import pytest

from sleicl_chains.files import Home
from tests.support.command import sleicl
from tests.support.fake_models import Scorer, Writer
from tests.support.ollama_server import OllamaServer, Said, answering, chat
from tests.support.recipes import recipe_of

NONE_HERE = (
    "sleicl: No chat model is on this machine: run `ollama pull NAME`, or `sleicl models fetch qwen2.5-coder-1.5b` "
    "(1.1 GB), or name one with --weak\n"
)


def test_without_any_model_one_line_says_what_to_do(home: Home) -> None:
    done = sleicl("chat", stdin="hi")
    assert (done.status, done.out, done.err) == (1, "", NONE_HERE)


def test_the_model_that_is_here_is_taken_and_answers_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the two recorded models, one is known not to read and the other knows no chats: so neither is taken.
    with answering(chat("Hi.")) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        assert sleicl("chat", stdin="hi").err == NONE_HERE
        done = sleicl("chat", "--weak", "ollama:smollm2:135m", stdin="hi")
    assert (done.status, done.out) == (0, "Hi. \n")
    assert done.err == (
        "[ollama:smollm2:135m does not follow guides (.23, chance .25); a larger model may; it is shown no grimoire, "
        "unless you name one with /grimoire]\n"
    )


def test_a_grimoire_of_the_command_line_stands_before_the_message(home: Home) -> None:
    with answering(chat("It is.")) as server:
        command = ["chat", "--weak", "ollama:smollm2:135m", "--base-url", server.url, "--system", "Be kind."]
        done = sleicl(*command, "--grimoire", "spam", "-o", "temperature=0.5", stdin="You won!\n")
        (body,) = server.sent("/api/chat")
    assert (done.status, done.out, done.err) == (0, "It is. \n", "[spam-abd35001: chosen by you]\n")
    system, message = body["messages"]
    assert system["content"].startswith("Be kind.\n\n") and "spam" in system["content"]
    assert (message["content"], body["options"]["temperature"]) == ("You won!", 0.5)
    assert not (home.root / "journal.sqlite").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["--weak", "ollama:missing"], 1, "sleicl: The model 'missing' is not on the Ollama server at "),
        (
            ["--weak", "ollama:smollm2:135m", "-o", "warmth=1"],
            2,
            "sleicl: ollama:smollm2:135m: an Ollama model has no ",
        ),
        (["--weak", "ollama:smollm2:135m", "--grimoire", "nix"], 1, "sleicl: There is no grimoire 'nix'; "),
        (["--recipe", "nowhere.json"], 1, "sleicl: nowhere.json: there is no such file; expected a recipe"),
    ],
)
def test_what_cannot_begin_ends_with_one_line(
    arguments: list[str], status: int, line: str, server: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    done = sleicl("chat", *arguments, stdin="hi")
    assert (done.status, done.out, done.err.count("\n")) == (status, "", 1) and done.err.startswith(line)


def test_a_message_must_say_something(server: OllamaServer) -> None:
    done = sleicl("chat", "--weak", "ollama:smollm2:135m", "--base-url", server.url, "--grimoire", "none", stdin=" \n")
    assert (done.status, done.err) == (1, "sleicl: the message is empty; say something\n")


def test_a_reply_that_breaks_off_fails_with_what_had_come() -> None:
    with answering(Said(chat("one two three").lines[:2])) as server:
        command = ["chat", "--weak", "ollama:smollm2:135m", "--base-url", server.url, "--grimoire", "none"]
        done = sleicl(*command, stdin="hi")
    assert (done.status, done.out) == (1, "one two \n")
    assert "the reply broke off before its end" in done.err and done.err.count("\n") == 1


def test_a_recipe_answers_what_is_piped_in(
    home_with_weights: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = Scorer(reply=lambda prompt: "billing")
    monkeypatch.setattr("sleicl_chains.answering.opening.open_recipe_model", lambda *_, **__: weak)
    path, other = tmp_path / "one.json", tmp_path / "two.json"
    for file in (path, other):
        recipe_of(weak, "embedded:smollm2").save(file)
    done = sleicl("chat", "--recipe", path, stdin="My invoice\n")
    assert (done.status, done.out, done.err) == (0, "billing\n", "")
    done = sleicl("chat", "--recipe", path, "--recipe", other, stdin="My invoice\n")
    assert (done.status, done.err) == (2, "sleicl: --recipe: found 2; what is piped in is answered by one\n")


def test_a_recipe_alone_does_not_say_where_questions_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    path = tmp_path / "far.json"
    recipe_of(Writer(), "openai:gpt-4o-mini").save(path)
    done = sleicl("chat", "--recipe", path, stdin="My invoice\n")
    assert done.status == 1 and done.out == "" and "--weak openai:gpt-4o-mini" in done.err


def test_nothing_is_written_to_the_folder_of_the_user(
    server: OllamaServer, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.chdir(folder)
    done = sleicl("chat", "--weak", "ollama:smollm2:135m", "--base-url", server.url, "--grimoire", "none", stdin="hi")
    assert done.status == 0 and os.listdir(folder) == [] and not home.root.exists()
