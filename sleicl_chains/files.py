"""Files: where they are, the one door by which those of others come in, and how ours are written.

A file that somebody was sent may be a pipe that never ends, a gigabyte, or a page that unfolds to one. So
whatever is read goes through `read_text`, `read_file` or `open_file`, and JSON through `parse_json`.
"""

import errno
import json
import os
import re
import secrets
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from io import BufferedReader
from pathlib import Path
from typing import Any

from sleicl_chains.errors import InputError

SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Half of a pair: JSON makes it, UTF-8 cannot hold it."""
_MIB = 2**20
TEXT_LIMIT = _MIB
"""Bytes of a grimoire or a card: what a person writes, or a model in one reply."""
PASTE_LIMIT = 16 * _MIB
"""Of a prompt or a reply that a person carries; a prompt holds examples."""
REPORT_LIMIT = 64 * _MIB
"""Of a run's figures: they grow with labels and arms, not with rows."""
EXCHANGE_LIMIT = 64 * _MIB
"""Of a file of exported grimoires."""
RECIPE_LIMIT = 256 * _MIB
"""Of a recipe: one for `knn` holds all its training rows."""
ROWS_LIMIT = 1024 * _MIB
"""Of rows, and of a run's answers, which are as many as rows times arms; read whole, they take some five times as
much memory."""


def data_folder(name: str) -> Traversable:
    """Return a shipped folder: inside the package when installed, beside it in a checkout."""
    shipped = files("sleicl_chains")
    for part in name.split("/"):
        shipped = shipped / part
    return shipped if shipped.is_dir() else Path(__file__).parent.parent / name


def write_whole(path: Path, text: str, *, mode: int = 0o666, sync: bool = True) -> None:
    """Write a file so that it is there wholly or not at all, even after a power cut.

    `mode` is what others may do with it, less what the process's umask takes away. Without `sync`, which waits for the
    disk, what was written just before a power cut may be lost.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path = Path(os.path.realpath(path))  # what a link points to is written, and the link stays
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no file that could be replaced", str(path))
    # A name of its own: two processes may write one file at once. `mkstemp` would leave the umask out. What a
    # crash leaves begins with a dot and is read by nobody.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            file.write(text.encode())
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def refuse_unwritable(path: Path) -> None:
    """Make sure that a file could be written, before anything is asked or paid for.

    Raises:
        InputError: it is a folder, its folder is missing or closed to writing, or its name is too long.
    """
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(path).st_mode):
                raise InputError(f"{path}: this is a folder; expected the file to write")
        if not os.path.isdir(path.parent):
            raise InputError(f"{path}: there is no folder {path.parent}; make it first")
        with tempfile.TemporaryFile(dir=os.path.realpath(path.parent)):
            pass
    except OSError as problem:
        raise InputError(
            f"{path}: cannot be written ({problem.strerror}); expected a file in a folder of yours"
        ) from None


def open_file(path: Path) -> BufferedReader:
    """Open a file to be read; what is none (a pipe, a device, a folder) is refused and not waited for.

    Raises:
        OSError: it is no regular file, or cannot be opened.
    """
    # Not blocking, or a pipe would wait for a writer; and looked at once open, because it may change after a look.
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
    handle = os.open(path, flags)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "this is a folder", str(path))
    raise OSError(errno.EINVAL, "this is a pipe or a device, not a file", str(path))


def read_file(path: Path, what: str, limit: int = TEXT_LIMIT) -> bytes:
    """Return a file's bytes.

    Args:
        path: of a regular file.
        what: what is expected there, for the complaint.
        limit: in bytes.

    Raises:
        InputError: the file is missing, is no regular file, cannot be read, or is larger than the limit.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > limit else _up_to(file, limit + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; expected {what}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: this is a folder; expected {what}") from None
    except (OSError, ValueError) as problem:  # ValueError: a zero byte in the path
        said = getattr(problem, "strerror", None) or problem
        raise InputError(f"{path}: cannot be read ({said}); expected {what}") from None
    if max(size, len(data)) > limit:
        raise InputError(f"{path}: found more than {limit // _MIB} MiB; expected {what}, which is smaller")
    return data


def _up_to(file: BufferedReader, count: int) -> bytes:
    """Read in parts: the size that a file is said to have may be wrong, and room for `count` is not needed at once."""
    parts: list[bytes] = []
    while count > 0 and (part := file.read(min(count, _MIB))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def read_text(path: Path, what: str, limit: int = TEXT_LIMIT) -> str:
    """Return a UTF-8 file's text; see `read_file`.

    Raises:
        InputError: the file cannot be read, has another encoding, or is not text at all.
    """
    data = read_file(path, what, limit)
    try:
        text = data.decode("utf-8-sig")
        place = data.find(b"\0")  # valid UTF-8, but no text file holds one
    except UnicodeDecodeError as problem:
        place = problem.start
    if place < 0:
        return text
    line = data.count(b"\n", 0, place) + 1
    raise InputError(f"{path}, line {line}: found byte 0x{data[place]:02x}, which is not UTF-8 text; expected {what}")


def parse_json(text: str, path: Path, expected: str, line: int = 0) -> Any:
    """Return the value; `line` is where the text stands, if it is not the whole file.

    Raises:
        InputError: it is no JSON, nested too deeply, or has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct)
    except RecursionError:
        found = "nested too deeply"
    except InputError as problem:
        found = str(problem)
    except json.JSONDecodeError as problem:
        line, found = line or problem.lineno, f"{problem.msg}, column {problem.colno}"
    except ValueError:
        found = "a number of too many digits"
    where = f"{path}, line {line}" if line else f"{path}"
    raise InputError(f"{where}: not valid JSON ({found}); expected {expected}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; the first of two equal keys would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise InputError(f"the key {next(key for key in keys if keys.count(key) > 1)!r:.80} stands twice")
    return found


@dataclass(frozen=True)
class Home:
    """The user's folder: grimoires and their index, journal, weights, digests, readings and runs."""

    root: Path

    @classmethod
    def at(cls, path: str | Path | None = None) -> "Home":
        """Return the home at `path`, else at `$SLEICL_HOME`, else in the platform's data folder."""
        chosen = path or os.environ.get("SLEICL_HOME")
        if not chosen:
            from platformdirs import user_data_dir

            chosen = user_data_dir("sleicl", appauthor=False)
        return cls(Path(chosen).expanduser())

    def make(self) -> "Home":
        """Make the folder if it is missing, for its owner alone; the journal holds the user's rows."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self

    @property
    def index_embeddings(self) -> str:
        """Name of the embeddings that the index was last rebuilt with."""
        note = self.root / "index-embeddings"
        return read_text(note, "the name of embeddings").strip() if note.exists() else "wordllama"

    def remember_embeddings(self, name: str) -> None:
        """Note the embeddings of the index."""
        write_whole(self.make().root / "index-embeddings", name + "\n")

    @property
    def grimoires(self) -> Path:
        """Markdown files, the source of truth of the store."""
        return self.root / "grimoires"

    @property
    def versions(self) -> Path:
        """A copy of each text that a grimoire has had."""
        return self.root / "versions"

    @property
    def removed(self) -> Path:
        """Grimoires that were taken out of the library."""
        return self.root / "removed"

    @property
    def chroma(self) -> Path:
        """The index, derived from the Markdown files."""
        return self.root / "chroma"

    @property
    def journal(self) -> Path:
        """Every model call by its full request."""
        return self.root / "journal.sqlite"

    @property
    def weights(self) -> Path:
        """Weights of the embedded models."""
        return self.root / "weights"

    @property
    def digests(self) -> Path:
        """Digests of files of weights, each for as long as its file stays as it is."""
        return self.root / "digests"

    @property
    def readings(self) -> Path:
        """How well models follow guides, a file each by the digest of their weights."""
        return self.root / "readings"

    @property
    def runs(self) -> Path:
        """One folder an evaluation."""
        return self.root / "runs"
