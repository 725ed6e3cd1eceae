"""The library of grimoires: Markdown files that people can read, and a Chroma index made from them.

The files are the truth. They may be edited, added and removed by hand; the index follows them before
each search and can be thrown away at any time. What they held before is kept, see `versions`.
"""

import builtins
import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property, lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING

from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor

from sleicl_chains.errors import GrimoireNotFound, InputError, SleiclError, StoreError, note, one_line
from sleicl_chains.files import TEXT_LIMIT, Home, data_folder, read_text, write_whole
from sleicl_chains.grimoires.duplicates import Pair, near_duplicates
from sleicl_chains.grimoires.grimoire import Grimoire, version_id
from sleicl_chains.grimoires.index import COLLECTION, copied, discard, facts, in_step, nearest, open_client, where_of
from sleicl_chains.grimoires.versions import Version, Versions, today
from sleicl_chains.models.embedders import embed, embedder, fingerprint, task_text
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.texts import whole_text

if TYPE_CHECKING:
    from chromadb.api import ClientAPI


_NEIGHBOURS = 8
"""How many are looked at for near-duplicates of one grimoire."""


@dataclass(frozen=True)
class Hit:
    """A grimoire that was found."""

    grimoire: Grimoire
    score: float
    """Cosine similarity, from 0 to 1; negative ones count as 0."""


class GrimoireStore:
    """The user's grimoires and the shipped ones: add, get, list, delete, restore, search and their history.

    Any number of processes and threads may use one home: whatever touches the index waits its turn at
    a lock file, and nothing stays open in between, because an open Chroma client does not see what
    another process writes. A user's file takes the place of a shipped one of the same id.

    Args:
        home: the user's folder; by default `$SLEICL_HOME` or the platform's data folder.
        embeddings: of the index; `wordllama` by default. Others need `rebuild` first.
        client: a Chroma client to use instead of the index in the home folder, an `HttpClient` say; it
            is left open. The server's index follows this home's files, so homes must not share one.
        lock_timeout_s: how long to wait for other processes.

    Every method may raise StoreError: a file or the index cannot be read or written, or the lock is
    not to be had.
    """

    def __init__(
        self,
        home: Home | str | Path | None = None,
        embeddings: Embeddings | None = None,
        *,
        client: "ClientAPI | None" = None,
        lock_timeout_s: float = 60.0,
    ) -> None:
        self.home = home if isinstance(home, Home) else Home.at(home)
        self.problems: list[str] = []
        """Files that were left out by the latest listing or search, with the reason."""
        self._given = embeddings
        self._client = client
        self._lock_timeout_s = lock_timeout_s
        self._versions = Versions(self.home.versions)

    def add(self, grimoire: Grimoire) -> str:
        """Write a grimoire's file, index it and return its id.

        Where the id is there with other texts, these become its next version. But what is one of its former versions
        is left at that: somebody has corrected it since. A note says so in both cases.

        Raises:
            InputError: the id is no file name, or the grimoire is larger than a file that is read again.
            StoreError: a file of that id is there and is no grimoire. Or the grimoire was written, but could not be
                indexed; the message says so.
        """
        return self.add_all([grimoire])[0]

    def add_all(
        self, grimoires: Sequence[Grimoire], *, earlier: Mapping[str, tuple[Grimoire, ...]] | None = None
    ) -> builtins.list[str]:
        """Do what `add` does with several: none is written where one of them cannot be.

        Args:
            grimoires: of different ids.
            earlier: texts that one of them has had elsewhere, by its id, the oldest first; left out where the library
                knows of earlier ones.
        """
        for grimoire in grimoires:
            check_writable(grimoire)
        with self._locked_library() as library:
            if tagged := [grimoire.id for grimoire in grimoires if grimoire.id in self.tags()]:
                raise InputError(f"{tagged[0]!r} is a tag; `sleicl grimoires tag --remove {tagged[0]}` frees the word")
            fresh = [grimoire for grimoire in grimoires if not self._is_former(grimoire, library)]
            self._write([self._successor(grimoire, library) for grimoire in fresh], library, earlier or {})
        return [grimoire.id for grimoire in grimoires]

    def revise(self, grimoire: Grimoire) -> Version:
        """Write what a grimoire of the library has become, an edit of a shipped one too, and return its new version.

        Raises:
            GrimoireNotFound: there is none of that id.
            InputError, StoreError: as `add`.
        """
        check_writable(grimoire)
        with self._locked_library() as library:
            if grimoire.id not in library:
                raise self._not_found(grimoire.id, library)
            self._write([_after(library[grimoire.id], grimoire)], library)
        return self._version(grimoire.id, self._files())

    def _is_former(self, grimoire: Grimoire, library: Mapping[str, Grimoire]) -> bool:
        current = library.get(grimoire.id)
        if current is None or version_id(current) == version_id(grimoire):
            return False
        number = self._versions.number_of(grimoire)
        if number is None and grimoire.id != version_id(grimoire):
            return False
        how = (
            f"`sleicl grimoires restore {grimoire.id}@{number}` brings this one back" if number else "this one is older"
        )
        note(f"{grimoire.id} was changed since and keeps its text; {how}")
        return True

    def _successor(self, grimoire: Grimoire, library: Mapping[str, Grimoire]) -> Grimoire:
        """Return a grimoire as the next version of what is there under its id, if that has another text."""
        path = self.home.grimoires / f"{grimoire.id}.md"
        current = library.get(grimoire.id)
        if current is None and os.path.lexists(path):
            raise StoreError(f"{path} is there and is no grimoire; mend or rename it, and add again")
        if current is None or version_id(current) == version_id(grimoire):
            return grimoire
        note(f"{grimoire.id} was there with another text; this is its next version, and the former one is kept")
        return _after(current, grimoire)

    def _write(
        self,
        grimoires: Sequence[Grimoire],
        library: Mapping[str, Grimoire],
        earlier: Mapping[str, tuple[Grimoire, ...]] = MappingProxyType({}),
    ) -> None:
        """Write the files, keep their versions and index them; needs the lock."""
        added: dict[str, Grimoire] = {}
        fresh: builtins.list[Path] = []
        try:
            for grimoire in grimoires:
                path, text = self.home.grimoires / f"{grimoire.id}.md", grimoire.to_markdown()
                fresh += [] if os.path.lexists(path) else [path]
                write_whole(path, text)
                added[grimoire.id] = _parsed(grimoire.id, text)
        except OSError:
            for path in fresh:
                path.unlink(missing_ok=True)
            raise
        for name, texts in earlier.items():
            self._versions.seed(name, texts)
        self._notice(added)
        try:
            with self._chroma() as client:
                in_step(client, {**library, **added}, self._embeddings, self._fingerprint)
        except SleiclError as problem:
            written = self.home.grimoires / f"{grimoires[0].id}.md" if len(grimoires) == 1 else self.home.grimoires
            raise type(problem)(f"{written} is written, but cannot be searched yet: {problem}") from problem

    def get(self, id: str) -> Grimoire:
        """Return one grimoire: its current text, or the version that `NAME@2`, a tag or a version's id stands for.

        Raises:
            GrimoireNotFound: there is no such file or version, or it is not a grimoire.
        """
        files = self._files()
        try:
            if id in files:
                return _read(id, files[id])
            return self._version(id, files).grimoire
        except InputError as problem:
            raise GrimoireNotFound(str(problem)) from None

    def _version(self, reference: str, files: Mapping[str, Traversable]) -> Version:
        """Return the version that a reference stands for; a bare name stands for its current one.

        Raises:
            GrimoireNotFound: it stands for none.
            InputError: a file of it is damaged.
        """
        name, number = (
            (reference, None) if reference in files else self._versions.place_of(reference, files) or ("", None)
        )
        if name not in files:
            raise self._not_found(name or reference, files)
        versions = self._history(name, files)
        found = [version for version in versions if number in (None, version.number)]
        if not found:
            raise GrimoireNotFound(f"{name} has no version {number}; it has 1 to {versions[-1].number}")
        return found[-1]

    def _history(self, name: str, files: Mapping[str, Traversable]) -> builtins.list[Version]:
        shipped = self._shipped().get(name)
        return self._versions.of(name, _read(name, files[name]), _read(name, shipped) if shipped else None)

    def version(self, id: str) -> Version:
        """Return the version that an id, `NAME@2` or a tag stands for; an edit by hand is noticed.

        Raises:
            GrimoireNotFound: there is no such grimoire or version.
        """
        self._look()
        try:
            return self._version(id, self._files())
        except InputError as problem:
            raise StoreError(str(problem)) from None

    def history(self, id: str) -> builtins.list[Version]:
        """Return all versions of a grimoire, the oldest first; an edit by hand is noticed.

        Raises:
            GrimoireNotFound: there is no such grimoire.
        """
        version = self.version(id)
        try:
            return self._history(version.name, self._files())
        except InputError as problem:
            raise StoreError(str(problem)) from None

    def _look(self) -> None:
        """Notice what was changed by hand, where the home may be written to."""
        try:
            with self._locked_library():
                pass
        except StoreError as problem:
            if not _is_forbidden(problem.__cause__):
                raise

    def delete(self, id: str) -> None:
        """Take a grimoire out of the library; `restore` brings it back. The index follows at the next search.

        Raises:
            GrimoireNotFound: there is no such file.
            StoreError: the grimoire is a shipped one.
        """
        with self._locked_library():
            if id in _markdown(self.home.grimoires):
                self.home.removed.mkdir(exist_ok=True)
                (self.home.grimoires / f"{id}.md").replace(self.home.removed / f"{id}.md")
            elif id in (files := self._files()):
                raise StoreError(f"The grimoire {id!r} came with the package and cannot be removed: {files[id]}")
            else:
                raise self._not_found(id, files)

    def removed(self) -> builtins.list[Grimoire]:
        """Return the grimoires that were taken out and can be restored, sorted by id."""
        found = []
        for id, file in sorted(_markdown(self.home.removed).items()):
            with suppress(InputError):
                found.append(_read(id, file))
        return found

    def restore(self, id: str) -> Version:
        """Bring a removed grimoire back, or make an earlier version the current one again, as a new version.

        Raises:
            GrimoireNotFound: there is neither.
            StoreError: another grimoire has the removed one's id by now.
        """
        with self._locked_library() as library:
            name = self._restored(id) or self._made_current(id, library)
        return self.version(name)

    def _restored(self, id: str) -> str:
        """Move a removed file back and return its id; empty where there is none."""
        if id not in _markdown(self.home.removed):
            return ""
        if id in _markdown(self.home.grimoires):
            raise StoreError(
                f"There is a grimoire {id!r} again, and the removed one is a version of it: `sleicl grimoires "
                f"history {id}` shows which, and `restore {id}@NUMBER` makes it the current one"
            )
        (self.home.removed / f"{id}.md").replace(self.home.grimoires / f"{id}.md")
        return id

    def _made_current(self, id: str, library: Mapping[str, Grimoire]) -> str:
        try:
            version = self._version(id, self._files())
        except InputError as problem:
            raise StoreError(str(problem)) from None
        now = library[version.name]
        if version.id == version_id(now):
            raise StoreError(f"{id} is the current text of {version.name} already; there is nothing to restore")
        provenance = replace(version.grimoire.provenance, date=today())
        self._write([_after(now, replace(version.grimoire, id=version.name, provenance=provenance))], library)
        return version.name

    def tag(self, id: str, tag: str) -> str:
        """Let a tag stand for a version, the current one of a bare name, and return it as NAME@2.

        Raises:
            InputError: it is no word, or the name of a grimoire.
            GrimoireNotFound: there is no such version.
        """
        if tag in self._files():
            raise InputError(f"the tag {tag!r} is the name of a grimoire; choose another")
        with self._locked_library():
            reference = self._version(id, self._files()).reference
            self._versions.set_tag(tag, reference)
        return reference

    def tags(self) -> dict[str, str]:
        """Return the version that each tag stands for, as desk@2."""
        try:
            return self._versions.tags()
        except InputError as problem:
            raise StoreError(str(problem)) from None

    def untag(self, tag: str) -> None:
        """Remove a tag.

        Raises:
            InputError: there is no such tag.
        """
        with self._locked():
            self._versions.set_tag(tag, None)

    def _not_found(self, id: str, files: Iterable[str]) -> GrimoireNotFound:
        if id in _markdown(self.home.removed):
            return GrimoireNotFound(f"There is no grimoire {id!r}; `sleicl grimoires restore {id}` brings it back")
        return _not_found(id, files)

    def _notice(self, library: Mapping[str, Grimoire]) -> None:
        """Keep the texts of the user's files that were not seen before; needs the lock."""
        if not (fresh := self._versions.unnoticed(library)):
            return
        mine, shipped = _markdown(self.home.grimoires), self._shipped()
        try:
            known = {id: _read(id, shipped[id]) for id in fresh if id in mine and id in shipped}
            self._versions.notice(fresh, known, mine)
        except (OSError, InputError) as problem:
            self.problems.append(f"{self._versions.folder}: versions cannot be kept ({problem})")

    def _shipped(self) -> dict[str, Traversable]:
        return _markdown(data_folder("vectorstore/grimoires"))

    def _files(self) -> dict[str, Traversable]:
        try:
            return self._shipped() | _markdown(self.home.grimoires)
        except OSError as problem:
            raise StoreError(f"The grimoires cannot be listed: {problem}") from problem

    def _library(self) -> dict[str, Grimoire]:
        """Return all grimoires by id, in order; files that are none go to `problems`."""
        library: dict[str, Grimoire] = {}
        problems: list[str] = []
        for id, file in sorted(self._files().items()):
            try:
                library[id] = _read(id, file)
            except InputError as problem:
                problems.append(str(problem))
        self.problems = problems
        return library

    def search(
        self, query: str | Task | Sequence[str], k: int = 4, filters: Mapping[str, str] | None = None
    ) -> list[Hit]:
        """Return the `k` nearest grimoires, best first.

        A grimoire is compared by its task (name, type, description and labels) and by its simple text, or
        the profound one where there is no other; the better counts.

        Args:
            query: a question, a task, or several questions, whose scores are averaged.
            k: how many at most. Beyond 50, and in a library of thousands, some of the far ones may lack.
            filters: values that `task`, `strong_model` or `sampler` must have.

        Raises:
            InputError: there is no question, `k` is below 1, or a filter of another name.
            EmbedderChanged: the index was made with other embeddings.
        """
        filters = filters or {}
        where = where_of(filters)
        if k < 1:
            raise InputError(f"search: found k={k}; expected at least 1")
        # Before the lock: a slow embedder must keep nobody waiting.
        mean = embed(self._embeddings, _questions(query), as_queries=True).mean(axis=0)

        def found(library: Mapping[str, Grimoire], folder: Path) -> builtins.list[Hit]:
            matching = sum(filters.items() <= facts(grimoire).items() for grimoire in library.values())
            if not matching:
                return []
            with self._chroma(folder) as client:
                collection = in_step(client, library, self._embeddings, self._fingerprint)
                # Each grimoire has two records, so the best 2k hold the best k.
                scores = nearest(collection, mean, 2 * min(k, matching), where)
            best = sorted(scores, key=lambda id: (-scores[id], id))[:k]
            return [Hit(library[id], scores[id]) for id in best]

        try:
            with self._locked_library() as library:
                return found(library, self.home.chroma)
        except StoreError as problem:
            if self._client is not None or not _is_forbidden(problem.__cause__):
                raise
        # A home that only others may write has no lock to be had: a copy of its index is brought into step.
        with TemporaryDirectory(prefix="sleicl-") as scratch:
            return found(self._library(), copied(self.home.chroma, Path(scratch) / "chroma"))

    async def asearch(
        self, query: str | Task | Sequence[str], k: int = 4, filters: Mapping[str, str] | None = None
    ) -> list[Hit]:
        """Do what `search` does, in a thread."""
        return await run_in_executor(None, self.search, query, k, filters)

    def duplicates(self, id: str | None = None) -> builtins.list[Pair]:
        """Return the pairs of grimoires that say nearly the same, of one grimoire or of all, the nearest first.

        Raises:
            GrimoireNotFound: there is no such grimoire.
        """
        if id is None:
            return near_duplicates([*self._library().values()], self._embeddings)
        one = self.get(id)
        # One that is near is among the first that a search finds.
        hits = [hit.grimoire for hit in self.search(one.simple or one.profound, k=_NEIGHBOURS)]
        near = near_duplicates([one, *(hit for hit in hits if hit.id != id)], self._embeddings)
        return [pair for pair in near if id in (pair.first, pair.second)]

    def rebuild(self) -> int:
        """Throw the index away, make it anew from the files and return the number of grimoires."""
        from chromadb.errors import NotFoundError

        _ = self._fingerprint  # an embedder that fails must do so while the old index is still there
        with self._locked_library() as library:
            if self._client is None:
                discard(self.home.chroma)
            with self._chroma() as client:
                with suppress(NotFoundError):
                    client.delete_collection(COLLECTION)
                in_step(client, library, self._embeddings, self._fingerprint)
        return len(library)

    @cached_property
    def _embeddings(self) -> Embeddings:
        return embedder(home=self.home) if self._given is None else self._given

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self._embeddings)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        path = self.home.root / "store.lock"
        try:
            self.home.make()
            with FileLock(path).acquire(timeout=self._lock_timeout_s, poll_interval=0.01):
                yield
        except Timeout:
            raise StoreError(
                f"{path}: another process has held the store for {self._lock_timeout_s:g} s; wait for it or end it"
            ) from None
        except OSError as problem:
            said = problem.strerror or problem
            raise StoreError(f"{self.home.root} cannot be used ({said}); --home names another folder") from problem

    @contextmanager
    def _locked_library(self) -> Iterator[dict[str, Grimoire]]:
        """Hold the lock and yield the library, which is read before: a slow file must keep nobody waiting."""
        for last in (False, False, True):
            marks, library = self._marks(), self._library()
            with self._locked():
                # Read again what has changed meanwhile; where that never ends, the next search puts it right.
                if last or marks == self._marks():
                    self._notice(library)
                    yield library
                    return

    def _marks(self) -> dict[str, object]:
        """Return what changes with each file, without reading it."""
        return {id: _mark(file) for id, file in self._files().items()}

    @contextmanager
    def _chroma(self, folder: Path | None = None) -> Iterator["ClientAPI"]:
        """Yield a client, and turn Chroma's many kinds of errors into one; needs the lock."""
        try:
            if self._client is not None:
                yield self._client
            else:
                with open_client(folder or self.home.chroma) as client:
                    yield client
        except SleiclError:
            raise
        except Exception as problem:
            said = one_line(problem)
            server = "" if self._client is None else "is the Chroma server running? Or "
            raise StoreError(
                f"The index cannot be used ({said:.300}); {server}run `sleicl grimoires rebuild`, "
                "which makes it anew from the Markdown files"
            ) from problem

    def close(self) -> None:
        """Do nothing: no file or client is open between two calls. A given client is the caller's to close."""

    def __enter__(self) -> "GrimoireStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The last of the class, because below it `list` would mean this method.
    def list(self) -> list[Grimoire]:
        """Return all grimoires, sorted by id; see `problems` for files that are none."""
        return [*self._library().values()]


def _questions(query: str | Task | Sequence[str]) -> list[str]:
    if isinstance(query, Task):
        return [task_text(query.name, query.task_type, query.description, query.labels)]
    questions = [query] if isinstance(query, str) else list(query)
    if not questions:
        raise InputError("search: found no question; expected at least one")
    return [whole_text(question, "the question") for question in questions]


def _markdown(folder: Traversable) -> dict[str, Traversable]:
    """Return the grimoire files of a folder by id; a readme and temporary files are none."""
    if not folder.is_dir():
        return {}
    files = {item.name.removesuffix(".md"): item for item in folder.iterdir() if item.name.endswith(".md")}
    return {id: file for id, file in files.items() if not id.startswith(".") and id.lower() != "readme"}


def _read(id: str, file: Traversable) -> Grimoire:
    if not id.isprintable():
        raise InputError(f"{str(file)!r}: the file name holds something that cannot be printed")
    # A shipped file may lie in a zipped package.
    text = read_text(file, "a grimoire") if isinstance(file, Path) else file.read_text(encoding="utf-8")
    try:
        return _parsed(id, text)
    except InputError as problem:
        raise InputError(f"{file}: {problem}") from None


@lru_cache(maxsize=4096)  # files are read before each search; parsing YAML takes much longer
def _parsed(id: str, text: str) -> Grimoire:
    return Grimoire.from_markdown(text, id=id)


def _mark(file: Traversable) -> object:
    with suppress(OSError):
        found = file.stat() if isinstance(file, Path) else None
        return found and (found.st_ino, found.st_size, found.st_mtime_ns)
    return None


def _is_forbidden(cause: BaseException | None) -> bool:
    return isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def check_writable(grimoire: Grimoire) -> None:
    """Refuse a grimoire that could not be read again.

    Raises:
        InputError: its id is no file name, or it is too large.
    """
    if not re.fullmatch(r"\w[\w .+-]*", grimoire.id) or grimoire.id.lower() == "readme":
        raise InputError(f"the grimoire's id {grimoire.id!r} cannot be a file name; expected, say, 'trec-0a1b2c3d'")
    if (size := len(grimoire.to_markdown().encode())) > TEXT_LIMIT:
        raise InputError(f"the grimoire {grimoire.id} has {size} bytes; expected at most {TEXT_LIMIT}")


def _after(former: Grimoire, grimoire: Grimoire) -> Grimoire:
    """Return a grimoire with the former one as its parent, unless its texts are the same."""
    if version_id(former) == version_id(grimoire):
        return grimoire
    return replace(grimoire, provenance=replace(grimoire.provenance, parent=version_id(former)))


def _not_found(id: str, known: Iterable[str]) -> GrimoireNotFound:
    known = sorted(known)
    near = [one for one in known if id and one.startswith(id)] or get_close_matches(id, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near[:3]))}?" if near else "see `sleicl grimoires list`"
    return GrimoireNotFound(f"There is no grimoire {id!r}; {hint}")
