"""The weak model's chain, on LangChain's own fakes and on the real engine."""

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.fitting import fit_linear
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.shares import pooled
from sleicl_chains.answering.solver import solver
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, PromptTooLong, RejectedReply, Unsupported
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.fake_models import Scorer, question_of

GRIMOIRE = Grimoire(
    "moods-1", "moods", "", "", (), "Laughter {is} happy; tears are sad.", "Tears are sad.", Provenance()
)


class SlowModel(FakeListChatModel):
    """Counts how many calls are in flight together."""

    responses: list[str] = ["sad"]
    lock: Any = threading.Lock()
    running: int = 0
    most: int = 0

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        time.sleep(0.2)
        with self.lock:
            self.running -= 1
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=str(messages[-1].content)))])


def test_a_generated_answer_is_parsed(task: Task) -> None:
    said = solver(FakeListChatModel(responses=['The answer is **"Sad"**.']), task).invoke("My dog is ill.")
    assert said == Answer(
        label="sad",
        text='The answer is **"Sad"**.',
        valid=True,
        arm="zero-shot",
        mode="generate",
        seconds=said.seconds,
        note="generated and parsed: FakeListChatModel gives no label probabilities",
    )
    assert said.to_dict() == {
        "label": "sad", "probability": None, "valid": True, "grimoire": None, "mode": "generate", "prior": "none",
        "coverage": None, "unseen": [], "note": "generated and parsed: FakeListChatModel gives no label probabilities",
        "usage": {}, "seconds": round(said.seconds, 4), "deferred": False,
    }  # fmt: skip


@pytest.mark.parametrize("reply", ["I cannot say.", "happy or sad?"])
def test_a_reply_without_one_label_is_kept_and_not_valid(task: Task, reply: str) -> None:
    said = solver(FakeListChatModel(responses=[reply]), task).invoke("My dog is ill.")
    assert (said.label, said.valid, said.text, said.answer) == (None, False, reply, None)


def test_an_open_ended_task_keeps_the_text(task: Task) -> None:
    open_task = task.model_copy(update={"labels": ()})
    said = solver(FakeListChatModel(responses=["Forty-two"]), open_task).invoke("What is it?")
    assert (said.text, said.answer, said.valid, said.label, said.mode) == (
        "Forty-two",
        "Forty-two",
        True,
        None,
        "generate",
    )
    assert said.to_dict(labelled=False)["text"] == "Forty-two"


def test_the_prompt_holds_the_grimoire_first_and_the_question_last(task: Task, examples: list[Example]) -> None:
    seen: list[list[BaseMessage]] = []

    class Spy(FakeListChatModel):
        def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
            seen.append(messages)
            return super()._generate(messages, *args, **kwargs)

    chain = solver(Spy(responses=["sad"]), task, arm="profound+few-shot", grimoire=GRIMOIRE, examples=examples[:2])
    assert chain.invoke("It {rains}.").grimoire == "moods-1"
    assert [(message.type, message.content) for message in seen[0]] == [
        (
            "system",
            "You are an expert in sentiment analysis. Classify the mood of the sentence.\n"
            "Answer with one of: happy, sad.\n\nLaughter {is} happy; tears are sad.",
        ),
        ("human", "I laughed all day."),
        ("ai", "happy"),
        ("human", "Nobody came to the party."),
        ("ai", "sad"),
        ("human", "It {rains}."),
    ]


def test_it_composes_and_runs_in_every_way(task: Task) -> None:
    label = RunnableLambda(lambda said: said.label)
    chain = RunnableLambda(lambda given: given["q"]) | solver(FakeListChatModel(responses=["sad"]), task) | label
    assert chain.invoke({"q": "Hm."}) == "sad"
    assert chain.batch([{"q": "Hm."}] * 3) == ["sad"] * 3
    assert list(chain.stream({"q": "Hm."})) == ["sad"]
    assert asyncio.run(chain.ainvoke({"q": "Hm."})) == "sad"
    assert asyncio.run(chain.abatch([{"q": "Hm."}] * 3)) == ["sad"] * 3


def test_batches_are_concurrent_and_keep_their_order(task: Task) -> None:
    questions = ["happy", "sad", "happy", "sad"]
    model = SlowModel()
    assert [said.label for said in solver(model, task).batch(questions)] == questions
    assert model.most > 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"arm": "simple"}, InputError, "The arm 'simple' needs a grimoire with a simple text; no grimoire was given"),
        (
            {"arm": "few-shot"},
            InputError,
            "The arm 'few-shot' needs examples; none were given (`examples` or `train`, --train)",
        ),
        (
            {"arm": "one-shot"},
            InputError,
            "There is no arm 'one-shot'; expected majority, probe, recipe, or a prompt (zero-shot, few-shot, knn, "
            "simple, profound, simple+few-shot, profound+few-shot), which may end in +hidden or +fusion or +blend",
        ),
        (
            {"mode": "guess"},
            InputError,
            "There is no mode 'guess'; expected one of generate, schema, score, hidden, fusion, blend",
        ),
        (
            {"prior": "flat"},
            InputError,
            "There is no prior 'flat'; expected one of none, content-free, domain, mean, affine",
        ),
        (
            {"mode": "score"},
            Unsupported,
            "FakeListChatModel gives no label probabilities; use mode 'generate' or a model embedded:NAME",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_asked(
    task: Task, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        solver(FakeListChatModel(responses=["sad"]), task, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("question", ["", "  \n", None, 7])
def test_a_question_must_be_text(task: Task, question: Any) -> None:
    with pytest.raises(InputError, match="A solver takes a question as text; found"):
        solver(FakeListChatModel(responses=["sad"]), task).invoke(question)


# ------------------------------------------------------------------ scores, with the real engine


def test_scored_answers_add_up_and_always_name_a_label(weak: EmbeddedModel, task: Task) -> None:
    said = solver(weak, task).invoke("I laughed all day.")
    assert (said.mode, said.prior, said.valid, said.label in task.labels) == ("score", "content-free", True, True)
    assert sum(said.scores.values()) == pytest.approx(1)
    assert said.label is not None and said.probability == said.scores[said.label]
    assert said.coverage is not None and 0 < said.coverage < 1
    assert said.usage["prompt_tokens"] > 20 and said.seconds > 0


def test_the_prior_is_what_the_model_thinks_without_a_question(weak: EmbeddedModel, task: Task) -> None:
    """p(label | question) / mean p(label | "N/A", "", "[MASK]"), scaled; and for `mean` over the given texts."""

    def shares(text: str) -> dict[str, float]:
        prompt = weak.render(raw.steps.messages(text))
        return weak.score_labels(prompt, task.labels).probabilities

    raw: Any = solver(weak, task, prior="none")
    question = "My dog is ill."
    for prior, texts in (("content-free", ["N/A", "", "[MASK]"]), ("mean", ["I won!", "I lost."])):
        prior_texts = texts if prior == "mean" else []
        found = solver(weak, task, prior=prior, prior_texts=prior_texts).invoke(question)  # type: ignore[call-overload]
        means = {label: sum(shares(text)[label] for text in texts) / len(texts) for label in task.labels}
        ratios = {label: shares(question)[label] / means[label] for label in task.labels}
        wanted = {label: ratio / sum(ratios.values()) for label, ratio in ratios.items()}
        assert found.scores == pytest.approx(wanted, abs=1e-3)
    assert raw.invoke(question).scores == pytest.approx(shares(question), abs=1e-3)


def test_the_prior_mean_needs_texts(weak: EmbeddedModel, task: Task) -> None:
    with pytest.raises(InputError, match="The prior 'mean' needs training texts"):
        solver(weak, task, prior="mean")


def test_score_needs_labels(weak: EmbeddedModel, task: Task) -> None:
    with pytest.raises(Unsupported, match="Mode 'score' needs labels on the task card"):
        solver(weak, task.model_copy(update={"labels": ()}), mode="score")


def test_every_way_to_ask_gives_the_same_scored_answer(weak: EmbeddedModel, task: Task) -> None:
    chain = solver(weak, task, arm="simple", grimoire=GRIMOIRE)
    questions = ["I laughed all day.", "My dog is ill.", "Rain."]
    labels = [chain.invoke(question).label for question in questions]
    assert [said.label for said in chain.batch(questions)] == labels
    assert [said.label for said in asyncio.run(chain.abatch(questions))] == labels
    assert [said.label for said in chain.stream(questions[0])] == labels[:1]


def test_a_prompt_that_does_not_fit_is_an_error_and_never_cut(weak: EmbeddedModel, task: Task) -> None:
    long = Grimoire("long-1", "moods", "", "", (), "Be attentive. " * 600, "", Provenance())
    with pytest.raises(PromptTooLong, match=r"The prompt has \d+ tokens; the context holds 1024"):
        solver(weak, task, arm="profound", grimoire=long).invoke("Rain.")


def test_a_scored_answer_is_asked_once(weak: EmbeddedModel, task: Task, tmp_path: Path, monkeypatch: Any) -> None:
    asked: list[str] = []
    score = EmbeddedModel.score_labels

    def counted(self: EmbeddedModel, prompt: str, labels: Any) -> Any:
        asked.append(prompt)
        return score(self, prompt, labels)

    monkeypatch.setattr(EmbeddedModel, "score_labels", counted)
    with Journal(tmp_path / "journal.sqlite") as journal:
        first = solver(weak, task, journal=journal).invoke("Rain.")
        assert len(asked) == 4  # the question and three content-free inputs
        assert solver(weak, task, journal=journal).invoke("Rain.") == first
        assert len(asked) == 4 == len(journal)
        solver(weak, task, arm="simple", grimoire=GRIMOIRE, journal=journal).invoke("Rain.")
        assert len(asked) == 8


def test_thinking_is_no_part_of_an_open_ended_answer() -> None:
    told = FakeListChatModel(responses=["<think>\nGrass has chlorophyll.\n</think>\nGreen.", "<think>\nWell, grass"])
    chain = solver(told, Task(name="facts", task_type="facts", description="Answer."))
    answer = chain.invoke("What colour is grass?")
    assert (answer.text, answer.valid) == ("Green.", True)
    with pytest.raises(RejectedReply, match="the reply only thought and gave no answer; allow more tokens"):
        chain.invoke("What colour is grass?")


class Narrow(Scorer):
    """Takes prompts of thirty words."""

    def score_labels(self, prompt: str, labels: Any) -> Any:
        if len(prompt.split()) > 30:
            raise PromptTooLong("The prompt is too long")
        return super().score_labels(prompt, labels)


def test_a_training_row_that_does_not_fit_does_not_stand_in_the_way_of_others(task: Task) -> None:
    """Scores .8 to .2 over a mean prior of the same are even; with the long text asked there would be no answer."""
    model = Narrow(think=lambda prompt: {"happy": 0.8, "sad": 0.2})
    texts = ["I won.", "It rains. " * 40]
    said = solver(model, task, prior_texts=texts).invoke("The sun shines.")
    assert said.valid and said.scores == pytest.approx({"happy": 0.5, "sad": 0.5})
    train = [Example("I won.", "happy"), Example("It rains.", "sad"), Example("long " * 60, "sad")]
    assert solver(model, task, prior="affine", train=train).invoke("The sun shines.").valid
    with pytest.raises(PromptTooLong):
        solver(model, task, prior_texts=texts[1:]).invoke("The sun shines.")


def test_other_embeddings_are_another_solver(task: Task) -> None:
    """A table with one of them is not gone on with under the other."""
    train = [Example("I won.", "happy"), Example("It rains.", "sad")]
    model = Scorer(think=lambda prompt: {"happy": 0.8, "sad": 0.2})

    def settings(size: int, **given: Any) -> str:
        space = DeterministicFakeEmbedding(size=size)
        chain: Any = solver(model, task, train=train, embeddings=space, **given)
        return str(chain.config["metadata"]["settings"])

    for given in ({"arm": "knn"}, {"mode": "fusion"}, {"mode": "blend"}):
        assert settings(4, **given) == settings(4, **given) != settings(5, **given)
    assert settings(4, mode="score") == settings(5, mode="score")


def test_fusion_tells_which_labels_were_out_of_sight(task: Task) -> None:
    class Blinkered(Scorer):
        def score_labels(self, prompt: str, labels: Any) -> Any:
            return replace(super().score_labels(prompt, labels), unseen=("sad",))

    train = [Example("I won.", "happy"), Example("It rains.", "sad")]
    model = Blinkered(think=lambda prompt: {"happy": 0.8, "sad": 0.2})
    chain = solver(model, task, mode="fusion", train=train, embeddings=DeterministicFakeEmbedding(size=4))
    said = chain.invoke("The sun shines.")
    assert (said.unseen, said.coverage, said.valid) == (("sad",), 0.5, True)


def test_a_blend_pools_one_model_for_each_kind_of_evidence_that_there_is(task: Task) -> None:
    """This model gives no state, so there are two kinds."""
    train = [
        Example("I won.", "happy"),
        Example("It rains.", "sad"),
        Example("Cake!", "happy"),
        Example("Rain.", "sad"),
    ]
    model = Scorer(think=lambda prompt: {"happy": 0.8, "sad": 0.2 + 0.6 * ("rain" in question_of(prompt).lower())})
    space = DeterministicFakeEmbedding(size=4)
    said = solver(model, task, mode="blend", train=train, embeddings=space).invoke("Does it rain?")

    observer = Observer(model, task, Arm(), embeddings=space)
    seen = [observer.observe(row.text, ("scores", "vector")) for row in train]
    parts = [fit_linear(seen, [row.answer for row in train], (block,), task.labels) for block in ("scores", "vector")]
    new = observer.observe("Does it rain?", ("scores", "vector"))
    assert said.scores == pytest.approx(pooled([part.shares(new) for part in parts]))
    assert (said.mode, said.valid) == ("blend", True) and sum(said.scores.values()) == pytest.approx(1)
