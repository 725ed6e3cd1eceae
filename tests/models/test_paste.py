import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from sleicl_chains.errors import InputError, ModelError, ReplyNeeded
from sleicl_chains.grimoires.writing.write import WriteInput, grimoire_writer
from sleicl_chains.models.asking import ask
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.paste import PasteModel
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

TASK = Task(name="Mood", description="Decide how the writer feels.", labels=("glad", "not glad"))
GIVEN: WriteInput = {"task": TASK, "examples": [Example("What a day!", "glad")]}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_grimoire_from_start_to_end(tmp_path: Path) -> None:
    folder = tmp_path / "chat"
    write = grimoire_writer(PasteModel(folder=folder), strong_name="some-chat")

    for _ in range(2):  # the same request keeps its number
        with pytest.raises(ReplyNeeded) as needed:
            write.invoke(GIVEN)
        assert names(folder) == ["01.prompt.txt"]
    assert str(needed.value) == (
        f"{folder}/01.reply.txt: there is no reply yet; give the text of 01.prompt.txt beside it to the strong "
        "model, save its reply in 01.reply.txt and run the same command again"
    )
    prompt = (folder / "01.prompt.txt").read_text(encoding="utf-8")
    assert prompt.startswith("You know classification well.") and prompt.endswith("before or after.\n")
    assert '{"text": "What a day!", "answer": "glad"}' in prompt

    (folder / "01.reply.txt").write_text("1. Sun is glad, rain is not glad. é\n", encoding="utf-8-sig")
    with pytest.raises(ReplyNeeded, match="02.reply.txt"):
        write.invoke(GIVEN)
    (folder / "02.reply.txt").write_text(" \n", encoding="utf-8")
    with pytest.raises(ReplyNeeded, match="02.reply.txt"):
        write.invoke(GIVEN)
    (folder / "02.reply.txt").write_text("Sun: glad.", encoding="utf-8")
    grimoire = write.invoke(GIVEN)
    assert (grimoire.profound, grimoire.simple) == ("1. Sun is glad, rain is not glad. é", "Sun: glad.")
    assert (grimoire.provenance.strong_model, grimoire.provenance.prompt_tokens) == ("some-chat", None)
    assert write.invoke(GIVEN) == grimoire
    assert names(folder) == ["01.prompt.txt", "01.reply.txt", "02.prompt.txt", "02.reply.txt"]


async def test_a_corrected_reply_counts_at_once(tmp_path: Path) -> None:
    model = PasteModel(folder=tmp_path)
    (tmp_path / "01.prompt.txt").write_bytes(b"Who?\r\nSay.\r\n\r\n")  # saved by another editor
    with Journal(tmp_path / "journal.sqlite") as journal:
        for text in ("first", "second"):
            (tmp_path / "01.reply.txt").write_text(text, encoding="utf-8")
            assert ask(model, [HumanMessage("Who?\nSay.")], journal).text == text
            assert (await model.ainvoke("Who?\nSay.")).text == text
        assert len(journal) == 0


def test_numbers_go_on_after_the_highest(tmp_path: Path) -> None:
    for name in ("07.prompt.txt", "100.prompt.txt", "notes.txt"):
        (tmp_path / name).write_text("other", encoding="utf-8")
    with pytest.raises(ReplyNeeded, match="101.reply.txt"):
        PasteModel(folder=tmp_path).invoke("new")
    with pytest.raises(ReplyNeeded, match="07.reply.txt"):
        PasteModel(folder=tmp_path).invoke("other")


def test_threads_do_not_share_a_number(tmp_path: Path) -> None:
    def needed(text: str) -> None:
        with pytest.raises(ReplyNeeded):
            PasteModel(folder=tmp_path).invoke(text)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(needed, [f"prompt {number % 20}" for number in range(60)]))
    finally:
        sys.setswitchinterval(before)
    texts = {path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert names(tmp_path) == [f"{number:02}.prompt.txt" for number in range(1, 21)]
    assert texts == {f"prompt {number}\n" for number in range(20)}


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([HumanMessage("a")], "a\n"),
        ([SystemMessage("s"), HumanMessage("a")], "s\n\na\n"),
        (
            [SystemMessage("s"), HumanMessage("a"), AIMessage("b"), HumanMessage("c")],
            "System:\ns\n\nUser:\na\n\nAssistant:\nb\n\nUser:\nc\n",
        ),
    ],
)
def test_prompt_text(tmp_path: Path, messages: list[HumanMessage], expected: str) -> None:
    with pytest.raises(ReplyNeeded):
        PasteModel(folder=tmp_path).invoke(messages)
    assert (tmp_path / "01.prompt.txt").read_bytes().decode() == expected


def test_a_reply_of_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "01.prompt.txt").write_text("q", encoding="utf-8")
    (tmp_path / "01.reply.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"01.reply.txt, line 1: found byte 0xe9"):
        PasteModel(folder=tmp_path).invoke("q")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ModelError, match=r"file: prompts cannot be written there \(File exists\)"):
        PasteModel(folder=tmp_path / "file").invoke("q")
