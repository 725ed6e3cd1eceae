"""The Chroma index of the grimoires: made from the Markdown files, kept in step with them, searched.

Whatever is here may be thrown away and made again.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from langchain_core.embeddings import Embeddings

from sleicl_chains.errors import EmbedderChanged, InputError, StoreError
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.hashes import short_hash
from sleicl_chains.models.embedders import embed, task_text

if TYPE_CHECKING:
    import numpy as np
    from chromadb import Where
    from chromadb.api import ClientAPI
    from chromadb.api.client import Client
    from chromadb.api.models.Collection import Collection
    from numpy.typing import NDArray

Item = TypeVar("Item")

COLLECTION = "sleicl-grimoires"
_FILTERS = ("task", "strong_model", "sampler")


class _Record(NamedTuple):
    """What the index holds of one text of a grimoire."""

    id: str
    text: str
    metadata: dict[str, str]
    digest: str
    """Changes with all of the above."""


def facts(grimoire: Grimoire) -> dict[str, str]:
    """Return what a search can be filtered by."""
    provenance = grimoire.provenance
    return {"task": grimoire.task, "strong_model": provenance.strong_model, "sampler": provenance.sampler}


def _records(grimoire: Grimoire) -> Iterator[_Record]:
    texts = {
        "task": task_text(grimoire.task, grimoire.task_type, grimoire.description, grimoire.labels),
        "rules": grimoire.simple or grimoire.profound,
    }
    for part, text in texts.items():
        metadata = {"grimoire": grimoire.id, "part": part, **facts(grimoire)}
        digest = _digest([text, metadata])
        yield _Record(f"{grimoire.id}:{part}", text, metadata | {"digest": digest}, digest)


def in_step(
    client: "ClientAPI", library: Mapping[str, Grimoire], embeddings: Embeddings, fingerprint: str
) -> "Collection":
    """Return the collection after adding what is new in the library and deleting what is gone."""
    records = {record.id: record for grimoire in library.values() for record in _records(grimoire)}
    collection = _collection(client, fingerprint)
    state = {"embedder": fingerprint, "library": _digest(sorted(r.digest for r in records.values()))}
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
            embeddings=embed(embeddings, texts),
            metadatas=[record.metadata for record in part],
        )
    collection.modify(metadata=state)
    return collection


def _collection(client: "ClientAPI", fingerprint: str) -> "Collection":
    from chromadb.errors import NotFoundError

    # No embedding function: Chroma's own would be downloaded.
    try:
        collection = client.get_collection(COLLECTION, embedding_function=None)
    except NotFoundError:
        return client.create_collection(
            COLLECTION,
            metadata={"embedder": fingerprint, "library": ""},
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
    if found != fingerprint:
        raise EmbedderChanged(
            f"The index was made with the embedder {found}; found {fingerprint}. "
            "Run `sleicl grimoires rebuild`, or use the former embedder"
        )
    return collection


def _digest(content: object) -> str:
    return short_hash(json.dumps(content))


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


def nearest(collection: "Collection", target: "NDArray[np.float32]", n: int, where: "Where | None") -> dict[str, float]:
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


def where_of(filters: Mapping[str, str]) -> "Where | None":
    """Return Chroma's form of the filters, which wants `$and` around several."""
    unknown = set(filters) - set(_FILTERS)
    if unknown:
        raise InputError(f"search: found the filter {min(unknown)!r}; expected {', '.join(_FILTERS)}")
    conditions: list[Where] = [{name: value} for name, value in filters.items()]
    return {"$and": conditions} if len(conditions) > 1 else next(iter(conditions), None)


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
