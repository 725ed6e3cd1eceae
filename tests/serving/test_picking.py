"""Which grimoire a message gets: the shipped library, the word vectors that need no network."""

import time
from pathlib import Path

import pytest

from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.serving.picking import Message, Pick, Picker


@pytest.fixture(scope="module")
def picker(tmp_path_factory: pytest.TempPathFactory) -> Picker:
    return Picker(GrimoireStore(tmp_path_factory.mktemp("picking")))


def picks(picker: Picker, *texts: str) -> list[str | None]:
    pick, found = Pick(), []
    for text in texts:
        pick = picker.pick(text, pick)
        found.append(pick.grimoire.task if pick.grimoire else None)
    return found


def test_a_message_is_cut_into_parts_without_what_it_quotes() -> None:
    message = Message.of('hi. is this a scam? "You have won a prize, click here" thanks')
    assert message.parts == ("hi.", "is this a scam?", "thanks", "hi. is this a scam? thanks")
    assert message.brings_text
    assert not Message.of("shorter please").brings_text
    assert Message.of("word " * 26).brings_text, "a long message is a text, quoted or not"


@pytest.mark.parametrize("mark", ["„", "“", "«", '"', "```", "a, ", ". "])
def test_a_long_text_is_cut_in_no_time(mark: str) -> None:
    begun = time.perf_counter()
    parts = Message.of(f"{mark}a" * 300_000).parts
    assert time.perf_counter() - begun < 3 and max(map(len, parts)) <= 2000


def test_what_is_only_quoted_is_compared_itself() -> None:
    assert Message.of('"Robot mower learns to go round hedgehogs"').parts == (
        '"Robot mower learns to go round hedgehogs"',
    )


def test_a_talk_finds_holds_changes_and_drops_grimoires(picker: Picker) -> None:
    texts = (
        'Is this mail a scam? "Your parcel waits, pay 2 euros here"',
        'and this one? "Dear colleague, the meeting is moved to three"',
        "thanks",
        "Write a reply to this customer: the kettle came broken, I want another one",
        "what is the capital of Peru?",
    )
    assert picks(picker, *texts) == ["spam", "spam", "spam", "reply-to-customer", None]


def test_a_new_request_behind_a_long_text_is_not_held_by_the_task_before(picker: Picker) -> None:
    mail = (
        "Dear customer, your parcel is held at the depot. Pay 1.99 within 12 hours or it goes back, says the carrier."
    )
    texts = ("Summarise my notes of the meeting", f"{mail} Do you think this mail is junk?")
    assert picks(picker, *texts) == ["summarise-notes", "spam"]


def test_a_follow_up_without_anything_before_has_none(picker: Picker) -> None:
    assert picks(picker, "and this one?") == [None]


def test_why(picker: Picker) -> None:
    first = picker.pick("Is this mail a scam?")
    assert first.why == "near to “Is this mail a scam?” (0.95)" and not first.held
    held = picker.pick("thanks", first)
    assert (held.why, held.held) == ("goes on with the one before", True)
    assert picker.pick("how long do I boil an egg?", first) == Pick(None, "none fits", False)


def test_a_pick_follows_from_the_messages_alone(picker: Picker) -> None:
    texts = ["Give me a summary of the meeting", "half as long", "and as a list of who has to do what"]
    one_by_one = Pick()
    for text in texts:
        one_by_one = picker.pick(text, one_by_one)
    assert picker.of_talk(texts) == one_by_one


def test_what_was_held_and_is_gone_is_not_picked(picker: Picker) -> None:
    gone = Grimoire("gone-1", "gone", "", "Something else.", (), "Rules.", "", Provenance())
    assert picker.pick("thanks", Pick(gone, "was there")) == Pick()


def test_an_added_grimoire_is_picked_by_its_requests(tmp_path: Path) -> None:
    store = GrimoireStore(Home(tmp_path))
    picker = Picker(store)
    asked = "Which of our glazes suits this clay?"
    assert picker.pick(asked).grimoire is None
    store.add(
        Grimoire("glaze-1", "glaze", "", "Name a glaze.", (), "Ash to stoneware.", "", Provenance(), requests=(asked,))
    )
    found = picker.pick("which glaze suits red clay?").grimoire
    assert found and found.id == "glaze-1"


def test_an_empty_message_has_none(picker: Picker) -> None:
    assert picker.pick("  ") == Pick() and picker.of_talk([]) == Pick()
