"""Solvers as tools: LangChain's standard suites, and a real agent that calls one."""

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from sleicl_chains import Answer, Recipe, Task, as_tool, solver
from sleicl_chains.answering.recipes import Verdict, told_by
from sleicl_chains.errors import OptionError
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from tests.serving.test_middleware import calling, model

MOODS = Task(name="moods of texts", description="Classify the mood.", labels=("happy", "sad"))
TALK = Task(name="talk", description="Say one sentence.")
CHAIN = solver(FakeListChatModel(responses=["sad"]), MOODS)


class Subject:
    @property
    def tool_constructor(self) -> BaseTool:
        return as_tool(CHAIN, name="mood", description="Tells the mood of a text.")

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"question": "My dog is ill."}


class TestUnit(Subject, ToolsUnitTests):
    pass


class TestIntegration(Subject, ToolsIntegrationTests):
    pass


def test_a_recipe_says_what_the_tool_does(weak: EmbeddedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(
        task=MOODS, weak="embedded:smollm2", model=told_by(weak), arm="zero-shot", mode="score", prior="none",
        cue="Answer:", reader={"kind": "prior", "prior": {"happy": 0.5, "sad": 0.5}}, rows=4, seed=0,
        verdict=Verdict(finding="no difference shown"),
    )  # fmt: skip
    monkeypatch.setattr(Recipe, "_open", lambda *_: weak)
    tool = as_tool(recipe)
    assert (tool.name, tool.description) == ("moods_of_texts", "Classify the mood. Answers with one of: happy, sad.")
    assert tool.args == {
        "question": {
            "description": "The text to answer or classify, alone and in full.",
            "title": "Question",
            "type": "string",
        }
    }
    message = tool.invoke(ToolCall(name=tool.name, args={"question": "I laughed."}, id="1", type="tool_call"))
    assert isinstance(message.artifact, Answer) and message.artifact.arm == "recipe"
    assert message.content == message.artifact.label in MOODS.labels


def test_an_agent_calls_it(task: Task) -> None:
    strong = model(calling("mood", question="My dog is ill."), "It is sad.")
    agent = create_agent(strong, [as_tool(CHAIN, name="mood", description="Tells the mood of a text.")])
    messages = agent.invoke({"messages": [HumanMessage("How does 'My dog is ill.' sound?")]})["messages"]
    assert [one.text for one in messages[2:]] == ["sad", "It is sad."]
    assert messages[2].artifact.valid


@pytest.mark.parametrize(
    ("reply", "question", "status", "said"),
    (
        ("I cannot tell.", "Any.", "success", "No answer: I cannot tell."),
        ("", "Any.", "error", "the reply is empty; ask in other words, or take a larger model"),
        ("sad", " ", "error", "A solver takes a question as text; found an empty one"),
    ),
)
def test_what_is_wrong_with_one_question_is_told_to_the_agents_model(
    reply: str, question: str, status: str, said: str
) -> None:
    chain = solver(FakeListChatModel(responses=[reply]), MOODS)
    strong = model(calling("mood", question=question), "I do not know.")
    agent = create_agent(strong, [as_tool(chain, name="mood", description="Tells the mood.")])
    messages = agent.invoke({"messages": [HumanMessage("Well?")]})["messages"]
    assert isinstance(messages[2], ToolMessage) and isinstance(messages[-1], AIMessage)
    assert (messages[2].status, messages[2].text) == (status, said)


def test_a_solver_is_named_by_its_task_and_another_chain_by_hand() -> None:
    assert as_tool(CHAIN).name == "moods_of_texts"
    assert as_tool(CHAIN, name="mood").description == "Classify the mood. Answers with one of: happy, sad."
    with pytest.raises(OptionError, match="a chain that names no task needs a name and a description"):
        as_tool(CHAIN.with_retry(), name="mood")


async def test_free_text_without_blocking() -> None:
    tool = as_tool(solver(FakeListChatModel(responses=["Hello there."]), TALK))
    assert await tool.ainvoke({"question": "Hi."}) == "Hello there."
