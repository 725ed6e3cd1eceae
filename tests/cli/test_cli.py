"""The command line: what stands on stdout and stderr, the exit status, and what each command does."""

import hashlib
import json
import resource
import shlex
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sleicl_chains.files import Home, data_folder
from sleicl_chains.tasks.rows import Example
from tests.support.command import (
    SCRIPT,
    SUPPORT,
    Desk,
    Done,
    Parrot,
    by_length,
    comparable,
    environment,
    rows,
    sleicl,
    write_rows,
)

SHIPPED = "support-d090011a"
ALL_SHIPPED = sorted(file.name.removesuffix(".md") for file in data_folder("vectorstore/grimoires").iterdir())
DESK_GUIDE = "desk-9e5ccf57"
"""The id that its content gives the grimoire of the fixture `guide`."""
ARM_KEYS = [
    "arm", "mode", "prior", "accuracy", "low", "high", "macro_f1", "valid", "coverage", "difference",
    "difference_low", "difference_high", "prompt_tokens_total", "seconds_total",
]  # fmt: skip
REPORT_KEYS = ["task", "n", "weak", "train_rows", "majority", "arms"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk.at(tmp_path_factory.mktemp("desk"))


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """A grimoire written by hand."""
    file = tmp_path / "guide.json"
    texts = {"profound": "billing: money.\ntechnical: a thing that fails.", "simple": "Money is billing."}
    file.write_text(json.dumps({"task": "desk", "strong_model": "me", "sampler": "random", **texts}), encoding="utf-8")
    return file


def evaluated(desk: Desk, *more: object) -> tuple[object, ...]:
    return ("evaluate", "--task", desk.card, "--rows", desk.test, *more)


def answered(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rows.jsonl").read_text(encoding="utf-8").splitlines()]


# ------------------------------------------------------------------ starting, failing, misuse


def test_help_starts_quickly_and_loads_nothing_heavy() -> None:
    program = """
        import sys
        from sleicl_chains.cli import main
        sys.argv = ["sleicl", "--help"]
        try:
            main()
        except SystemExit as ended:
            heavy = "chromadb sklearn langchain_openai langchain_core onnxruntime xllamacpp numpy pydantic".split()
            print(ended.code, [name for name in heavy if name in sys.modules], file=sys.stderr)
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    script = "\n".join(line.removeprefix("        ") for line in program.splitlines())
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"sleicl --help takes {seconds:.2f} s of processor time")
    assert done.stderr == "0 []\n" and seconds < 0.5
    for command in ("demo", "init", "sample", "write", "grimoires", "evaluate", "ask", "models"):
        assert f"\n  {command} " in done.stdout


def test_the_script_keeps_answers_and_notes_apart(desk: Desk, tmp_path: Path) -> None:
    """The installed script, in a process of its own."""
    options = {"--task": desk.card, "--rows": desk.train, "--sampler": "random", "--home": tmp_path}
    command = [str(SCRIPT), "sample", *(str(part) for pair in options.items() for part in pair)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", 8)
    failed = subprocess.run([*command, "--sampler", "best"], capture_output=True, text=True)
    expected = "expected one of random, kmeans, hierarchical, hard, similar, none"
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == f"sleicl: sampler: found 'best'; {expected}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["conjure"], ["sample"], ["grimoires"], ["grimoires", "show"], ["models", "check"],
        ["sample", "--task", "a.toml", "--rows", "b.jsonl", "-n", "four"],
        ["evaluate", "--task", "a.toml", "--rows", "b.jsonl", "--weak", "embedded:smollm2", "--limit", "0"],
        ["ask", "--task", "a.toml", "--weak", "embedded:smollm2", "one", "two"],
    ],
)  # fmt: skip
def test_misuse(arguments: list[str]) -> None:
    done = sleicl(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("Usage: sleicl") and "Traceback" not in done.err and "╭" not in done.err


def test_every_command_takes_home() -> None:
    names = [["demo"], ["init"], ["sample"], ["write"], ["evaluate"], ["ask"]]
    names += [["grimoires", name] for name in ("list", "show", "search", "add", "remove", "rebuild")]
    names += [["models", name] for name in ("list", "fetch", "check")]
    assert [name for name in names if "--home" not in sleicl(*name, "--help").out] == []


def failures() -> dict[str, tuple[list[str], str]]:
    """Return by name a command and what its complaint must say; CARD, ROWS, BAD and HOME stand for files."""
    sample = ["sample", "--task", "CARD", "--rows", "ROWS"]
    evaluate = ["evaluate", "--task", "CARD", "--rows", "ROWS", "--weak"]
    ask = ["ask", "--task", "CARD", "--weak"]
    return {
        "no card": (["sample", "--task", "no.toml", "--rows", "ROWS"], "no.toml: there is no such file; expected a "),
        "no rows": (["sample", "--task", "CARD", "--rows", "no.jsonl"], "no.jsonl: there is no such file; expected r"),
        "rows that are none": (["sample", "--task", "CARD", "--rows", "CARD"], "found the ending '.toml'; expected ro"),
        "unknown label": (["sample", "--task", "CARD", "--rows", "BAD"], "line 1: found the label 'biling'; did you "),
        "hard without weak": ([*sample, "--sampler", "hard"], "needs a weak model to tell hard rows by; name one with"),
        "none a label": ([*sample, "-n", "0"], "sampler kmeans: found 0 rows a label; expected at least 1"),
        "unknown embedder": ([*sample, "--embeddings", "best"], "best"),
        "unknown arm": ([*evaluate, "embedded:GGUF", "--arms", "zero-shot,two-shot"], "There is no arm 'two-shot'; ex"),
        "arm twice": ([*evaluate, "embedded:GGUF", "--arms", "zero-shot, zero-shot"], "An arm stands twice in zero-sh"),
        "arm without train": ([*evaluate, "embedded:GGUF", "--arms", "probe"], "give some with --train"),
        "few-shot without train": ([*evaluate, "embedded:GGUF", "--arms", "few-shot"], "give some with --train"),
        "arm without grimoire": ([*evaluate, "embedded:GGUF", "--arms", "simple"], "'simple' needs a grimoire with a"),
        "unknown mode": ([*evaluate, "embedded:GGUF", "--mode", "guess"], "There is no mode 'guess'; expected one of "),
        "unknown prior": ([*evaluate, "embedded:GGUF", "--prior", "big"], "There is no prior 'big'; expected one of n"),
        "mean without train": (
            [*evaluate, "embedded:GGUF", "--prior", "mean"],
            "The prior 'mean' needs training texts",
        ),
        "no such grimoire": ([*evaluate, "embedded:GGUF", "--grimoire", "nope"], "There is no grimoire 'nope'"),
        "no provider": (
            [*ask, "smollm2", "q"],
            "'smollm2' names no provider; expected, say, embedded:qwen2.5-coder-1.5b, olla",
        ),
        "no key": ([*ask, "openai:gpt", "q"], "openai:gpt needs a key: set OPENAI_API_KEY. A server"),
        "not a model": ([*ask, "embedded:CARD", "q"], "found b'\\nnam' at its start; expected a GGUF file"),
        "no such weights": ([*ask, "embedded:tiny", "q"], "embedded:tiny: found neither packaged weights nor a file"),
        "server of no use": (
            [*ask, "embedded:smollm2", "--base-url", "x", "q"],
            "an embedded model has no base_url; le",
        ),
        "no such option": ([*ask, "embedded:smollm2", "-o", "n_ctxt=9", "q"], "an embedded model has no n_ctxt; leave"),
        "no pair": (
            [*ask, "embedded:smollm2", "-o", "n_ctx", "q"],
            "--option: found 'n_ctx'; expected NAME=VALUE, suc",
        ),
        "context too small": ([*ask, "WEIGHTS", "-o", "n_ctx=256", "word " * 300], "tokens; the context holds "),
        "pasted weak model": ([*ask, "paste:letters", "q"], "paste:letters: a pasted model writes grimoires; expecte"),
        "no question": ([*ask, "embedded:GGUF", "-"], "A solver takes a question as text; found an empty one"),
        "score for words": (["ask", "--task", "OPEN", "--weak", "embedded:GGUF", "--mode", "score", "q"], "needs labe"),
        "show nothing": (["grimoires", "show", "nope"], "There is no grimoire 'nope'; see `sleicl grimoires list`"),
        "remove a shipped one": (["grimoires", "remove", SHIPPED], "came with the package and cannot be removed"),
        "add no grimoire": (["grimoires", "add", "CARD"], "the front matter is missing"),
        "search for none": (["grimoires", "search", "mail", "-k", "0"], "search: found k=0; expected at least 1"),
        "fetch unknown": (["models", "fetch", "tiny"], "There are no packaged weights called 'tiny'; there are: mini"),
        "check a server": (["models", "check", "paste:x"], "paste:x"),
        "no columns": (["init", "TABLE", "--task", "new.toml"], "found the columns a, b; say which one with --text-co"),
    }


MISUSE = {
    "hard without weak", "none a label", "unknown arm", "arm twice", "unknown mode", "unknown prior",
    "server of no use", "no such option", "no pair",
}  # fmt: skip


@pytest.mark.parametrize("name", failures())
def test_a_failure_is_one_plain_line(name: str, desk: Desk, tmp_path: Path, weights: Path) -> None:
    arguments, expected = failures()[name]
    (tmp_path / "open.toml").write_text('name = "o"\ndescription = "Answer."\n', encoding="utf-8")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (tmp_path / "fake.gguf").write_bytes(b"GGUF")
    bad = write_rows(tmp_path / "bad.jsonl", [{"text": "Rain.", "answer": "biling"}])
    files = {
        "CARD": desk.card, "ROWS": desk.train, "BAD": bad, "TABLE": tmp_path / "table.csv",
        "OPEN": tmp_path / "open.toml", "GGUF": tmp_path / "fake.gguf",
        "WEIGHTS": f"embedded:{next(weights.glob('*.gguf'))}",
    }  # fmt: skip
    for word, path in files.items():
        arguments = [argument.replace(word, str(path)) for argument in arguments]
    done = sleicl(*arguments)
    assert (done.status, done.out) == (2 if name in MISUSE else 1, "")
    assert expected in done.err and done.err.startswith("sleicl: ") and done.err.count("\n") == 1, done.err


def test_a_bug_is_one_line_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sleicl_chains.tasks.cards.load_task", lambda path: 1 // 0)
    command = ("sample", "--task", desk.card, "--rows", desk.train)
    assert sleicl(*command) == Done(
        1, "", "sleicl: ZeroDivisionError: integer division or modulo by zero (SLEICL_DEBUG=1 shows where)\n"
    )
    monkeypatch.setenv("SLEICL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        sleicl(*command)


# ------------------------------------------------------------------ init and sample


def test_init_writes_a_card_that_the_next_command_takes(tmp_path: Path) -> None:
    data, card = tmp_path / "mail.csv", tmp_path / "card.toml"
    lines = [f"{'refund' if number % 2 else 'order'},message {number}" for number in range(8)]
    data.write_text("\n".join(["team,message", *lines]) + "\n", encoding="utf-8")
    command = ("init", data, "--answer-column", "team", "--task", card)
    done = sleicl(*command)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"{card}: 2 labels: order, refund. Now write its description")
    written = tomllib.loads(card.read_text(encoding="utf-8"))
    assert {key: written[key] for key in ("name", "labels", "text_column", "answer_column")} == {
        "name": "mail", "labels": ["order", "refund"], "text_column": "message", "answer_column": "team",
    }  # fmt: skip
    drawn = sleicl("sample", "--task", card, "--rows", data, "-n", 1, "--sampler", "random", "--json").json()
    assert [row["answer"] for row in drawn] == ["order", "refund"]

    card.write_text("mine", encoding="utf-8")
    again = sleicl(*command)
    assert again == Done(1, "", f"sleicl: {card}: the card is there already; give --force to overwrite it\n")
    assert card.read_text(encoding="utf-8") == "mine"
    assert sleicl(*command, "--force").status == 0 and "mine" not in card.read_text(encoding="utf-8")


def test_sample_draws_so_many_of_each_label(desk: Desk, tmp_path: Path) -> None:
    command = ("sample", "--task", desk.card, "--rows", desk.train, "-n", 2)
    drawn = sleicl(*command, "--json").json()
    assert [row["answer"] for row in drawn] == ["billing", "technical"] * 2
    assert all(list(row) == ["text", "answer", "id"] for row in drawn)
    assert [row["id"] for row in drawn] == [Example(row["text"], row["answer"]).id for row in drawn]
    assert sleicl(*command).out == "".join(f"{row['answer']}\t{row['text']}\n" for row in drawn)
    assert sleicl(*command, "--sampler", "kmeans").out == sleicl(*command, "--seed", 0).out
    random = {sleicl(*command, "--sampler", "random", "--seed", seed).out for seed in range(4)}
    assert len(random) > 1
    for name in ("hierarchical", "similar"):
        assert len(sleicl(*command, "--sampler", name, "--json").json()) == 4
    assert sleicl(*command, "--sampler", "none", "--json").json() == []
    default = sleicl("sample", "--task", desk.card, "--rows", desk.train, "--json").json()
    assert len(default) == 8  # 4 a label


def test_sample_prints_one_line_a_row(desk: Desk, tmp_path: Path) -> None:
    train = write_rows(tmp_path / "t.jsonl", [{"text": "two\nlines\tand a tab", "answer": "billing"}])
    done = sleicl("sample", "--task", desk.card, "--rows", train, "--sampler", "random")
    assert done.out == "billing\ttwo lines and a tab\n"


def test_hard_rows_are_those_the_weak_model_gets_wrong(desk: Desk, shared: Path) -> None:
    command = ("--task", desk.card, "--rows", desk.train, "--home", shared)
    drawn = sleicl("sample", *command, "-n", 2, "--sampler", "hard", "--weak", "embedded:smollm2", "--json").json()
    assert [row["answer"] for row in drawn] == ["billing", "technical"] * 2
    told = sleicl(
        "evaluate", *command, "--weak", "embedded:smollm2", "--arms", "zero-shot", "--json", "--run", shared / "hard"
    )
    wrong = {row["row"] for row in answered(shared / "hard") if row["prediction"] != row["gold"]}
    assert told.json()["train_rows"] == 0 and wrong
    for label in ("billing", "technical"):
        of_label = {row["row"] for row in answered(shared / "hard") if row["gold"] == label}
        ids = [row["id"] for row in drawn if row["answer"] == label]
        assert len(set(ids) & wrong) == min(2, len(of_label & wrong))


# ------------------------------------------------------------------ writing


def test_write_stores_a_grimoire_and_prints_its_id(desk: Desk, parrot: Parrot, home: Home) -> None:
    texts = iter(["billing and technical, at length", "billing, technical"] * 2)
    parrot.reply = lambda prompt: next(texts)
    command = ("write", "--task", desk.card, "--rows", desk.train, "--strong", "openai:big-1", *parrot.options, "-n", 1)
    done = sleicl(*command)
    assert done.status == 0 and done.out.count("\n") == 1
    assert "2 examples go to openai:big-1: 2 calls" in done.err and "Used 200 tokens in, 20 out." in done.err
    assert [request["model"] for request in parrot.requests] == ["big-1"] * 2
    assert {request["max_completion_tokens"] for request in parrot.requests} == {4096}
    id = done.out.strip()
    stored = sleicl("grimoires", "show", id, "--json").json()
    assert (stored["profound"], stored["simple"]) == ("billing and technical, at length", "billing, technical")
    about = stored["provenance"]
    assert (about["strong_model"], about["sampler"], about["per_label"], about["seed"]) == (
        "openai:big-1", "kmeans", 1, 0,
    )  # fmt: skip
    assert len(about["examples"]) == 2
    assert stat.S_IMODE(home.journal.stat().st_mode) == 0o600

    assert sleicl(*command).out == done.out and len(parrot.requests) == 2  # the journal answers
    assert sleicl(*command, "--no-journal").out == done.out and len(parrot.requests) == 4


def test_write_asks_again_for_missing_labels_and_says_what_is_still_missing(desk: Desk, parrot: Parrot) -> None:
    parrot.reply = lambda prompt: "billing only"
    done = sleicl(
        "write", "--task", desk.card, "--rows", desk.train, "--strong", "openai:big", *parrot.options,
        "--strong-name", "Big One", "--sampler", "none",
    )  # fmt: skip
    assert (done.status, len(parrot.requests)) == (0, 3)
    assert 'Warning: the profound text does not name "technical"\n' in done.err
    assert sleicl("grimoires", "show", done.out.strip(), "--json").json()["provenance"]["strong_model"] == "Big One"


def test_write_without_journal_leaves_none(desk: Desk, parrot: Parrot, home: Home) -> None:
    parrot.reply = lambda prompt: "billing, technical"
    command = ("write", "--task", desk.card, "--rows", desk.train, "--strong", "openai:big", *parrot.options)
    assert sleicl(*command, "--no-journal").status == 0
    assert sorted(path.name for path in home.root.iterdir()) == ["chroma", "grimoires", "store.lock", "versions"]


def test_a_rejected_reply_is_not_stored(desk: Desk, parrot: Parrot, home: Home) -> None:
    parrot.reply = lambda prompt: "<think>hm"
    done = sleicl("write", "--task", desk.card, "--rows", desk.train, "--strong", "openai:big", *parrot.options)
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith("sleicl: the strong model's reply has an unclosed <think>")
    assert not home.grimoires.exists()


def test_writing_by_copy_and_paste(desk: Desk, tmp_path: Path) -> None:
    letters = tmp_path / "letters"
    command = (
        "write", "--task", desk.card, "--rows", desk.train, "--strong", f"paste:{letters}", "--strong-name", "chat-9",
    )  # fmt: skip
    for number, text in ((1, "billing is money, technical is not"), (2, "billing: money")):
        done = sleicl(*command)
        assert (done.status, done.out) == (1, "")
        assert done.err.splitlines()[-1].startswith(f"sleicl: {letters}/{number:02}.reply.txt: there is no reply yet")
        assert (letters / f"{number:02}.prompt.txt").read_text(encoding="utf-8").strip()
        (letters / f"{number:02}.reply.txt").write_text(text, encoding="utf-8")
    done = sleicl(*command)
    assert done.status == 0 and "tokens in, " not in done.err  # nobody counted them
    stored = sleicl("grimoires", "show", done.out.strip(), "--json").json()
    assert (stored["simple"], stored["provenance"]["strong_model"]) == ("billing: money", "chat-9")


# ------------------------------------------------------------------ the library


def test_the_library_from_empty_to_empty(desk: Desk, guide: Path, home: Home, tmp_path: Path) -> None:
    done = sleicl("grimoires", "add", guide, "--task", desk.card)
    id = done.out.strip()
    assert (done.status, done.err) == (0, "") and id.startswith("desk-")
    listed = sleicl("grimoires", "list", "--json").json()
    about = {"id": id, "task": "desk", "strong_model": "me", "sampler": "random", "date": "", "measured": False}
    assert about in listed
    assert [row["id"] for row in listed] == sorted([id, *ALL_SHIPPED])
    lines = sleicl("grimoires", "list").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == sorted([id, *ALL_SHIPPED])
    assert f"{id}\tdesk\tme\trandom\t\tnot measured" in lines

    shown = sleicl("grimoires", "show", id)
    assert shown.out == (home.grimoires / f"{id}.md").read_text(encoding="utf-8")
    data = sleicl("grimoires", "show", id, "--json").json()
    assert (data["id"], data["labels"], data["simple"]) == (id, ["billing", "technical"], "Money is billing.")
    assert data["description"] == tomllib.loads(desk.card.read_text(encoding="utf-8"))["description"]

    by_words = sleicl("grimoires", "search", "a customer message for the right team", "-k", 50, "--json").json()
    assert {row["id"] for row in by_words} == {id, *ALL_SHIPPED}
    assert all(list(row) == ["id", "task", "score"] and 0 <= row["score"] <= 1 for row in by_words)
    assert by_words == sorted(by_words, key=lambda row: -row["score"])
    by_card = sleicl("grimoires", "search", desk.card, "-k", 1)
    assert by_card.out.split("\t")[1:] == [id, "desk\n"]
    assert sleicl("grimoires", "search", SUPPORT / "task.toml", "-k", 1, "--json").json()[0]["id"] == SHIPPED

    assert sleicl("grimoires", "rebuild").out == f"{1 + len(ALL_SHIPPED)} grimoires indexed\n"
    assert sleicl("grimoires", "remove", id).out == f"{id}\n"
    assert sleicl("grimoires", "show", id).status == 1
    left = sleicl("grimoires", "search", desk.card, "-k", 50, "--json").json()
    assert {row["id"] for row in left} == set(ALL_SHIPPED)


def test_a_markdown_file_keeps_its_id(tmp_path: Path) -> None:
    file = tmp_path / "by-hand.md"
    shipped = sleicl("grimoires", "show", SHIPPED).out
    file.write_text(shipped, encoding="utf-8")
    assert sleicl("grimoires", "add", file).out == "by-hand\n"
    assert sleicl("grimoires", "show", "by-hand").out == shipped


def test_a_measured_grimoire_says_so_in_the_list_and_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mood.md"
    effect = "effect:\n- {weak: m, arm: simple, difference: 0.034, low: -0.01, high: 0.08, rows: 120, source: Mails}\n"
    file.write_text(f"---\ntask: mood\n{effect}---\n# Simple grimoire\nSun is glad.\n", encoding="utf-8")
    sleicl("grimoires", "add", file)
    assert "mood\tmood\t\t\t\tmeasured" in sleicl("grimoires", "list").out.splitlines()
    shown = sleicl("grimoires", "show", "mood")
    assert shown.err == "Measured: +.03 [-.01, +.08] on 120 rows of Mails, m, simple against zero-shot\n"
    assert "effect:\n- weak: m\n  arm: simple\n  difference: 0.034\n" in shown.out
    [told] = sleicl("grimoires", "show", "mood", "--json").json()["effects"]
    assert told == {
        "weak": "m", "arm": "simple", "difference": 0.034, "low": -0.01, "high": 0.08, "rows": 120, "source": "Mails"
    }  # fmt: skip


def test_a_file_that_is_no_grimoire_is_named_and_left_out(home: Home) -> None:
    home.grimoires.mkdir(parents=True)
    (home.grimoires / "broken.md").write_text("no front matter", encoding="utf-8")
    done = sleicl("grimoires", "list")
    assert [line.split("\t")[0] for line in done.out.splitlines()] == ALL_SHIPPED
    assert "broken.md: the front matter is missing" in done.err


# ------------------------------------------------------------------ evaluating with the real model


def test_default_arms_and_keys(desk: Desk, shared: Path, guide: Path, tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", rows("train", 2))
    command = evaluated(desk, "--train", train, "--weak", "embedded:smollm2", "--grimoire", guide, "--home", shared)
    done = sleicl(*command, "--json")
    report = done.json()
    assert list(report)[:6] == REPORT_KEYS and list(report)[6:] == ["grimoire", "run", "notes", "verdict"]
    assert [arm["arm"] for arm in report["arms"]] == [
        "majority", "probe", "zero-shot", "few-shot", "simple", "profound", "simple+few-shot", "profound+few-shot",
    ]  # fmt: skip
    added = ["failed", "unseen", "calibration_error", "risk_area", "deferred"]
    added += ["strong_prompt_tokens_total", "strong_reply_tokens_total", "grimoire", "seen"]
    assert all(list(arm) == [*ARM_KEYS, *added] for arm in report["arms"])
    head = {key: report[key] for key in REPORT_KEYS if key != "arms"}
    assert head == {"task": "desk", "n": 8, "weak": "embedded:smollm2", "train_rows": 4, "majority": 0.5}
    arms = {arm["arm"]: arm for arm in report["arms"]}
    for name in set(arms) - {"majority", "probe"}:
        assert (arms[name]["mode"], arms[name]["prior"], arms[name]["valid"]) == ("score", "mean", 1.0)
        assert 0 < arms[name]["coverage"] < 1 and arms[name]["prompt_tokens_total"] > 8 * 30
        assert 0 <= arms[name]["low"] <= arms[name]["accuracy"] <= arms[name]["high"] <= 1
    for name in ("majority", "probe"):
        assert (arms[name]["coverage"], arms[name]["prompt_tokens_total"]) == (None, 0)
    assert arms["zero-shot"]["difference"] is None and arms["zero-shot"]["difference_low"] is None
    for name in set(arms) - {"zero-shot"}:
        gain = arms[name]["accuracy"] - arms["zero-shot"]["accuracy"]
        assert arms[name]["difference"] == pytest.approx(gain)
        assert arms[name]["difference_low"] <= gain + 1e-9 and gain - 1e-9 <= arms[name]["difference_high"]
    kept = answered(Path(report["run"]))
    assert Path(report["run"]).parent == shared / "runs" and len(kept) == 8 * 8
    with_guide = [row["grimoire"] for row in kept if row["arm"].startswith(("simple", "profound"))]
    assert with_guide == [DESK_GUIDE] * 4 * 8
    assert done.err.splitlines()[-1] == "few-shot shows 4 k-means examples a label from --train"

    table = sleicl(*command)
    lines = table.out.splitlines()
    assert lines[0].startswith("desk: 8 rows, embedded:smollm2") and lines[1].split()[:3] == ["arm", "mode", "accuracy"]
    assert [line.split()[0] for line in lines[2:10]] == list(arms)
    assert "few-shot shows 4 k-means examples a label from --train" in lines
    assert (
        table.err.splitlines()[-1]
        == f"Rows: {report['run']} (a page of them: sleicl report {shlex.quote(report['run'])})"
    )
    assert comparable(sleicl(*command, "--json").json()) == comparable(report)


def test_priors_move_the_scores(desk: Desk, shared: Path) -> None:
    def scores(*more: object) -> tuple[dict[str, Any], list[float]]:
        report = sleicl(
            *evaluated(desk, "--weak", "embedded:smollm2", "--arms", "zero-shot", "--limit", 2, "--home", shared),
            "--json", *more,
        ).json()  # fmt: skip
        return report["arms"][0], [row["scores"]["billing"] for row in answered(Path(report["run"]))]

    default, free = scores()
    assert default["prior"] == "content-free" and scores("--prior", "content-free")[1] == free
    bare, raw = scores("--prior", "none")
    mean, other = scores("--prior", "mean", "--train", desk.train)
    assert (bare["prior"], mean["prior"]) == ("none", "mean")
    assert scores("--train", desk.train)[0]["prior"] == "mean"
    # Taking a prior off multiplies the odds of all rows by one and the same number.
    for found in (free, other):
        first, second = (now * (1 - then) / ((1 - now) * then) for now, then in zip(found, raw, strict=True))
        assert first == pytest.approx(second, rel=1e-6) and first != pytest.approx(1, rel=1e-3)


def test_ask_the_real_model(desk: Desk, shared: Path, guide: Path) -> None:
    command = ("ask", "--task", desk.card, "--weak", "embedded:smollm2", "--home", shared)
    answer = sleicl(*command, "--json", "--grimoire", guide, "the bill is wrong").json()
    keys = ["label", "probability", "valid", "grimoire", "mode", "prior", "usage", "seconds"]
    assert list(answer) == [*keys, "coverage", "unseen", "note", "deferred"]
    assert answer["label"] in ("billing", "technical") and 0.5 <= answer["probability"] <= 1
    assert (answer["valid"], answer["grimoire"], answer["mode"]) == (True, DESK_GUIDE, "score")
    assert answer["usage"]["prompt_tokens"] > 20 and answer["seconds"] > 0
    said = sleicl(*command, "--grimoire", guide, "-", stdin="  the bill is wrong\n")
    assert said == Done(0, answer["label"] + "\n", "")
    assert sleicl(*command, "--json", stdin="no argument").json()["grimoire"] is None


def test_check_a_model(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sleicl("models", "check", "embedded:smollm2", "--home", shared, "--json").json()
    assert (found["name"], found["template"], found["label_probabilities"]) == ("embedded:smollm2", True, True)
    assert found.pop("reading")["follows_guides"] is False and found["off"] == []
    monkeypatch.setattr("sleicl_chains.models.llamacpp.model.check", lambda model: found)  # it takes 2 seconds
    lines = sleicl("models", "check", "embedded:smollm2", "--home", shared).out.splitlines()
    assert lines[:-3] == [f"{key}: {value}" for key, value in found.items()]


def test_list_models(shared: Path, home: Home) -> None:
    assert [(row["name"], row["fetched"]) for row in sleicl("models", "list", "--json").json()] == [
        ("smollm2", False), ("qwen2.5-coder-0.5b", False), ("qwen2.5-coder-1.5b", False), ("minilm", False),
    ]  # fmt: skip
    lines = sleicl("models", "list", "--home", shared).out.splitlines()
    first = "smollm2\tSmolLM2-135M-Instruct, Q4_1\t98 MB\tApache-2.0\there\tdoes not follow guides (.23, chance .25)"
    assert lines[0] == first
    third = (
        "qwen2.5-coder-1.5b\tQwen2.5-Coder-1.5B-Instruct, Q4_K_M\t1117 MB\tApache-2.0\tnot fetched\tfollows guides ("
    )
    assert lines[2].startswith(third)
    assert lines[3].startswith("minilm\t") and lines[3].endswith("\tnot fetched")
    fetched = sleicl("models", "fetch", "--home", shared)
    assert fetched == Done(0, f"{shared}/weights/smollm2\n", "")
    (row,) = sleicl("models", "fetch", "--home", shared, "--json").json()
    listed = sleicl("models", "list", "--home", shared, "--json").json()[0]
    assert row.pop("folder") == f"{shared}/weights/smollm2"
    assert row == {key: listed[key] for key in ("name", "weights", "reading")}
    assert row["reading"]["follows_guides"] is False
    assert not home.root.exists()


# ------------------------------------------------------------------ evaluating with a scripted server


def smallest(desk: Desk, count: int) -> list[str]:
    """Return the ids of the rows with the smallest content hash, computed here."""
    found = [json.loads(line) for line in desk.test.read_text(encoding="utf-8").splitlines()]
    ids = [hashlib.sha256(f"{row['text']}\0{row['answer']}".encode()).hexdigest()[:16] for row in found]
    return sorted(ids)[:count]


def test_limit_takes_the_same_rows_for_every_arm_and_seed(desk: Desk, parrot: Parrot, tmp_path: Path) -> None:
    more = ("--weak", "openai:m", *parrot.options, "--train", desk.train, "--limit", 3, "--json")
    for seed, arms in ((0, "zero-shot,few-shot"), (5, "few-shot,majority,probe")):
        run = tmp_path / str(seed)
        report = sleicl(*evaluated(desk, *more, "--seed", seed, "--arms", arms, "--run", run)).json()
        assert (report["n"], report["run"], [arm["arm"] for arm in report["arms"]]) == (3, str(run), arms.split(","))
        for arm in arms.split(","):
            assert [row["row"] for row in answered(run) if row["arm"] == arm] == smallest(desk, 3)


def test_every_output_counts(desk: Desk, parrot: Parrot) -> None:
    report = sleicl(*evaluated(desk, "--weak", "openai:m", *parrot.options, "--json")).json()
    said = [by_length(text) for text in desk.texts("test")]
    right = ["billing"] * 4 + ["technical"] * 4
    valid = ["cannot" not in text for text in said]
    hits = [label in text for label, text in zip(right, said, strict=True)]
    assert 0 < sum(hits) < sum(valid) < 8
    (arm,) = report["arms"]
    assert (arm["arm"], arm["mode"], arm["prior"]) == ("zero-shot", "generate", "none")
    assert (arm["accuracy"], arm["valid"], arm["coverage"]) == (sum(hits) / 8, sum(valid) / 8, None)
    assert arm["prompt_tokens_total"] == 800 and len(parrot.requests) == 8
    assert (report["n"], report["train_rows"], report["majority"]) == (8, 0, None)
    assert report["notes"] == [
        "without --train there are no arms majority, probe and few-shot",
        "answers are generated and parsed: ChatOpenAI gives no label probabilities",
    ]


def test_a_training_row_among_the_evaluated_ones_is_dropped(desk: Desk, parrot: Parrot, tmp_path: Path) -> None:
    test = rows("test", 4)
    shouted = {"text": f"  {test[0]['text'].upper()} ", "answer": test[0]["answer"]}
    train = write_rows(tmp_path / "train.jsonl", [*rows("train", 4), shouted, test[5]])
    command = evaluated(desk, "--weak", "openai:m", *parrot.options, "--train", train, "--arms", "few-shot", "--json")
    done = sleicl(*command)
    assert done.json()["train_rows"] == 8
    assert f"Warning: 2 rows of {train} are among the evaluated ones and were left out of it.\n" in done.err
    shown = [text for number in range(8) for role, text in parrot.shown(number)[:-1]]
    assert shouted["text"] not in shown and test[5]["text"] not in shown
    # Of the rows that the limit leaves out, train keeps its own.
    limited = sleicl(*command, "--limit", 1)
    outside = {Example(**test[0]).id, Example(**test[5]).id} - set(smallest(desk, 1))
    assert limited.json()["train_rows"] == 8 + len(outside)


def test_majority_and_probe_learn_from_train_alone(desk: Desk, parrot: Parrot, tmp_path: Path) -> None:
    test = write_rows(tmp_path / "test.jsonl", rows("test", 4)[:5])  # 4 billing, 1 technical
    train = write_rows(tmp_path / "train.jsonl", rows("train", 4)[3:])  # 1 billing, 4 technical
    command = ("evaluate", "--task", desk.card, "--rows", test, "--weak", "openai:m", *parrot.options, "--json")
    report = sleicl(*command, "--train", train, "--arms", "majority,probe").json()
    assert (report["majority"], report["arms"][0]["accuracy"], report["train_rows"]) == (0.2, 0.2, 5)
    assert report["arms"][0]["difference"] is None  # no zero-shot in this run
    assert parrot.requests == []
    one_label = write_rows(tmp_path / "one.jsonl", rows("train", 4)[:2])
    report = sleicl(*command, "--train", one_label, "--arms", "probe").json()
    assert (report["arms"][0]["accuracy"], report["majority"]) == (0.8, 0.8)  # told without its arm
    assert sleicl("report", report["run"], "--json").json()["majority"] == 0.8


def test_few_shot_shows_the_grimoires_own_examples(desk: Desk, parrot: Parrot, tmp_path: Path) -> None:
    own = [Example(**rows("train", 4)[place]) for place in (6, 2)]
    front = f"task: desk\nprovenance:\n  examples: [{own[0].id}, {own[1].id}]\n"
    guide = tmp_path / "own.md"
    guide.write_text(f"---\n{front}---\n\n# Simple grimoire\n\nMoney is billing.\n", encoding="utf-8")
    command = ("--weak", "openai:m", *parrot.options, "--grimoire", guide, "--limit", 1, "--json")
    report = sleicl(*evaluated(desk, *command, "--train", desk.train, "--arms", "few-shot,simple+few-shot")).json()
    assert "few-shot shows the grimoire's own examples" in report["notes"]
    turns = [("user", own[0].text), ("assistant", "technical"), ("user", own[1].text), ("assistant", "billing")]
    assert parrot.shown(0)[1:-1] == turns and parrot.shown(1)[1:-1] == turns
    assert "Money is billing." not in parrot.shown(0)[0][1] and "Money is billing." in parrot.shown(1)[0][1]

    fewer = write_rows(tmp_path / "fewer.jsonl", rows("train", 4)[:6])  # one of the two is not in it
    report = sleicl(*evaluated(desk, *command, "--train", fewer, "--arms", "few-shot")).json()
    assert "few-shot shows 4 k-means examples a label from --train" in report["notes"]
    # Four of the one label and all two of the other.
    assert [text for role, text in parrot.shown(2)[1:-1] if role == "assistant"].count("billing") == 4
    assert len(parrot.shown(2)) == 1 + 2 * 6 + 1

    report = sleicl(*evaluated(desk, *command, "--train", desk.train)).json()  # it has no profound text
    assert [arm["arm"] for arm in report["arms"]] == [
        "majority", "probe", "zero-shot", "few-shot", "simple", "simple+few-shot",
    ]  # fmt: skip


def test_the_weak_model_may_be_made_to_generate(desk: Desk, shared: Path) -> None:
    report = sleicl(
        *evaluated(desk, "--weak", "embedded:smollm2", "--home", shared, "--arms", "zero-shot"),
        "--mode", "generate", "--limit", 1, "--json",
    ).json()  # fmt: skip
    (row,) = answered(Path(report["run"]))
    assert (row["mode"], row["prior"], report["arms"][0]["coverage"]) == ("generate", "none", None)
    assert row["reply"] and row["usage"]["reply_tokens"] > 0


def test_without_a_journal_nothing_is_left(desk: Desk, parrot: Parrot, home: Home, tmp_path: Path) -> None:
    command = evaluated(desk, "--weak", "openai:m", *parrot.options, "--limit", 2, "--no-journal", "--json")
    for count in (2, 4):  # so it is asked anew
        assert sleicl(*command).json()["run"] == "" and len(parrot.requests) == count
    assert not home.journal.exists() and not home.runs.exists()
    sleicl(*command, "--run", tmp_path / "run")
    assert len(answered(tmp_path / "run")) == 2 and not home.runs.exists()
    asked = ("ask", "--task", desk.card, "--weak", "openai:m", *parrot.options, "--no-journal", "hey")
    assert sleicl(*asked).out and not home.journal.exists()


def test_a_run_folder_of_something_else_is_refused(desk: Desk, parrot: Parrot, tmp_path: Path) -> None:
    command = evaluated(desk, "--weak", "openai:m", *parrot.options, "--run", tmp_path / "run", "--limit")
    assert sleicl(*command, 2).status == 0
    done = sleicl(*command, 3)
    assert (done.status, done.out) == (1, "") and "holds a run with other rows" in done.err


def test_several_calls_at_once_give_the_same_table(desk: Desk, parrot: Parrot) -> None:
    command = evaluated(desk, "--weak", "openai:m", *parrot.options, "--no-journal", "--json")
    assert comparable(sleicl(*command, "--concurrency", 4).json()) == comparable(sleicl(*command).json())


def test_a_server_that_is_gone_is_one_line(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    done = sleicl("ask", "--task", desk.card, "--weak", "openai:m", "--base-url", "http://127.0.0.1:9/v1", "hi")
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1) and "Connection error" in done.err


# ------------------------------------------------------------------ asking a scripted server


def test_ask_labels_and_words(desk: Desk, parrot: Parrot, guide: Path, tmp_path: Path) -> None:
    command = ("ask", "--task", desk.card, "--weak", "openai:m", *parrot.options)
    parrot.reply = lambda question: "Answer: technical"
    answer = sleicl(*command, "--json", "--grimoire", guide, "my tv is dark").json()
    assert answer.pop("seconds") > 0
    assert answer == {
        "label": "technical", "probability": None, "valid": True, "grimoire": answer["grimoire"], "mode": "generate",
        "prior": "none",
        "usage": {"prompt_tokens": 100, "reply_tokens": 10}, "coverage": None, "unseen": [],
        "note": "generated and parsed: ChatOpenAI gives no label probabilities", "deferred": False,
    }  # fmt: skip
    assert "a thing that fails" in parrot.shown(0)[0][1]  # profound by default
    assert sleicl(*command, "--grimoire", guide, "--arm", "simple", "my tv is dark").out == "technical\n"
    assert "Money is billing." in parrot.shown(1)[0][1] and "a thing that fails" not in parrot.shown(1)[0][1]

    parrot.reply = lambda question: "no idea"
    unsure = sleicl(*command, "--json", "?!").json()
    assert (unsure["label"], unsure["valid"]) == (None, False) and "text" not in unsure
    done = sleicl(*command, "?!")
    assert done == Done(
        1, "", "sleicl: The reply gives no answer: found 'no idea'; expected one of billing, technical\n"
    )

    card = tmp_path / "open.toml"
    card.write_text('name = "o"\ndescription = "Answer."\n', encoding="utf-8")
    parrot.reply = lambda question: " forty two \n"
    command = ("ask", "--task", card, "--weak", "openai:m", *parrot.options, "6 x 7?")
    assert list(sleicl(*command, "--json").json().items())[:3] == [
        ("text", "forty two"), ("probability", None), ("valid", True),
    ]  # fmt: skip
    assert sleicl(*command) == Done(0, "forty two\n", "")


def test_an_open_ended_task_is_generated_and_has_no_probe(parrot: Parrot, tmp_path: Path) -> None:
    card = tmp_path / "open.toml"
    card.write_text('name = "sums"\ndescription = "Answer."\n', encoding="utf-8")
    found = [{"text": f"{n} x 7?", "answer": str(7 * n)} for n in range(1, 5)]
    test, train = write_rows(tmp_path / "a.jsonl", found[:2]), write_rows(tmp_path / "b.jsonl", found[2:])
    parrot.reply = lambda question: "14."
    report = sleicl(
        "evaluate", "--task", card, "--rows", test, "--train", train, "--weak", "openai:m", *parrot.options, "--json"
    ).json()
    assert [(arm["arm"], arm["mode"], arm["accuracy"], arm["macro_f1"]) for arm in report["arms"]] == [
        ("majority", "none", 0.0, None), ("zero-shot", "generate", 0.5, None), ("few-shot", "generate", 0.5, None),
    ]  # fmt: skip


def test_the_shell_completes_commands() -> None:
    asked = {"_SLEICL_COMPLETE": "complete_bash", "COMP_WORDS": "sleicl ev", "COMP_CWORD": "1"}
    done = subprocess.run([SCRIPT], capture_output=True, text=True, env=environment(**asked))
    assert done.stdout.split() == ["evaluate"], done.stderr
