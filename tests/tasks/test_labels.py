"""What a sensible reader takes a reply for; where there are two readings the parser must not guess."""

import time
from typing import Any, cast

import pytest

from sleicl_chains.evaluation.table import ArmBuilder
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import mentioned, parse_label, prefixed
from tests.support.fake_models import Stater

TOPICS = ("World", "Sports", "Business", "Sci/Tech")
KINDS = ("Abbreviation", "Entity", "Description", "Person", "Location", "Number")
MOODS = ("positive", "negative", "neutral")
HATE = ("hate", "no hate")
STARS = ("1", "2", "3", "4", "5")

READ: list[tuple[tuple[str, ...], str, str]] = [
    # ------------------------------------------------ the label alone, dressed up
    (TOPICS, "Sports", "Sports"),
    (TOPICS, "sports.", "Sports"),
    (TOPICS, "\n\n  SPORTS!\n", "Sports"),
    (MOODS, '"Positive"', "positive"),
    (MOODS, "**Positive**", "positive"),
    (MOODS, "_Positive_", "positive"),
    (MOODS, "`positive`", "positive"),
    (MOODS, "“Positive”", "positive"),
    (MOODS, "### Positive 😊", "positive"),
    (MOODS, "Ｐｏｓｉｔｉｖｅ", "positive"),
    (TOPICS, "- Sports", "Sports"),
    (TOPICS, "(B) Sports", "Sports"),
    (TOPICS, "2. Sports", "Sports"),
    (TOPICS, "Sports</s>", "Sports"),
    (TOPICS, "Sports<|im_end|>", "Sports"),
    (TOPICS, "\\boxed{Sports}", "Sports"),
    (TOPICS, "Sports Sports Sports", "Sports"),
    # ------------------------------------------------ with a cue
    (MOODS, "Answer:positive", "positive"),
    (KINDS, "The answer is: Location.", "Location"),
    (KINDS, "Label - Person", "Person"),
    (KINDS, "Answer:\n\nPerson", "Person"),
    (TOPICS, "**Final Answer:** **Business**", "Business"),
    (TOPICS, "Option C: Business", "Business"),
    (TOPICS, "The correct label is 'Business'.", "Business"),
    (TOPICS, "This text is labeled as Business", "Business"),
    (TOPICS, '{"label": "Sports"}', "Sports"),
    (TOPICS, '```json\n{"label": "Sports", "explanation": "There is a match; Business is absent."}\n```', "Sports"),
    (TOPICS, "The possible labels are World and Sports. Answer: Sports", "Sports"),
    (TOPICS, "The text mentions sports.\nTherefore the topic is Business.", "Business"),
    (TOPICS, "My first answer: World. Final answer: Business", "Business"),
    (TOPICS, "1. Sports: there is a match\n2. Business: there is a sponsor\nAnswer: Sports", "Sports"),
    # ------------------------------------------------ with an explanation, or running on
    (MOODS, "positive\n\nExplanation: a negative word is used, but in jest.", "positive"),
    (TOPICS, "B) Sports\nReason: the Business side is only mentioned.", "Sports"),
    (TOPICS, "Reasoning: a company is named, which hints at sports.\nAnswer: Business", "Business"),
    (KINDS, "Location. The question asks for a place, whereas a Person would be a who.", "Location"),
    (TOPICS, "Sports, because a match is reported.\nNothing else is.", "Sports"),
    (TOPICS, "Sports\n\nText: Stocks fell.\nAnswer: Business", "Sports"),
    (KINDS, "The number of people is asked for, so this is a Number", "Number"),
    (KINDS, "The number of the location says where it is.\nLocation", "Location"),
    (TOPICS, "I am not sure, but Sports", "Sports"),
    # ------------------------------------------------ thinking
    (TOPICS, "<think>Sports or Business</think>Business", "Business"),
    (TOPICS, "<THINKING>\nSports\n</THINKING>\n\nBusiness", "Business"),
    (TOPICS, "It is Sports, is it?\n</think>\nBusiness", "Business"),
    (TOPICS, "<think>a<think>Sports</think>b</think>Business", "Business"),
    # ------------------------------------------------ the question echoed
    (HATE, "hate speech? no hate", "no hate"),
    (("True", "False"), "True or False: False", "False"),
    (("True", "False"), "True or False?\nTrue", "True"),
    (TOPICS, "Is this about World, Sports, Business or Sci/Tech? It is about Business.", "Business"),
    # ------------------------------------------------ denied labels
    (TOPICS, "Final answer: Business (not Sports)", "Business"),
    (TOPICS, "Business, not Sports or World", "Business"),
    (TOPICS, "Business rather than Sports", "Business"),
    (TOPICS, "The label is not Sports. It is Business.", "Business"),
    (TOPICS, "It belongs to the category of Business, not the category of Sports.", "Business"),
    (MOODS, "It isn’t negative, it's positive.", "positive"),
    (("yes", "no"), "No, it is not.", "no"),
    (("yes", "no"), "No, yes is wrong here: no", "no"),
    # ------------------------------------------------ labels that hold one another, or odd characters
    (HATE, "no hate", "no hate"),
    (HATE, "No-Hate.", "no hate"),
    (HATE, "No\n  hate", "no hate"),
    (HATE, "This is hate speech.", "hate"),
    (("positive", "very positive"), "very_positive", "very positive"),
    (("card_arrival", "card_linking"), "The intent is card arrival.", "card_arrival"),
    (("C", "C++", "C#"), "C++", "C++"),
    (("C", "C++", "C#"), "It is written in C#.", "C#"),
    (("C", "C++", "C#"), "C.", "C"),
    (("n/a", "U.S."), "N/A", "n/a"),
    (("n/a", "U.S."), "The answer is U.S. and nothing else", "U.S."),
    (("-1", "1"), "-1", "-1"),
    (TOPICS, "Sci/Tech", "Sci/Tech"),
    (STARS, "4 stars", "4"),
    (STARS, "4.", "4"),
    # ------------------------------------------------ other languages
    (("Ärger", "Freude"), "ÄRGER", "Ärger"),
    (("Ärger", "Freude"), "A\u0308rger", "Ärger"),
    (("Straße", "Weg"), "STRASSE", "Straße"),
    (("Hass", "kein Hass"), "Das ist kein Hass.", "kein Hass"),
    (("спорт", "бизнес"), "Ответ: Спорт", "спорт"),
    (("体育", "财经"), "答案是体育。", "体育"),
    (("스포츠", "경제"), "스포츠입니다", "스포츠"),
    (("رياضة", "اقتصاد"), "الجواب: رياضة", "رياضة"),
    (MOODS, "答案是positive。", "positive"),
]


@pytest.mark.parametrize("labels, reply, label", READ)
def test_a_reply_that_means_one_label(labels: tuple[str, ...], reply: str, label: str) -> None:
    assert parse_label(reply, labels) == label
    assert parse_label(reply, labels[::-1]) == label  # the card's order does not matter


UNREAD: list[tuple[tuple[str, ...], str]] = [
    (TOPICS, ""),
    (TOPICS, " \n\t\n"),
    (TOPICS, "I cannot answer that."),
    (TOPICS, "Sport"),
    (TOPICS, "Transports"),
    (TOPICS, "Answer:"),
    (TOPICS, "\U000f0001"),  # how labels are marked inside
    # ------------------------------------------------ several
    (TOPICS, "Sports / Business"),
    (TOPICS, "Sports/Business"),
    (TOPICS, "World, Sports, Business, Sci/Tech"),
    (TOPICS, "World\nSports\nBusiness\nSci/Tech"),
    (TOPICS, "1. World\n2. Sports\n3. Business\n4. Sci/Tech"),
    (TOPICS, "Answer with one of: World, Sports, Business, Sci/Tech."),
    (TOPICS, "Either Sports or Business."),
    (TOPICS, "Answer: Sports\n\nText: Stocks fell.\nAnswer: Business"),
    (TOPICS, "Sports\n\nStocks fell.\n\nBusiness"),
    (TOPICS, "The text mentions sports.\nIt is business."),
    (MOODS, "The sentiment is positive, though some parts are negative."),
    (("yes", "no"), "Yes, no doubt"),
    (STARS, "4.5"),
    (STARS, "Rating: 4/5"),
    (("1", "2"), "1.5"),
    # ------------------------------------------------ questions and thoughts
    (TOPICS, "Is this about World, Sports, Business or Sci/Tech?"),
    (TOPICS, "Is it Sports?"),
    (("True", "False"), "True or False"),
    (TOPICS, "<think>It could be Business, so Sports"),
    (TOPICS, "<think>Sports</think>"),
    (TOPICS, "Sports</think>"),
    # ------------------------------------------------ denied
    (HATE, "not hate"),
    (HATE, "This is not hate speech."),
    (HATE, "It isn't a hate message"),
    (HATE, "non-hate"),
    (MOODS, "It does not seem positive"),
    (TOPICS, "Neither Sports nor Business"),
    (TOPICS, "There is no mention of sports."),
    (("Hass", "kein Hass"), "nicht Hass"),
    (("体育", "财经"), "不是体育"),
]


@pytest.mark.parametrize("labels, reply", UNREAD)
def test_a_reply_that_means_none_or_several(labels: tuple[str, ...], reply: str) -> None:
    assert parse_label(reply, labels) is None
    assert parse_label(reply, labels[::-1]) is None


@pytest.mark.parametrize(
    "labels, text, found",
    [
        (TOPICS, "From business to SPORTS, and business again", ["Business", "Sports"]),
        (HATE, "no hate here", ["no hate"]),
        (HATE, "hate, then no\nhate", ["hate", "no hate"]),
        (("positive", "very positive"), "Very positive.", ["very positive"]),
        (TOPICS, "worldly, sporting and unsports", []),
        (MOODS, "not positive", ["positive"]),  # a rule that says what something is not names it all the same
        (("A", "B"), "a_b", ["A", "B"]),
        (("体育", "财经"), "是财经还是体育还是财经", ["财经", "体育"]),
        (TOPICS, "", []),
        ((), "anything", []),
    ],
)
def test_mentions_come_in_order_each_once(labels: tuple[str, ...], text: str, found: list[str]) -> None:
    assert mentioned(text, labels) == found


@pytest.mark.parametrize(
    "reply, label",
    [
        ("Sports " * 15_000, "Sports"),
        ("word " * 20_000 + "Sports", "Sports"),
        ("Sports\n" + "no " * 33_000, "Sports"),
        ("Sports\n" + "not a " * 17_000, "Sports"),
        ("Sports\n" + "answer " * 14_000, "Sports"),
        ("Sports\n" + "label:" * 16_000, "Sports"),
        ("Sports\n" + "explanation" * 9_000, "Sports"),
        ("Sports\n" + "very_" * 20_000, "Sports"),
        ("Sports\n" + "x?" * 50_000, "Sports"),
        ("Sports\n" + "1)" * 50_000, "Sports"),
        ("Sports\n" + "." * 100_000, "Sports"),
        ("Sports\n" + " \n" * 50_000, "Sports"),
        ("Sports no" + " " * 100_000 + "x", "Sports"),
        ("Sports or Business, " * 5_000, None),
        ("not Sports or " * 7_000, None),
        ("<think>" * 14_000 + "Sports", None),
        ("</think>" * 12_000 + "Sports", "Sports"),
        ("<think>x</think>" * 6_000 + "Sports", "Sports"),
    ],
    ids=range(18),
)
def test_a_reply_of_100_kilobytes_is_read_at_once(reply: str, label: str | None) -> None:
    """Each takes some 0.1 s; a pattern that backtracks over 100,000 characters takes minutes."""
    started = time.process_time()
    assert parse_label(reply, [*TOPICS, *HATE]) == label
    assert time.process_time() - started < 5


def test_labels_that_begin_others() -> None:
    assert prefixed(["hate", "hate speech", "hate mail", "no hate", "no"]) == [
        ("hate", "hate speech"),
        ("no", "no hate"),
    ]
    assert prefixed(["hate", "no hate", "HATE x", "hat"]) == [("hat", "hate")]
    assert prefixed([]) == prefixed(["a"]) == []


def test_a_table_says_that_a_label_begins_another() -> None:
    for labels, notes in ((("hate", "no hate"), 0), (("hate", "hate speech"), 1)):
        card = Task(name="tone", description="Classify the tone.", labels=labels)
        builder = ArmBuilder(card, Stater(), cast(Any, None))
        builder.build(["zero-shot"])
        said = [note for note in builder.notes if note.startswith("the label 'hate' begins 'hate speech': ")]
        assert len(said) == notes
