"""What reaches a terminal: text alone, whoever wrote it. Files and pipes get it as it is."""

import ast
import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from sleicl_chains.answering.recipes import AlsoTried, Choice, Recipe, Verdict
from sleicl_chains.cli import main, printing
from sleicl_chains.cli.console import Meter, cell, print_recipe
from sleicl_chains.cli.printing import guard, printable, say
from sleicl_chains.tasks.cards import Task
from tests.support.command import Desk, Parrot, environment, sleicl
from tests.support.ollama_server import OllamaServer, Said, said

PACKAGE = Path(__file__).parent.parent.parent / "sleicl_chains"
EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202eevil\r\b"
"""Clears the screen, names the window, colours by an eight-bit control, turns the direction, goes back."""


def obeyed(text: str) -> list[str]:
    """Return what a terminal would obey, but for new lines and tabs."""
    return [one for one in text if one not in "\n\t" and unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self) -> bool:
        return True


def on_terminal(*arguments: object, **more: str) -> tuple[int, str]:
    """Run `sleicl` in a process of its own on a pseudo-terminal; return its status and all that reached the screen."""
    ours, theirs = pty.openpty()
    code = "from sleicl_chains.cli import main; main()"
    settings = environment(**({"PYTHONUTF8": "1"} | more))
    running = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=settings,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # the other side is closed
        pass
    finally:
        os.close(ours)
    return running.wait(60), seen.decode().replace("\r\n", "\n")


def on_screen(*arguments: object) -> tuple[int, str]:
    """Run `sleicl` in this process, for streams that say that they are terminals."""
    screen = Terminal()
    before = sys.argv
    sys.argv = ["sleicl", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(screen), contextlib.redirect_stderr(screen):
            main()
    except SystemExit as ended:
        return int(ended.code or 0), screen.getvalue()
    finally:
        sys.argv = before
    raise AssertionError("main() always ends by SystemExit")


@pytest.fixture(autouse=True)
def dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets no colours of rich's own, so that every escape on it is one too many."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")


# ------------------------------------------------------------------ pure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain, ünï, 茶, 🙂\n\ttext", "plain, ünï, 茶, 🙂\n\ttext"),
        ("\x1b[31mred\x9b0m", r"\u001b[31mred\u009b0m"),
        ("a\u202eb\u2066c\u200ed\ufeff", r"a\u202eb\u2066c\u200ed\ufeff"),
        ("over\rwritten\r\nline", "over\\u000dwritten\nline"),
        ("\x00\x07\x7f\u2028\xad\U000e0041", r"\u0000\u0007\u007f\u2028\u00ad\U000e0041"),
        (os.fsdecode(b"caf\xe9.csv"), r"caf\udce9.csv"),
        ("می\u200cخواهم 👩\u200d💻", "می\u200cخواهم 👩\u200d💻"),  # joiners move nothing, and texts need them
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert not obeyed(expected.replace("\u200c", "").replace("\u200d", ""))


def test_everybody_who_prints_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    guard()
    guard()  # a second time changes nothing
    print(EVIL, "end")
    sys.stdout.writelines([EVIL])
    say([EVIL])
    sys.stderr.write(f"{EVIL}\n")
    assert not obeyed(out.getvalue() + err.getvalue())
    assert out.getvalue().count("\\u001b[2J") == err.getvalue().count("\\u001b[2J") == 2
    assert isinstance(cell(EVIL), Text) and not obeyed(cell(EVIL).plain)


def test_files_and_pipes_get_it_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    guard()
    print(EVIL)
    assert out.getvalue() == f"{EVIL}\n"
    assert cell("\x1b\u202e").plain == "\x1b\u202e"  # rich itself takes a few others out


def test_what_is_said_while_a_bar_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich puts streams of its own in place, and reads escape sequences in what it is given."""
    monkeypatch.setenv("TERM", "xterm")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    guard()
    guarded = sys.stderr
    with Meter(["zero-shot"]) as meter:
        meter("zero-shot", 1, 2)
        say("\x1b]8;;http://evil.example\x07link\x1b[31m")
    assert sys.stderr is guarded
    assert "\x1b]8" not in err.getvalue() and r"\u001b]8;;http://evil.example\u0007link\u001b[31m" in err.getvalue()
    assert "\x1b[" in err.getvalue()  # the bar itself is still drawn


def test_nothing_else_writes_to_the_terminal() -> None:
    """All prints go to the guarded streams; what rich prints is made by `cell`; no prompt goes past them."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            where = f"{file.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "sys.__stdout__", "sys.__stderr__", "sys.stdout.buffer", "sys.stderr.buffer", "os.write",
            ):  # fmt: skip
                found[where] = ast.unparse(node)
            if isinstance(node, ast.Call) and (problem := _beside(node, file.name)):
                found[where] = problem
    assert found == {}


def _beside(call: ast.Call, file: str) -> str:
    """Return a call that writes past the guard."""
    name = ast.unparse(call.func)
    target = next((ast.unparse(word.value) for word in call.keywords if word.arg == "file"), "sys.stdout")
    if name == "print" and target not in ("sys.stdout", "sys.stderr"):
        return f"print to {target}"
    past_it = name in ("input", "getpass", "getpass.getpass", "Text.from_markup", "Text.from_ansi")
    if past_it or (name in ("Text", "Console") and file != "console.py"):
        return name
    unmade = name == "Text" and "for_stream" not in ast.unparse(call)
    return f"{ast.unparse(call)}: cell()" if unmade else ""


def test_errors_and_misuse(tmp_path: Path) -> None:
    for arguments in (
        ["ask", "q", "--task", f"{tmp_path}/{EVIL}.toml", "--weak", "ollama:m"], ["report", EVIL],
        ["evaluate", "x", EVIL], ["ask", "q", "--task", "x", f"--{EVIL}"], ["grimoires", "show", EVIL],
    ):  # fmt: skip
        status, screen = on_screen(*arguments)
        assert status in (1, 2) and screen and not obeyed(screen), screen
    status, screen = on_terminal("report", EVIL)  # and on a real one
    assert status == 1 and screen.startswith(r"sleicl: There is no run \u001b[2J") and not obeyed(screen), screen


def test_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    err = Terminal()
    with warnings.catch_warnings():
        sleicl("--version")  # sets how warnings are shown
        monkeypatch.setattr(sys, "stderr", err)
        guard()
        warnings.simplefilter("always")
        warnings.warn(EVIL, stacklevel=1)
    assert err.getvalue().startswith(r"Warning: \u001b[2J") and not obeyed(err.getvalue())


# ------------------------------------------------------------------ commands


@pytest.fixture
def hostile(tmp_path: Path) -> Desk:
    """A card and rows whose labels and texts hold what a terminal obeys."""
    desk = Desk.at(tmp_path / "desk")
    label = "bad\u202e\x9b31m"
    card = {
        "name": f"desk{EVIL}", "task_type": "topics", "description": "Say which.", "labels": ["billing", label],
    }  # fmt: skip
    (desk.folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    rows = [{"text": f"row {n} {EVIL}", "answer": ("billing", label)[n % 2]} for n in range(12)]
    desk.train.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    desk.test.write_text("".join(json.dumps(row | {"text": f"test {row['text']}"}) + "\n" for row in rows), "utf-8")
    return desk


def test_a_hostile_task_on_a_terminal(hostile: Desk, tmp_path: Path) -> None:
    card, label = hostile.folder / "card.json", "bad\u202e\x9b31m"
    seen = {"sample": on_screen("sample", "--task", card, "--rows", hostile.train, "-n", 2)}
    with Parrot(lambda text: label) as server:
        weak = ["--weak", "openai:m", *server.options]
        ask = ["ask", "q", "--task", card, *weak, "--mode", "generate"]
        seen["ask"], seen["json"] = on_screen(*ask), on_screen(*ask, "--json")
        rows = ["--task", card, "--rows", hostile.test, "--train", hostile.train]
        seen["evaluate"] = on_screen("evaluate", *rows, *weak, "--arms", "majority,zero-shot")
        piped = sleicl(*ask)
    for name, (status, screen) in seen.items():
        assert status == 0 and screen and not obeyed(screen), (name, screen)
    for name in ("sample", "ask", "json"):
        assert r"bad\u202e\u009b31m" in seen[name][1]
    assert r"desk\u001b[2J" in seen["evaluate"][1]  # the title of the table
    assert piped.out == f"{label}\n"  # a pipe gets what was said


def test_a_hostile_grimoire_on_a_terminal(tmp_path: Path) -> None:
    grimoire = {"task": "d\u202ek", "strong_model": "m\x9b1m", "sampler": "none", "profound": EVIL, "simple": EVIL}
    (tmp_path / "own.json").write_text(json.dumps(grimoire), encoding="utf-8")
    added = sleicl("grimoires", "add", tmp_path / "own.json")
    assert added.status == 0, added.err
    for arguments in (["show", added.out.strip()], ["show", added.out.strip(), "--json"], ["list"], ["search", EVIL]):
        status, screen = on_screen("grimoires", *arguments)
        assert status == 0 and added.out.strip() in screen + added.out and not obeyed(screen), screen


def test_a_hostile_recipe_on_a_terminal(hostile: Desk) -> None:
    """`learn` prints what it tried, and its verdict."""
    card = json.loads((hostile.folder / "card.json").read_text("utf-8")) | {"labels": ["billing", "bad"]}
    recipe = Recipe.model_construct(
        task=Task(**card), weak=f"m{EVIL}", rows=4, warnings=(EVIL,), arm="zero-shot", mode="score",
        verdict=Verdict(
            finding="no difference shown", pair=(f"a{EVIL}", f"b{EVIL}"), difference=0.0, low=0.0, high=0.0, p=1.0
        ),
        also_tried=(AlsoTried(arm=f"c{EVIL}", grimoire=EVIL, difference=0.0, p=1.0, n=1),),
        choice=Choice(arm="zero-shot", mode="score", ground=EVIL),
    )  # fmt: skip
    screen = Terminal()
    with contextlib.redirect_stdout(screen):
        guard()
        print_recipe(recipe)
    assert "no difference shown" in screen.getvalue() and not obeyed(screen.getvalue())


def test_a_servers_error_on_a_terminal(hostile: Desk) -> None:
    def refuses(asked: Any) -> Said | None:
        return said({"error": f"no {EVIL}"}, status=400) if asked.route in ("/api/tags", "/api/show") else None

    with OllamaServer(refuses) as server:
        status, screen = on_screen("models", "list", "--base-url", server.url)
        assert r"no \u001b[2J" in screen and not obeyed(screen)
        ask = ["ask", "q", "--task", hostile.folder / "card.json", "--weak", "ollama:m", "--base-url", server.url]
        status, screen = on_screen(*ask)
        assert status == 1 and r"no \u001b[2J" in screen and not obeyed(screen)


def test_there_is_one_say() -> None:
    found = [
        f"{file.relative_to(PACKAGE)}"
        for file in PACKAGE.rglob("*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name in ("say", "printable")
    ]
    assert found == ["cli/printing.py"] * 2 and printing.say is say


def test_a_terminal_that_lacks_characters_gets_escapes(tmp_path: Path) -> None:
    card, rows = tmp_path / "card.toml", tmp_path / "rows.jsonl"
    card.write_text('name = "n"\ndescription = "d"\nlabels = ["a", "b"]\n', encoding="utf-8")
    rows.write_text('{"text": "naïve", "answer": "a"}\n{"text": "plain", "answer": "b"}\n', encoding="utf-8")
    ascii_only = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    status, seen = on_terminal("sample", "--task", card, "--rows", rows, "--sampler", "random", "-n", "1", **ascii_only)
    assert status == 0 and "na\\xefve" in seen and "they are written as escapes" in seen
