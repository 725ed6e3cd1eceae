"""`sleicl grimoires match` as a user types it."""

import subprocess
import sys
from pathlib import Path

import pytest

from sleicl_chains.files import Home
from tests.support.chroma_server import chroma_server
from tests.support.command import Desk, Parrot, environment, sleicl


def test_a_sentence_finds_grimoires(home: Home) -> None:
    text = "Is this e-mail junk or not?"
    found = sleicl("grimoires", "match", text, "--json").json()["matches"]
    assert [list(one) for one in found] == [["id", "task", "score", "why", "labels"]] * len(found)
    assert found[0]["task"] == "spam" and found[0]["why"].startswith("close, by its description; words: junk")
    done = sleicl("grimoires", "match", text, "-k", 1)
    assert done.err.startswith(f"Next: sleicl ask --grimoire {found[0]['id']} --weak MODEL QUESTION; for a whole file ")
    (line,) = done.out.splitlines()
    score, *rest = line.split("\t")
    assert float(score) == pytest.approx(found[0]["score"], abs=0.001)
    assert rest == [found[0]["id"], "spam", found[0]["why"], "spam, not spam"]


def test_the_order_of_several_is_told_beside_their_numbers(home: Home) -> None:
    command = ("grimoires", "match", "Tag RSS headlines by section.", "-k", 2)
    done = sleicl(*command)
    first, second = (float(line.split("\t")[0]) for line in done.out.splitlines())
    told, following = done.err.splitlines()
    assert first < second and following.startswith("Next: ")
    assert told == (
        "Best first by description, requests, rules, labels and texts together; "
        "the number is the similarity to the first two."
    )
    assert sleicl(*command, "--json").err == ""


def test_what_is_found_answers_without_a_card(home: Home, tmp_path: Path) -> None:
    found = sleicl("grimoires", "match", "Is this e-mail junk or not?", "-k", 1, "--json").json()["matches"]
    bare = tmp_path / "bare.md"
    bare.write_text("---\ntask: x\n---\n# Simple grimoire\nSay no.\n", encoding="utf-8")
    with Parrot(lambda text: "spam") as parrot:
        weak = ["--weak", "openai:parrot", *parrot.options]
        assert sleicl("ask", "--grimoire", found[0]["id"], *weak, "Win a prize!").out == "spam\n"
        (system, asked) = parrot.shown(-1)
        assert "not spam" in system[1] and asked == ("user", "Win a prize!")
        done = sleicl("ask", "--grimoire", bare, *weak, "Win a prize!")
        assert (done.status, done.out, len(parrot.requests)) == (1, "", 1)
    assert "the grimoire bare does not tell its task (description: found ''" in done.err and "give a card" in done.err


def test_none_fits_is_an_answer(home: Home) -> None:
    done = sleicl("grimoires", "match", "Translate our menu from Portuguese to French.")
    assert (done.status, done.out) == (0, "")
    first, second, third = done.err.splitlines()
    assert first.startswith("None fits. Nearest: ") and first.endswith(".")
    assert second == "Other embeddings tell more apart: sleicl grimoires rebuild --embeddings minilm"
    assert "sleicl write --task CARD" in third
    as_json = sleicl("grimoires", "match", "Translate our menu from Portuguese to French.", "--json")
    assert as_json.json() == {"matches": []}


def test_a_card_and_rows(home: Home, tmp_path: Path, parrot: Parrot) -> None:
    desk = Desk.at(tmp_path / "desk")
    plain = sleicl("grimoires", "match", desk.card, "--rows", desk.train, "--json").json()["matches"]
    assert plain and "support" in {one["task"] for one in plain}
    weak = ["--weak", "openai:parrot", *parrot.options]
    done = sleicl("grimoires", "match", desk.card, "--rows", desk.train, "-k", 1, *weak, "--json")
    (one,) = done.json()["matches"]
    (tried,) = one["tried"]
    assert (tried["form"], tried["n"], tried["decided"]) == ("profound", 8, False)
    assert tried["difference"] == (tried["right"] - tried["zero_shot"]) / 8
    assert "8 rows decide nothing here" in done.err
    line = sleicl("grimoires", "match", desk.card, "--rows", desk.train, "-k", 1, *weak).out.splitlines()
    assert [part.split("\t")[2:4] for part in line] == [[one["id"], "profound"]]


@pytest.mark.parametrize("more", [(), ("--rows", "rows.jsonl")])
def test_trying_needs_a_card_and_rows(home: Home, more: tuple[str, ...]) -> None:
    done = sleicl("grimoires", "match", "a text", "--weak", "embedded:smollm2", *more)
    assert (done.status, done.out) == (2, "")
    assert "--weak tries the grimoires on labelled rows: give a card" in done.err


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "http://me:pw@host", "http://host/path", "http://host:99999"])
def test_an_address_that_is_none(home: Home, url: str) -> None:
    done = sleicl("grimoires", "match", "a text", "--chroma-url", url)
    assert done.status == 1 and "expected, say, http://127.0.0.1:8000" in done.err


def test_no_server_answers(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLEICL_CHROMA_URL", "http://127.0.0.1:9")
    done = sleicl("grimoires", "match", "a text")
    assert done.status == 1 and "No Chroma server answers at http://127.0.0.1:9" in done.err
    assert "chroma run --path DIR --host 127.0.0.1 --port 9" in done.err
    assert sleicl("grimoires", "list").status == 0, "which needs no index"


def test_the_index_may_lie_on_a_server(home: Home, tmp_path: Path) -> None:
    """In a process of its own, since Chroma leaves its sockets open."""
    main = [sys.executable, "-c", "from sleicl_chains.cli import main; main()", "grimoires"]
    with chroma_server(tmp_path / "served") as server:
        for place in (["--chroma-url", server.url], []):
            command = [*main, "match", "Is this e-mail junk or not?", "-k", "1", *place]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env=environment(SLEICL_CHROMA_URL=server.url)
            )
            assert "\tspam\tclose, by its description" in done.stdout
    assert not home.chroma.exists()


@pytest.mark.parametrize("command", ["match", "search"])
def test_a_card_that_is_not_there_is_no_sentence(home: Home, command: str) -> None:
    done = sleicl("grimoires", command, "desk/tsak.toml")
    assert (done.status, done.out) == (1, "") and "desk/tsak.toml: there is no such file" in done.err
    assert sleicl("grimoires", command, "Is this junk, as in mail.json?", "--json").status == 0
