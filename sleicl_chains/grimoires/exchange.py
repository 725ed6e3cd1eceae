"""Grimoires between people: one file with any number of them, checked on both sides.

The file is JSON: a format number, entries that hold the same Markdown as the library's files, a checksum of each text
and one of all. Checksums tell damage, not who wrote it. Importing changes no grimoire that is here.
"""

import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sleicl_chains.errors import GrimoireNotFound, InputError, StoreError, first_complaint, note
from sleicl_chains.files import EXCHANGE_LIMIT, TEXT_LIMIT, parse_json, read_text
from sleicl_chains.grimoires.grimoire import Grimoire, version_id, without_tokens
from sleicl_chains.grimoires.outside import named_outside
from sleicl_chains.grimoires.store import GrimoireStore, check_writable
from sleicl_chains.grimoires.versions import Version, check_tag

FORMAT = 1
_FORBID = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Parcel:
    """A grimoire from outside, and the texts that it had before, the oldest first."""

    grimoire: Grimoire
    earlier: tuple[Grimoire, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    """What each tag stands for: the `version_id` of one of these texts."""


@dataclass(frozen=True)
class Received:
    """What became of a parcel."""

    name: str
    """In the file."""
    id: str
    """In the library."""
    state: Literal["added", "renamed", "there already"]


class _Text(BaseModel):
    model_config = _FORBID
    markdown: str
    sha256: str
    tags: list[str] = []


class _Entry(_Text):
    name: str
    earlier: list[_Text] = []


class _File(BaseModel):
    model_config = _FORBID
    sleicl_grimoires: int
    entries: list[_Entry]
    sha256: str


def packed(store: GrimoireStore, ids: Sequence[str], *, history: bool = False) -> str:
    """Return the text of a file with the grimoires of these ids, whatever version each stands for.

    Args:
        store: where they are.
        ids: as `GrimoireStore.get` takes them; a version goes under the name of its grimoire.
        history: also the texts that each had before. Tags go along with the texts that they stand for.

    Raises:
        GrimoireNotFound: there is no such grimoire.
        InputError: two ids are of one grimoire, or the file would be too large to be read again.
    """
    versions = [store.version(id) for id in dict.fromkeys(ids)]
    names = [version.name for version in versions]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"export: found two versions of {twice[0]}; expected one, and --history takes those before it")
    entries = []
    for version in versions:
        before = [one for one in store.history(version.name) if one.number < version.number] if history else []
        earlier = {"earlier": [_text(one) for one in before]} if before else {}
        entries.append({"name": version.name, **_text(version), **earlier})
    text = json.dumps({"sleicl_grimoires": FORMAT, "sha256": _sum_of(entries), "entries": entries}, indent=1) + "\n"
    if len(text) > EXCHANGE_LIMIT:
        raise InputError(f"export: the file would have {len(text)} bytes; expected at most {EXCHANGE_LIMIT}")
    return text


def _text(version: Version) -> dict[str, object]:
    markdown = version.grimoire.to_markdown()
    tags = {"tags": list(version.tags)} if version.tags else {}
    return {"markdown": markdown, "sha256": _sha256(markdown), **tags}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _sum_of(entries: object) -> str:
    return _sha256(json.dumps(entries, sort_keys=True, separators=(",", ":")))


def read_parcels(path: Path) -> list[Parcel]:
    """Return what a file of `packed` holds; template tokens in a text are left out, its provenance says so.

    Raises:
        InputError: the file cannot be read, is of another format, is damaged, or holds what is no grimoire.
    """
    what = "a file of `sleicl grimoires export`"
    value = parse_json(read_text(path, what, EXCHANGE_LIMIT), path, what)
    found = value.get("sleicl_grimoires") if isinstance(value, dict) else None
    if type(found) is not int:
        raise InputError(f"{path}: expected {what}, which begins with its format number, sleicl_grimoires")
    if found != FORMAT:
        raise InputError(f"{path}: found format {found}; this version of sleicl-chains reads {FORMAT}")
    try:
        file = _File.model_validate(value)
        return _checked(file, value["entries"])
    except ValidationError as problem:
        raise InputError(f"{path}: {first_complaint(problem)}") from None
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from None


def _checked(file: _File, entries: object) -> list[Parcel]:
    names = [entry.name for entry in file.entries]
    if not names or len({name.casefold() for name in names}) < len(names):
        raise InputError("expected at least one entry, and none of the same name")
    if _sum_of(entries) != file.sha256:
        raise InputError("the checksum does not fit the entries; the file is damaged or was changed")
    tags = [tag for entry in file.entries for text in (*entry.earlier, entry) for tag in text.tags]
    if len(set(tags)) < len(tags):
        raise InputError("expected each tag once, for one text")
    for tag in tags:
        check_tag(tag)
    return [_parcel(entry) for entry in file.entries]


def _parcel(entry: _Entry) -> Parcel:
    texts = [(text, _grimoire(text, entry.name)) for text in (*entry.earlier, entry)]
    tags = {tag: version_id(grimoire) for text, grimoire in texts for tag in text.tags}
    *earlier, newest = (grimoire for _, grimoire in texts)
    return Parcel(newest, tuple(earlier), tags)


def _grimoire(text: _Text, name: str) -> Grimoire:
    if len(text.markdown) > TEXT_LIMIT or _sha256(text.markdown) != text.sha256:
        raise InputError(f"{name!r:.80}: the text is too large, or its checksum does not fit it")
    try:
        grimoire = without_tokens(Grimoire.from_markdown(text.markdown, id=name))
    except InputError as problem:
        raise InputError(f"{name!r:.80}: {problem}") from None
    check_writable(grimoire)
    return grimoire


def lines_to_trust(parcels: Iterable[Parcel]) -> list[str]:
    """Return what the texts name outside themselves, a line each, for a person who must trust it first."""
    return [
        f"{grimoire.id}, {field}, {said}"
        for parcel in parcels
        for grimoire in (*parcel.earlier, parcel.grimoire)
        for field, text in _fields(grimoire).items()
        for said in named_outside(text)
    ]


def _fields(grimoire: Grimoire) -> dict[str, str]:
    about = {"task": grimoire.task, "task type": grimoire.task_type, "description": grimoire.description}
    lists = {"labels": "\n".join(grimoire.labels), "requests": "\n".join(grimoire.requests)}
    return {**about, **lists, "profound text": grimoire.profound, "simple text": grimoire.simple}


def receive(store: GrimoireStore, parcels: Sequence[Parcel]) -> list[Received]:
    """Add grimoires from outside to a library, all or none, and return what became of each.

    Where the library has the name with another text, the grimoire gets the name that is made from its texts. Tags come
    along; a word that is in use here keeps its meaning, and a note says so.

    Raises:
        StoreError: that name, too, is taken by another text, another process adds it at the same time, or they cannot
            be written.
    """
    library, tags = {grimoire.id: grimoire for grimoire in store.list()}, store.tags()
    received, fresh = [], []
    for parcel in parcels:
        done = _place(parcel.grimoire, library, tags)
        received.append(done)
        if done.state != "there already":
            library[done.id] = replace(parcel.grimoire, id=done.id)
            fresh.append(Parcel(library[done.id], parcel.earlier))
    if fresh:
        earlier = {one.grimoire.id: one.earlier for one in fresh}
        store.add_all([one.grimoire for one in fresh], earlier=earlier, new=True)
    for parcel, done in zip(parcels, received, strict=True):
        for tag, id in parcel.tags.items():
            _take_tag(store, tag, done.id, id)
    return received


def _take_tag(store: GrimoireStore, tag: str, name: str, id: str) -> None:
    version = next((one for one in reversed(store.history(name)) if one.id == id), None)
    if version is None:  # the library knew of earlier texts and did not take those of the file
        note(f"the tag {tag} is left out: the text of {name} that it stands for is not here")
    elif (here := _meaning(store, tag)) is None:
        store.tag(version.reference, tag)
    elif here != version.reference:
        note(f"the tag {tag} is left out: it stands for {here} here, not for {version.reference}")


def _meaning(store: GrimoireStore, word: str) -> str | None:
    """Return the version that a word stands for; a tag may outlive what it stands for."""
    try:
        return store.tags().get(word) or store.version(word).reference
    except GrimoireNotFound:
        return None


def _place(grimoire: Grimoire, library: Mapping[str, Grimoire], tags: Container[str]) -> Received:
    id = version_id(grimoire)
    for name in (grimoire.id, id):
        if name not in library and name not in tags:
            return Received(grimoire.id, name, "added" if name == grimoire.id else "renamed")
        if name in library and version_id(library[name]) == id:
            return Received(grimoire.id, name, "there already")
    raise StoreError(f"{grimoire.id} cannot be added: the name {id} is taken, too")
