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
from tests.support.openai_server import OpenAIServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LEARNING = (ROOT / "docs" / "learning.md").read_text(encoding="utf-8")
OLLAMA = (ROOT / "docs" / "ollama.md").read_text(encoding="utf-8")
SEEN_ELSEWHERE = {
    "git clone <this repository> sleicl-chains && cd sleicl-chains": "no clone inside a test",
    "make demo": "runs `sleicl demo`, see test_demo.py; the target itself is checked below",
}
LABELS = ("billing", "shipping", "returns", "account", "technical", "sales")
PROFOUND = "billing, shipping, returns, account, technical and sales: take what is wanted next."


def blocks(kind: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.fixture
def reader(tmp_path: Path, home_with_weights: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a reader of the README has it, with the command on the path."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "examples", folder / "examples")
    keep_six_a_label(folder / "examples" / "support" / "train.jsonl")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key")
    return folder


def keep_six_a_label(rows: Path) -> None:
    """Cut the example's training rows to what a test has time to learn from."""
    kept: dict[str, list[str]] = {}
    for line in rows.read_text(encoding="utf-8").splitlines(keepends=True):
        kept.setdefault(json.loads(line)["answer"], []).append(line)
    rows.write_text("".join(line for lines in kept.values() for line in lines[:6]), encoding="utf-8")


def shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_every_command_of_the_readme_runs(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in commands() if "ollama" not in line]
    more = [line for block in blocks("console", LEARNING) for line in block.splitlines()]
    assert len(lines) >= 11 and len(more) >= 3
    lines += [line for line in more if line not in lines]
    with OpenAIServer([PROFOUND, "Take what is wanted next.", "shipping"]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        for line in lines:
            done = shell(line)
            if "paste:" in line:
                done = paste(line, done)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            assert done.stdout.strip(), line
    assert len(server.requests) in (2, 3)  # the third is a question handed on, where the weak model is not sure
    done = subprocess.run(
        [sys.executable, "-c", *blocks("python", LEARNING)], capture_output=True, text=True, timeout=300
    )
    assert "my parcel never came" in done.stdout and done.stdout.splitlines()[-1].split()[0] in LABELS, done.stderr


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


def commands() -> list[str]:
    return [line for block in blocks("console") for line in block.splitlines() if line not in SEEN_ELSEWHERE]


def paste(line: str, first: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    """Do what the README tells a person to do with `paste:DIR`."""
    done = first
    for number, reply in enumerate([PROFOUND, "Take what is wanted next."], 1):
        assert done.returncode == 1 and f"letters/{number:02}.reply.txt" in done.stderr
        Path(f"letters/{number:02}.reply.txt").write_text(reply, encoding="utf-8")
        done = shell(line)
    return done


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


def test_the_grimoire_by_hand_is_one(reader: Path) -> None:
    (text,) = blocks("markdown")
    Path("mine.md").write_text(text, encoding="utf-8")
    done = shell("sleicl grimoires add mine.md && sleicl grimoires show mine")
    assert done.returncode == 0 and "Money: billing." in done.stdout, done.stderr
    assert load_grimoire(Path("mine.md")).labels == LABELS


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"`?make (\w+)", README))
    assert named == {"demo", "install", "test"} | (named & {"it"})
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in ("demo", "install", "test"))
    assert "$(BIN)/sleicl demo" in makefile


def test_every_file_that_the_readme_names_exists() -> None:
    named = re.findall(r"`((?:sleicl_chains|prompts|vectorstore|benchmarks|examples)/[\w./]*)`", README)
    linked = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    linked += [f"docs/{link}" for link in re.findall(r"\]\(([^)]+)\)", pages) if not link.startswith("http")]
    assert len(named) >= 9 and linked
    assert [name for name in [*named, *linked] if not (ROOT / name).exists()] == []


def test_every_mode_is_in_the_help_and_in_the_table() -> None:
    (option,) = [one for one in get_args(ModeOption) if hasattr(one, "help")]
    for mode in get_args(Mode):
        assert re.search(rf"\b{mode}\b", option.help), mode
        assert f"| `{mode}` |" in LEARNING, mode
