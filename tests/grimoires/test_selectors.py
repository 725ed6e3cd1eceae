"""The samplers as LangChain's example selectors, in its own few-shot prompt."""

from collections import Counter

import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.prompts import ChatPromptTemplate, FewShotChatMessagePromptTemplate

from sleicl_chains import Example, ExampleSelector, Task, sampler
from sleicl_chains.errors import InputError, OptionError

TASK = Task(name="sizes", description="Is the number small or large?", labels=("small", "large"))
ROWS = [Example(f"number {n}", "small" if n < 5 else "large") for n in range(10)]


class Line(Embeddings):
    """The number in a text as an angle: near numbers are near."""

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        import math

        self.embedded += texts
        angles = [float(text.split()[-1]) / 10 for text in texts]
        return [[math.cos(angle), math.sin(angle)] for angle in angles]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def prompt_with(selector: ExampleSelector) -> ChatPromptTemplate:
    shown = FewShotChatMessagePromptTemplate(
        example_selector=selector,
        example_prompt=ChatPromptTemplate.from_messages([("human", "{text}"), ("ai", "{answer}")]),
        input_variables=["question"],
    )
    return ChatPromptTemplate.from_messages([("system", "Small or large?"), shown, ("human", "{question}")])


def test_the_nearest_rows_of_each_label_stand_before_the_question() -> None:
    prompt = prompt_with(ExampleSelector("similar", TASK, ROWS, per_label=1, seed=0, embeddings=Line()))
    for question, small, large in (("number 2.1", "number 2", "number 5"), ("number 8.9", "number 4", "number 9")):
        messages = prompt.invoke({"question": question}).to_messages()
        assert [(one.type, one.text) for one in messages] == [
            ("system", "Small or large?"), ("human", small), ("ai", "small"), ("human", large), ("ai", "large"),
            ("human", question),
        ]  # fmt: skip


async def test_the_question_itself_is_not_shown() -> None:
    similar = ExampleSelector("similar", TASK, ROWS, per_label=1, seed=0, embeddings=Line())
    chosen = await similar.aselect_examples({"question": " NUMBER 2"})
    assert [row["text"] for row in chosen] in (["number 1", "number 5"], ["number 3", "number 5"])
    drawn = ExampleSelector("random", TASK, ROWS, per_label=5, seed=0)
    texts = [row["text"] for row in drawn.select_examples({"question": "number 2"})]
    assert len(texts) == 9 and "number 2" not in texts


def test_the_others_draw_once_what_the_sampler_draws() -> None:
    for name in ("random", "kmeans"):
        line = Line()
        selector = ExampleSelector(name, TASK, ROWS, per_label=2, seed=3, embeddings=line)
        first = selector.select_examples({"question": "number 77"})
        embedded = len(line.embedded)
        assert selector.select_examples({"question": "number 78"}) == first and len(line.embedded) == embedded
        draw = sampler(name, per_label=2, seed=3, embeddings=Line())
        wanted = draw.invoke({"task": TASK, "examples": ROWS})
        assert first == [{"text": row.text, "answer": row.answer} for row in wanted]
        assert Counter(row["answer"] for row in first) == {"small": 2, "large": 2}


def test_an_added_row_is_chosen_from_then_on() -> None:
    selector = ExampleSelector("random", TASK, ROWS[:1], per_label=9, seed=0)
    assert len(selector.select_examples({"question": "?"})) == 1
    selector.add_example({"text": "number 99", "answer": "large"})
    assert {"text": "number 99", "answer": "large"} in selector.select_examples({"question": "?"})
    with pytest.raises(InputError, match="found the label 'huge'; expected one of 'small', 'large'"):
        selector.add_example({"text": "number 100", "answer": "huge"})
    with pytest.raises(InputError, match="example: found no answer; expected text and answer"):
        selector.add_example({"text": "number 100"})


def test_what_is_wrong_is_said() -> None:
    selector = ExampleSelector("random", TASK, ROWS, per_label=1, seed=0)
    with pytest.raises(InputError, match="found the variables text; expected 'question' [(]question_key names it"):
        selector.select_examples({"text": "number 1"})
    with pytest.raises(OptionError, match="sampler hard: needs a weak model"):
        ExampleSelector("hard", TASK, ROWS, per_label=1, seed=0)
    with pytest.raises(InputError, match="found the label 'huge'"):
        ExampleSelector("random", TASK, [Example("1", "huge")], per_label=1, seed=0)
