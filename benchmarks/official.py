"""The prompt layout and the answer parser of the paper's official code, described in our own words.

Faithful in what decides the score: one user message with role, grimoire, question, a cue and a
request for the bare answer; greedy decoding to 64 tokens (theirs is temperature 0.01); the reply is
cut after the last cue, stripped of full stops and commas, lower-cased and compared as a whole. Not
taken over: dropping unparsable replies from the count. Source: core/llm/base.py and core/evaluator
of IAAR-Shanghai/Grimoire (last commit 2024-02-29).
"""

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable, RunnableLambda

from sleicl_chains.answers import Answer
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.models.asking import ask
from sleicl_chains.models.journal import Journal
from sleicl_chains.tasks.cards import Task


def official(weak: BaseChatModel, task: Task, grimoire: Grimoire, journal: Journal) -> Runnable[str, Answer]:
    """Return a chain that asks and parses as the official code does, with the profound grimoire."""

    def answer(question: str) -> Answer:
        prompt = (
            f"You are an expert in {task.task_type}, {task.description}\n{grimoire.profound}\n"
            f"Please answer:\n{question}\nAnswer: \nOnly the answer is needed."
        )
        reply = ask(weak, [HumanMessage(prompt)], journal)
        label = parse(reply.text, task)
        used = reply.usage_metadata
        return Answer(
            label=label, text=reply.text, valid=label is not None, arm="official", mode="generate",
            grimoire=grimoire.id, usage={"prompt_tokens": used["input_tokens"]} if used else {},
            seconds=reply.response_metadata.get("seconds", 0.0),
        )  # fmt: skip

    chain: Runnable[str, Answer] = RunnableLambda(answer, name="official")
    return chain.with_config(metadata={"arm": "official", "settings": f"official:{grimoire.id}"})


def parse(reply: str, task: Task) -> str | None:
    """Return the label that the whole reply is, after the last cue; anything around it makes it none."""
    said = reply.split("Answer: ")[-1].strip().replace(".", "").replace(",", "").lower()
    return next((label for label in task.labels if label.lower() == said), None)
