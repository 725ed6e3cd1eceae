"""A task of nonsense to learn: what helps on it is decided by the test, since no words tell the labels apart."""

import hashlib
from collections.abc import Callable
from typing import Any

from langchain_core.embeddings import DeterministicFakeEmbedding

from sleicl_chains.answering.recipes import Recipe
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.learning.learn import learn
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.fake_models import Scorer, Writer, question_of

LABELS = ("left", "right")
TASK = Task(name="doors", task_type="choice", description="Say which door it is.", labels=LABELS)
GUIDE = "The grimoire: look at the number."
CLUE = Grimoire("doors-1", "doors", "", "", LABELS, "", GUIDE, Provenance())
SPACE = DeterministicFakeEmbedding(size=6)
"""Vectors that know nothing."""


def number(text: str, of: int = 1000) -> int:
    """Return a number that is the same for a text everywhere."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) % of


def door(text: str) -> str:
    """Return the right answer."""
    return LABELS[number(text, 2)]


def rows(n: int) -> list[Example]:
    return [Example(f"case {at}", door(f"case {at}")) for at in range(n)]


def guess(prompt: str) -> str:
    """Return an answer that depends on the prompt and has nothing to do with the right one."""
    return LABELS[number("guess" + prompt, 2)]


def knows(prompt: str) -> str:
    """Return the right answer for nineteen questions in twenty."""
    right = door(question_of(prompt))
    return right if number("slip" + question_of(prompt), 20) else LABELS[1 - LABELS.index(right)]


def only_with_grimoire(prompt: str) -> str:
    return knows(prompt) if GUIDE in prompt else guess(prompt)


def only_without(prompt: str) -> str:
    return guess(prompt) if GUIDE in prompt else knows(prompt)


def whatever_is_shown(prompt: str) -> str:
    """Return what the question alone decides."""
    return knows(question_of(prompt).join(["\nhuman: ", "\nai: "]))


def scorer(said: Callable[[str], str]) -> Scorer:
    """Return a model that favours the label that is said, 4 to 1, and leans to the left a little."""
    return Scorer(think=lambda prompt: {"left": 0.3, "right": 0.2, said(prompt): 0.9})


def writer(said: Callable[[str], str]) -> Writer:
    return Writer(reply=said)


def learned(weak: Writer, n: int = 100, **options: Any) -> Recipe:
    given: dict[str, Any] = {"grimoires": [CLUE], "space": SPACE, "weak_name": "fake", "seed": 0, **options}
    return learn(given.pop("task", TASK), given.pop("examples", rows(n)), weak=weak, **given)
