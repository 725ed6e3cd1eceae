"""The samplers where LangChain's few-shot prompts look for examples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from langchain_core.example_selectors import BaseExampleSelector

from sleicl_chains.errors import InputError
from sleicl_chains.grimoires.samplers import SampleInput, SamplerName, sampler
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example, check_answers

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.runnables import Runnable

    from sleicl_chains.answers import Answer


class ExampleSelector(BaseExampleSelector):
    """Select labelled rows for a `FewShotChatMessagePromptTemplate`, as dictionaries with `text` and `answer`.

    `similar` chooses anew for each question, the nearest first; the other samplers draw once and show the same
    before every question. A row whose text is the question itself is not shown.

    Args:
        name: of the sampler; see `sampler` for what each chooses.
        task: has the labels.
        examples: to choose from.
        per_label: rows of each label.
        seed: decides every draw.
        embeddings: for kmeans, hierarchical and similar; `wordllama` by default.
        weak: for hard, which asks it up to 50 questions a label at the first selection.
        question_key: the prompt's variable that holds the question.

    Raises:
        InputError: a wrong name or number, a label that the task does not have, or (when run) no such variable.
    """

    def __init__(
        self,
        name: SamplerName,
        task: Task,
        examples: Sequence[Example],
        *,
        per_label: int,
        seed: int,
        embeddings: "Embeddings | None" = None,
        weak: "Runnable[str, Answer] | None" = None,
        question_key: str = "question",
    ) -> None:
        self._sampler = sampler(name, per_label=per_label, seed=seed, embeddings=embeddings, weak=weak)
        check_answers(examples, task)
        self._by_question = name == "similar"
        self._task, self._examples, self._key = task, list(examples), question_key
        self._drawn: list[Example] | None = None

    def add_example(self, example: dict[str, str]) -> None:
        """Add a row with `text` and `answer`."""
        if missing := {"text", "answer"} - set(example):
            raise InputError(f"example: found no {' and no '.join(sorted(missing))}; expected text and answer")
        row = Example(example["text"], example["answer"])
        check_answers([row], self._task)
        self._examples, self._drawn = [*self._examples, row], None

    def select_examples(self, input_variables: dict[str, str]) -> list[dict[str, str]]:
        """Return the examples for one question."""
        if self._key not in input_variables:
            found = ", ".join(input_variables) or "none"
            raise InputError(f"examples: found the variables {found}; expected {self._key!r} (question_key names it)")
        question = fold(input_variables[self._key])
        if self._by_question:
            others = [row for row in self._examples if fold(row.text) != question]
            chosen = self._sampled(others, input_variables[self._key])
        else:
            if self._drawn is None:
                self._drawn = self._sampled(self._examples)
            chosen = [row for row in self._drawn if fold(row.text) != question]
        return [{"text": row.text, "answer": row.answer} for row in chosen]

    def _sampled(self, rows: list[Example], question: str = "") -> list[Example]:
        given: SampleInput = {"task": self._task, "examples": rows}
        return self._sampler.invoke({**given, "question": question} if question else given)
