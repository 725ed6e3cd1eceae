import re
import shlex
import subprocess
from pathlib import Path

import pytest

from sleicl_chains.files import Home
from tests.support.command import Done, sleicl
from tests.test_docs import ROOT, _sessions, blocks

PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")


def run(line: str) -> Done:
    """Run a line of the page; what is not `sleicl` by a shell."""
    if line.startswith("sleicl "):
        return sleicl(*shlex.split(line)[1:])
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=20)
    return Done(done.returncode, done.stdout, done.stderr)


def test_the_page_shows_what_is_printed(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sessions = [one for block in blocks("console", PAGE) for one in _sessions(block)]
    assert len(sessions) >= 12
    for line, shown in sessions:
        done = run(line)
        assert done.status == 0, f"{line}\n{done.err}"
        printed = re.sub(r"\s+", " ", done.err + done.out)
        for part in filter(None, (re.sub(r"\s+", " ", part).strip() for part in " ".join(shown).split("..."))):
            assert part in printed, f"{line}\nshown: {part}\nprinted: {printed}"
            printed = printed[printed.index(part) + len(part) :]
