"""Label scores of the embedded model, held against whole distributions of the real engine."""

import json
import math
import sqlite3

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.observer import Observer
from sleicl_chains.files import Home
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.models.llamacpp.scoring import spell
from sleicl_chains.models.names import weak_model
from sleicl_chains.tasks.cards import Task

SENTIMENTS = ("very positive", "positive", "neutral", "negative", "very negative")
CHAT = [SystemMessage("Classify the mood."), HumanMessage("The film was a delight."), AIMessage("Answer:")]


def full_distribution(model: EmbeddedModel, ids: list[int], most: int = 300_000) -> dict[int, float]:
    """The whole vocabulary's probabilities at the end of a prompt, or its `most` likeliest: the slow, plain way."""
    body = {"prompt": ids, "n_predict": 1, "cache_prompt": True, "temperature": 1.0, "samplers": []}
    model.engine.post("/completion", body)  # evaluated from the cache from now on
    for seed in range(40):  # where a piece of a character is drawn, there are none
        reply = model.engine.post("/completion", body | {"post_sampling_probs": True, "n_probs": most, "seed": seed})
        if "completion_probabilities" in reply:
            return {entry["id"]: entry["prob"] for entry in reply["completion_probabilities"][0]["top_probs"]}
    raise AssertionError("no whole character was drawn")


def test_label_scores_are_the_models_probabilities_down_to_where_labels_differ(weak: EmbeddedModel) -> None:
    """By hand: p(first token), and where labels share it, times p(second | first) among the sharers."""
    prompt = weak.render(CHAT)
    ids = weak.engine.prompt_tokens(prompt)
    first = {label: weak.engine.tokens(f" {label}", special=False) for label in SENTIMENTS}
    start = full_distribution(weak, ids)
    very = full_distribution(weak, [*ids, first["very positive"][0]])
    pair = {label: very[first[label][1]] for label in ("very positive", "very negative")}
    mass = {label: start[first[label][0]] for label in SENTIMENTS}
    wanted = {
        label: mass[label] * pair.get(label, 1) / (sum(pair.values()) if label in pair else 1) for label in SENTIMENTS
    }
    coverage = sum({tokens[0]: start[tokens[0]] for tokens in first.values()}.values())

    found = weak.score_labels(prompt, SENTIMENTS)

    assert found.probabilities == pytest.approx({label: p / coverage for label, p in wanted.items()}, rel=1e-3)
    assert found.coverage == pytest.approx(coverage, rel=1e-3)
    assert (found.requests, found.prompt_tokens) == (2, 2 * len(ids) + 1)  # of both requests


def test_a_label_that_begins_another_has_what_the_longer_leaves(weak: EmbeddedModel) -> None:
    """By hand: p(no) times 1 - p(hate | no), and p(no) p(hate | no)."""
    prompt = weak.render(CHAT)
    ids = weak.engine.prompt_tokens(prompt)
    no, hate = (weak.engine.tokens(f" {word}", special=False) for word in ("no", "hate"))
    start = full_distribution(weak, ids)
    below = full_distribution(weak, [*ids, *no])[hate[0]]
    total = start[no[0]] + start[hate[0]]
    found = weak.score_labels(prompt, ["no", "no hate", "hate"])
    wanted = {"no": start[no[0]] * (1 - below), "no hate": start[no[0]] * below, "hate": start[hate[0]]}
    assert found.probabilities == pytest.approx({label: p / total for label, p in wanted.items()}, rel=1e-3)
    assert found.requests == 4  # three of them beside the label that has ended


def test_only_labels_that_begin_others_are_asked_again(weak: EmbeddedModel, task: Task, home: Home) -> None:
    """Their definition changed; all others keep the key of their scores."""
    with Journal(home.make().journal) as journal:
        for labels in (("hate", "no hate"), ("hate", "hate speech")):
            Observer(weak, task.model_copy(update={"labels": labels}), Arm(), journal=journal).observe(
                "Hm.", ("scores",)
            )
    with sqlite3.connect(home.journal) as file:
        asked = [json.loads(request) for (request,) in file.execute("SELECT request FROM calls ORDER BY rowid")]
    assert [sorted(request) for request in asked] == [
        ["labels", "model", "op", "prompt"],
        ["labels", "model", "op", "prefixed", "prompt"],
    ]


LABELS = {
    "Han": ("茶", "工具"), "Han, sharing bytes": ("茶", "草", "工人", "工具"), "Kana": ("キ", "サ"),
    "Hangul": ("긍정", "부정"), "Cyrillic": ("хорошо", "плохо"), "Arabic": ("جيد", "سيئ"), "Hebrew": ("טוב", "רע"),
    "Devanagari": ("अच्छा", "बुरा"), "Thai": ("ดี", "แย่"), "Georgian": ("კარგი", "ცუდი"), "Amharic": ("ጥሩ", "መጥፎ"),
    "pictures": ("😀", "😢"), "two scripts": ("茶", "tea"), "one begins another": ("茶", "茶道"),
}  # fmt: skip


Wholes = dict[tuple[int, ...], dict[int, float]]


def scored_by_hand(
    model: EmbeddedModel, ids: list[int], spelled: dict[str, list[int]], depth: int, known: Wholes
) -> dict[str, float]:
    """Return the labels' shares from whole distributions, which are slow and kept in `known`."""
    ended = [label for label, tokens in spelled.items() if len(tokens) == depth]
    rest = {label: tokens for label, tokens in spelled.items() if label not in ended}
    place = tuple(ids)
    known.setdefault(place, {})
    for most in (2000, 300_000):
        if not {tokens[depth] for tokens in rest.values()} <= set(known[place]):
            known[place] = full_distribution(model, ids, most)
    first = {tokens[depth]: known[place][tokens[depth]] for tokens in rest.values()}
    total = 1.0 if ended else sum(first.values())
    shares = dict.fromkeys(ended, 1 - sum(first.values()))
    for token, mass in first.items():
        members = {label: tokens for label, tokens in rest.items() if tokens[depth] == token}
        inner = dict.fromkeys(members, 1.0)
        if len(members) > 1:
            inner = scored_by_hand(model, [*ids, token], members, depth + 1, known)
        shares |= {label: mass / total * share for label, share in inner.items()}
    return shares


def agree_in_every_script(model: EmbeddedModel) -> None:
    """Check scores against whole distributions; with pieces of characters the engine gives none of a short list."""
    prompt, known = "Question: which one?\nAnswer:", Wholes()
    for script, labels in LABELS.items():
        start, spelled = spell(model.engine, prompt, labels)
        ids = model.engine.prompt_tokens(prompt) if start == [prompt] else [int(token) for token in start]
        wanted = scored_by_hand(model, ids, dict(zip(labels, spelled, strict=True)), 0, known)
        found = model.score_labels(prompt, labels)
        assert found.probabilities == pytest.approx(wanted, rel=1e-3), script
        assert math.isclose(sum(found.probabilities.values()), 1, rel_tol=1e-5)


def test_labels_in_every_script_are_scored(weak: EmbeddedModel) -> None:
    """SmolLM2 writes most of these characters in pieces, one byte or two each."""
    assert len(weak.engine.tokens(" 茶", special=False)) == 3
    agree_in_every_script(weak)


@pytest.mark.ollama
def test_labels_in_every_script_are_scored_by_another_tokenizer(ollama: str, home: Home) -> None:
    model = weak_model("embedded:ollama/gemma3:270m-base", home=home, n_ctx=256, threads=1)
    assert isinstance(model, EmbeddedModel)
    agree_in_every_script(model)
    model.engine.close()


def test_an_unlikely_label_is_still_scored(weak: EmbeddedModel) -> None:
    labels = [f"{word}" for word in ("blue", "Zürich", "→", "キ", "glucocorticoid")]
    found = weak.score_labels("The sky is", labels)
    assert all(share > 0 for share in found.probabilities.values())
    assert max(found.probabilities, key=lambda label: found.probabilities[label]) == "blue"


def test_scores_do_not_depend_on_what_was_asked_before(weak: EmbeddedModel) -> None:
    """Why flash attention is off and the cache is 32 bits wide: else they move by up to 0.06."""
    prompts = [weak.render([CHAT[0], HumanMessage(f"Sentence {n}: the film was dull."), CHAT[2]]) for n in range(6)]
    forward = [weak.score_labels(prompt, SENTIMENTS).probabilities for prompt in prompts]
    weak.score_labels("Something quite different, to displace the cache.", SENTIMENTS)
    backward = [weak.score_labels(prompt, SENTIMENTS).probabilities for prompt in reversed(prompts)][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_scores_do_not_depend_on_the_number_of_threads(weak: EmbeddedModel) -> None:
    prompt = weak.render(CHAT)
    other = EmbeddedModel(path=weak.path, n_ctx=1024, threads=2).score_labels(prompt, SENTIMENTS)
    assert other.probabilities == pytest.approx(weak.score_labels(prompt, SENTIMENTS).probabilities, abs=1e-3)
