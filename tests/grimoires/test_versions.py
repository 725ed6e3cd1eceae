import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sleicl_chains.errors import GrimoireNotFound, InputError, InputNote, StoreError
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Effect, Grimoire, Provenance, grimoire_id, version_id
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.grimoires.versions import changes, today


def make(simple: str, *, id: str = "", profound: str = "") -> Grimoire:
    id = id or grimoire_id("mail", profound, simple)
    return Grimoire(id, "mail", "", "Is this mail junk?", ("junk", "fine"), profound, simple, Provenance())


SHIPPED = make("Prizes are junk.")
EFFECT = Effect("smollm2", "simple", 0.1, 0.02, 0.18, 100, "TREC")


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / f"{SHIPPED.id}.md").write_text(SHIPPED.to_markdown())
    for module in ("shelf", "archive"):
        monkeypatch.setattr(f"sleicl_chains.grimoires.{module}.data_folder", lambda name: folder)
    return folder


def by_hand(home: Home, name: str, old: str, new: str) -> str:
    path = home.grimoires / f"{name}.md"
    path.write_text(path.read_text().replace(old, new))
    return path.read_text()


def told(store: GrimoireStore, id: str) -> list[tuple[str, str, str]]:
    """Return reference, simple text and parent of each version, the oldest first."""
    return [(one.reference, one.grimoire.simple, one.grimoire.provenance.parent) for one in store.history(id)]


# ------------------------------------------------------------------ edits by hand


def test_an_edit_by_hand_becomes_a_version_and_the_file_stays(home: Home) -> None:
    store = GrimoireStore(home)
    store.add(make("One rule.", id="mine"))
    corrected = by_hand(home, "mine", "One", "Two")
    first = grimoire_id("mail", "", "One rule.")
    assert told(store, "mine") == [("mine@1", "One rule.", ""), ("mine@2", "Two rule.", first)]
    assert store.history("mine")[1].grimoire.provenance.date == today()
    assert (home.grimoires / "mine.md").read_text() == corrected
    assert [one.id for one in store.list()] == sorted([SHIPPED.id, "mine"])
    assert store.get("mine").simple == "Two rule." and store.get("mine@1").simple == "One rule."


def test_an_edit_is_noticed_by_whatever_takes_the_lock(home: Home) -> None:
    store = GrimoireStore(home)
    store.add(make("Rule 0.", id="mine"))
    store.add(make("Another.", id="other"))
    actions: list[Callable[[], object]] = [
        lambda: store.search("mail"),
        lambda: store.match("junk mail"),
        lambda: store.add(make("New.")),
        lambda: store.tag("other", "best"),
        lambda: store.delete("other"),
        lambda: store.restore("other"),
        lambda: store.version(SHIPPED.id),
    ]
    for number, action in enumerate(actions):
        by_hand(home, "mine", f"Rule {number}", f"Rule {number + 1}")
        action()
    assert [text for _, text, _ in told(store, "mine")] == [f"Rule {number}." for number in range(8)]


def test_the_first_text_of_a_file_that_the_library_never_saw_is_named_at_least(home: Home) -> None:
    former = make("One rule.")
    home.grimoires.mkdir(parents=True)
    (home.grimoires / f"{former.id}.md").write_text(replace(former, simple="Two rules.").to_markdown())
    store = GrimoireStore(home)
    assert told(store, former.id) == [(f"{former.id}@1", "Two rules.", former.id)]
    with pytest.warns(InputNote, match="was changed since and keeps its text$"):
        store.add(former)
    assert store.get(former.id).simple == "Two rules."


def test_facts_about_a_text_make_no_version(home: Home) -> None:
    store = GrimoireStore(home)
    store.add(make("One rule.", id="mine"))
    by_hand(home, "mine", "Is this mail junk?", "Junk or not?")
    (only,) = store.history("mine")
    assert only.grimoire.description == "Junk or not?"


def test_effects_stay_with_the_text_that_they_were_measured_on(home: Home) -> None:
    store = GrimoireStore(home)
    store.add(replace(make("One rule.", id="mine"), effects=(EFFECT,)))
    by_hand(home, "mine", "One", "Two")
    assert [one.grimoire.effects for one in store.history("mine")][0] == (EFFECT,)
    copy = (home.versions / f"mine.0002-{grimoire_id('mail', '', 'Two rule.')[-8:]}.md").read_text()
    assert "effect" not in copy
    assert store.revise(replace(store.get("mine"), simple="Three.")).grimoire.effects == ()


def test_a_home_that_may_not_be_written_shows_an_edit_all_the_same(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    store = GrimoireStore(home)
    store.add(make("One rule.", id="mine"))
    by_hand(home, "mine", "One", "Two")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sleicl_chains.grimoires.versions.write_whole", full)
    first = grimoire_id("mail", "", "One rule.")
    assert told(store, "mine") == [("mine@1", "One rule.", ""), ("mine@2", "Two rule.", first)]
    store.search("mail")
    assert store.problems == [f"{home.versions}: versions cannot be kept ([Errno 28] No space left on device)"]


# ------------------------------------------------------------------ add, revise, restore


def test_another_text_under_an_id_is_its_next_version_and_an_older_one_is_left(home: Home) -> None:
    store = GrimoireStore(home)
    store.add(make("One.", id="mine"))
    with pytest.warns(InputNote, match="mine was there with another text; this is its next version"):
        store.add(make("Two.", id="mine"))
    with pytest.warns(InputNote, match="mine was changed since and keeps its text; `sleicl grimoires restore mine@1`"):
        store.add(make("One.", id="mine"))
    one, two = (grimoire_id("mail", "", text) for text in ("One.", "Two."))
    assert told(store, "mine") == [("mine@1", "One.", ""), ("mine@2", "Two.", one)]
    assert store.restore("mine@1").reference == "mine@3"
    assert told(store, "mine")[2] == ("mine@3", "One.", two)
    assert store.get("mine").provenance == Provenance(date=today(), parent=two)
    with pytest.raises(StoreError, match="mine@1 is the current text of mine already"):
        store.restore("mine@1")


def test_a_shipped_one_is_version_1_of_its_name(home: Home, shipped: Path) -> None:
    store = GrimoireStore(home)
    assert told(store, SHIPPED.id) == [(f"{SHIPPED.id}@1", "Prizes are junk.", "")]
    before = (shipped / f"{SHIPPED.id}.md").read_text()
    assert store.revise(replace(SHIPPED, simple="Prizes are fine.")).reference == f"{SHIPPED.id}@2"
    expected = [(f"{SHIPPED.id}@1", "Prizes are junk.", ""), (f"{SHIPPED.id}@2", "Prizes are fine.", SHIPPED.id)]
    assert told(store, SHIPPED.id) == expected
    assert (shipped / f"{SHIPPED.id}.md").read_text() == before
    store.delete(SHIPPED.id)
    assert store.get(SHIPPED.id) == SHIPPED
    # What is back is the next version, so that no number ever stands for another text.
    assert told(store, SHIPPED.id)[2][:2] == (f"{SHIPPED.id}@3", "Prizes are junk.")


def test_what_is_not_there_cannot_be_revised(home: Home) -> None:
    with pytest.raises(GrimoireNotFound, match="There is no grimoire 'mine'"):
        GrimoireStore(home).revise(make("One.", id="mine"))
    assert not (home.grimoires / "mine.md").exists()


def test_removed_ones_come_back(home: Home) -> None:
    store = GrimoireStore(home)
    store.add(make("One.", id="mine"))
    store.delete("mine")
    assert [one.id for one in store.removed()] == ["mine"] and "mine" not in [one.id for one in store.list()]
    for id in ("mine", "mine@1"):
        with pytest.raises(GrimoireNotFound, match="'mine'; `sleicl grimoires restore mine` brings it back"):
            store.get(id)
    assert store.restore("mine").reference == "mine@1"
    assert store.removed() == [] and store.get("mine").simple == "One."
    store.delete("mine")
    store.add(make("Two.", id="mine"))
    with pytest.raises(StoreError, match="There is a grimoire 'mine' again, and the removed one is a version of it"):
        store.restore("mine")
    assert told(store, "mine")[1][:2] == ("mine@2", "Two.")
    assert store.restore("mine@1").grimoire.simple == "One."


# ------------------------------------------------------------------ what an id may be


def test_names_go_first_and_versions_are_found_by_number_tag_and_id(home: Home) -> None:
    store = GrimoireStore(home)
    store.add(make("One."))
    name = make("One.").id
    store.revise(make("Two.", id=name))
    assert store.tag(f"{name}@1", "best").reference == f"{name}@1"
    assert store.get(name).simple == "Two.", "a name stands for the current text, even one that is an id"
    assert store.get(f"{name}@1").simple == store.get("best").simple == "One."
    assert store.get(grimoire_id("mail", "", "Two.")).simple == "Two."
    assert store.tags() == {"best": f"{name}@1"}
    assert store.history("best")[0].tags == ("best",)
    assert store.get("best").id == f"{name}@1"


NONE = {
    "mine@3": "mine has no version 3; it has 1 to 2",
    "mine@0": "mine has no version 0; it has 1 to 2",
    "mine@" + "9" * 5000: "There is no grimoire 'mine@9999",
    "mine@x": "There is no grimoire 'mine@x'; did you mean 'mine'?",
    "@1": "There is no grimoire ''; see `sleicl grimoires list`",
    "../../etc/passwd@1": "There is no grimoire '../../etc/passwd'; see `sleicl grimoires list`",
    "mail-00000000": "There is no grimoire 'mail-00000000'",
}


def test_what_stands_for_no_version(home: Home) -> None:
    store = GrimoireStore(home)
    store.add(make("One.", id="mine"))
    store.revise(make("Two.", id="mine"))
    for id, said in NONE.items():
        for action in (store.get, store.history):
            with pytest.raises(GrimoireNotFound) as caught:
                action(id)
            assert str(caught.value).startswith(said), id


def test_tags_are_words_of_their_own(home: Home) -> None:
    store = GrimoireStore(home)
    store.add(make("One.", id="mine"))
    with pytest.raises(InputError, match="'mine' is the name of a grimoire"):
        store.tag("mine", "mine")
    for word in ("", "a b", "x@1", "../x", "w" * 65):
        with pytest.raises(InputError, match="cannot be one; expected a word"):
            store.tag("mine", word)
    store.tag("mine", "best")
    with pytest.raises(InputError, match="'best' is a tag; `sleicl grimoires tag --remove best` frees the word"):
        store.add(make("Two.", id="best"))
    store.untag("best")
    with pytest.raises(InputError, match="There is no tag 'best'; there are none"):
        store.untag("best")
    assert store.add(make("Two.", id="best")) == "best"


def test_a_version_is_not_removed_alone(home: Home) -> None:
    store = GrimoireStore(home)
    store.add(make("One.", id="mine"))
    store.revise(make("Two.", id="mine"))
    store.tag("mine@1", "best")
    said = (
        " is a version of mine and is not removed alone; `sleicl grimoires restore mine@NUMBER` makes another one "
        "current, `sleicl grimoires remove mine` removes all of mine"
    )
    more = {"best": ", `sleicl grimoires tag --remove best` the tag alone"}
    for id in ("mine@2", "mine@1", grimoire_id("mail", "", "Two."), "best"):
        with pytest.raises(StoreError) as caught:
            store.delete(id)
        assert str(caught.value) == id + said + more.get(id, "")
    with pytest.raises(GrimoireNotFound, match="mine has no version 3; it has 1 to 2"):
        store.delete("mine@3")
    with pytest.raises(GrimoireNotFound, match="There is no grimoire 'mien'; did you mean 'mine'"):
        store.delete("mien")
    assert [one.id for one in store.list()] == sorted([SHIPPED.id, "mine"]) and len(store.history("mine")) == 2


def test_damaged_copies_and_tags_are_told(home: Home) -> None:
    store = GrimoireStore(home)
    store.add(make("One.", id="mine"))
    (copy,) = home.versions.iterdir()
    copy.write_text("nothing")
    with pytest.raises(StoreError, match=f"{copy.name}: the front matter is missing"):
        store.history("mine")
    assert store.get("mine").simple == "One.", "the current text needs no copy"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", ": expected tags"),
        ('{"best": 1}', ": expected tags"),
        ('{"best": "mine@1"', ", line 1: not valid JSON (Expecting ',' delimiter, column 18); expected tags"),
    ],
)
def test_a_damaged_file_of_tags_is_told_and_left(home: Home, text: str, said: str) -> None:
    store = GrimoireStore(home)
    store.add(make("One.", id="mine"))
    path = home.versions / "tags.json"
    path.write_text(text)
    actions: list[Callable[[], object]] = [
        store.tags,
        lambda: store.tag("mine", "good"),
        lambda: store.untag("best"),
        lambda: store.get("best"),
        lambda: store.history("mine"),
        lambda: store.add(make("Two.", id="mine")),
        lambda: store.delete("best"),
    ]
    for action in actions:
        with pytest.raises(StoreError) as caught:
            action()
        assert str(caught.value) == (
            f'{path}{said} and what they stand for; mend it, as in {{"best": "mine@2"}}, or move it away: only the '
            "tags are gone then"
        )
    assert path.read_text() == text
    assert store.get("mine").simple == "One.", "its name needs no tags"
    path.rename(path.with_name("tags.old"))
    assert store.tags() == {} and store.history("mine")[0].reference == "mine@1"


# ------------------------------------------------------------------ several writers


def test_threads_that_revise_one_grimoire_lose_no_version(home: Home) -> None:
    GrimoireStore(home).add(make("Rule 0.", id="mine"))

    def revise(number: int) -> None:
        GrimoireStore(home).revise(make(f"Rule {number}.", id="mine"))

    threads = [threading.Thread(target=revise, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = GrimoireStore(home).history("mine")
    assert [one.number for one in versions] == [1, 2, 3, 4, 5, 6, 7]
    assert {one.grimoire.simple for one in versions} == {f"Rule {number}." for number in range(7)}
    parents = [one.grimoire.provenance.parent for one in versions]
    assert parents == ["", *(version_id(one.grimoire) for one in versions[:-1])]


def test_an_edit_that_a_large_library_has_not_seen_yet_is_kept_all_the_same(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sleicl_chains.grimoires.shelf.MANY", 0)
    monkeypatch.setattr("sleicl_chains.grimoires.shelf.LOOK_EVERY_S", 3600)
    store = GrimoireStore(home)
    store.add_all([make("Rule 1.", id="mine"), make("Rule 1.", id="gone")])
    for name in ("mine", "gone"):
        store.get(name)
        path = home.grimoires / f"{name}.md"
        with path.open("r+") as file:  # within the file: its folder's time does not change
            text = file.read().replace("Rule 1", "Rule 2")
            file.seek(0)
            file.write(text)
    store.revise(make("Rule 3.", id="mine"))
    store.delete("gone")
    store.restore("gone")
    assert [text for _, text, _ in told(store, "mine")] == ["Rule 1.", "Rule 2.", "Rule 3."]
    assert [text for _, text, _ in told(store, "gone")] == ["Rule 1.", "Rule 2."]


# ------------------------------------------------------------------ what changed, what is alike


def test_what_changed_is_told_in_one_line() -> None:
    """Of three lines, the second is replaced and one is added: 2 added, 1 removed."""
    before, after = make("a\nb\nc", profound="p"), make("a\nB\nc\nd", profound="")
    assert changes(before, after) == "profound: 1 removed; simple: 2 lines added, 1 removed"
    assert changes(before, before) == "the same text"
    assert changes(make("a"), replace(make("a\nb"), task="post")) == "task: mail is now post; simple: 1 line added"


RULES = """1. Prizes, hurry, strange links and a sender that nobody knows mean junk, whatever the subject says.
2. A known sender, an answer to a mail of yours, an invoice that you expect or a friend's holiday greeting mean fine.
3. A newsletter that was ordered is fine; one that was not is junk, even if it looks serious and has an address.
4. When in doubt, say fine: a lost mail costs more than an advertisement that somebody has to delete by hand."""


def test_near_duplicates(home: Home) -> None:
    store = GrimoireStore(home)
    texts = {"one": RULES, "loud": RULES.upper().replace(" ", "  "), "longer": RULES + "\n5. Be brief."}
    texts |= {"soup": "Soup is served hot, cake is served cold."}
    store.add_all([make(text, id=id) for id, text in texts.items()])
    first, second = store.duplicates()
    assert (first.first, first.second, first.equal) == ("loud", "one", True)
    assert (second.first, second.second, second.equal) == ("longer", "one", False)
    assert 0.98 <= second.cosine < 1
    assert [(pair.first, pair.second) for pair in store.duplicates("one")] == [("one", "loud"), ("one", "longer")]
    assert store.duplicates("soup") == []
    with pytest.raises(GrimoireNotFound):
        store.duplicates("cake")
