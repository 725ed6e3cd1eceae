"""The rows of a run on disk: what is whole is read, what is not is named, and nothing is lost or passed off."""

import json
from pathlib import Path

import pytest

from sleicl_chains.answers import Answer
from sleicl_chains.evaluation.answered import AnsweredRow
from tests.support.command import Desk, Done, Parrot, sleicl

WHOLE = Answer(
    "sad", "sad", True, "a", "score", "mean", 0.7, {"happy": 0.3, "sad": 0.7}, 0.9, ("happy",), "Mood:", True, "m-1",
    {"prompt_tokens": 3}, 0.5, "a note", True,
)  # fmt: skip
SAID = Answer(None, "Hm.", False, "a", "generate")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.at(tmp_path / "desk")


def evaluated(desk: Desk, parrot: Parrot, *more: object) -> Done:
    source = ("--task", desk.card, "--rows", desk.test, "--weak", "openai:m", *parrot.options)
    return sleicl("evaluate", *source, "--run", desk.folder / "run", "--no-journal", *more)


@pytest.fixture
def run(desk: Desk, parrot: Parrot) -> Path:
    assert evaluated(desk, parrot).status == 0
    return desk.folder / "run"


@pytest.mark.parametrize("answer", [WHOLE, SAID])
def test_a_row_is_written_and_read_again(answer: Answer) -> None:
    row = AnsweredRow.of("a", "0f", "sad", answer)
    assert AnsweredRow.from_dict(json.loads(json.dumps(row.to_dict()))) == row
    assert ("reply" in row.to_dict()) == (answer is SAID) and ("cue" in row.to_dict()) == (answer is WHOLE)


def test_what_earlier_versions_left_out_and_later_ones_add_is_read() -> None:
    row = AnsweredRow.from_dict({"arm": "a", "row": "0", "gold": "g", "prediction": None, "valid": False, "new": 1})
    assert row == AnsweredRow("a", "0", "g", None, False)


def test_answers_of_other_settings_do_not_pass_as_this_runs(run: Path, desk: Desk, parrot: Parrot) -> None:
    (run / "run.json").unlink()
    before = (run / "rows.jsonl").read_bytes()
    for settings in (["--option", "temperature=0.9"], []):
        done = evaluated(desk, parrot, *settings)
        assert (done.status, done.out) == (1, "") and done.err.count("\n") <= 2
        assert f"{run}/rows.jsonl has answers of zero-shot, but no {run}/run.json says of which rows and" in done.err
        assert "Put that file back, or give another folder with --run" in done.err
    assert (run / "rows.jsonl").read_bytes() == before and not (run / "run.json").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"rows": 1, "arms": {}}', '{"rows": "a"}', "\udcff"])
def test_a_broken_note_of_a_run_is_one_line(run: Path, desk: Desk, parrot: Parrot, text: str) -> None:
    (run / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    before = (run / "rows.jsonl").read_bytes()
    done = evaluated(desk, parrot)
    (line,) = [line for line in done.err.splitlines() if line.startswith("sleicl: ")]
    assert done.status == 1 and f"{run}/run.json: found no note of rows and settings (" in line
    assert "Put the file back as it was, or give another folder" in line and "Traceback" not in done.err
    assert (run / "rows.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (b"{", "Expecting property name"),
        (b"[]", "Input should be a dictionary"),
        (b'{"arm": "zero-shot"}', "row: Field required"),
        (b"\xff", "byte 0xff is no UTF-8"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_a_broken_line_is_named_and_mending_it_loses_nothing(
    run: Path, desk: Desk, parrot: Parrot, broken: bytes, why: str
) -> None:
    file, asked = run / "rows.jsonl", len(parrot.requests)
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([*lines[:2], broken, *lines[3:], b""]))
    before = file.read_bytes()
    for done in (evaluated(desk, parrot), sleicl("report", run)):
        (line,) = [line for line in done.err.splitlines() if line.startswith("sleicl: ")]
        assert done.status == 1 and f"{file}, line 3: found no answered row (" in line and why in line, line
        assert "Mend that line or delete it: the same `sleicl evaluate` again" in line and len(line) < 500
    assert file.read_bytes() == before and len(parrot.requests) == asked
    file.write_bytes(b"\n".join([*lines[:2], *lines[3:], b""]))
    assert evaluated(desk, parrot).status == 0 and len(parrot.requests) == asked + 1
    assert sorted(file.read_bytes().splitlines())[0][:20] == sorted(lines)[0][:20] and sleicl("report", run).status == 0


def test_a_last_line_that_only_lacks_its_end_is_kept(run: Path, desk: Desk, parrot: Parrot) -> None:
    file, asked = run / "rows.jsonl", len(parrot.requests)
    before = file.read_bytes()
    file.write_bytes(before.removesuffix(b"\n"))
    assert evaluated(desk, parrot).status == 0
    assert file.read_bytes() == before and len(parrot.requests) == asked
