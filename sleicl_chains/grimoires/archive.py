"""What is done to the library's files: written, revised, removed, brought back, and never without a copy of before."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from pathlib import Path

from sleicl_chains.errors import GrimoireNotFound, InputError, StoreError, note
from sleicl_chains.files import Home, data_folder, write_whole
from sleicl_chains.grimoires.grimoire import Grimoire, version_id
from sleicl_chains.grimoires.shelf import Library, Shelf, markdown, parsed, read_grimoire
from sleicl_chains.grimoires.versions import Version, Versions, today


class Archive:
    """The user's files, their versions and the removed ones. Whoever changes something must hold the store's lock."""

    def __init__(self, home: Home, shelf: Shelf) -> None:
        self.versions = Versions(home.versions)
        self._home = home
        self._shelf = shelf
        self._noticed: Library | None = None

    def notice(self, library: Library) -> str:
        """Keep the texts of the user's files that were not seen before; return why that cannot be, or nothing."""
        if library is self._noticed or not (fresh := self.versions.unnoticed(library.grimoires)):
            return ""
        try:
            self._keep(fresh)
        except (OSError, InputError) as problem:
            return f"{self._home.versions}: versions cannot be kept ({problem})"
        self._noticed = library
        return ""

    def _keep(self, fresh: Mapping[str, Grimoire]) -> None:
        mine, shipped = markdown(self._home.grimoires), _shipped()
        known = {id: read_grimoire(id, shipped[id]) for id in fresh if id in mine and id in shipped}
        self.versions.notice(fresh, known, mine)

    def _keep_now(self, id: str, path: Path) -> None:
        """Keep what a file holds at this moment, before it goes: of large libraries the shelf may be a second late."""
        with suppress(InputError):
            if path.is_file():
                self._keep({id: read_grimoire(id, path)})

    def write(
        self, grimoires: Sequence[Grimoire], earlier: Mapping[str, tuple[Grimoire, ...]] | None = None
    ) -> dict[str, Grimoire]:
        """Write files, keep their versions and return what the files hold, by id; new files are written all or none.

        Raises:
            OSError: a file cannot be written.
        """
        texts = {grimoire.id: grimoire.to_markdown() for grimoire in grimoires}
        paths = {id: self._home.grimoires / f"{id}.md" for id in texts}
        new = [path for path in paths.values() if not os.path.lexists(path)]
        for id, path in paths.items():
            self._keep_now(id, path)
        try:
            for id, text in texts.items():
                write_whole(paths[id], text)
        except OSError:
            for path in new:
                path.unlink(missing_ok=True)
            raise
        for name, former in (earlier or {}).items():
            self.versions.seed(name, former)
        written = {id: parsed(id, text) for id, text in texts.items()}
        with suppress(OSError, InputError):  # it is told at the next search
            self._keep(written)
        return written

    def is_former(self, grimoire: Grimoire, library: Mapping[str, Grimoire]) -> bool:
        """Whether a text was the library's under that id and has been changed since; a note says so."""
        current = library.get(grimoire.id)
        if current is None or version_id(current) == version_id(grimoire):
            return False
        number = self.versions.number_of(grimoire)
        if number is None and grimoire.id != version_id(grimoire):
            return False
        back = f"; `sleicl grimoires restore {grimoire.id}@{number}` brings this one back" if number else ""
        note(f"{grimoire.id} was changed since and keeps its text{back}")
        return True

    def successor(self, grimoire: Grimoire, library: Mapping[str, Grimoire]) -> Grimoire:
        """Return a grimoire as the next version of what is there under its id, if that has another text.

        Raises:
            InputError: the id is a tag.
            StoreError: what is there is no grimoire.
        """
        if grimoire.id in self.versions.tags():
            raise InputError(f"{grimoire.id!r} is a tag; `sleicl grimoires tag --remove {grimoire.id}` frees the word")
        path = self._home.grimoires / f"{grimoire.id}.md"
        current = library.get(grimoire.id)
        if current is None and os.path.lexists(path):
            raise StoreError(f"{path} is there and is no grimoire; mend or rename it, and add again")
        if current is None or version_id(current) == version_id(grimoire):
            return grimoire
        note(f"{grimoire.id} was there with another text; this is its next version, and the former one is kept")
        return after(current, grimoire)

    def find(self, reference: str) -> Version:
        """Return the version that a reference stands for; a bare name stands for its current one.

        Raises:
            GrimoireNotFound: it stands for none.
            InputError: a file of it is damaged.
        """
        files = self._shelf.files()
        name, number = reference, None
        if reference not in files:
            name, number = self.versions.place_of(reference, files) or (reference, None)
        if name not in files:
            raise self.not_found(name, files)
        versions = self.history(name, files)
        found = [version for version in versions if number in (None, version.number)]
        if not found:
            raise GrimoireNotFound(f"{name} has no version {number}; it has 1 to {versions[-1].number}")
        return found[-1]

    def history(self, name: str, files: Mapping[str, Traversable]) -> list[Version]:
        """Return all versions of a name, the oldest first."""
        shipped = _shipped().get(name)
        current = read_grimoire(name, files[name])
        return self.versions.of(name, current, read_grimoire(name, shipped) if shipped else None)

    def remove(self, id: str) -> None:
        """Move a file to the removed ones.

        Raises:
            GrimoireNotFound: there is no such file.
            StoreError: the grimoire is a shipped one, or the id is that of one version.
        """
        if id in markdown(self._home.grimoires):
            self._keep_now(id, self._home.grimoires / f"{id}.md")
            self._home.removed.mkdir(exist_ok=True)
            (self._home.grimoires / f"{id}.md").replace(self._home.removed / f"{id}.md")
        elif id in (files := self._shelf.files()):
            raise StoreError(f"The grimoire {id!r} came with the package and cannot be removed: {files[id]}")
        else:
            name = self.find(id).name
            untag = f", `sleicl grimoires tag --remove {id}` the tag alone" if id in self.versions.tags() else ""
            raise StoreError(
                f"{id} is a version of {name} and is not removed alone; `sleicl grimoires restore {name}@NUMBER` makes "
                f"another one current, `sleicl grimoires remove {name}` removes all of {name}{untag}"
            )

    def removed(self) -> list[Grimoire]:
        """Return the removed grimoires, sorted by id."""
        found = []
        for id, file in sorted(markdown(self._home.removed).items()):
            with suppress(InputError):
                found.append(read_grimoire(id, file))
        return found

    def bring_back(self, id: str) -> bool:
        """Move a removed file back; return whether there is one.

        Raises:
            StoreError: another has its id by now.
        """
        if id not in markdown(self._home.removed):
            return False
        if id in markdown(self._home.grimoires):
            raise StoreError(
                f"There is a grimoire {id!r} again, and the removed one is a version of it: `sleicl grimoires "
                f"history {id}` shows which, and `restore {id}@NUMBER` makes it the current one"
            )
        self._home.grimoires.mkdir(exist_ok=True)
        (self._home.removed / f"{id}.md").replace(self._home.grimoires / f"{id}.md")
        return True

    def renewed(self, reference: str, library: Mapping[str, Grimoire]) -> Grimoire:
        """Return an earlier version as the next version of its name.

        Raises:
            GrimoireNotFound: there is no such version.
            StoreError: it is the current one.
        """
        version = self.find(reference)
        now = library[version.name]
        if version.id == version_id(now):
            raise StoreError(f"{reference} is the current text of {version.name} already; there is nothing to restore")
        provenance = replace(version.grimoire.provenance, date=today())
        return after(now, replace(version.grimoire, id=version.name, provenance=provenance))

    def not_found(self, id: str, known: Iterable[str]) -> GrimoireNotFound:
        """Return the error that names what is near, or how to bring it back."""
        if id in markdown(self._home.removed):
            return GrimoireNotFound(f"There is no grimoire {id!r}; `sleicl grimoires restore {id}` brings it back")
        known = sorted(known)
        near = [one for one in known if id and one.startswith(id)] or get_close_matches(id, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near[:3]))}?" if near else "see `sleicl grimoires list`"
        return GrimoireNotFound(f"There is no grimoire {id!r}; {hint}")


def after(former: Grimoire, grimoire: Grimoire) -> Grimoire:
    """Return a grimoire with the former one as its parent, unless its texts are the same.

    Effects that both have were measured on the former texts, and go.
    """
    if version_id(former) == version_id(grimoire):
        return grimoire
    effects = tuple(effect for effect in grimoire.effects if effect not in former.effects)
    return replace(grimoire, effects=effects, provenance=replace(grimoire.provenance, parent=version_id(former)))


def _shipped() -> dict[str, Traversable]:
    return markdown(data_folder("vectorstore/grimoires"))
