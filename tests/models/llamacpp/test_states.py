"""The embedded model's own state, with the real engine and real weights."""

import math

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.observer import Observer
from sleicl_chains.errors import PromptTooLong
from sleicl_chains.models.llamacpp.engine import Engine
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.tasks.cards import Task
from tests.models.llamacpp.test_scoring import CHAT, SENTIMENTS, full_distribution
from tests.support.fake_models import Stater


def test_the_state_is_the_next_tokens_logits_less_their_mean(weak: EmbeddedModel) -> None:
    """By the slow, plain way: log-probabilities of the whole vocabulary differ from logits by one constant."""
    prompt = weak.render(CHAT)
    found = weak.read_state(prompt)
    tokens = weak.engine.probe_tokens
    whole = full_distribution(weak, weak.engine.prompt_tokens(prompt))
    seen = [at for at, token in enumerate(tokens) if whole.get(token, 0) > 1e-12]
    assert len(found.values) == len(tokens) == 512 and len(seen) > 400
    logs = [math.log(whole[tokens[at]]) for at in seen]
    gaps = [found.values[at] - log for at, log in zip(seen, logs, strict=True)]
    assert max(gaps) - min(gaps) < 0.02
    assert sum(found.values) == pytest.approx(0, abs=1e-6)


def test_the_state_is_the_same_when_it_is_read_again_and_another_for_another_text(weak: EmbeddedModel) -> None:
    prompt, other = (weak.render([CHAT[0], HumanMessage(text), CHAT[2]]) for text in ("A delight.", "A bore."))
    first = weak.read_state(prompt)
    different = weak.read_state(other)
    weak.score_labels("Something quite different, to displace the cache.", SENTIMENTS)
    again = weak.read_state(prompt)
    assert again.values == pytest.approx(first.values, abs=5e-3)
    assert max(abs(a - b) for a, b in zip(first.values, different.values, strict=True)) > 0.5


def test_the_front_that_prompts_share_is_evaluated_once(weak: EmbeddedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine says how many tokens it evaluated: of a second question, only the question's own."""
    evaluated: list[int] = []
    post = Engine.post

    def counted(self: Engine, path: str, body: object) -> dict[str, object]:
        reply: dict[str, object] = post(self, path, body)  # type: ignore[arg-type]
        if path == "/completion":
            evaluated.append(reply["timings"]["prompt_n"])  # type: ignore[index]
        return reply

    monkeypatch.setattr(Engine, "post", counted)
    front = SystemMessage("Classify the mood of the sentence. " + "Laughter is happy and tears are sad. " * 12)
    first, second = (
        weak.render([front, HumanMessage(f"The film was {word}."), CHAT[2]]) for word in ("dull", "a delight")
    )
    weak.score_labels("Something quite different, to displace the cache.", SENTIMENTS)
    evaluated.clear()
    tokens = [weak.read_state(prompt).prompt_tokens for prompt in (first, second)]
    assert min(tokens) > 120
    assert evaluated[0] > 110 and evaluated[1] < 20
    weak.score_labels(second, SENTIMENTS)
    assert evaluated[2] < 5, "scores after the state go on from the same prompt"


def test_a_state_of_a_prompt_that_does_not_fit_is_refused(weak: EmbeddedModel) -> None:
    with pytest.raises(PromptTooLong, match="The prompt has 2000 tokens; the context holds 1024"):
        weak.read_state(("word " * 2000).strip())


@pytest.mark.parametrize("question", ["Answer", "assistant", "ai", "It rains. ", "human: it rains"])
def test_the_state_is_read_where_the_question_ends_whatever_it_says(question: str) -> None:
    """Some words of a question stand in the template as well, after it."""
    model = Stater()
    task = Task(name="moods", description="Classify the mood.", labels=("happy", "sad"))
    Observer(model, task, Arm()).observe(question, ("state",))
    ends, whole = model.asked("state")
    assert ends.endswith(f"\nhuman: {question.strip()}") and whole == f"{ends}{whole[len(ends) :]}"
    assert whole[len(ends) :].strip() == "ai: Answer:"
