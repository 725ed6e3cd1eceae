import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from skills_ref import validate

from sleicl_chains.errors import InputError
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Effect, Grimoire, Provenance, grimoire_id
from sleicl_chains.grimoires.skills import read_skill, skill_name, write_skill
from sleicl_chains.grimoires.store import GrimoireStore
from tests.grimoires.test_grimoires import NASTY

EFFECT = Effect("smollm2", "simple", 0.1, 0.02, 0.18, 100, "TREC")
PLAIN = Grimoire("mail-1", "mail", "", "Is it junk?", ("junk", "fine"), "Long.", "Short.", Provenance())
FOREIGN = """---
name: weekly-report
description: Write a report: one page, no more
license: Apache-2.0
allowed-tools: Bash(git:*) Read
metadata: {author: somebody}
---

# How to
Name three things that were done.
"""


def violations(folder: Path) -> list[str]:
    """Return what the specification's reference validator complains about, and what agents demand beyond it."""
    _, head, _ = (folder / "SKILL.md").read_text(encoding="utf-8").split("---", 2)
    front = yaml.safe_load(head)
    wrong: list[str] = validate(folder)
    wrong += [f"field {key}" for key in front if key not in ("name", "description", "metadata")]
    wrong += [] if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", front["name"]) else [f"name {front['name']}"]
    wrong += [] if "\n" not in front["description"] else ["description"]
    pairs = front["metadata"].items()
    return wrong + ([] if all(isinstance(part, str) for pair in pairs for part in pair) else ["metadata"])


def hard_cases() -> list[Grimoire]:
    texts = [text for text in NASTY if text.strip() and "\0" not in text]
    cases = [
        Grimoire(f"hard-{number}", text, text, text, (text, "b"), text, text, Provenance(rows=text, seed=3), (EFFECT,))
        for number, text in enumerate(texts)
    ]
    cases += [
        replace(PLAIN, id=id, description=description)
        for id, description in {
            "x" * 64: "", "x" * 80: "a --- b", "by hand---x": "d " * 2000, "日本": "Über 'quotes' \"and\" : colons #",
            "-": "x", "UPPER.case": "line\nbreak",
        }.items() if re.match(r"\w|-", id)
    ]  # fmt: skip
    return [*cases, replace(PLAIN, profound=""), replace(PLAIN, id="long-only", simple="")]


def test_hard_cases_survive_as_valid_skills(tmp_path: Path) -> None:
    for grimoire in hard_cases():
        folder = write_skill(grimoire, tmp_path)
        assert violations(folder) == [], grimoire.id
        assert read_skill(folder) == (grimoire, []), grimoire.id
    assert len(list(tmp_path.iterdir())) == len(hard_cases())


def test_shipped_grimoires_survive_as_valid_skills(home: Home, tmp_path: Path) -> None:
    shipped = GrimoireStore(home).list()
    assert len(shipped) >= 2
    for grimoire in shipped:
        folder = write_skill(grimoire, tmp_path)
        assert (violations(folder), read_skill(folder).grimoire) == ([], grimoire)


def test_a_skill_reads_as_agents_expect(tmp_path: Path) -> None:
    folder = write_skill(PLAIN, tmp_path)
    assert (folder / "SKILL.md").read_text() == (
        "---\nname: mail-1\ndescription: 'Use when asked: Is it junk? The answer is one of: junk, fine.'\nmetadata:\n"
        '  sleicl-grimoire: \'{"id": "mail-1", "body": "profound", "version": "mail-f067a449", '
        "\"front\": \"task: mail\\ntask_type: ''''\\n"
        "description: Is it junk?\\nlabels:\\n- junk\\n- fine\\nprovenance: {}\"}'\n---\n\nLong.\n"
    )
    assert (folder / "references" / "simple.md").read_text() == "Short.\n"


def test_effects_do_not_outlive_the_text_that_they_were_measured_on(tmp_path: Path) -> None:
    measured = replace(PLAIN, effects=(EFFECT,))
    folder = write_skill(measured, tmp_path)
    assert read_skill(folder).grimoire.effects == (EFFECT,)
    (folder / "references" / "simple.md").write_text("Shorter.")
    assert read_skill(folder).grimoire == replace(PLAIN, simple="Shorter.")


def test_names() -> None:
    """A name that loses nothing stays; another gets eight hex digits, so that no two ids meet in one folder."""
    assert skill_name("trec-0a1b2c3d") == "trec-0a1b2c3d"
    assert skill_name("x" * 64) == "x" * 64
    names = [skill_name(id) for id in ("a b", "a-b", "A-b", "ä-b", "日本", "日", "x" * 65, "x" * 66, "--")]
    assert len(set(names)) == 9
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) and len(name) <= 64 for name in names)
    assert names[1] == "a-b" and names[4].startswith("grimoire-")


def test_written_again_it_is_replaced_but_no_other_skill_is(tmp_path: Path) -> None:
    write_skill(PLAIN, tmp_path)
    folder = write_skill(replace(PLAIN, simple=""), tmp_path)
    assert read_skill(folder).grimoire.simple == ""
    (folder / "SKILL.md").write_text(FOREIGN)
    with pytest.raises(InputError, match="mail-1 holds another skill; remove it, or name another folder"):
        write_skill(PLAIN, tmp_path)
    assert (folder / "SKILL.md").read_text() == FOREIGN


def test_a_foreign_skill_is_text_for_an_open_ended_task(tmp_path: Path) -> None:
    folder = tmp_path / "weekly"
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "run.py").write_text("raise SystemExit('never run')")
    (folder / "SKILL.md").write_bytes(FOREIGN.replace("\n", "\r\n").encode())
    body = "# How to\nName three things that were done."
    found = read_skill(folder)
    assert found.grimoire == Grimoire(
        grimoire_id("weekly-report", body, ""), "weekly-report", "", "Write a report: one page, no more", (), body, "",
        Provenance(strong_model="not known: read from the skill weekly-report, license: Apache-2.0"),
    )  # fmt: skip
    assert found.notes == [
        "left out: scripts; only the text of SKILL.md is taken",
        "left out: allowed-tools (Bash(git:*) Read); a grimoire calls none",
        "the name weekly-report is not the folder's, weekly",
    ]


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_skill(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_skill_is_refused_on_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    assert "SKILL.md: there is no such file" in refused(folder)
    folder.mkdir()
    file = folder / "SKILL.md"
    for text, said in {
        "no front matter": "the front matter is missing",
        "---\nname: a\n---\nx": "name or description is missing",
        "---\nname: a\ndescription: ''\n---\nx": "name or description is missing",
        "---\nname: a\ndescription: b\n---\n": "both empty",
        "---\n- a\n---\nx": "the front matter: expected names and values",
        "---\nname: &a x\n---\nx": "aliases and anchors are refused",
        "---\nname: a\nname: b\n---\nx": "stands twice",
        "---\nname: a\ndescription: b\nmetadata: {sleicl-grimoire: 'x'}\n---\nx": "not valid JSON",
        "---\nname: a\ndescription: b\nmetadata: {sleicl-grimoire: '{}'}\n---\nx": "sleicl-grimoire: id: found",
        "---\nname: a\ndescription: b\nmetadata: [1]\n---\nx": "metadata: expected names and values",
    }.items():
        file.write_text(text)
        assert said in refused(folder), text
    file.write_bytes(b"x" * (2**20 + 1))
    assert "more than 1 MiB" in refused(folder)


def test_a_link_out_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the key")
    folder = write_skill(PLAIN, tmp_path / "skills")
    (folder / "references" / "simple.md").unlink()
    (folder / "references" / "simple.md").symlink_to(tmp_path / "secret")
    assert "simple.md: this is a link out of the skill's folder" in refused(folder)
    (folder / "SKILL.md").unlink()
    (folder / "SKILL.md").symlink_to(tmp_path / "secret")
    assert "SKILL.md: this is a link out of the skill's folder" in refused(folder)
