"""The Chroma index of the grimoires: their vectors, made from the Markdown files and kept in step with them.

There is one collection a field: `task`, `rules` and `requests`, of which a grimoire may have several or none. A
record's id ends in a hash of what it holds, so that ids alone tell what is new and what is gone, whoever wrote the
index and wherever he was stopped. The index is read whole: a library fits into memory, where comparing all of it takes
less than asking. Whatever is here may be thrown away.
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, cast, get_args
from urllib.parse import urlsplit

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import NDArray

from sleicl_chains.errors import EmbedderChanged, InputError, StoreError, one_line
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.shelf import Library
from sleicl_chains.hashes import short_hash
from sleicl_chains.models.embedders import embed, task_text
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import plain

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.client import Client
    from chromadb.api.models.Collection import Collection

Item = TypeVar("Item")
Field = Literal["task", "rules", "requests"]
FIELDS: tuple[Field, ...] = get_args(Field)
BEST_OF_SEVERAL = 0.05
"""Taken off the similarity to the nearest request: the nearest of several is nearer by chance than one description. Of
0, .05, .1 and .15 the one that told best what fits, on the 100 descriptions of benchmarks/match."""
_FORMER = "sleicl-grimoires"
"""The one collection that earlier versions had for both fields."""


@dataclass(frozen=True, eq=False)
class Indexed:
    """A library and its vectors: for each field (n_texts, n_dims), rows of unit length, in the library's order.

    Of `task` and `rules` there is one text a grimoire, of `requests` as many as it has.
    """

    library: Library
    vectors: Mapping[Field, NDArray[np.float32]]

    @cached_property
    def grimoires(self) -> list[Grimoire]:
        """In the order of the rows."""
        return [*self.library.grimoires.values()]

    def cosines(self, field: Field, vector: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return what each grimoire's nearest vector has in common with one of unit length: (n_grimoires,).

        It is -1 for a grimoire that has no text of the field.
        """
        # One thread: on a busy machine the threads of a matrix product wait for each other longer than it takes.
        found: NDArray[np.floating[Any]] = np.einsum("nd,d->n", self.vectors[field], vector.astype(np.float32))
        if field != "requests":
            return found
        best: NDArray[np.floating[Any]] = np.full(len(self.grimoires), -1.0, dtype=np.float32)
        np.maximum.at(best, self._asked, found)
        return best

    def nearness(self, vector: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Return how near each grimoire's description, or the nearest of its requests, is to a text: (n_grimoires,)."""
        asked = self.cosines("requests", vector) - BEST_OF_SEVERAL
        found: NDArray[np.floating[Any]] = np.maximum(self.cosines("task", vector), asked)
        return found

    def nearest_text(self, row: int, vector: NDArray[np.floating[Any]]) -> str:
        """Return which of a grimoire's description and requests is nearest to a text."""
        grimoire = self.grimoires[row]
        asked = self.vectors["requests"][self._asked == row]
        scores = [self.vectors["task"][row] @ vector, *(asked @ vector - BEST_OF_SEVERAL)]
        return [described(grimoire), *grimoire.requests][int(np.argmax(scores))]

    @cached_property
    def _asked(self) -> NDArray[np.intp]:
        """Which grimoire each request is of: (n_requests,)."""
        return np.repeat(np.arange(len(self.grimoires)), [len(one.requests) for one in self.grimoires])

    @cached_property
    def by_label(self) -> Mapping[str, Sequence[int]]:
        """The rows of the grimoires that have a label, by the folded label."""
        rows = defaultdict(list)
        for row, grimoire in enumerate(self.grimoires):
            for label in folded(grimoire.labels):
                rows[label].append(row)
        return dict(rows)


def folded(labels: Sequence[str]) -> frozenset[str]:
    """Return labels as they are compared: without case, and `not_spam` as `not spam`."""
    return frozenset(" ".join(plain(label).replace("_", " ").replace("-", " ").split()) for label in labels)


def described(task: Task | Grimoire) -> str:
    """Return the text by which tasks are compared: the description, or name, type and labels where there is none."""
    name = task.name if isinstance(task, Task) else task.task
    return task.description.strip() or task_text(name, task.task_type, "", task.labels)


class _Record(NamedTuple):
    """What the index holds of one text of a grimoire."""

    id: str
    text: str
    metadata: dict[str, str]


def facts(grimoire: Grimoire) -> dict[str, str]:
    """Return what is told of a grimoire beside its text."""
    provenance = grimoire.provenance
    return {"task": grimoire.task, "strong_model": provenance.strong_model, "sampler": provenance.sampler}


def _records(grimoire: Grimoire, field: Field) -> list[_Record]:
    metadata = {"grimoire": grimoire.id, **facts(grimoire)}
    return [
        _Record(f"{grimoire.id}:{short_hash(json.dumps([text, metadata]))}", text, metadata)
        for text in texts_of(grimoire, field)
    ]


def texts_of(grimoire: Grimoire, field: Field) -> Sequence[str]:
    """Return the texts of a grimoire's field."""
    return {"task": (described(grimoire),), "rules": (grimoire.text(),), "requests": grimoire.requests}[field]


def in_step(
    client: "ClientAPI", grimoires: Mapping[str, Grimoire], embeddings: Embeddings, fingerprint: str, place: str = ""
) -> None:
    """Add what is new in the library to the index, and delete what is gone.

    Args:
        client: of the index.
        grimoires: by id.
        embeddings: of what is new.
        fingerprint: of the embeddings.
        place: sets the collections apart from those of other homes on the same server.
    """
    size = client.get_max_batch_size()
    for field in FIELDS:
        collection = _collection(client, field, fingerprint, place)
        records = {record.id: record for grimoire in grimoires.values() for record in _records(grimoire, field)}
        found = {id for page in _pages(collection, size) for id in page["ids"]}
        for ids in _parts(sorted(found - records.keys()), size):
            collection.delete(ids=ids)
        for part in _parts([record for id, record in records.items() if id not in found], size):
            texts = [record.text for record in part]
            collection.add(
                ids=[record.id for record in part],
                documents=texts,
                embeddings=embed(embeddings, texts),
                metadatas=[record.metadata for record in part],
            )


def read_index(client: "ClientAPI", library: Library, fingerprint: str, place: str = "") -> Indexed:
    """Return the vectors of a library with which the index is in step.

    Raises:
        StoreError: the index lacks some.
    """
    size, vectors = client.get_max_batch_size(), {}
    for field in FIELDS:
        collection = _collection(client, field, fingerprint, place)
        rows: dict[str, Any] = {}
        for page in _pages(collection, size, "embeddings"):
            rows |= zip(page["ids"], page["embeddings"], strict=True)
        wanted = [record.id for grimoire in library.grimoires.values() for record in _records(grimoire, field)]
        if missing := len(wanted) - sum(id in rows for id in wanted):
            raise StoreError(
                f"The index is damaged: it lacks {missing} of {len(wanted)} records; run `sleicl grimoires rebuild`"
            )
        vectors[field] = np.array([rows[id] for id in wanted], dtype=np.float32)
    vectors["requests"] = vectors["requests"].reshape(-1, vectors["task"].shape[1])  # also where there is none
    return Indexed(library, vectors)


def drop(client: "ClientAPI", place: str = "") -> None:
    """Delete the collections."""
    from chromadb.errors import NotFoundError

    for name in (*(_name(field, place) for field in FIELDS), _FORMER):
        with suppress(NotFoundError):
            client.delete_collection(name)


def _name(field: Field, place: str) -> str:
    return "-".join(filter(None, ["sleicl", field, place]))


def _collection(client: "ClientAPI", field: Field, fingerprint: str, place: str) -> "Collection":
    from chromadb.errors import NotFoundError

    name = _name(field, place)
    # No embedding function: Chroma's own would be downloaded.
    try:
        collection = client.get_collection(name, embedding_function=None)
    except NotFoundError:
        with suppress(NotFoundError):
            client.delete_collection(_FORMER)
        return client.create_collection(
            name,
            metadata={"embedder": fingerprint},
            configuration={"hnsw": {"space": "cosine", "sync_threshold": 100}},
            embedding_function=None,
        )
    found = (collection.metadata or {}).get("embedder")
    if found != fingerprint:
        raise EmbedderChanged(
            f"The index was made with the embedder {found}; found {fingerprint}. "
            "Run `sleicl grimoires rebuild`, or use the former embedder"
        )
    return collection


def _pages(collection: "Collection", size: int, *include: Literal["embeddings"]) -> Iterator[Any]:
    for start in range(0, collection.count(), size):
        yield collection.get(limit=size, offset=start, include=[*include])


def _parts(items: list[Item], size: int) -> Iterator[list[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def open_client(folder: Path) -> "Client":
    """Return a client of the index in a folder, which is made if need be; the caller closes it."""
    from chromadb import PersistentClient
    from chromadb.api.shared_system_client import SharedSystemClient

    path = str(folder.absolute())
    try:
        return cast("Client", PersistentClient(path))
    except Exception:
        # Chroma keeps a client that failed to start, and would hand it out after the index is repaired.
        SharedSystemClient._identifier_to_system.pop(path, None)
        raise


def open_server(url: str) -> "Client":
    """Return a client of a Chroma server, as `chroma run` starts one.

    Raises:
        InputError: the address is none of such a server.
        StoreError: nothing answers there.
    """
    from chromadb import HttpClient

    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 8000)
    except ValueError:
        parts, port = urlsplit(""), 0
    # A password in an address would end up in messages and logs; `chroma run` knows none.
    extras = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname or extras:
        raise InputError(f"the Chroma server's address is {url!r}; expected, say, http://127.0.0.1:8000")
    try:
        return cast("Client", HttpClient(host=parts.hostname, port=port, ssl=parts.scheme == "https"))
    except Exception as problem:  # of several kinds, none of them Chroma's own
        raise StoreError(
            f"No Chroma server answers at {url} ({one_line(problem):.200}); start one with `chroma run --path DIR "
            f"--host {parts.hostname} --port {port}`"
        ) from problem


def copied(folder: Path, to: Path) -> Path:
    """Copy the index in a folder, without its modes; return the copy's folder."""
    for file in folder.rglob("*"):
        if file.is_file():
            target = to / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return to


def discard(folder: Path) -> None:
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
