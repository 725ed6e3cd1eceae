"""`sleicl grimoires`: versions, exchange and skills, as a user types them."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sleicl_chains.files import Home
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.grimoires.versions import today
from tests.support.command import Done, sleicl

MINE = """---
task: mail
description: Is this mail junk?
labels: [junk, fine]
---
# Simple grimoire
Prizes and hurry mean junk.
A known sender means fine.
"""
FIRST, SECOND = "mail-69bdc91b", "mail-8048787c"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.md"
    file.write_text(MINE)
    assert sleicl("grimoires", "add", file) == Done(0, "mine\n", "")
    return file


def edited(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> Done:
    """Run `edit` with an editor that replaces a text."""
    code = "import pathlib, sys; p = pathlib.Path(sys.argv[3]); p.write_text(p.read_text().replace(*sys.argv[1:3]))"
    monkeypatch.setenv("EDITOR", f'"{sys.executable}" -c "{code}" "{old}" "{new}"')
    return sleicl("grimoires", "edit", "mine")


def test_versions_from_history_to_restore(mine: Path, home: Home) -> None:
    path = home.grimoires / "mine.md"
    path.write_text(path.read_text().replace("known sender", "sender that you know"))
    assert sleicl("grimoires", "history", "mine").out == (
        f"mine@2\t{SECOND}\t{today()}\tsimple: 1 line added, 1 removed\nmine@1\t{FIRST}\t\tthe first text\n"
    )
    newest = sleicl("grimoires", "history", "mine", "--json").json()["versions"][0]
    assert newest == {
        "reference": "mine@2", "version": 2, "id": SECOND, "parent": FIRST, "date": today(),
        "change": "simple: 1 line added, 1 removed", "tags": [], "effects": [], "current": True,
    }  # fmt: skip
    shown = sleicl("grimoires", "diff", "mine").out
    assert shown.startswith("--- mine@1\n+++ mine@2\n@@")
    assert "\n-A known sender means fine.\n+A sender that you know means fine.\n" in shown
    assert sleicl("grimoires", "diff", "mine@2", "mine") == Done(0, "", "")
    both = sleicl("grimoires", "diff", "mine@2", "mine@1", "--json").json()
    assert (both["from"], both["to"], both["change"]) == ("mine@2", "mine@1", "simple: 1 line added, 1 removed")
    assert sleicl("grimoires", "tag", "mine@1", "best").out == sleicl("grimoires", "tag").out == "best\tmine@1\n"
    assert sleicl("grimoires", "tag", "--json").json() == {"best": "mine@1"}
    assert "A known sender" in sleicl("grimoires", "show", "best").out
    assert sleicl("grimoires", "restore", "best").out == "mine@3\n"
    assert path.read_text().endswith("A known sender means fine.\n")
    assert sleicl("grimoires", "tag", "--remove", "best").out == "best\n"
    assert sleicl("grimoires", "show", "best").err.startswith("sleicl: There is no grimoire 'best'")


def test_removed_and_restored(mine: Path) -> None:
    assert sleicl("grimoires", "remove", "mine").out == "mine\n"
    assert sleicl("grimoires", "list", "--removed", "--json").json()[0]["id"] == "mine"
    gone = sleicl("grimoires", "show", "mine")
    assert gone == Done(1, "", "sleicl: There is no grimoire 'mine'; `sleicl grimoires restore mine` brings it back\n")
    assert sleicl("grimoires", "restore", "mine").out == "mine@1\n"
    assert sleicl("grimoires", "list", "--removed").out == ""


def test_an_edit_is_a_new_version(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert edited(monkeypatch, "Prizes", "Lotteries") == Done(0, "mine@2\n", "")
    assert "Lotteries" in sleicl("grimoires", "show", "mine").out
    assert edited(monkeypatch, "x", "x").err == "sleicl: mine@2: nothing was changed, and nothing is stored\n"
    kept_text = edited(monkeypatch, "Is this mail junk?", "Junk or not?")
    assert (kept_text.out, kept_text.err.startswith("Note: the texts are the same")) == ("mine@2\n", True)
    for old in ("task: mail", "Lotteries and hurry mean junk.\nA known sender means fine."):
        broken = edited(monkeypatch, old, "")
        kept = re.fullmatch(r"sleicl: .*; your text is kept in (\S+)\n", broken.err)
        assert broken.status == 1 and kept and old not in Path(kept[1]).read_text()
    assert "Lotteries" in sleicl("grimoires", "show", "mine").out
    monkeypatch.setenv("EDITOR", "false")
    assert (
        sleicl("grimoires", "edit", "mine").err == "sleicl: the editor 'false' ended with status 1; nothing is stored\n"
    )
    monkeypatch.setenv("EDITOR", "/no/such/editor")
    assert "cannot be started" in sleicl("grimoires", "edit", "mine").err
    monkeypatch.delenv("EDITOR")
    monkeypatch.delenv("VISUAL", raising=False)
    assert sleicl("grimoires", "edit", "mine").err == (
        "sleicl: neither VISUAL nor EDITOR names an editor; set one, as in EDITOR=nano sleicl grimoires edit ID\n"
    )
    assert len(list((tmp_path / "temporary").iterdir())) == 2, "the two that could not be stored, and nothing else"


def test_near_duplicates_are_told(mine: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.md"
    again.write_text(MINE)
    assert sleicl("grimoires", "add", again).err == (
        "Warning: mine says the same rules; `sleicl grimoires diff mine again` shows the difference.\n"
    )
    assert sleicl("grimoires", "duplicates").out == "1.000\tagain\tmine\tequal\n"
    assert sleicl("grimoires", "duplicates", "--json").json() == [
        {"first": "again", "second": "mine", "cosine": 1.0, "equal": True}
    ]


def test_from_one_home_to_another(mine: Path, tmp_path: Path) -> None:
    file, other = tmp_path / "x.json", ("--home", tmp_path / "other")
    assert sleicl("grimoires", "export", "mine", "--history", "-o", file).out == f"{file}\n"
    assert sleicl("grimoires", "export", "mine", "--history").out == file.read_text()
    assert sleicl("grimoires", "import", file, *other) == Done(0, "mine\n", "")
    again = sleicl("grimoires", "import", file, "--json", *other)
    assert again.json() == [{"name": "mine", "id": "mine", "state": "there already"}]
    assert again.err == "Note: mine is here already.\n"
    file.write_text(file.read_text().replace("Prizes", "prizes"))
    refused = sleicl("grimoires", "import", file, *other)
    assert refused == Done(
        1, "", f"sleicl: {file}: the checksum does not fit the entries; the file is damaged or was changed\n"
    )


def test_what_differs_from_a_shipped_one_goes_beside_it_until_the_user_adds_it(home: Home, tmp_path: Path) -> None:
    """Nobody else's file may change what answers under a name that is in use; its owner may, by `add`."""
    name, other, file = "support-d090011a", ("--home", tmp_path / "other"), tmp_path / "x.json"
    store = GrimoireStore(home)
    new = store.revise(replace(store.get(name), simple="Money is billing, the rest is technical.")).id
    assert sleicl("grimoires", "export", name, "-o", file).status == 0
    taken = sleicl("grimoires", "import", file, *other)
    assert taken == Done(0, f"{new}\n", f"Note: {name} is here with another text, which stays; this one is {new}.\n")
    assert len(sleicl("grimoires", "history", name, "--json", *other).json()["versions"]) == 1
    assert sleicl("grimoires", "history", new, *other).out.split("\t")[3] == f"made from {name}\n"
    (tmp_path / f"{name}.md").write_text(sleicl("grimoires", "show", new, *other).out)
    assert sleicl("grimoires", "add", tmp_path / f"{name}.md", *other).out == f"{name}\n"
    newest = sleicl("grimoires", "history", name, "--json", *other).json()["versions"][0]
    assert (newest["reference"], newest["id"], newest["parent"]) == (f"{name}@2", new, name)


def test_texts_that_name_tools_want_trust(mine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "skills"
    assert sleicl("export", "skill", "mine", folder).out == f"{folder / 'mine'}\n"
    skill = folder / "mine" / "SKILL.md"
    skill.write_text(skill.read_text().replace("Prizes", "Always call the mail tool. Prizes"))
    other = ("--home", tmp_path / "other")
    named = "mine, simple text, line 1 names a tool: Always call the mail tool\n"
    refused = sleicl("import", "skill", folder / "mine", *other)
    assert refused == Done(
        1,
        "",
        f"{named}sleicl: nothing is taken: the lines above name what is outside the text; "
        "--trust takes it all the same\n",
    )
    assert not (tmp_path / "other" / "grimoires").exists()
    assert sleicl("import", "skill", folder / "mine", "--trust", *other) == Done(0, "mine\n", named)
    assert "Always call" in sleicl("grimoires", "show", "mine", *other).out


def test_misuse() -> None:
    assert sleicl("grimoires", "tag", "only-one") == Done(
        2, "", "sleicl: tag: expected ID and NAME, or --remove NAME alone, or nothing for a list\n"
    )
    assert sleicl("grimoires", "diff", "desk-a4732710").err == (
        "sleicl: desk-a4732710@1 is the first version; name what it is to be compared with\n"
    )
    assert sleicl("grimoires", "export", "desk-a4732710", "-o", "/no/such/folder/x").status == 1


def test_a_version_goes_to_agents_and_back_under_its_name(mine: Path, tmp_path: Path) -> None:
    folder, other = tmp_path / "skills", ("--home", tmp_path / "other")
    assert sleicl("export", "skill", "mine@1", folder).out == f"{folder / 'mine'}\n"
    assert sleicl("import", "skill", folder / "mine", *other) == Done(0, "mine\n", "")
