"""Digests of large files, each remembered for as long as its file stays as it is."""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from sleicl_chains.errors import InputError, ModelNotFound, SleiclError
from sleicl_chains.files import Home, open_file, read_text, write_whole
from sleicl_chains.hashes import short_hash


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex; about 2 s a gigabyte."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileState(NamedTuple):
    """What tells a file from one that was put in its place or that was written to."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileState":
        """Return the state of the file that lies at `path` now.

        Raises:
            ModelNotFound: there is none.
        """
        try:
            return cls._from(path.stat())
        except OSError as problem:
            raise ModelNotFound(f"{path}: cannot be read ({problem.strerror}); expected a GGUF file") from None

    @classmethod
    def _from(cls, found: os.stat_result) -> "FileState":
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


_SETTLED_NS = 2_000_000_000
"""A file that was changed less than this ago may change again within one tick of its clock."""


def remembered_sha256(path: Path, home: Home) -> str:
    """Return the SHA-256 of a file, which the home remembers for as long as the file stays as it is.

    The time of the last change to its entry counts as well: whoever writes to a file can set back the other time alone.
    """
    note = home.digests / f"{short_hash(str(path.resolve()))}.json"
    with open_file(path) as file:
        before = _stamp(file.fileno())
        with contextlib.suppress(InputError, ValueError, KeyError, TypeError):  # none yet, or a damaged one
            kept = json.loads(read_text(note, "a digest"))
            if kept["file"] == before:
                return str(kept["sha256"])
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        settled = max(before[-2:]) < time.time_ns() - _SETTLED_NS and _stamp(file.fileno()) == before
    if settled:
        with contextlib.suppress(OSError, SleiclError):  # a home that cannot be written to
            home.make()
            write_whole(note, json.dumps({"file": before, "sha256": digest}) + "\n", mode=0o600)
    return digest


def _stamp(descriptor: int) -> list[int]:
    found = os.fstat(descriptor)
    return [*FileState._from(found), found.st_ctime_ns]
