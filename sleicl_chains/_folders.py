"""Where things are: data files shipped with the package, and the user's home folder."""

import os
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def data_folder(name: str) -> Traversable:
    """Return a shipped folder: inside the package when installed, beside it in a checkout."""
    shipped = files("sleicl_chains")
    for part in name.split("/"):
        shipped = shipped / part
    return shipped if shipped.is_dir() else Path(__file__).parent.parent / name


def write_whole(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a file so that it is there wholly or not at all, even after a power cut.

    `mode` is what others may do with it, less what the process's umask takes away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # one that a crash left may have another mode
    with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@dataclass(frozen=True)
class Home:
    """The user's folder: `grimoires/`, `chroma/`, `journal.sqlite`, `weights/` and `runs/`."""

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
        return note.read_text(encoding="utf-8").strip() if note.exists() else "wordllama"

    def remember_embeddings(self, name: str) -> None:
        """Note the embeddings of the index."""
        (self.make().root / "index-embeddings").write_text(name + "\n", encoding="utf-8")

    @property
    def grimoires(self) -> Path:
        """Markdown files, the source of truth of the store."""
        return self.root / "grimoires"

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
    def runs(self) -> Path:
        """One folder an evaluation."""
        return self.root / "runs"
