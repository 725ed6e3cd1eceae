"""Digests of files, remembered for as long as a file stays as it is."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from sleicl_chains.errors import ModelNotFound
from sleicl_chains.files import Home
from sleicl_chains.models import digests
from sleicl_chains.models.digests import FileState, remembered_sha256, sha256_of


def old(path: Path, text: bytes, age_s: float = 60) -> Path:
    path.write_bytes(text)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_state_tells_a_file_from_one_put_in_its_place(tmp_path: Path) -> None:
    file = old(tmp_path / "f", b"abc")
    before = FileState.of(file)
    assert FileState.of(file) == before and before.size == 3
    old(tmp_path / "g", b"abc").replace(file)
    assert FileState.of(file) != before
    file.unlink()
    with pytest.raises(ModelNotFound, match=r"f: cannot be read \(No such file or directory\); expected a GGUF file"):
        FileState.of(file)


def test_a_digest_is_remembered_until_the_file_changes(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_SETTLED_NS", 0)
    file, reads, digest = old(tmp_path / "f", b"abc"), [], hashlib.file_digest

    def counted(*given: Any) -> Any:
        reads.append(given)
        return digest(*given)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    abc, xyz = (hashlib.sha256(text).hexdigest() for text in (b"abc", b"xyz"))
    assert [remembered_sha256(file, home) for _ in range(3)] == [abc] * 3 and len(reads) == 1
    (note,) = home.digests.iterdir()
    assert note.stat().st_mode & 0o777 == 0o600
    times = file.stat()
    file.write_bytes(b"xyz")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # whoever wrote it set the time back
    assert remembered_sha256(file, home) == xyz
    old(tmp_path / "g", b"abc").replace(file)
    assert remembered_sha256(file, home) == abc
    note.write_text("{")
    assert remembered_sha256(file, home) == abc and len(reads) == 4


def test_a_digest_is_not_remembered_of_a_file_that_has_just_changed(home: Home, tmp_path: Path) -> None:
    """It could change again within one tick of the clock."""
    file = old(tmp_path / "f", b"abc", age_s=0)
    assert remembered_sha256(file, home) == sha256_of(file) and not home.root.exists()


def test_a_home_that_cannot_be_written_to_only_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "_SETTLED_NS", 0)
    (tmp_path / "home").write_text("in the way")
    file = old(tmp_path / "f", b"abc")
    assert remembered_sha256(file, Home(tmp_path / "home")) == sha256_of(file)
