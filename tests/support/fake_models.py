"""Weak models that are a function: what they think of a prompt is decided by the test, and every call is kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import Field

from sleicl_chains.models.abilities import LabelScores, State


def question_of(prompt: str) -> str:
    """Return the last text that a rendered prompt asks about."""
    return prompt.rpartition("\nhuman: ")[2].partition("\nai: ")[0]


class Writer(BaseChatModel):
    """Answers in words."""

    reply: Callable[[str], str] = lambda prompt: "none"
    calls: list[tuple[str, str]] = Field(default_factory=list)
    """What was done, `reply`, `score` or `state`, and the prompt."""

    @property
    def _llm_type(self) -> str:
        return "fake"

    @property
    def identity(self) -> dict[str, Any]:
        return {"weights": f"fake {type(self).__name__}"}

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        prompt = written(messages)
        self.calls.append(("reply", prompt))
        words = len(prompt.split())
        usage: Any = {"input_tokens": words, "output_tokens": 1, "total_tokens": words + 1}
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.reply(prompt), usage_metadata=usage))])

    def asked(self, kind: str) -> list[str]:
        """Return the prompts of one kind of call."""
        return [prompt for done, prompt in self.calls if done == kind]


class Scorer(Writer):
    """Gives label probabilities too."""

    think: Callable[[str], Mapping[str, float]] = lambda prompt: {}
    """From a prompt to masses; what it leaves out gets a thousandth."""

    def render(self, messages: Sequence[BaseMessage]) -> str:
        return written(messages)

    def score_labels(self, prompt: str, labels: Sequence[str]) -> LabelScores:
        self.calls.append(("score", prompt))
        masses = {label: self.think(prompt).get(label, 0.001) for label in labels}
        shares = {label: mass / sum(masses.values()) for label, mass in masses.items()}
        return LabelScores(shares, coverage=0.5, prompt_tokens=len(prompt.split()), requests=1)


class Stater(Scorer):
    """Gives its state too: the logits of its scores after any two words, so to speak."""

    feel: Callable[[str], list[float]] = lambda prompt: [0.0, 0.0]

    def read_state(self, prompt: str) -> State:
        self.calls.append(("state", prompt))
        return State(self.feel(prompt), len(prompt.split()))


def written(messages: Sequence[BaseMessage]) -> str:
    """Return a chat as one text, a turn a paragraph; a trailing AI message stays open."""
    return "\n".join(f"{message.type}: {message.text}" for message in messages)
