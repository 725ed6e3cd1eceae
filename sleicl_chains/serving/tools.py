"""A solver as a LangChain tool, so that an agent leaves a task to the small local model."""

import re
from typing import Annotated

from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from pydantic import BaseModel, Field

from sleicl_chains.answering.chains import SolverChain
from sleicl_chains.answering.recipes import Recipe
from sleicl_chains.answering.solver import solver
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, OptionError, PromptTooLong, RejectedReply


class Question(BaseModel):
    """What the tool is asked."""

    question: Annotated[str, Field(description="The text to answer or classify, alone and in full.")]


def as_tool(answering: Runnable[str, Answer] | Recipe, *, name: str = "", description: str = "") -> BaseTool:
    """Return a tool that answers one question with one call of the weak model.

    The agent's model reads the label or the text; the whole `Answer` is the tool message's artifact. A question that
    cannot be asked (too long, empty) or whose reply is refused is told to the agent's model as an error, a reply that
    names no label as "No answer: ..."; a server that is down ends the run.

    Args:
        answering: a solver, or a recipe, which opens its own model; any chain from a text to an `Answer` will do.
        name: by default the task's.
        description: what the agent's model is told of it; by default the task's, and its labels.

    Raises:
        OptionError: a chain that is no `solver(...)` alone is given without a name and a description.
        RecipeRefused: the recipe's model is not on this machine; give `solver(recipe, model=...)`.
    """
    if isinstance(answering, Recipe | SolverChain):
        task = answering.task
        labels = f" Answers with one of: {', '.join(task.labels)}." if task.labels else ""
        name, description = name or _plain(task.name), description or task.description + labels
    if not name or not description:
        raise OptionError("as_tool: a chain that names no task needs a name and a description of what the tool does")
    chain = solver(answering) if isinstance(answering, Recipe) else answering

    def answer(question: str) -> tuple[str, Answer]:
        try:
            return _told(chain.invoke(question))
        except _OF_THE_QUESTION as problem:
            raise ToolException(str(problem)) from problem

    async def aanswer(question: str) -> tuple[str, Answer]:
        try:
            return _told(await chain.ainvoke(question))
        except _OF_THE_QUESTION as problem:
            raise ToolException(str(problem)) from problem

    return StructuredTool.from_function(
        answer, aanswer, name, description, args_schema=Question, response_format="content_and_artifact",
        handle_tool_error=True,
    )  # fmt: skip


_OF_THE_QUESTION = (InputError, PromptTooLong, RejectedReply)
"""Errors that another question would not meet."""


def _told(answer: Answer) -> tuple[str, Answer]:
    return answer.answer or f"No answer: {answer.text or answer.note}", answer


def _plain(name: str) -> str:
    """Return a name as model providers allow it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")[:64] or "answer"
