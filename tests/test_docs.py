"""Every command and snippet of the README and of docs/learning.md is run, in its order, in one folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from sleicl_chains.answering.readings import Mode
from sleicl_chains.cli.options import ModeOption
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import load_grimoire
from sleicl_chains.models.weights import KNOWN, READER
from sleicl_chains.tasks.cards import load_task
from tests.support.openai_server import OpenAIServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LEARNING = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
READING = (ROOT / "docs" / "reading.md").read_text(encoding="utf-8")
SECURITY = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
SITUATIONS = (ROOT / "docs" / "situations.md").read_text(encoding="utf-8")
OLLAMA = (ROOT / "docs" / "ollama.md").read_text(encoding="utf-8")
SEEN_ELSEWHERE = {
    "git clone <this repository> sleicl-chains && cd sleicl-chains": "no clone inside a test",
    "make install && . .venv/bin/activate": "no installation inside a test; the target itself is checked below",
}
LABELS = ("billing", "shipping", "returns", "account", "technical", "sales")
CHEAP = ("head", "cp", "init", "sample", "write", "grimoires")
PROFOUND = "billing, shipping, returns, account, technical and sales: take what is wanted next."


def blocks(kind: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.fixture
def reader(tmp_path: Path, home_with_weights: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a reader of the README has it, with the command on the path."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "examples", folder / "examples")
    keep_eight_a_label(folder / "examples" / "support" / "train.jsonl")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key")
    return folder


def keep_eight_a_label(rows: Path) -> None:
    """Cut the example's training rows to what a test has time to learn from, and `learn` still makes a test of."""
    kept: dict[str, list[str]] = {}
    for line in rows.read_text(encoding="utf-8").splitlines(keepends=True):
        kept.setdefault(json.loads(line)["answer"], []).append(line)
    rows.write_text("".join(line for lines in kept.values() for line in lines[:8]), encoding="utf-8")


def commands(page: str = README) -> list[str]:
    """Return a page's commands in their order; where a block shows what is printed, they begin with `$ `."""
    found = [command for block in blocks("console", page) for command, _ in _sessions(block)]
    return [one for one in found if one not in SEEN_ELSEWHERE]


def _sessions(block: str) -> list[tuple[str, list[str]]]:
    """Return a block's commands, each with the lines shown under it."""
    lines = block.splitlines()
    if not any(line.startswith("$ ") for line in lines):
        return [(line, []) for line in lines]
    sessions: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith("$ "):
            sessions.append((line[2:], []))
        else:
            sessions[-1][1].append(line)
    return sessions


def fill_in_the_card() -> None:
    """Do by hand what the README asks for after `sleicl init`."""
    (lines,) = blocks("toml")
    card = Path("card.toml").read_text(encoding="utf-8")
    for line in lines.splitlines():
        card = re.sub(rf"^{line.split()[0]} = .*$", line, card, flags=re.MULTILINE)
    Path("card.toml").write_text(card, encoding="utf-8")


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)


def run_as_shown(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the README in its place; the first `paste:` call ends with a prompt for a person."""
    waits = "paste:letters" in command and not Path("letters").exists()
    done = shell(command)
    assert done.returncode == int(waits), f"{command}\n{done.stderr}"
    if command.startswith("sleicl init"):
        fill_in_the_card()
    return done


@pytest.mark.slow
def test_every_command_of_the_readme_runs(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The same commands with a model that is here.
    lines = [line.replace(READER, "smollm2") for line in commands() if "ollama" not in line]
    more = [line for line in commands(LEARNING) if line not in lines]
    assert len(lines) >= 15 and more
    with OpenAIServer([PROFOUND, "Take what is wanted next.", "shipping"]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        for line in lines + more:
            done = run_as_shown(line)
            assert done.stdout.strip() or not line.startswith("sleicl") or "paste:" in line, line
    assert len(server.requests) in (2, 3)  # the third is a question handed on, where the weak model is not sure
    done = subprocess.run(
        [sys.executable, "-c", *blocks("python", LEARNING)], capture_output=True, text=True, timeout=300
    )
    assert "my parcel never came" in done.stdout and done.stdout.splitlines()[-1].split()[0] in LABELS, done.stderr


def test_the_readme_shows_what_is_printed(reader: Path) -> None:
    shutil.copy(ROOT / "examples" / "support" / "train.jsonl", reader / "examples" / "support" / "train.jsonl")
    sessions = [one for block in blocks("console") for one in _sessions(block)]
    cheap = [
        (line, shown) for line, shown in sessions if line.split()[0] in CHEAP or (shown and line.split()[1] in CHEAP)
    ]
    assert len(cheap) >= 9
    for line, shown in cheap:
        done = run_as_shown(line)
        printed = re.sub(r"\s+", " ", done.stderr + done.stdout)
        for part in filter(None, (part.strip() for part in " ".join(shown).split("..."))):
            part = re.sub(r"\s+", " ", part)
            assert part in printed, f"{line}\nshown: {part}\nprinted: {printed}"
            printed = printed[printed.index(part) + len(part) :]


@pytest.mark.ollama
@pytest.mark.usefixtures("ollama")
def test_the_snippet_about_ollama_runs(reader: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", OLLAMA, re.MULTILINE | re.DOTALL)
    code += "print(weak.layout, exact.has_template)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "chat True"), done.stderr


def test_the_page_about_ollama_counts_the_failure_table() -> None:
    from tests.support.ollama_failures import FAILURES

    assert f"has {len(FAILURES)} failures" in OLLAMA


@pytest.mark.ollama
@pytest.mark.usefixtures("ollama")
def test_every_command_of_the_readme_that_wants_ollama_runs(reader: Path) -> None:
    lines = [line for line in commands() if "ollama" in line]
    assert len(lines) >= 3
    for line in lines:
        done = shell(line)
        assert done.returncode == 0 and done.stdout.strip(), f"{line}\n{done.stderr}"


@pytest.mark.slow
def test_every_snippet_of_the_readme_runs(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "\n".join(blocks("python"))
    assert "solver(" in code and "evaluate(" in code
    with OpenAIServer([PROFOUND, "Take what is wanted next."]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert re.fullmatch(r"(billing|shipping|returns|account|technical|sales) 0\.\d+ support-d090011a", first)
    assert [line.split()[0] for line in rest[:4]] == ["majority", "probe", "zero-shot", "simple"]
    assert rest[4].startswith("simple against zero-shot: ")


@pytest.mark.slow
def test_the_snippet_of_the_three_situations_runs(reader: Path) -> None:
    (code,) = blocks("python", SITUATIONS)
    code = code.replace(READER, "smollm2")  # the same calls of a model that is here
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in load_task(ROOT / "examples" / "desk" / "task.toml").labels


def test_the_page_of_the_three_situations_shows_what_ships() -> None:
    from sleicl_chains.models.reading import reading_of

    for name in ("smollm2", "qwen2.5-coder-0.5b", READER):
        known = reading_of(KNOWN[name].files[0].sha256, Home(ROOT / "nowhere"))
        assert known is not None
        row, effect = [line for line in SITUATIONS.splitlines() if line.startswith(f"| `embedded:{name}` |")]
        shown = re.findall(r"\.\d\d", row)
        rates = [known.score, known.low, known.high, known.zero_shot]
        rates += [known.kinds[kind].score for kind in ("in other words", "exception", "both", "reversed", "long")]
        assert [float(text) for text in shown] == pytest.approx(rates, abs=0.0051), name
        assert ("**follows guides**" in row) is known.follows_guides
        assert float(effect.split("|")[2]) == pytest.approx(known.score, abs=0.0051)


def test_the_grimoire_by_hand_is_one(reader: Path) -> None:
    (text,) = blocks("markdown")
    Path("mine.md").write_text(text, encoding="utf-8")
    done = shell("sleicl grimoires add mine.md && sleicl grimoires show mine")
    assert done.returncode == 0 and "Money: billing." in done.stdout, done.stderr
    assert load_grimoire(Path("mine.md")).labels == LABELS


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`?make (\w+)", README))
    assert named == {"demo", "install", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in ("demo", "install", "test"))
    assert "$(BIN)/sleicl demo" in makefile


def test_every_file_that_the_readme_names_exists() -> None:
    named = re.findall(r"`((?:sleicl_chains|prompts|vectorstore|benchmarks|examples)/[\w./]*)`", README)
    linked = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    linked += [f"docs/{link}" for link in re.findall(r"\]\(([^)]+)\)", pages) if not link.startswith("http")]
    assert len(named) >= 9 and linked
    assert [name for name in [*named, *linked] if not (ROOT / name).exists()] == []


def test_every_test_that_the_page_on_security_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", SECURITY)
    assert len(named) > 50
    for file, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.M), name


def test_every_mode_is_in_the_help_and_in_the_table() -> None:
    (option,) = [one for one in get_args(ModeOption) if hasattr(one, "help")]
    for mode in get_args(Mode):
        assert re.search(rf"\b{mode}\b", option.help), mode
        assert f"| `{mode}` |" in READING, mode
