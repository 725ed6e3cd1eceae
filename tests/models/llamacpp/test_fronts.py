"""Prompts that differ in their question alone, against the template itself: a made-up one and the real engine's."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from sleicl_chains.models.llamacpp.fronts import Fronts, Turn
from sleicl_chains.models.llamacpp.model import EmbeddedModel

QUESTIONS = ["It rains.", " It rains. ", "\n two\nlines\t", "naïve 体育", "0", "It rains. It rains."]
ODD = ["a <b> c", "<tool_response>x", "a\x00b", "a\u2028b", " ", ""]


def turns(question: str, *before: str, cue: str = "Answer:") -> list[Turn]:
    shown = [{"role": "user" if at % 2 == 0 else "assistant", "content": text} for at, text in enumerate(before)]
    last = [{"role": "user", "content": question}, {"role": "assistant", "content": cue}]
    return [{"role": "system", "content": "Say it."}, *shown, *last]


class Template:
    """Writes turns down, trims if told to, and counts how often."""

    def __init__(self, trims: bool) -> None:
        self.trims, self.calls = trims, 0

    def __call__(self, chat: Sequence[Turn]) -> str:
        self.calls += 1
        shown = [turn["content"].strip(" \t\n\r") if self.trims else turn["content"] for turn in chat]
        marked = ["!" if "<tool_response>" in text else "" for text in shown]
        return "".join(f"<{t['role']}>{mark}{text}\n" for t, text, mark in zip(chat, shown, marked, strict=True))


@pytest.mark.parametrize("trims", [True, False])
def test_every_question_is_written_down_as_the_template_writes_it(trims: bool) -> None:
    template = Template(trims)
    fronts = Fronts(template)
    for question in [*QUESTIONS, *ODD, *QUESTIONS]:
        for before in ((), ("one", "two"), ("It rains.", "0")):
            assert fronts.render(turns(question, *before)) == template(turns(question, *before)), question


def test_the_template_is_asked_twice_for_any_number_of_plain_questions() -> None:
    template = Template(trims=True)
    fronts = Fronts(template)
    texts = [fronts.render(turns(f"case {at}")) for at in range(50)]
    assert template.calls == 2 and texts[49] == "<system>Say it.\n<user>case 49\n<assistant>Answer:\n"


def test_another_cue_or_example_is_another_front() -> None:
    template = Template(trims=False)
    fronts = Fronts(template)
    for given in ({"cue": "Label:"}, {"cue": "Answer:"}) * 3:
        assert fronts.render(turns("x", **given)).endswith(f"{given['cue']}\n")
    assert template.calls == 4


def test_examples_that_change_with_every_question_do_not_pile_up() -> None:
    fronts = Fronts(Template(trims=False))
    for at in range(500):
        fronts.render(turns("x", f"example {at}", "yes"))
    assert len(fronts._known) <= 64


def test_a_template_that_does_more_than_put_the_question_in_is_asked_every_time() -> None:
    def twice(chat: Sequence[Turn]) -> str:
        return "".join(f"{turn['content']}|{turn['content']}\n" for turn in chat)

    fronts = Fronts(twice)
    for question in ["0", "it rains", "0", "it rains"]:
        assert fronts.render(turns(question)) == twice(turns(question))


def test_the_real_template_is_met_to_the_letter(weak: EmbeddedModel) -> None:
    def chat(question: str) -> list[Any]:
        shown = [HumanMessage("I laughed."), AIMessage("Answer: happy")]
        return [SystemMessage("Classify the mood."), *shown, HumanMessage(question), AIMessage("Answer:")]

    first = {question: weak.render(chat(question)) for question in [*QUESTIONS, *ODD[:2]]}
    for question, text in first.items():
        roles = ["system", "user", "assistant", "user", "assistant"]
        sent = [{"role": role, "content": turn.text} for role, turn in zip(roles, chat(question), strict=True)]
        assert text == weak.engine.post("/apply-template", {"messages": sent})["prompt"]


def test_threads_share_fronts() -> None:
    """More fronts than are kept, in eight threads: none trips over what another one forgets."""
    template = Template(trims=True)
    fronts = Fronts(template)

    def ask(at: int) -> bool:
        chat = turns(f"case {at}", f"example {at * 7 % 90}", "yes")
        return fronts.render(chat) == template(chat)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(3000)))
    finally:
        sys.setswitchinterval(before)
    assert len(fronts._known) <= 64
