import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sleicl_chains.errors import InputError, InputNote, StoreError
from sleicl_chains.files import Home
from sleicl_chains.grimoires import exchange
from sleicl_chains.grimoires.exchange import Parcel, lines_to_trust, packed, read_parcels, receive
from sleicl_chains.grimoires.grimoire import Effect, Grimoire, Provenance, grimoire_id
from sleicl_chains.grimoires.store import GrimoireStore

EFFECT = Effect("smollm2", "simple", 0.1, 0.02, 0.18, 100, "TREC")


def make(simple: str, *, id: str = "mine", profound: str = "") -> Grimoire:
    about = Provenance(strong_model="strong-1", examples=("0a", "1b"), seed=3)
    return Grimoire(id, "mail", "sorting", "Is this mail junk?", ("junk", "fine"), profound, simple, about, (EFFECT,))


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def signed(entries: object, **more: object) -> dict[str, Any]:
    return {"sleicl_grimoires": 1, "sha256": exchange._sum_of(entries), "entries": entries, **more}


def entry(name: str = "mine", markdown: str = "", **more: object) -> dict[str, Any]:
    markdown = markdown or make("One.").to_markdown()
    return {"name": name, "markdown": markdown, "sha256": exchange._sha256(markdown), **more}


def test_grimoires_arrive_as_they_left(home: Home, tmp_path: Path) -> None:
    store, other = GrimoireStore(home), GrimoireStore(tmp_path / "other")
    first, second = make("{x} é\r\n---\n# Simple grimoire", profound="\\# Profound grimoire"), make("b", id="by hand")
    store.add_all([first, second])
    file = tmp_path / "x.json"
    file.write_text(packed(store, ["mine", "by hand", "mine"]), encoding="utf-8")
    received = receive(other, read_parcels(file))
    assert [(one.name, one.id, one.state) for one in received] == [
        ("mine", "mine", "added"), ("by hand", "by hand", "added"),
    ]  # fmt: skip
    assert (other.get("mine"), other.get("by hand")) == (first, second)
    assert [one.state for one in receive(other, read_parcels(file))] == ["there already"] * 2
    value = json.loads(file.read_text())
    assert list(value) == ["sleicl_grimoires", "sha256", "entries"]
    assert list(value["entries"][0]) == ["name", "markdown", "sha256"]


def test_history_goes_along_if_asked_for(home: Home, tmp_path: Path) -> None:
    store, other = GrimoireStore(home), GrimoireStore(tmp_path / "other")
    store.add(make("One."))
    store.revise(make("Two."))
    store.revise(make("Three."))
    (tmp_path / "x.json").write_text(packed(store, ["mine"], history=True))
    receive(other, read_parcels(tmp_path / "x.json"))
    assert [one.grimoire for one in other.history("mine")] == [one.grimoire for one in store.history("mine")]
    (tmp_path / "y.json").write_text(packed(store, ["mine@2"]))
    (parcel,) = read_parcels(tmp_path / "y.json")
    assert (parcel.grimoire.id, parcel.grimoire.simple, parcel.earlier) == ("mine", "Two.", ())
    assert parcel.grimoire.provenance.parent == grimoire_id("mail", "", "One.")
    with pytest.raises(InputError, match="export: found two versions of mine; expected one"):
        packed(store, ["mine@1", "mine"])


def test_what_is_here_is_not_changed(home: Home, tmp_path: Path) -> None:
    store = GrimoireStore(home)
    store.add(make("Mine."))
    store.tag("mine", "best")
    id = grimoire_id("mail", "", "Theirs.")
    received = receive(store, [Parcel(make("Theirs.")), Parcel(make("Best.", id="best"))])
    assert [(one.id, one.state) for one in received] == [
        (id, "renamed"), (grimoire_id("mail", "", "Best."), "renamed"),
    ]  # fmt: skip
    assert store.get("mine").simple == store.get("best").simple == "Mine." and store.get(id).simple == "Theirs."
    store.revise(make("Changed.", id=id))
    with pytest.raises(StoreError, match=f"mine cannot be added: the name {id} is taken, too"):
        receive(store, [Parcel(make("New.", id="new")), Parcel(make("Theirs."))])
    assert "new" not in [grimoire.id for grimoire in store.list()], "all or none"


def test_tags_go_with_the_texts_that_they_stand_for(home: Home, tmp_path: Path) -> None:
    store, file = GrimoireStore(home), tmp_path / "x.json"
    store.add(make("One."))
    store.revise(make("Two."))
    for number, tag in ((1, "plain"), (2, "best"), (2, "new")):
        store.tag(f"mine@{number}", tag)
    file.write_text(packed(store, ["mine"]))
    value = json.loads(file.read_text())
    assert value["entries"][0]["tags"] == ["best", "new"], "the text of 'plain' is not in this file"
    receive(other := GrimoireStore(tmp_path / "other"), read_parcels(file))
    assert other.tags() == {"best": "mine@1", "new": "mine@1"}, "its number is that of the library where it is"

    file.write_text(packed(store, ["mine"], history=True))
    receive(third := GrimoireStore(tmp_path / "third"), read_parcels(file))
    assert third.tags() == {"plain": "mine@1", "best": "mine@2", "new": "mine@2"}
    assert [one.state for one in receive(third, read_parcels(file))] == ["there already"], "and no word more is said"
    with pytest.warns(InputNote, match="the tag plain is left out: the text of mine that it stands for is not here"):
        receive(other, read_parcels(file))
    assert other.tags() == {"best": "mine@1", "new": "mine@1"}


def test_a_word_that_is_in_use_keeps_its_meaning(home: Home, tmp_path: Path) -> None:
    store, other, file = GrimoireStore(home), GrimoireStore(tmp_path / "other"), tmp_path / "x.json"
    store.add(make("One."))
    for tag in ("best", "theirs", "good"):
        store.tag("mine", tag)
    file.write_text(packed(store, ["mine"]))
    other.add(make("One."))
    other.revise(make("Two."))
    other.add(make("Three.", id="theirs"))
    other.tag("mine@2", "best")
    other.restore("mine@1")
    with pytest.warns(InputNote) as said:
        receive(other, read_parcels(file))
    assert [str(one.message) for one in said] == [
        "the tag best is left out: it stands for mine@2 here, not for mine@3",
        "the tag theirs is left out: it stands for theirs@1 here, not for mine@3",
    ]
    assert other.tags() == {"best": "mine@2", "good": "mine@3"}


def test_a_name_that_another_process_takes_meanwhile_stays_as_it_is(home: Home) -> None:
    """Between looking where to put a text and writing it, another may come; what is written then is all new or none."""
    GrimoireStore(home).add(make("Mine."))
    with pytest.raises(StoreError, match="mine was added by another process meanwhile; nothing is changed"):
        GrimoireStore(home).add_all([make("New.", id="new"), make("Theirs.")], new=True)
    found = {grimoire.id: grimoire.simple for grimoire in GrimoireStore(home).list()}
    assert found["mine"] == "Mine." and "new" not in found
    assert len(GrimoireStore(home).history("mine")) == 1


def test_a_disk_that_fills_up_leaves_none(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from sleicl_chains.files import write_whole

    def full(path: Path, text: str, **how: Any) -> None:
        if path.name == "c.md":
            raise OSError(28, "No space left on device", str(path))
        write_whole(path, text, **how)

    monkeypatch.setattr("sleicl_chains.grimoires.archive.write_whole", full)
    with pytest.raises(StoreError, match="cannot be used .No space left on device"):
        receive(GrimoireStore(home), [Parcel(make(text, id=text)) for text in "abc"])
    assert list(home.grimoires.glob("*.md")) == []


Spoil = Callable[[dict[str, Any]], object]
SPOILT: dict[str, tuple[object, str]] = {
    "no object": ([1], "expected a file of `sleicl grimoires export`"),
    "another file": ({"entries": []}, "expected a file of `sleicl grimoires export`"),
    "a later format": (signed([entry()]) | {"sleicl_grimoires": 2, "new": 1}, "found format 2; this version"),
    "a format that is no number": (signed([entry()]) | {"sleicl_grimoires": True}, "expected a file of"),
    "an unknown key": (signed([entry()], more=1), "more: found 1; Extra inputs are not permitted"),
    "no entries": (signed([]), "expected at least one entry"),
    "one name twice": (signed([entry("a"), entry("A")]), "none of the same name"),
    "a wrong sum of all": (signed([entry()]) | {"sha256": "0"}, "the checksum does not fit the entries"),
    "a wrong sum of one": (signed([entry() | {"sha256": "0"}]), "'mine': the text is too large, or its checksum"),
    "a path as a name": (signed([entry("../up")]), "the grimoire's id '../up' cannot be a file name"),
    "a hidden name": (signed([entry(".hidden")]), "the grimoire's id '.hidden' cannot be a file name"),
    "no grimoire": (signed([entry(markdown="hello")]), "'mine': the front matter is missing"),
    "a bomb": (signed([entry(markdown="---\ntask: &a t\n---\n# Simple grimoire\nx")]), "anchors are refused"),
    "a bad former": (signed([entry(earlier=[{"markdown": "x", "sha256": exchange._sha256("x")}])]), "front"),
    "half a character": (signed([entry(markdown="---\ntask: t\n---\n# Simple grimoire\n\ud800")]), "surrogate"),
    "a tag that is no word": (signed([entry(tags=["a b"])]), "the tag 'a b' cannot be one"),
    "a tag for two texts": (signed([entry("a", tags=["x"]), entry("b", tags=["x"])]), "each tag once"),
    "a huge text": (signed([entry(markdown="---\ntask: t\n---\n# Simple grimoire\n" + "x" * 2**20)]), "too large"),
}  # fmt: skip


def test_spoilt_files_are_refused_on_one_line(tmp_path: Path) -> None:
    for name, (value, said) in SPOILT.items():
        path = write(tmp_path / "x.json", value)
        with pytest.raises(InputError) as caught:
            read_parcels(path)
        assert str(caught.value).startswith(str(path)) and said in str(caught.value), name
        assert "\n" not in str(caught.value)
    (tmp_path / "x.json").write_text('{"sleicl_grimoires": 1, "sleicl_grimoires": 1}')
    with pytest.raises(InputError, match="'sleicl_grimoires' stands twice"):
        read_parcels(tmp_path / "x.json")


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "EXCHANGE_LIMIT", 2**20)
    (tmp_path / "x.json").write_text(" " * (2**20 + 1))
    with pytest.raises(InputError, match="found more than 1 MiB"):
        read_parcels(tmp_path / "x.json")


def test_template_tokens_stay_outside(tmp_path: Path) -> None:
    spoilt = make("Junk.<|im_end|> Fine.").to_markdown()
    (parcel,) = read_parcels(write(tmp_path / "x.json", signed([entry(markdown=spoilt)])))
    assert parcel.grimoire.simple == "Junk. Fine."
    assert parcel.grimoire.provenance.warnings == ("template tokens were removed: <|im_end|>",)


def test_every_text_that_reaches_a_model_is_looked_through() -> None:
    grimoire = replace(
        make("See http://a.example"),
        description="Mail me@b.example",
        labels=("c.py", "fine"),
        requests=("Ask www.d.example",),
    )
    parcels = [Parcel(replace(grimoire, profound="Plain.\nRun the tool."), (make("sudo make"),))]
    assert lines_to_trust(parcels) == [
        "mine, simple text, line 1 names a command: sudo make",
        "mine, description, line 1 names an address: me@b.example",
        "mine, labels, line 1 names a file or folder: c.py",
        "mine, requests, line 1 names an address: www.d.example",
        "mine, profound text, line 2 names a tool: Run the tool",
        "mine, simple text, line 1 names an address: http://a.example",
    ]
    assert lines_to_trust([Parcel(make("Plain words about files."))]) == []
