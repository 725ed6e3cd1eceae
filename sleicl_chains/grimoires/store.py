"""The library of grimoires: Markdown files that people can read, and a Chroma index made from them.

The files are the truth. They may be edited, added and removed by hand; the index follows them before
each search and can be thrown away at any time. As long as no file changes, a search needs neither: the
vectors stay in memory. What the files held before is kept, see `versions`.
"""

import builtins
import errno
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor

from sleicl_chains.errors import GrimoireNotFound, InputError, SleiclError, StoreError, one_line
from sleicl_chains.files import TEXT_LIMIT, Home, read_text, write_whole
from sleicl_chains.grimoires.archive import Archive, after
from sleicl_chains.grimoires.duplicates import Pair, near_duplicates
from sleicl_chains.grimoires.filters import Filters, check_filters, passes
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.index import (
    Indexed,
    copied,
    described,
    discard,
    drop,
    in_step,
    open_client,
    open_server,
    read_index,
)
from sleicl_chains.grimoires.match import Match, Wish, matches
from sleicl_chains.grimoires.shelf import Library, Shelf, read_grimoire
from sleicl_chains.grimoires.versions import Version
from sleicl_chains.models.embedders import embed, embedder, fingerprint
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.texts import whole_text

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.client import Client


@dataclass(frozen=True)
class Hit:
    """A grimoire that was found."""

    grimoire: Grimoire
    score: float
    """Cosine similarity, from 0 to 1; negative ones count as 0."""


class GrimoireStore:
    """The user's grimoires and the shipped ones: add, get, list, delete, restore, search, and their history.

    Any number of processes and threads may use one home: whatever touches the index waits its turn at
    a lock file, and nothing stays open in between, because an open Chroma client does not see what
    another process writes. A user's file takes the place of a shipped one of the same id. A change
    within a file of a library of more than 300 may be seen a second late.

    Args:
        home: the user's folder; by default `$SLEICL_HOME` or the platform's data folder.
        embeddings: of the index; `wordllama` by default. Others need `rebuild` first.
        client: the URL of a Chroma server to use instead of the index in the home folder, or a Chroma
            client, which is left open. Each home has collections of its own there.
        lock_timeout_s: how long to wait for other processes.

    Every method may raise StoreError: a file or the index cannot be read or written, or the lock is
    not to be had.
    """

    def __init__(
        self,
        home: Home | str | Path | None = None,
        embeddings: Embeddings | None = None,
        *,
        client: "ClientAPI | str | None" = None,
        lock_timeout_s: float = 60.0,
    ) -> None:
        self.home = home if isinstance(home, Home) else Home.at(home)
        self.problems: list[str] = []
        """Files that were left out by the latest listing or search, with the reason."""
        self._given = embeddings
        self._client = client
        self._opened: Client | None = None
        self._lock_timeout_s = lock_timeout_s
        self._shelf = Shelf(self.home)
        self._archive = Archive(self.home, self._shelf)
        self._held = Indexed(Library({}), {})

    def add(self, grimoire: Grimoire) -> str:
        """Write a grimoire's file, index it and return its id.

        Where the id is there with other texts, these become its next version. But what is one of its former versions
        is left at that: somebody has corrected it since. A note says so in both cases.

        Raises:
            InputError: the id is no file name or is a tag, or the grimoire is larger than a file that is read again.
            StoreError: a file of that id is there and is no grimoire. Or the grimoire was written, but could not be
                indexed; the message says so.
        """
        return self.add_all([grimoire])[0]

    def add_all(
        self,
        grimoires: Sequence[Grimoire],
        *,
        earlier: Mapping[str, tuple[Grimoire, ...]] | None = None,
        new: bool = False,
    ) -> builtins.list[str]:
        """Add several in one go: the index is opened once, and nothing is written if one is refused; see `add`.

        Args:
            grimoires: of different ids.
            earlier: texts that one of them has had elsewhere, by its id, the oldest first; left out where the library
                knows of earlier ones.
            new: refuse all where an id is here by now, whatever its text.

        Raises:
            StoreError: an id is here that must be new; or as `add`.
        """
        for grimoire in grimoires:
            check_writable(grimoire)
        with self._locked_library() as library:
            known = library.grimoires
            if new and (here := [grimoire.id for grimoire in grimoires if grimoire.id in known]):
                raise StoreError(f"{here[0]} was added by another process meanwhile; nothing is changed, try again")
            fresh = [grimoire for grimoire in grimoires if not self._archive.is_former(grimoire, known)]
            self._write([self._archive.successor(grimoire, known) for grimoire in fresh], library, earlier)
        return [grimoire.id for grimoire in grimoires]

    def revise(self, grimoire: Grimoire) -> Version:
        """Write what a grimoire of the library has become, a shipped one too, and return its new version.

        Raises:
            GrimoireNotFound: there is none of that id.
            InputError, StoreError: as `add`.
        """
        check_writable(grimoire)
        with self._locked_library() as library:
            if grimoire.id not in library.grimoires:
                raise self._archive.not_found(grimoire.id, library.grimoires)
            self._write([after(library.grimoires[grimoire.id], grimoire)], library)
        return self.version(grimoire.id)

    def _write(
        self,
        grimoires: Sequence[Grimoire],
        library: Library,
        earlier: Mapping[str, tuple[Grimoire, ...]] | None = None,
    ) -> None:
        """Write files and index them; needs the lock."""
        written = self._archive.write(grimoires, earlier)
        try:
            with self._chroma() as client:
                in_step(client, library.grimoires | written, self.embeddings, self._fingerprint, self._place)
        except SleiclError as problem:
            folder = self.home.grimoires
            what = folder / f"{grimoires[0].id}.md" if len(written) == 1 else f"{len(written)} files in {folder}"
            be = "is" if len(written) == 1 else "are"
            raise type(problem)(f"{what} {be} written, but cannot be searched yet: {problem}") from problem

    def get(self, id: str) -> Grimoire:
        """Return one grimoire: its current text, or the version that `NAME@2`, a tag or a version's id stands for.

        Raises:
            GrimoireNotFound: there is no such file or version, or it is not a grimoire.
        """
        files = self._shelf.files()
        try:
            return read_grimoire(id, files[id]) if id in files else self._archive.find(id).grimoire
        except InputError as problem:
            raise GrimoireNotFound(str(problem)) from None

    def version(self, id: str) -> Version:
        """Return the version that an id, `NAME@2` or a tag stands for; an edit by hand is noticed.

        Raises:
            GrimoireNotFound: there is no such grimoire or version.
        """
        self._look()
        with _told():
            return self._archive.find(id)

    def history(self, id: str) -> builtins.list[Version]:
        """Return all versions of a grimoire, the oldest first; an edit by hand is noticed.

        Raises:
            GrimoireNotFound: there is no such grimoire.
        """
        version = self.version(id)
        with _told():
            return self._archive.history(version.name, self._shelf.files())

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
            StoreError: the grimoire is a shipped one, or the id is that of one version.
        """
        with self._locked_library(), _told():
            self._archive.remove(id)

    def removed(self) -> builtins.list[Grimoire]:
        """Return the grimoires that were taken out and can be restored, sorted by id."""
        return self._archive.removed()

    def restore(self, id: str) -> Version:
        """Bring a removed grimoire back, or make an earlier version the current one again, as a new version.

        Raises:
            GrimoireNotFound: there is neither.
            StoreError: another grimoire has the removed one's id by now, or the version is the current one.
        """
        with self._locked_library() as library, _told():
            if not self._archive.bring_back(id):
                grimoire = self._archive.renewed(id, library.grimoires)
                self._write([grimoire], library)
                id = grimoire.id
        return self.version(id)

    def tag(self, id: str, tag: str) -> Version:
        """Let a tag stand for a version, the current one of a bare name, and return it.

        Raises:
            InputError: it is no word, or the name of a grimoire.
            GrimoireNotFound: there is no such version.
        """
        if tag in self._shelf.files():
            raise InputError(f"the tag {tag!r} is the name of a grimoire; choose another")
        with self._locked_library():
            with _told():
                version = self._archive.find(id)
            self._archive.versions.set_tag(tag, version.reference)
        return version

    def untag(self, tag: str) -> None:
        """Remove a tag.

        Raises:
            InputError: there is no such tag.
        """
        with self._locked():
            self._archive.versions.set_tag(tag, None)

    def tags(self) -> dict[str, str]:
        """Return the version that each tag stands for, as desk@2."""
        with _told():
            return self._archive.versions.tags()

    def duplicates(self, id: str | None = None) -> builtins.list[Pair]:
        """Return the pairs of grimoires that say nearly the same, of one grimoire or of all, the nearest first.

        Raises:
            GrimoireNotFound: there is no such grimoire.
        """
        index = self.indexed()
        if id is not None and id not in index.library.grimoires:
            raise self._archive.not_found(id, index.library.grimoires)
        return near_duplicates(index.grimoires, index.vectors["rules"], of=id) if index.grimoires else []

    def search(self, query: str | Task | Sequence[str], k: int = 4, filters: Filters | None = None) -> list[Hit]:
        """Return the `k` nearest grimoires, best first.

        A grimoire is compared by its description, its requests and its profound text, or the simple one where there is
        no other; the best counts.

        Args:
            query: a question, a task, or several questions, whose scores are averaged.
            k: how many at most.
            filters: values that `task`, `strong_model`, `sampler`, `task_type`, `language` or `labels` must have.

        Raises:
            InputError: there is no question, `k` is below 1, or a filter of another name.
            EmbedderChanged: the index was made with other embeddings.
        """
        filters = filters or {}
        check_filters(filters)
        _check_count(k, "search")
        # Before the lock: a slow embedder must keep nobody waiting.
        mean = embed(self.embeddings, _questions(query), as_queries=True).mean(axis=0)
        index = self.indexed()
        if not index.grimoires:
            return []
        # The mean of unit vectors, so that its product with another one is the mean of their cosines.
        scores = np.maximum(index.nearness(mean), index.cosines("rules", mean)).clip(0.0, 1.0)
        order = np.argsort(-scores, kind="stable")
        passing = (row for row in order if passes(index.grimoires[row], filters))
        return [Hit(index.grimoires[row], float(scores[row])) for row in islice(passing, k)]

    async def asearch(self, query: str | Task | Sequence[str], k: int = 4, filters: Filters | None = None) -> list[Hit]:
        """Do what `search` does, in a thread."""
        return await run_in_executor(None, self.search, query, k, filters)

    def match(
        self, wanted: str | Task, *, texts: Sequence[str] = (), k: int = 3, threshold: float | None = None
    ) -> builtins.list[Match]:
        """Return the grimoires that fit a new task, best first; none where none fits.

        Of other embeddings than `wordllama` and `minilm` it is not known from where on something fits: then the best
        are returned whatever their score.

        Args:
            wanted: the task, or its description in a sentence.
            texts: a few texts that it is about; they sharpen the order, not what fits.
            k: how many at most.
            threshold: least similarity of the descriptions, 0 to 1; by default what was set for the embeddings.

        Raises:
            InputError: there is no description, or `k` is below 1.
            EmbedderChanged: the index was made with other embeddings.
        """
        _check_count(k, "match")
        wish = Wish.of(wanted, texts, self.embeddings)
        return matches(self.indexed(), wish, k=k, threshold=threshold)

    async def amatch(
        self, wanted: str | Task, *, texts: Sequence[str] = (), k: int = 3, threshold: float | None = None
    ) -> builtins.list[Match]:
        """Do what `match` does, in a thread."""
        return await run_in_executor(None, partial(self.match, wanted, texts=texts, k=k, threshold=threshold))

    def indexed(self) -> Indexed:
        """Return the library with its vectors, from memory as long as no file has changed."""
        library, held = self._shelf.library(), self._held
        self.problems = [*library.problems]
        if held.library is library:
            return held
        if not library.grimoires:
            return Indexed(library, {})
        try:
            with self._locked_library() as library:
                held = self._read_index(library)
        except StoreError as problem:
            if self._client is not None or not _is_forbidden(problem.__cause__):
                raise
            # A home that only others may write has no lock to be had: a copy of its index is brought into step.
            with TemporaryDirectory(prefix="sleicl-") as scratch:
                held = self._read_index(library, copied(self.home.chroma, Path(scratch) / "chroma"))
        self._held = held
        return held

    def _read_index(self, library: Library, folder: Path | None = None) -> Indexed:
        with self._chroma(folder) as client:
            in_step(client, library.grimoires, self.embeddings, self._fingerprint, self._place)
            return read_index(client, library, self._fingerprint, self._place)

    def rebuild(self) -> int:
        """Throw the index away, make it anew from the files and return the number of grimoires."""
        _ = self._fingerprint  # an embedder that fails must do so while the old index is still there
        with self._locked_library() as library:
            if self._client is None:
                discard(self.home.chroma)
            with self._chroma() as client:
                drop(client, self._place)
                in_step(client, library.grimoires, self.embeddings, self._fingerprint, self._place)
        self.problems = [*library.problems]
        return len(library.grimoires)

    @cached_property
    def embeddings(self) -> Embeddings:
        """The embeddings of the index."""
        return embedder(home=self.home) if self._given is None else self._given

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self.embeddings)

    @cached_property
    def _place(self) -> str:
        """The end of the collections' names: on a server each home has its own; needs the lock."""
        if self._client is None:
            return ""
        note = self.home.root / "server-index"
        if not note.exists():
            write_whole(note, secrets.token_hex(4) + "\n")
        return read_text(note, "the name of this home's collections on a Chroma server").strip()

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
    def _locked_library(self) -> Iterator[Library]:
        """Hold the lock and yield the library, which is read before: a slow file must keep nobody waiting."""
        for last in (False, False, True):
            library = self._shelf.library()
            with self._locked():
                # Look again at what has changed meanwhile; where that never ends, the next search puts it right.
                if last or library is self._shelf.library():
                    if problem := self._archive.notice(library):
                        self.problems.append(problem)
                    yield library
                    return

    @contextmanager
    def _chroma(self, folder: Path | None = None) -> Iterator["ClientAPI"]:
        """Yield a client, and turn Chroma's many kinds of errors into one; needs the lock."""
        try:
            if isinstance(self._client, str):
                self._opened = self._opened or open_server(self._client)
                yield self._opened
            elif self._client is not None:
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
        """Close the connection to a Chroma server, if there is one; nothing else is open between two calls.

        A given client is the caller's to close.
        """
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> "GrimoireStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The last of the class, because below it `list` would mean this method.
    def list(self) -> list[Grimoire]:
        """Return all grimoires, sorted by id; see `problems` for files that are none."""
        library = self._shelf.library()
        self.problems = [*library.problems]
        return [*library.grimoires.values()]


def _questions(query: str | Task | Sequence[str]) -> list[str]:
    if isinstance(query, Task):
        return [described(query)]
    questions = [query] if isinstance(query, str) else list(query)
    if not questions:
        raise InputError("search: found no question; expected at least one")
    return [whole_text(question, "the question") for question in questions]


def _check_count(k: int, what: str) -> None:
    if k < 1:
        raise InputError(f"{what}: found k={k}; expected at least 1")


def check_writable(grimoire: Grimoire) -> None:
    """Refuse a grimoire that cannot be kept under its id and read again.

    Raises:
        InputError: the id is no file name, or the grimoire is too large.
    """
    if not re.fullmatch(r"\w[\w .+-]*", grimoire.id) or grimoire.id.lower() == "readme":
        raise InputError(f"the grimoire's id {grimoire.id!r} cannot be a file name; expected, say, 'trec-0a1b2c3d'")
    if (size := len(grimoire.to_markdown().encode())) > TEXT_LIMIT:
        raise InputError(f"the grimoire {grimoire.id} has {size} bytes; expected at most {TEXT_LIMIT}")


@contextmanager
def _told() -> Iterator[None]:
    """Tell a damaged file of the library as what it is: the store's own."""
    try:
        yield
    except InputError as problem:
        raise StoreError(str(problem)) from None


def _is_forbidden(cause: BaseException | None) -> bool:
    return isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
