"""What the weak model is shown: the fixed text (task, grimoire, examples) first, the question last.

So an engine evaluates the fixed part once and keeps it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.cues import NO_CUE, Cue
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.prompts import Templates, system_text
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example


@dataclass(frozen=True)
class Prompt:
    """The prompt of one arm.

    Args:
        task: its card stands in the system text.
        arm: what else is shown.
        grimoire: for arms that show a form of it.
        examples: for arms with worked examples, as earlier turns in the given order. One whose text is the
            question itself is left out, so that a labelled row is asked as a new one would be.
        names_texts: write "Text:" before each, for a model that knows no turns.
        templates: the prompt files; those of another chat, so that both show the same.
    """

    task: Task
    arm: Arm
    grimoire: Grimoire | None = None
    examples: tuple[Example, ...] = ()
    names_texts: bool = False
    templates: Templates = field(default_factory=Templates, repr=False, compare=False)

    def messages(self, question: str, cue: Cue = NO_CUE, history: Sequence[BaseMessage] = ()) -> list[BaseMessage]:
        """Return the prompt of one question.

        Args:
            question: comes last.
            cue: every example's answer begins with it, and the last turn is the model's own, left open after it.
            history: earlier turns of a conversation, after the fixed text and before the question.
        """
        turns = [*self._fixed(cue, question), *history, HumanMessage(self._asked(question, cue))]
        return [*turns, AIMessage(cue.text)] if cue.text else turns

    def template(self) -> ChatPromptTemplate:
        """Return the prompt with the variable `question`, as a reply in words is asked for; braces are only text."""
        return ChatPromptTemplate.from_messages([*self._fixed(NO_CUE), ("human", self._asked("{question}", NO_CUE))])

    def _fixed(self, cue: Cue, question: str = "") -> list[BaseMessage]:
        """Return the task, the grimoire and the examples."""
        turns: list[BaseMessage] = [SystemMessage(self._system)]
        for example in self.examples:
            if question and fold(example.text) == fold(question):
                continue
            answer = f"{cue.text} {example.answer}".strip()
            turns += [HumanMessage(self._asked(example.text, cue)), AIMessage(answer)]
        return turns

    def _asked(self, text: str, cue: Cue) -> str:
        text = f"Text: {text}" if self.names_texts else text
        return (
            self.templates.fill("ask_label", text=text, labels=", ".join(self.task.labels))
            if cue.lists_labels
            else text
        )

    @cached_property
    def _system(self) -> str:
        form = self.arm.form
        grimoire = getattr(self.grimoire, form) if self.grimoire and form else ""
        card = (self.task.task_type, self.task.description, self.task.labels)
        return system_text(*card, grimoire, filler=self.templates.fill)
