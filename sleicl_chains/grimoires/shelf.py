"""The Markdown files of the library: which there are, read again only where they changed."""

import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple

from sleicl_chains.errors import InputError, StoreError
from sleicl_chains.files import Home, data_folder, read_text
from sleicl_chains.grimoires.grimoire import Grimoire

MANY = 300
"""A library of more files is looked through at most once in `LOOK_EVERY_S`: looking takes longer than searching. Files
that come or go are seen at once all the same, by their folder's time."""
LOOK_EVERY_S = 1.0
_SETTLED_NS = 2 * 10**9
"""A file changed less than this before it was read may change again within one tick of the file system's clock."""


@dataclass(frozen=True, eq=False)
class Library:
    """All grimoires by id, in order, as they stood at one moment; the same object as long as no file changes."""

    grimoires: dict[str, Grimoire]
    problems: tuple[str, ...] = ()
    """Files that are no grimoires, with the reason."""


class _Seen(NamedTuple):
    """What was found in one file."""

    mark: object
    """What changes with the file, without reading it; None where that cannot be told."""
    found: Grimoire | str
    """A grimoire, or what is wrong."""


class _Look(NamedTuple):
    """What was there when the files were last looked through; replaced as a whole, so that threads need no lock."""

    library: Library
    seen: dict[str, _Seen]
    folder: object
    """Mark of the user's folder."""
    at: float


class Shelf:
    """The shipped folder and the user's; a user's file takes the place of a shipped one of the same id."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._last = _Look(Library({}), {}, None, 0.0)

    def files(self) -> dict[str, Traversable]:
        """Return all files by id.

        Raises:
            StoreError: a folder cannot be listed.
        """
        try:
            return markdown(data_folder("vectorstore/grimoires")) | markdown(self._home.grimoires)
        except OSError as problem:
            raise StoreError(f"The grimoires cannot be listed: {problem}") from problem

    def library(self) -> Library:
        """Return what the files hold now.

        Raises:
            StoreError: a folder cannot be listed.
        """
        last, folder = self._last, _mark(self._home.grimoires)
        lately = time.monotonic() - last.at < LOOK_EVERY_S and folder == last.folder
        if len(last.seen) <= MANY or not lately:
            self._last = last = self._look(last, folder)
        return last.library

    def _look(self, last: _Look, folder: object) -> _Look:
        files, now = sorted(self.files().items()), time.time_ns()
        seen = {id: self._again(last.seen.get(id), id, file, now) for id, file in files}
        before, after = ({id: one.found for id, one in some.items()} for some in (last.seen, seen))
        if after == before:
            library = last.library
        else:
            grimoires = {id: found for id, found in after.items() if isinstance(found, Grimoire)}
            library = Library(grimoires, tuple(found for found in after.values() if isinstance(found, str)))
        return _Look(library, seen, folder, time.monotonic())

    def _again(self, known: _Seen | None, id: str, file: Traversable, now: int) -> _Seen:
        """Return what a file holds; it is not read where it is as it was."""
        mark = _mark(file, now)
        if mark is not None and known is not None and known.mark == mark:
            return known
        try:
            return _Seen(mark, read_grimoire(id, file))
        except InputError as problem:
            return _Seen(mark, str(problem))


def markdown(folder: Traversable) -> dict[str, Traversable]:
    """Return the grimoire files of a folder by id; a readme and temporary files are none."""
    if not folder.is_dir():
        return {}
    files = {item.name.removesuffix(".md"): item for item in folder.iterdir() if item.name.endswith(".md")}
    return {id: file for id, file in files.items() if not id.startswith(".") and id.lower() != "readme"}


def read_grimoire(id: str, file: Traversable) -> Grimoire:
    """Return the grimoire in a file.

    Raises:
        InputError: it cannot be read, or is none.
    """
    if not id.isprintable():
        raise InputError(f"{str(file)!r}: the file name holds something that cannot be printed")
    # A shipped file may lie in a zipped package.
    text = read_text(file, "a grimoire") if isinstance(file, Path) else file.read_text(encoding="utf-8")
    try:
        return parsed(id, text)
    except InputError as problem:
        raise InputError(f"{file}: {problem}") from None


@lru_cache(maxsize=4096)  # parsing YAML takes much longer than reading
def parsed(id: str, text: str) -> Grimoire:
    """Return the grimoire that a file's text describes."""
    return Grimoire.from_markdown(text, id=id)


def _mark(file: Traversable, now: int | None = None) -> object:
    """Return what changes with a file or folder; None if that is unknown, or changed so lately that it says nothing."""
    with suppress(OSError):
        if isinstance(file, Path):
            found = file.stat()
            settled = now is None or now - max(found.st_mtime_ns, found.st_ctime_ns) > _SETTLED_NS
            return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns) if settled else None
    return None
