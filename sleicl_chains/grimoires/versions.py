"""Versions: every text that a grimoire of the library has had.

A grimoire's file name is its *name*. It stays while the text changes: what a script, a recipe or a person's memory
calls `desk` goes on working, and no editor finds its file renamed. A *version* is a text; its id is made from it, by
`version_id`. Description, labels and provenance are facts about a text and make no version of their own.

The library keeps a copy of each text that it sees, numbered, in the home's `versions/NAME.NUMBER-HASH.md`. A file whose
text is not that of its newest copy was changed by hand: it becomes the next version, whose parent is the id of the one
before. The file itself is not touched. `NAME@2` is the second version of a name, and a tag is another word for such a
one. A shipped grimoire is the first version of its name.
"""

import json
import re
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from difflib import SequenceMatcher, unified_diff
from pathlib import Path
from typing import NamedTuple

from sleicl_chains.errors import InputError, StoreError
from sleicl_chains.files import TEXT_LIMIT, parse_json, read_text, write_whole
from sleicl_chains.grimoires.grimoire import Effect, Grimoire, version_id

_COPY = re.compile(r"(.+)\.(\d{4,})-([0-9a-f]{8})\.md")
_CONTENT_ID = re.compile(r"(.+)-[0-9a-f]{8}")
_TAG = re.compile(r"\w[\w.+-]{0,63}")


@dataclass(frozen=True)
class Version:
    """One text that a grimoire has had."""

    name: str
    number: int
    """From 1 upwards."""
    grimoire: Grimoire
    """Its id is `reference`; its provenance names the parent."""
    tags: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """What `GrimoireStore.get` finds it by, as desk@2."""
        return f"{self.name}@{self.number}"

    @property
    def id(self) -> str:
        """The id that is made from its texts."""
        return version_id(self.grimoire)


class _Copy(NamedTuple):
    number: int
    hash: str
    path: Path

    def read(self, name: str) -> Grimoire:
        try:
            return Grimoire.from_markdown(read_text(self.path, "a version of a grimoire"), id=f"{name}@{self.number}")
        except InputError as problem:
            raise InputError(f"{self.path}: {problem}") from None


class Versions:
    """The copies in a folder. Whoever writes must hold the store's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._noticed: dict[str, Grimoire] = {}

    def unnoticed(self, current: Mapping[str, Grimoire]) -> dict[str, Grimoire]:
        """Return those that are not what the latest `notice` saw: cheap, because most are the very same objects."""
        seen = self._noticed
        return {name: one for name, one in current.items() if seen.get(name) is not one and seen.get(name) != one}

    def notice(self, current: Mapping[str, Grimoire], shipped: Mapping[str, Grimoire], mine: Container[str]) -> None:
        """Keep a copy of each text that is new and the user's, the shipped one of that name before it.

        Raises:
            OSError: a copy cannot be written.
        """
        copies = self._copies()
        for name, grimoire in current.items():
            kept = copies.get(name, [])
            if name in mine and not kept and name in shipped:
                kept = [self._keep(name, 1, shipped[name])]
            # A shipped one that is back because the user's was removed is the next version of its name, too.
            if (kept or name in mine) and (not kept or kept[-1].hash != _hash(grimoire)):
                self._keep(name, kept[-1].number + 1 if kept else 1, _with_parent(name, grimoire, kept))
            self._noticed[name] = grimoire

    def seed(self, name: str, earlier: tuple[Grimoire, ...]) -> None:
        """Keep the earlier texts of a name that has none yet, the oldest first."""
        if name not in self._copies():
            for number, grimoire in enumerate(earlier, 1):
                self._keep(name, number, grimoire)

    def of(self, name: str, current: Grimoire, shipped: Grimoire | None = None) -> list[Version]:
        """Return all versions of a name, the oldest first.

        Args:
            name: a grimoire's.
            current: what its file holds: the facts about the newest version are taken from it.
            shipped: what shipped under that name, if anything did.

        Raises:
            InputError: a copy is damaged.
        """
        tags = self.tags()
        found = [
            Version(name, copy.number, copy.read(name), _tags_of(tags, name, copy.number)) for copy in self._of(name)
        ]
        if not found and shipped:
            found = [Version(name, 1, replace(shipped, id=f"{name}@1"), _tags_of(tags, name, 1))]
        if not found or found[-1].id != version_id(current):
            # A home that may only be read: what was edited there is the newest all the same.
            number = found[-1].number + 1 if found else 1
            unseen = replace(_with_parent(name, current, self._of(name)), id=f"{name}@{number}")
            return [*found, Version(name, number, unseen, _tags_of(tags, name, number))]
        newest = found[-1]
        known = newest.grimoire.provenance
        provenance = replace(current.provenance, parent=known.parent, date=known.date)
        grimoire = replace(current, id=newest.reference, provenance=provenance)
        return [*found[:-1], replace(newest, grimoire=grimoire)]

    def place_of(self, reference: str, names: Container[str]) -> tuple[str, int] | None:
        """Return name and number of what `NAME@2`, a tag or the id of a version of one of `names` stands for."""
        reference = self.tags().get(reference, reference)
        name, at, number = reference.rpartition("@")
        if at and re.fullmatch(r"[0-9]{1,9}", number):
            return name, int(number)
        for name, copies in self._copies().items():
            for copy in reversed(copies if name in names else []):
                if reference.endswith(f"-{copy.hash}") and version_id(copy.read(name)) == reference:
                    return name, copy.number
        return None

    def number_of(self, grimoire: Grimoire) -> int | None:
        """Return the number of the latest version under the grimoire's id that has its texts."""
        return next((copy.number for copy in reversed(self._of(grimoire.id)) if copy.hash == _hash(grimoire)), None)

    def tags(self) -> dict[str, str]:
        """Return what each tag stands for, as desk@2.

        Raises:
            StoreError: the file of the tags is damaged.
        """
        path = self.folder / "tags.json"
        if not path.exists():
            return {}
        what = "tags and what they stand for"
        try:
            found = parse_json(read_text(path, what), path, what)
            if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
                raise InputError(f"{path}: expected {what}")
        except InputError as problem:
            mend = 'mend it, as in {"best": "mine@2"}, or move it away: only the tags are gone then'
            raise StoreError(f"{problem}; {mend}") from None
        return found

    def set_tag(self, tag: str, reference: str | None) -> None:
        """Let a tag stand for a version, or for none.

        Raises:
            InputError: it is no word, or there is no such tag to remove.
        """
        tags = self.tags()
        check_tag(tag)
        if reference is None and tag not in tags:
            known = f"there are {', '.join(tags)}" if tags else "there are none"
            raise InputError(f"There is no tag {tag!r}; {known}")
        left = {name: version for name, version in tags.items() if name != tag}
        left |= {tag: reference} if reference else {}
        text = json.dumps(left, ensure_ascii=False, indent=1) + "\n"
        if len(text.encode()) > TEXT_LIMIT:
            raise InputError(f"there are {len(tags)} tags, and no room for {tag!r}; remove some")
        write_whole(self.folder / "tags.json", text)

    def _of(self, name: str) -> list[_Copy]:
        return self._copies().get(name, [])

    def _copies(self) -> dict[str, list[_Copy]]:
        found: dict[str, list[_Copy]] = {}
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if (parts := _COPY.fullmatch(path.name)) is not None:
                    found.setdefault(parts[1], []).append(_Copy(int(parts[2]), parts[3], path))
        return {name: sorted(copies) for name, copies in found.items()}

    def _keep(self, name: str, number: int, grimoire: Grimoire) -> _Copy:
        hash = _hash(grimoire)
        path = self.folder / f"{name}.{number:04}-{hash}.md"
        # Not waited for: thousands of files may be seen at once, and after a power cut it is made again.
        write_whole(path, grimoire.to_markdown(), sync=False)
        return _Copy(number, hash, path)


def check_tag(tag: str) -> None:
    """Refuse what is no word.

    Raises:
        InputError: it is none.
    """
    if not _TAG.fullmatch(tag):
        raise InputError(f"the tag {tag!r:.80} cannot be one; expected a word such as 'best' of at most 64 characters")


def _hash(grimoire: Grimoire) -> str:
    return version_id(grimoire)[-8:]


def _tags_of(tags: Mapping[str, str], name: str, number: int) -> tuple[str, ...]:
    return tuple(tag for tag, reference in tags.items() if reference == f"{name}@{number}")


def _with_parent(name: str, grimoire: Grimoire, kept: list[_Copy]) -> Grimoire:
    """Return what was seen in a file as the version after the newest of those that were kept."""
    parent = grimoire.provenance.parent
    if kept:
        with suppress(InputError):  # a damaged copy
            parent = version_id(kept[-1].read(name))
    elif (id := version_id(grimoire)) != name and _CONTENT_ID.fullmatch(name) and name[:-8] == id[:-8]:
        parent = name  # changed before the library had seen it: only the name tells what it was
    if parent in ("", grimoire.provenance.parent):
        return grimoire
    provenance = replace(grimoire.provenance, parent=parent, date=today())
    return replace(grimoire, provenance=provenance, effects=_own_effects(grimoire, name, kept))


def _own_effects(grimoire: Grimoire, name: str, kept: list[_Copy]) -> tuple[Effect, ...]:
    """Return the effects that are not of the former text: whoever edits a text leaves its front matter as it is."""
    former: tuple[Effect, ...] = grimoire.effects
    if kept:
        with suppress(InputError):
            former = kept[-1].read(name).effects
    return tuple(effect for effect in grimoire.effects if effect not in former)


def today() -> str:
    """Return the UTC day, as provenance has it."""
    return f"{datetime.now(UTC):%F}"


def changes(before: Grimoire, after: Grimoire) -> str:
    """Return in one line what changed between two texts, as "profound: 2 lines added, 1 removed"."""
    said = [f"task: {before.task} is now {after.task}"] if before.task != after.task else []
    for name in ("profound", "simple"):
        old, new = (getattr(one, name).split("\n") if getattr(one, name) else [] for one in (before, after))
        codes = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        blocks = [block for block in codes if block[0] != "equal"]
        added, removed = sum(block[4] - block[3] for block in blocks), sum(block[2] - block[1] for block in blocks)
        if blocks:
            parts = [f"{added} line{'s' * (added != 1)} added"] * bool(added) + [f"{removed} removed"] * bool(removed)
            said.append(f"{name}: {', '.join(parts)}")
    return "; ".join(said) or "the same text"


def difference(before: Grimoire, after: Grimoire) -> str:
    """Return the unified diff of two grimoires as Markdown; empty where they are equal."""
    old, new = (grimoire.to_markdown().split("\n") for grimoire in (before, after))
    return "\n".join(unified_diff(old, new, fromfile=before.id, tofile=after.id, lineterm=""))
