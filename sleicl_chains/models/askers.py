"""Which processes are asking a model just now: each holds a lock, which the system frees however the process ends."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

_PATIENCE_S = 10


class Asker:
    """This process among those that share a journal.

    Args:
        folder: holds an empty, locked file of each; made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = ""
        """Empty until `enter`."""
        self._lock: BaseFileLock | None = None
        self._process = os.getpid()

    def enter(self) -> None:
        """Take a name that no other process has, and lock its file.

        Raises:
            OSError: the folder cannot be written.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        while not self.name:
            name = secrets.token_hex(8)
            lock = self._lock_of(name)
            lock.acquire(timeout=_PATIENCE_S)
            if (self.folder / name).exists():
                self.name, self._lock, self._process = name, lock, os.getpid()
            else:  # another process took the file for a dead one's before it was locked
                lock.release()

    def leave(self) -> None:
        """Give the name up: what was claimed under it is free for others."""
        name, lock, self.name, self._lock = self.name, self._lock, "", None
        if lock and self._process == os.getpid():  # a fork shares the lock of its parent, and must not free it
            with suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)
            lock.release(force=True)

    def others(self) -> set[str]:
        """Return the names that have a file, of the living and the dead."""
        return {file.name for file in self.folder.iterdir()} - {self.name}

    def lives(self, name: str) -> bool:
        """Return whether the process of that name is still there; a dead one's file is removed."""
        file = self.folder / name
        if name == self.name or not file.exists():
            return bool(name) and name == self.name
        lock = self._lock_of(name)
        try:
            lock.acquire(timeout=0)
        except TimeoutError:
            return True
        with suppress(OSError):
            file.unlink(missing_ok=True)
        lock.release()
        return False

    def _lock_of(self, name: str) -> "BaseFileLock":
        from filelock import FileLock

        return FileLock(self.folder / name, mode=0o600, thread_local=False)
