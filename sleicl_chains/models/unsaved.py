"""Replies that were paid for while the journal could not be written: a file each, until it can be again."""

import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sleicl_chains.errors import InputError
from sleicl_chains.files import ROWS_LIMIT, read_file, write_whole

_FIELDS = ("key", "request", "reply", "at", "rejected")
"""The columns of the journal's table."""


class Unsaved:
    """A folder beside a journal; it is there only while it holds something."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, values: Sequence[str | None]) -> Path:
        """Write a row's file, which only its owner can read, and return its path.

        Raises:
            OSError: it cannot be written either.
        """
        row = dict(zip(_FIELDS, values, strict=True))
        self.folder.mkdir(mode=0o700, exist_ok=True)
        # The first accepted reply stays, as in the journal; of rejected ones each has a file of its own.
        file = self.folder / (f"{row['key']}.json" if row["rejected"] is None else f"{secrets.token_hex(16)}.json")
        if not file.exists():
            write_whole(file, json.dumps(row), mode=0o600)
        return file

    def reply(self, key: str) -> str | None:
        """Return the accepted reply to a request, if one is here."""
        row = _read(self.folder / f"{key}.json") if self.folder.exists() else None
        return row["reply"] if row and row["key"] == key and row["rejected"] is None else None

    def rows(self) -> Iterator[tuple[Path, tuple[Any, ...]]]:
        """Yield each row with its file."""
        for file in sorted(self.folder.glob("*.json")):
            if row := _read(file):
                yield file, tuple(row[field] for field in _FIELDS)

    def remove(self, file: Path) -> None:
        """Delete a file whose row is in the journal, and the folder after the last one."""
        with suppress(OSError):
            file.unlink(missing_ok=True)
            self.folder.rmdir()


def _read(file: Path) -> dict[str, Any] | None:
    """Return a row; None for what is none, such as a file that somebody has put there."""
    try:
        row = json.loads(read_file(file, "a reply", ROWS_LIMIT))
        return row if set(_FIELDS) <= row.keys() and isinstance(json.loads(row["reply"]), dict) else None
    except (InputError, OSError, ValueError, TypeError, AttributeError):
        return None
