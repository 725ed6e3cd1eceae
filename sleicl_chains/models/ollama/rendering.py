"""Makes sure that a prompt arrives: the server shows what its template makes of a chat.

A model without a chat template drops the system message, and the grimoire with it, under HTTP 200.
So the template is tried once a model and its layout chosen: `chat` where everything arrives,
`folded` where only a system message is lost (it moves into the first user message), `completion` where
there is no chat template at all. And each new fixed text is rendered before it is sent.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from sleicl_chains.errors import PromptLost
from sleicl_chains.models.llamacpp.literals import usual_control
from sleicl_chains.models.ollama.versions import dotted
from sleicl_chains.models.thinking import without_thinking

Layout = Literal["chat", "folded", "completion"]
Renderer = Callable[[Sequence[BaseMessage]], str | None]
"""Returns the rendered prompt, None where the server shows none."""

_TRIAL: list[BaseMessage] = [
    SystemMessage("First part of the trial."),
    HumanMessage("Second part of the trial."),
    AIMessage("Third part of the trial."),
    HumanMessage("Fourth part of the trial."),
]
_MARK = "sleicl-question-goes-here"
"""Stands for the question while the fixed text is rendered."""


def has_template(shown: Mapping[str, Any]) -> bool:
    """Tell from /api/show whether the model has a chat template; the bare `{{ .Prompt }}` is none."""
    template = "".join(str(shown.get("template") or "").split())
    return template not in ("", "{{.Prompt}}")


def choose_layout(render: Renderer, shown: Mapping[str, Any], model: str) -> Layout | None:
    """Return the first layout under which every message arrives; None where the server shows no rendering.

    Raises:
        PromptLost: the model has a chat template under which none does.
    """
    if not has_template(shown):
        return "completion"
    layouts: tuple[Layout, ...] = ("chat", "folded")
    for layout in layouts:
        laid = lay_out(_TRIAL, layout)
        rendered = render(laid)
        if rendered is None:
            return None
        missing = lost(laid, rendered)
        if not missing:
            return layout
    raise _dropped(missing[0], model)


def lay_out(messages: Sequence[BaseMessage], layout: Layout) -> list[BaseMessage]:
    """Return the messages to send: under `folded` the system texts stand in the first user message."""
    system = [message for message in messages if message.type == "system"]
    rest = [message for message in messages if message.type != "system"]
    if layout != "folded" or not system:
        return list(messages)
    text = "\n\n".join(message.text.strip() for message in system)
    at = next((place for place, message in enumerate(rest) if message.type == "human"), None)
    if at is None:
        return [HumanMessage(text), *rest]
    content = rest[at].content
    body = f"{text}\n\n{content}" if isinstance(content, str) else [{"type": "text", "text": text}, *content]
    return [*rest[:at], HumanMessage(body), *rest[at + 1 :]]


def lost(messages: Sequence[BaseMessage], rendered: str) -> list[BaseMessage]:
    """Return the messages whose text is not in the rendered prompt, in their order; not what tools said."""
    missing, at = [], 0
    for message in messages:
        for text in _texts(message) if message.type in ("system", "human", "ai") else ():
            found = rendered.find(text, at)
            if found < 0:
                missing.append(message)
                break
            at = found + len(text)
    return missing


def _texts(message: BaseMessage) -> list[str]:
    """Return the pieces of text in a message, which may hold pictures as well."""
    if isinstance(message.content, str):
        pieces = [without_thinking(message.content)]  # some templates leave earlier thinking out
    else:
        pieces = [part if isinstance(part, str) else str(part.get("text", "")) for part in message.content]
    return [piece.strip() for piece in pieces if piece.strip()]


@dataclass(frozen=True)
class Frame:
    """What a template puts before and after the question, the fixed text included."""

    before: str
    after: str

    def around(self, text: str) -> str:
        """Return the rendered prompt with this question."""
        return f"{self.before}{text}{self.after}"


def question(messages: Sequence[BaseMessage]) -> str:
    """Return the text of the last user message."""
    return messages[_place(messages)].text


def fixed_text(messages: Sequence[BaseMessage]) -> tuple[str, ...]:
    """Return what tells prompts apart that differ in more than their last question."""
    at = _place(messages)
    # All fields as they are: `repr` of a message sets each against its default, which takes 30 ms for 40 messages.
    return tuple("" if place == at else repr(vars(message)) for place, message in enumerate(messages))


def frame(render: Renderer, messages: Sequence[BaseMessage], model: str) -> Frame | None:
    """Return how the template frames the last user message, checked on these messages.

    None where the server shows nothing, or where the template changes the question as well as framing it.
    Two requests, which serve all questions behind the same fixed text.

    Raises:
        PromptLost: a message's text is not in the rendered prompt.
    """
    at = _place(messages)
    whole = render(messages)
    marked = render([*messages[:at], HumanMessage(_MARK), *messages[at + 1 :]])
    if whole is None or marked is None:
        return None
    if missing := lost(messages, whole):
        raise _dropped(missing[0], model)
    before, _, after = marked.rpartition(_MARK)
    found = Frame(before, after)
    return found if found.around(messages[at].text) == whole else None


def _dropped(message: BaseMessage, model: str) -> PromptLost:
    return PromptLost(
        f"{model}: its template drops the {message.type} message {message.text[:40]!r}. Give the model a full template "
        "in a Modelfile (`ollama show --modelfile` prints it), or take another model"
    )


def _place(messages: Sequence[BaseMessage]) -> int:
    """Return where the last user message stands; the last message where there is none."""
    return max((place for place, message in enumerate(messages) if message.type == "human"), default=-1)


def warn_lowered(model: str, asked: int, trained: int | None) -> None:
    """Say that the server lowers the context, which it does without a word."""
    if trained and asked > trained:
        text = f"{model}: trained with {trained} tokens, to which the server lowers num_ctx={asked}"
        warnings.warn(text, stacklevel=2)


def warn_control(model: str, messages: Sequence[BaseMessage]) -> None:
    """Say that a text holds a control token: the server reads it as one, whoever wrote it."""
    if found := next(filter(None, (usual_control(message.text) for message in messages)), ""):
        warnings.warn(
            f"{model}: a text holds {found}, which the server may take for the end of a turn or the like; "
            f"embedded:ollama/{model.removeprefix('ollama:')} reads it as text",
            stacklevel=2,
        )


def warn_unseen(model: str, version: tuple[int, ...]) -> None:
    """Say that nobody can know what the template makes of a prompt."""
    warnings.warn(
        f"{model}: Ollama {dotted(version)} does not show rendered prompts, so whether the whole prompt arrives "
        "is judged by its number of tokens alone",
        stacklevel=2,
    )
