"""What the page shows of texts that others wrote."""

from dataclasses import replace

import pytest

from sleicl_chains.grimoires.grimoire import Effect, Grimoire, Provenance
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.serving.conversation import Conversation, Turn
from sleicl_chains.serving.picking import Pick
from sleicl_chains.serving.web_texts import (
    both_texts,
    card,
    facts,
    literal,
    note_of,
    shown_reply,
    version_lines,
)
from tests.support.fake_models import Writer

GRIMOIRE = Grimoire(
    "moods-1", "moods <img src=x>", "", "Say the *mood*.\n![x](http://a/b.png)", ("happy", "sad"), "Laughing is happy.",
    "", Provenance(strong_model="gpt", date="2026-01-31"), (Effect("smol", "profound", 0.08, 0.01, 0.15, 100, "rows"),),
)  # fmt: skip


def test_every_sign_that_markdown_may_obey_is_escaped() -> None:
    assert literal("<b>*a*</b>\n# ![x](y) | `c` $x$") == (
        r"\<b\>\*a\*\<\/b\> \# \!\[x\]\(y\) \| \`c\` \$x\$"
    )  # fmt: skip
    assert literal("abcdef", 4) == "abc…" and literal("abcd", 4) == "abcd"


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        ("**a** < b <i>c</i> <!-- d -->", "**a** < b &lt;i>c&lt;/i> &lt;!-- d -->"),
        ("see ![x](http://a/b.png) and [y](http://a)", "see !\\[x](http://a/b.png) and [y](http://a)"),
        ("`<b>` <b> ``a `<i>` b``", "`<b>` &lt;b> ``a `<i>` b``"),
        ("```html\n<b>\n```\n<i>", "```html\n<b>\n```\n&lt;i>"),
        ("~~~\n```\n<b>\n~~~\n<i>", "~~~\n```\n<b>\n~~~\n&lt;i>"),
        ("a\n```\n<b> still open", "a\n```\n<b> still open"),
        ("it`s <b>", "it`s &lt;b>"),
    ],
)
def test_a_reply_keeps_its_form_and_its_code_but_no_html_or_image(reply: str, shown: str) -> None:
    assert shown_reply(reply) == shown


def test_a_note_names_the_grimoire_and_why() -> None:
    pick = Pick(GRIMOIRE, "similarity 0.71, close")
    assert note_of(Conversation(Writer()), pick) == (
        r"Grimoire: moods \<img src\=x\>",
        "- similarity 0\\.71\\, close\n- id: moods\\-1\n"
        "- for: Say the \\*mood\\*\\. \\!\\[x\\]\\(http\\:\\/\\/a\\/b\\.png\\)\n"
        "- measured: \\+\\.08 \\[\\+\\.01\\, \\+\\.15\\] on 100 rows of rows\\, smol\\, profound against zero\\-shot",
    )  # fmt: skip


def test_a_note_says_that_nothing_fits_but_not_what_was_wanted_so() -> None:
    store = GrimoireStore()
    assert note_of(Conversation(Writer(), store), Pick()) == ("No grimoire", "none fits")
    assert note_of(Conversation(Writer(), store, grimoire="none"), Pick()) is None
    assert note_of(Conversation(Writer()), Pick()) is None


def test_that_the_model_cannot_read_is_said_once() -> None:
    talk = Conversation(Writer(), GrimoireStore())
    talk._problem = "smol does not follow guides"
    talk.turns = [Turn("hi", Pick())]
    assert note_of(talk, Pick()) == ("No grimoires for this model", "smol does not follow guides")
    talk.turns *= 2
    assert note_of(talk, Pick()) is None


def test_a_card_and_the_facts_of_a_grimoire() -> None:
    assert card(GRIMOIRE).split("\n") == [
        "moods-1", "Say the *mood*. ![x](http://a/b.png)",
        "measured: +.08 [+.01, +.15] on 100 rows of rows, smol, profound against zero-shot",
    ]  # fmt: skip
    assert card(replace(GRIMOIRE, description="x" * 200, effects=())).split("\n")[1:] == [
        "x" * 159 + "…", "not measured"
    ]  # fmt: skip
    assert facts(replace(GRIMOIRE, task="moods", description="Say it.", effects=())) == (
        "### moods\n\nSay it\\.\n\n- id: moods\\-1\n- answers: happy\\, sad\n- written by: gpt\\, 2026\\-01\\-31\n"
        "- measured: not yet"
    )
    assert both_texts(GRIMOIRE) == "# Profound grimoire\n\nLaughing is happy."


def test_history_is_told_as_lines() -> None:
    store = GrimoireStore()
    store.add(GRIMOIRE)
    store.revise(replace(GRIMOIRE, profound="Laughing is happy.\nRain is sad."))
    store.tag("moods-1@1", "first")
    newest, oldest = version_lines(store.history("moods-1")).split("\n")
    assert newest.startswith("moods-1@2  20") and newest.endswith("  profound: 1 line added")
    assert oldest == "moods-1@1  2026-01-31  the first text  first"
