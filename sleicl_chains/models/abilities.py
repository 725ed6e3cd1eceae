"""What a chat model can do beside chatting: a protocol for each ability, and what holds where a model lacks it.

LangChain's `BaseChatModel` promises text alone. Whoever asks for more asks here; no other module looks for
an attribute of a model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from langchain_core.messages import BaseMessage


@dataclass(frozen=True)
class LabelScores:
    """What a model thinks of each label at the place where the answer would begin."""

    probabilities: dict[str, float]
    """Of the labels among themselves; they add up to 1."""
    coverage: float
    """The share of all next tokens, 0 to 1, that begin a label; small when the model wants to say something else."""
    prompt_tokens: int
    """Read in all requests together."""
    requests: int
    unseen: tuple[str, ...] = ()
    """Labels whose tokens the server did not show: their probability is a guess, not a measurement."""

    def __post_init__(self) -> None:
        """Take a list for `unseen`, as JSON gives it."""
        object.__setattr__(self, "unseen", tuple(self.unseen))

    @property
    def measured(self) -> bool:
        """Whether some label was in sight; else there is nothing to read an answer from."""
        return len(self.unseen) < len(self.probabilities)


@dataclass(frozen=True)
class State:
    """A model's own state at the end of a prompt."""

    values: list[float]
    """Always of the same length for one model."""
    prompt_tokens: int


@runtime_checkable
class Renderer(Protocol):
    """A chat model that renders its own prompts."""

    def render(self, messages: Sequence[BaseMessage]) -> str:
        """Return the exact prompt."""
        ...


@runtime_checkable
class LabelScorer(Renderer, Protocol):
    """A chat model that renders its own prompts and gives the probabilities of labels."""

    def score_labels(self, prompt: str, labels: Sequence[str]) -> LabelScores:
        """Score each label as the prompt's continuation."""
        ...


@runtime_checkable
class StateReader(Renderer, Protocol):
    """A chat model that renders its own prompts and gives its state at their end."""

    def read_state(self, prompt: str) -> State:
        """Return the model's state at the prompt's end."""
        ...


@runtime_checkable
class SchemaHolder(Protocol):
    """A chat model that can be held to a JSON schema."""

    def schema_option(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Return the option of a call that holds its reply to a schema."""
        ...


def scoring_problem(model: object) -> str:
    """Return why a model's labels cannot be scored; empty if they can. An Ollama server is asked once."""
    if not isinstance(model, LabelScorer):
        return f"{type(model).__name__} gives no label probabilities"
    return str(getattr(model, "scoring_problem", ""))


def schema_option(model: object, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the option that holds a model's reply to a schema; None where no such option is known."""
    if isinstance(model, SchemaHolder):
        return model.schema_option(schema)
    if hasattr(model, "openai_api_base"):  # ChatOpenAI, and what is built on it
        form = {"name": "answer", "schema": dict(schema), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": form}}
    return None


def knows_chats(model: object) -> bool:
    """Say whether a model was trained on chats; one that does not say so was. A base model continues a text."""
    return bool(getattr(model, "has_template", True))


def shows_few_tokens(model: object) -> bool:
    """Say whether a model shows its likeliest tokens alone, so that labels may be out of sight."""
    return getattr(model, "alternatives", None) is not None


def prefix_rule(model: object) -> str:
    """Return by which rule a model scores a label that begins another; empty where there is only one."""
    return str(getattr(model, "prefix_rule", ""))


def state_size(model: object) -> int | None:
    """Return how many numbers of its state a model gives a question; None where it does not say."""
    return getattr(model, "state_size", None)


def is_journalled(model: object) -> bool:
    """Say whether a model's replies are kept; a pasted one's lie in files that a person may correct."""
    return bool(getattr(model, "journalled", True))


def own_identity(model: object) -> Mapping[str, Any] | None:
    """Return what a model itself says tells it and its settings from others; None where it says nothing."""
    found = getattr(model, "identity", None)
    return found if isinstance(found, Mapping) else None


def weights_digest(model: object) -> str:
    """Return the SHA-256 of a model's weights alone, by which it is known under any name; empty where none is told."""
    return str(getattr(model, "weights_digest", ""))


def name_of(model: object) -> str:
    """Return the name to print: the model's own, else its class's."""
    names = (getattr(model, "model_name", None), getattr(model, "model", None))
    return next((name for name in names if name and isinstance(name, str)), type(model).__name__)


def context_of(model: object) -> int | None:
    """Return the context of a model in tokens, prompt and reply together; None where it does not say."""
    found = next(filter(None, (getattr(model, name, None) for name in ("context", "n_ctx", "num_ctx"))), None)
    return found if isinstance(found, int) else None


def reply_limit(model: object) -> int:
    """Return the most tokens of a reply; where a model has no limit, those that a chat's reply usually has."""
    found = next((getattr(model, name, None) for name in ("num_predict", "max_tokens") if hasattr(model, name)), None)
    return found if isinstance(found, int) and found > 0 else 512
