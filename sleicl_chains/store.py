"""The library of grimoires: Markdown files that people can read, and a Chroma index made from them.

The files are the truth. They may be edited, added and removed by hand; the index follows them before
each search and can be thrown away at any time.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property, lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, cast

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict

from sleicl_chains._folders import Home, data_folder
from sleicl_chains.embedders import embed, embedder, fingerprint, task_text
from sleicl_chains.errors import EmbedderChanged, GrimoireNotFound, InputError, SleiclError, StoreError
from sleicl_chains.grimoires import Grimoire
from sleicl_chains.tasks import Task

if TYPE_CHECKING:
    import numpy as np
    from chromadb import Where
    from chromadb.api import ClientAPI
    from chromadb.api.client import Client
    from chromadb.api.models.Collection import Collection
    from numpy.typing import NDArray

Item = TypeVar("Item")

_COLLECTION = "sleicl-grimoires"
_FILTERS = ("task", "strong_model", "sampler")


@dataclass(frozen=True)
class Hit:
    """A grimoire that was found."""

    grimoire: Grimoire
    score: float
    """Cosine similarity, from 0 to 1; negative ones count as 0."""


class GrimoireStore:
    """The user's grimoires and the shipped ones: add, get, list, delete and search.

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

    # -------------------------------------------------------------- files

    def add(self, grimoire: Grimoire) -> str:
        """Write a grimoire's file, index it and return its id.

        Raises:
            InputError: the id is no file name.
            StoreError: the id is there with other texts, which somebody may have corrected by hand. Or
                the file was written, but could not be indexed; the message says so.
        """
        if not re.fullmatch(r"\w[\w .+-]*", grimoire.id) or grimoire.id.lower() == "readme":
            raise InputError(f"the grimoire's id {grimoire.id!r} cannot be a file name; expected, say, 'trec-0a1b2c3d'")
        path = self.home.grimoires / f"{grimoire.id}.md"
        with self._locked():
            _keep_corrections(path, grimoire)
            _write(path, grimoire.to_markdown())
            try:
                library = self._library()
                with self._chroma() as client:
                    self._in_step(client, library)
            except SleiclError as problem:
                raise type(problem)(f"{path} is written, but cannot be searched yet: {problem}") from problem
        return grimoire.id

    def get(self, id: str) -> Grimoire:
        """Return one grimoire.

        Raises:
            GrimoireNotFound: there is no such file, or it is not a grimoire.
        """
        files = self._files()
        if id not in files:
            raise _not_found(id, files)
        try:
            return _read(id, files[id])
        except InputError as problem:
            raise GrimoireNotFound(str(problem)) from None

    def delete(self, id: str) -> None:
        """Remove a grimoire's file; the index follows at the next search.

        Raises:
            GrimoireNotFound: there is no such file.
            StoreError: the grimoire is a shipped one.
        """
        with self._locked():
            if id in _markdown(self.home.grimoires):
                (self.home.grimoires / f"{id}.md").unlink()
            elif id in (files := self._files()):
                raise StoreError(f"The grimoire {id!r} came with the package and cannot be removed: {files[id]}")
            else:
                raise _not_found(id, files)

    def _files(self) -> dict[str, Traversable]:
        try:
            return _markdown(data_folder("vectorstore/grimoires")) | _markdown(self.home.grimoires)
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

    # -------------------------------------------------------------- the index

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
        where = _where(filters)
        if k < 1:
            raise InputError(f"search: found k={k}; expected at least 1")
        # Before the lock: a slow embedder must keep nobody waiting.
        mean = embed(self._embeddings, _questions(query), as_queries=True).mean(axis=0)
        with self._locked():
            library = self._library()
            matching = sum(filters.items() <= _facts(grimoire).items() for grimoire in library.values())
            if not matching:
                return []
            with self._chroma() as client:
                collection = self._in_step(client, library)
                # Each grimoire has two records, so the best 2k hold the best k.
                scores = _scores(collection, mean, 2 * min(k, matching), where)
        best = sorted(scores, key=lambda id: (-scores[id], id))[:k]
        return [Hit(library[id], scores[id]) for id in best]

    async def asearch(
        self, query: str | Task | Sequence[str], k: int = 4, filters: Mapping[str, str] | None = None
    ) -> list[Hit]:
        """Do what `search` does, in a thread."""
        return await run_in_executor(None, self.search, query, k, filters)

    def rebuild(self) -> int:
        """Throw the index away, make it anew from the files and return the number of grimoires."""
        from chromadb.errors import NotFoundError

        _ = self._fingerprint  # an embedder that fails must do so while the old index is still there
        with self._locked():
            library = self._library()
            if self._client is None:
                _discard(self.home.chroma)
            with self._chroma() as client:
                with suppress(NotFoundError):
                    client.delete_collection(_COLLECTION)
                self._in_step(client, library)
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
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path).acquire(timeout=self._lock_timeout_s, poll_interval=0.01):
                yield
        except Timeout:
            raise StoreError(
                f"{path}: another process has held the store for {self._lock_timeout_s:g} s; wait for it or end it"
            ) from None
        except OSError as problem:
            raise StoreError(f"{self.home.root} cannot be used: {problem}") from problem

    @contextmanager
    def _chroma(self) -> Iterator["ClientAPI"]:
        """Yield a client, and turn Chroma's many kinds of errors into one; needs the lock."""
        try:
            if self._client is not None:
                yield self._client
            else:
                with _open(self.home.chroma) as client:
                    yield client
        except SleiclError:
            raise
        except Exception as problem:
            said = " ".join(str(problem).split()) or type(problem).__name__
            server = "" if self._client is None else "is the Chroma server running? Or "
            raise StoreError(
                f"The index cannot be used ({said:.300}); {server}run `sleicl grimoires rebuild`, "
                "which makes it anew from the Markdown files"
            ) from problem

    def _in_step(self, client: "ClientAPI", library: Mapping[str, Grimoire]) -> "Collection":
        """Return the collection after adding what is new in the library and deleting what is gone."""
        records = {record.id: record for grimoire in library.values() for record in _records(grimoire)}
        collection = self._collection(client)
        state = {"embedder": self._fingerprint, "library": _digest(sorted(r.digest for r in records.values()))}
        if collection.metadata == state and collection.count() == len(records):
            return collection
        collection.modify(metadata=state | {"library": "changing"})  # stays if the process is killed
        size = client.get_max_batch_size()
        found = _digests(collection, size)
        current = {id for id, digest in found.items() if id in records and records[id].digest == digest}
        # Deleted and then added: Chroma's upsert merges old metadata into new, its add keeps the old record.
        for ids in _parts([id for id in found if id not in current], size):
            collection.delete(ids=ids)
        for part in _parts([record for id, record in records.items() if id not in current], size):
            texts = [record.text for record in part]
            collection.add(
                ids=[record.id for record in part],
                documents=texts,
                embeddings=embed(self._embeddings, texts),
                metadatas=[record.metadata for record in part],
            )
        collection.modify(metadata=state)
        return collection

    def _collection(self, client: "ClientAPI") -> "Collection":
        from chromadb.errors import NotFoundError

        # No embedding function: Chroma's own would be downloaded.
        try:
            collection = client.get_collection(_COLLECTION, embedding_function=None)
        except NotFoundError:
            return client.create_collection(
                _COLLECTION,
                metadata={"embedder": self._fingerprint, "library": ""},
                # Wide enough to miss none of the nearest among 6,000 records, many of them equal.
                configuration={
                    "hnsw": {
                        "space": "cosine",
                        "ef_construction": 400,
                        "ef_search": 1000,
                        "max_neighbors": 64,
                        "sync_threshold": 100,
                    }
                },
                embedding_function=None,
            )
        found = (collection.metadata or {}).get("embedder")
        if found != self._fingerprint:
            raise EmbedderChanged(
                f"The index was made with the embedder {found}; found {self._fingerprint}. "
                "Run `sleicl grimoires rebuild`, or use the former embedder"
            )
        return collection

    # -------------------------------------------------------------- the rest

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


# ------------------------------------------------------------------ files


def _markdown(folder: Traversable) -> dict[str, Traversable]:
    """Return the grimoire files of a folder by id; a readme and temporary files are none."""
    if not folder.is_dir():
        return {}
    files = {item.name.removesuffix(".md"): item for item in folder.iterdir() if item.name.endswith(".md")}
    return {id: file for id, file in files.items() if not id.startswith(".") and id.lower() != "readme"}


def _read(id: str, file: Traversable) -> Grimoire:
    if not id.isprintable():
        raise InputError(f"{str(file)!r}: the file name holds something that cannot be printed")
    try:
        return _parsed(id, file.read_bytes().decode("utf-8-sig"))
    except OSError as problem:
        raise InputError(f"{file}: cannot be read ({problem.strerror}); expected a grimoire") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: is not UTF-8; expected a grimoire") from None
    except InputError as problem:
        raise InputError(f"{file}: {problem}") from None


@lru_cache(maxsize=4096)  # files are read before each search; parsing YAML takes much longer
def _parsed(id: str, text: str) -> Grimoire:
    return Grimoire.from_markdown(text, id=id)


def _keep_corrections(path: Path, grimoire: Grimoire) -> None:
    """Refuse to overwrite a file of the same id that holds other texts; an id is made from the texts."""
    if not path.exists():
        return
    with suppress(InputError):
        found = _read(grimoire.id, path)
        if (found.profound, found.simple) == (grimoire.profound, grimoire.simple):
            return
    raise StoreError(
        f"{path} holds other texts, edited by hand perhaps, and was kept. "
        f"Rename it, or run `sleicl grimoires remove {grimoire.id}`, and add again"
    )


def _write(path: Path, text: str) -> None:
    """Write a file so that it is there wholly or not at all, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _not_found(id: str, known: Iterable[str]) -> GrimoireNotFound:
    known = sorted(known)
    near = [one for one in known if id and one.startswith(id)] or get_close_matches(id, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near[:3]))}?" if near else "see `sleicl grimoires list`"
    return GrimoireNotFound(f"There is no grimoire {id!r}; {hint}")


# ------------------------------------------------------------------ index


class _Record(NamedTuple):
    """What the index holds of one text of a grimoire."""

    id: str
    text: str
    metadata: dict[str, str]
    digest: str
    """Changes with all of the above."""


def _facts(grimoire: Grimoire) -> dict[str, str]:
    """Return what a search can be filtered by."""
    provenance = grimoire.provenance
    return {"task": grimoire.task, "strong_model": provenance.strong_model, "sampler": provenance.sampler}


def _records(grimoire: Grimoire) -> Iterator[_Record]:
    texts = {
        "task": task_text(grimoire.task, grimoire.task_type, grimoire.description, grimoire.labels),
        "rules": grimoire.simple or grimoire.profound,
    }
    for part, text in texts.items():
        metadata = {"grimoire": grimoire.id, "part": part, **_facts(grimoire)}
        digest = _digest([text, metadata])
        yield _Record(f"{grimoire.id}:{part}", text, metadata | {"digest": digest}, digest)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _digests(collection: "Collection", size: int) -> dict[str, str]:
    """Return the digest of every record in the collection by the record's id."""
    found: dict[str, str] = {}
    for start in range(0, collection.count(), size):
        page = collection.get(limit=size, offset=start, include=["metadatas"])
        for id, metadata in zip(page["ids"], page["metadatas"] or [], strict=True):
            found[id] = str((metadata or {}).get("digest"))
    return found


def _parts(items: list[Item], size: int) -> Iterator[list[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _scores(collection: "Collection", target: "NDArray[np.float32]", n: int, where: "Where | None") -> dict[str, float]:
    """Return the cosine of the `n` nearest records with `target`, by grimoire: the better of its two.

    The target is a mean of unit vectors, so its length times its cosine is the mean of their cosines.
    """
    length = float((target @ target) ** 0.5)
    direction = (target / (length or 1.0)).tolist()
    found = collection.query(query_embeddings=[direction], n_results=n, where=where, include=["metadatas", "distances"])
    metadatas, distances = (found["metadatas"] or [[]])[0], (found["distances"] or [[]])[0]
    # Of thousands, an approximate index may leave some out at the far end; of the nearest it may not.
    if len(distances) < min(n, 100):
        raise StoreError(
            f"The index is damaged: it gave {len(distances)} records instead of {n}; run `sleicl grimoires rebuild`"
        )
    scores: dict[str, float] = {}
    for metadata, distance in zip(metadatas, distances, strict=True):
        scores.setdefault(str(metadata["grimoire"]), min(1.0, max(0.0, length * (1.0 - distance))))
    return scores


def _questions(query: str | Task | Sequence[str]) -> list[str]:
    if isinstance(query, Task):
        return [task_text(query.name, query.task_type, query.description, query.labels)]
    questions = [query] if isinstance(query, str) else list(query)
    if not questions:
        raise InputError("search: found no question; expected at least one")
    return questions


def _where(filters: Mapping[str, str]) -> "Where | None":
    """Return Chroma's form of the filters, which wants `$and` around several."""
    unknown = set(filters) - set(_FILTERS)
    if unknown:
        raise InputError(f"search: found the filter {min(unknown)!r}; expected {', '.join(_FILTERS)}")
    conditions: list[Where] = [{name: value} for name, value in filters.items()]
    return {"$and": conditions} if len(conditions) > 1 else next(iter(conditions), None)


def _open(folder: Path) -> "Client":
    from chromadb import PersistentClient
    from chromadb.api.shared_system_client import SharedSystemClient

    path = str(folder.absolute())
    try:
        return cast("Client", PersistentClient(path))
    except Exception:
        # Chroma keeps a client that failed to start, and would hand it out after the index is repaired.
        SharedSystemClient._identifier_to_system.pop(path, None)
        raise


def _discard(folder: Path) -> None:
    """Remove the index in a folder."""
    # Renamed first: after a kill half of an index must not stand where a whole one is expected.
    old = folder.with_name(f"{folder.name}.old")
    _remove(old)
    with suppress(FileNotFoundError):
        folder.rename(old)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ------------------------------------------------------------------ LangChain


class GrimoireRetriever(BaseRetriever):
    """The nearest grimoires as documents: the text, its id, and task, model, sampler and score as metadata."""

    store: GrimoireStore
    k: int = 4
    filters: Mapping[str, str] | None = None
    """Values that `task`, `strong_model` or `sampler` must have."""
    form: Literal["simple", "profound"] = "profound"
    """Which text is given; where it is empty, the other."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return [self._document(hit) for hit in self.store.search(query, self.k if k is None else k, self.filters)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return [
            self._document(hit) for hit in await self.store.asearch(query, self.k if k is None else k, self.filters)
        ]

    def _document(self, hit: Hit) -> Document:
        grimoire = hit.grimoire
        profound, simple = grimoire.profound, grimoire.simple
        text = (simple or profound) if self.form == "simple" else (profound or simple)
        return Document(
            text, id=grimoire.id, metadata={"grimoire": grimoire.id, **_facts(grimoire), "score": hit.score}
        )
