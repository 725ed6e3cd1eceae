"""Prompts for any chat model: what a recipe or a grimoire shows, as LangChain's own templates."""

from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatResult
from pydantic import BaseModel, Field

from sleicl_chains import Grimoire, solver
from sleicl_chains.answering.recipes import Shown
from sleicl_chains.errors import Unsupported
from sleicl_chains.grimoires.grimoire import Provenance
from tests.answering.test_recipes import TASK, bare, recipe
from tests.serving.test_middleware import calling, model
from tests.support.fake_models import Writer

QUESTION = "It {rains}: {question}, {0} and {{two}}."


class Recording(Writer):
    """Keeps the messages that it was shown."""

    shown: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def identity(self) -> dict[str, Any]:
        return {"weights": "fake Writer"}

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.shown.append(messages)
        return super()._generate(messages, *args, **kwargs)


class Mood(BaseModel):
    """A mood."""

    mood: str


@pytest.mark.parametrize("arm", ("zero-shot", "few-shot", "simple", "simple+few-shot"))
def test_a_recipe_gives_what_the_solver_sends(arm: str) -> None:
    guide, examples = (
        Shown.of("Tears {are} sad: {{}}.", id="moods-1"),
        [Shown.of("I laughed {all} day.", "happy"), Shown.of("Nobody came.", "sad")],
    )
    found = bare(Writer).model_copy(
        update={
            "arm": arm,
            "grimoire": guide if "simple" in arm else None,
            "examples": examples if "few-shot" in arm else [],
        }
    )
    weak = Recording(reply=lambda prompt: "sad")
    solver(found, model=weak).invoke(QUESTION)
    prompt = found.to_prompt()
    assert prompt.input_variables == ["question"]
    assert prompt.invoke({"question": QUESTION}).to_messages() == weak.shown[0]
    assert len(weak.shown[0]) == (6 if "few-shot" in arm else 2)
    assert ("Tears {are} sad: {{}}." in weak.shown[0][0].text) is ("simple" in arm)


def test_a_scored_recipe_gives_its_prompt_without_the_cue() -> None:
    messages = recipe().to_prompt().invoke({"question": "Hm."}).to_messages()
    assert [(one.type, one.text) for one in messages[1:]] == [
        ("human", "I laughed {all} day."), ("ai", "happy"), ("human", "Nobody came."), ("ai", "sad"), ("human", "Hm."),
    ]  # fmt: skip


def test_the_arm_knn_has_no_one_prompt() -> None:
    with pytest.raises(Unsupported, match="shows other examples before each question; use solver"):
        recipe(arm="knn", grimoire=None).to_prompt()


GUIDE = Grimoire("moods-1", "moods", "sentiment analysis", "Classify {it}.", ("happy", "sad"), "Long {text}.", "Short.",
                 Provenance())  # fmt: skip


def test_a_grimoire_gives_its_task_and_its_text() -> None:
    messages = GUIDE.to_prompt().invoke({"question": QUESTION}).to_messages()
    assert [(one.type, one.text) for one in messages] == [
        (
            "system",
            "You are an expert in sentiment analysis. Classify {it}.\nAnswer with one of: happy, sad.\n\nLong {text}.",
        ),
        ("human", QUESTION),
    ]
    weak = Recording(reply=lambda prompt: "sad")
    task = TASK.model_copy(update={"description": "Classify {it}."})
    solver(weak, task, arm="profound", grimoire=GUIDE, mode="generate").invoke(QUESTION)
    assert messages == weak.shown[0]
    assert GUIDE.to_prompt("simple").invoke({"question": "Hm."}).to_messages()[0].text.endswith("\n\nShort.")


def test_an_open_ended_grimoire_of_one_text_alone() -> None:
    talk = Grimoire("talk", "small talk", "", "Say one sentence.", (), "", "Be kind.", Provenance())
    (system, _) = talk.to_prompt().invoke({"question": "Hm."}).to_messages()
    assert system.text == (
        "You are an expert in small talk. Say one sentence.\nGive the answer alone, as short as it can be.\n\nBe kind."
    )


def test_it_goes_before_any_model_and_parser() -> None:
    chain = GUIDE.to_prompt() | FakeListChatModel(responses=["sad"]) | StrOutputParser()
    assert chain.invoke({"question": QUESTION}) == "sad"
    structured = GUIDE.to_prompt() | model(calling("Mood", mood="sad")).with_structured_output(Mood)
    assert structured.invoke({"question": QUESTION}) == Mood(mood="sad")
