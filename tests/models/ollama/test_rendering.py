"""Which layout brings every message to the model, on templates that lose some."""

from collections.abc import Sequence

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from sleicl_chains.errors import PromptLost
from sleicl_chains.models.layouts import completion
from sleicl_chains.models.ollama.rendering import Frame, choose_layout, frame, has_template, lay_out, lost

CHAT: list[BaseMessage] = [SystemMessage("Rules."), HumanMessage("One?"), AIMessage("Yes."), HumanMessage("Two?")]
TEMPLATE = {"template": "{{ range .Messages }}..."}


def whole(messages: Sequence[BaseMessage]) -> str:
    return "".join(f"<{message.type}>{message.text}" for message in messages)


def without_system(messages: Sequence[BaseMessage]) -> str:
    return whole([message for message in messages if message.type != "system"])


def last_alone(messages: Sequence[BaseMessage]) -> str:
    return messages[-1].text


@pytest.mark.parametrize(
    ("render", "layout"),
    [(whole, "chat"), (without_system, "folded"), (lambda messages: None, None)],
)
def test_the_first_layout_that_loses_nothing_is_chosen(render: object, layout: str | None) -> None:
    assert choose_layout(render, TEMPLATE, "m") == layout  # type: ignore[arg-type]  # lambdas have no types


def test_a_template_that_loses_more_than_the_system_message_is_refused() -> None:
    with pytest.raises(PromptLost, match="ollama:m: its template drops the human message 'First part"):
        choose_layout(last_alone, TEMPLATE, "ollama:m")

    def without_answers(messages: Sequence[BaseMessage]) -> str:
        return whole([message for message in messages if message.type != "ai"])

    with pytest.raises(PromptLost, match="drops the ai message 'Third part of the trial.'"):
        choose_layout(without_answers, TEMPLATE, "ollama:m")


@pytest.mark.parametrize("template", ["", "{{ .Prompt }}", "{{.Prompt}}\n", None])
def test_a_bare_prompt_is_no_template(template: str | None) -> None:
    assert not has_template({"template": template})

    def never(messages: Sequence[BaseMessage]) -> str:
        raise AssertionError

    assert choose_layout(never, {"template": template}, "m") == "completion"


def test_a_system_message_is_folded_into_the_first_question() -> None:
    folded = lay_out(CHAT, "folded")
    assert [(message.type, message.text) for message in folded] == [
        ("human", "Rules.\n\nOne?"), ("ai", "Yes."), ("human", "Two?"),
    ]  # fmt: skip
    assert lay_out(CHAT[1:], "folded") == CHAT[1:]
    assert lay_out([SystemMessage("Rules.")], "folded") == [HumanMessage("Rules.")]
    assert CHAT[0].text == "Rules."  # the caller's messages stay as they were


def test_what_is_lost_is_found_in_order() -> None:
    assert lost(CHAT, whole(CHAT)) == []
    assert lost(CHAT, without_system(CHAT)) == [CHAT[0]]
    twice = [HumanMessage("Same."), HumanMessage("Same.")]
    assert lost(twice, "<human>Same.") == [twice[1]]  # one text does not stand for two
    pieces = HumanMessage([{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": "x"}, "What is it?"])
    assert lost([pieces], "[img-0]Look:\nWhat is it?") == []


def test_a_frame_puts_questions_into_the_rendered_text() -> None:
    assert frame(whole, CHAT, "m") == Frame("<system>Rules.<human>One?<ai>Yes.<human>", "")
    assert Frame("[", "]").around("{x} %s") == "[{x} %s]"
    with pytest.raises(PromptLost, match="ollama:m: its template drops the system message 'Rules.'"):
        frame(without_system, CHAT, "ollama:m")


def test_no_frame_where_the_template_changes_the_question() -> None:
    assert frame(lambda messages: whole(messages).replace("Two", "TWO, Two"), CHAT, "m") is None
    assert frame(lambda messages: None, CHAT, "m") is None


def test_the_completion_layout() -> None:
    assert completion([*CHAT, AIMessage("Answer:")]) == "Rules.\n\nOne?\nYes.\n\nTwo?\nAnswer:"
    assert completion([AIMessage("Once upon a time")]) == "Once upon a time"
