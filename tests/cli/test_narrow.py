"""Tables on a terminal: whole where there is room, a paragraph a row where there is not."""

import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.support.command import Desk, environment

PROGRAM = "from sleicl_chains.cli import main; main()"


def on_terminal(columns: int, *command: object) -> list[str]:
    """Return what a command writes on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    variables = {name: value for name, value in environment(TERM="xterm").items() if name not in ("COLUMNS", "LINES")}
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, command)], stdout=theirs, stderr=subprocess.DEVNULL, stdin=theirs,
        env=variables,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while part := _read(ours):
        said += part
    os.close(ours)
    assert child.wait() == 0
    return re.sub(r"\x1b\[[\d;]*m", "", said.decode()).splitlines()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the other end is closed
        return b""


@pytest.mark.parametrize("columns", [40, 130])
def test_no_line_of_a_table_is_wider_than_the_terminal(columns: int, tmp_path: Path) -> None:
    desk = Desk.at(tmp_path / "desk")
    lines = on_terminal(
        columns, "evaluate", "--task", desk.card, "--rows", desk.test, "--train", desk.train, "--weak", "openai:m",
        "--base-url", "http://127.0.0.1:9/v1", "--arms", "majority", "--run", tmp_path / "run",
    )  # fmt: skip
    accuracy = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))["arms"][0]["accuracy"]
    table = lines[: next(at for at, line in enumerate(lines) if line.startswith("answers are generated"))]
    assert max(len(line.rstrip()) for line in table) <= columns
    if columns == 40:
        at = table.index("majority")
        assert table[at + 1] == f"  accuracy {accuracy:.3f}," and table[at + 2].startswith("  95% interval 0.")
    else:
        assert table[1].split()[:2] == ["arm", "mode"] and table[2].split()[:2] == ["majority", f"{accuracy:.3f}"]
