"""The examples: each runs, and a page of docs/ shows it and what it prints."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sleicl_chains.files import Home
from tests.support.chroma_server import chroma_server
from tests.support.openai_server import OpenAIServer

ROOT = Path(__file__).parent.parent
PAGES = "\n".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("langchain.md", "batch.md"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHOWN = dict(re.findall(r"^```python\n# (examples/\w+\.py)\n(.*?)^```$", PAGES, re.MULTILINE | re.DOTALL))
PRINTED = dict(re.findall(r"^\$ python (examples/\w+\.py)\n(.*?)^```$", PAGES, re.MULTILINE | re.DOTALL))


@pytest.fixture
def elsewhere(tmp_path: Path, home_with_weights: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the examples find on their machine: a strong model, a model server and a Chroma server."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-no-such-key")
    with ExitStack() as stack:
        strong = stack.enter_context(OpenAIServer(["technical"]))
        local = stack.enter_context(OpenAIServer(["shipping"]))
        monkeypatch.setenv("OPENAI_BASE_URL", strong.base_url)
        monkeypatch.setenv("MODEL_SERVER", local.base_url)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
@pytest.mark.usefixtures("elsewhere")
def test_an_example_prints_what_its_page_shows(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        if "CHROMA_PORT" in file.read_text(encoding="utf-8"):
            server = stack.enter_context(chroma_server(tmp_path / "served"))
            monkeypatch.setenv("CHROMA_PORT", str(server.port))
        done = subprocess.run([sys.executable, "-W", "error", file], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    wanted = re.escape(alike(PRINTED[f"examples/{file.name}"])).replace(re.escape("..."), ".*?")
    assert re.fullmatch(wanted, alike(done.stdout), re.DOTALL), done.stdout


def alike(text: str) -> str:
    """Leave out probabilities and their labels: last digits, and labels that are close, differ between processors."""
    return re.sub(r"\w+,0\.\d+", "LABEL,P", text)


def test_the_pages_show_every_example_as_it_is() -> None:
    assert len(EXAMPLES) >= 6 and set(PRINTED) == set(SHOWN)
    assert SHOWN == {f"examples/{file.name}": file.read_text(encoding="utf-8") for file in EXAMPLES}


def test_an_example_is_a_question_of_less_than_forty_lines() -> None:
    for file in EXAMPLES:
        first, *rest = file.read_text(encoding="utf-8").splitlines()
        assert first.startswith('"""') and first.endswith('?"""') and len(rest) < 39, file.name
