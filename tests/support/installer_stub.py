"""A program that stands in for uv and pip, see `installers`; it needs nothing but Python itself."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


def main(how: dict[str, Any], arguments: list[str]) -> None:
    """Download and unpack a package of one data file, and of code that must not run."""
    name = arguments[-1].split("==")[0]
    if how["of"] and name not in how["of"]:
        how = {"folder": how["folder"], "complaint": "", "after": "", "link": "", "until": []}
    folder = Path(how["folder"])
    number = len(list(folder.glob(f"{name}-*.began"))) + 1
    note(folder, "began", arguments)
    (folder / f"{name}-{number}.began").touch()
    try:
        unpack(how, name, Path(arguments[arguments.index("--target") + 1]))
    finally:
        note(folder, "ended", arguments)
        (folder / f"{name}-{number}.ended").touch()


def note(folder: Path, word: str, arguments: list[str]) -> None:
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"{word} {os.getpid()} {' '.join(arguments)}\n")


def unpack(how: dict[str, Any], name: str, target: Path) -> None:
    scratch = Path(os.environ["TMPDIR"])
    (scratch / "passing").mkdir()  # as installers do, which remove such folders soon
    download = scratch / "download"
    download.write_text(name + how["after"], encoding="utf-8")
    deadline = time.monotonic() + 60
    while not all(Path(path).exists() for path in how["until"]):
        if time.monotonic() > deadline:
            sys.exit(f"waited in vain for {how['until']}")
        time.sleep(0.01)
    if how["complaint"]:
        sys.exit(f"Resolving ...\n{how['complaint']}")
    package = target / name
    if how["link"] == "folder":
        (scratch / "elsewhere").mkdir()
        package.symlink_to(scratch / "elsewhere")
    else:
        package.mkdir()
    (package / "__init__.py").write_text("1/0", encoding="utf-8")  # fails if it is run
    if how["link"] == "file" or os.environ.get("UV_LINK_MODE") == "symlink":
        (package / "data.bin").symlink_to(download)
    else:
        download.rename(package / "data.bin")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
