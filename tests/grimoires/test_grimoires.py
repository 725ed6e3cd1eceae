import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage

from sleicl_chains.errors import InputError, RejectedReply
from sleicl_chains.grimoires.grimoire import Effect, Grimoire, Provenance, grimoire_id, load_grimoire
from sleicl_chains.grimoires.writing.calls import missing_labels
from sleicl_chains.grimoires.writing.write import WriteInput, grimoire_writer
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.replies import check_reply
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example, text_id
from tests.support.openai_server import OpenAIServer, Reply

TASK = Task(name="Mood", task_type="sentiment", description="Decide how the writer feels.", labels=("glad", "not glad"))
EXAMPLES = [Example("What a {day}!", "glad"), Example("Rain again.", "not glad")]
GIVEN: WriteInput = {"task": TASK, "examples": EXAMPLES, "sampler": "kmeans", "per_label": 1, "seed": 7}
PROFOUND = "1. Sun is glad.\n2. Rain is not glad."
SIMPLE = "Sun glad, rain not glad."


# ------------------------------------------------------------------ Markdown

NASTY = [
    "a",
    "# Simple grimoire",
    "# Profound grimoire\n\n# Profound grimoire",
    "x\n# Simple grimoire \t\ny",
    "\\# Profound grimoire",
    "x\n# Simpel grimoire\ny\n# Short grimoire\nz",
    "\\\\# Simple grimoire\nz",
    "```\n# Simple grimoire\n```",
    "---\ntask: other\n---\n# Simple grimoire",
    "x\n---",
    "a\r\nb\r\n# Simple grimoire\r\nc",
    "a\rb\r# Simple grimoire",
    "{x} {{y}} { %s \\1 \\g<0>",
    "é ☃ 😀 \u2028 \u0085 \x0b\x0c x",
    "a\0b\x1bc",
    "\ufeffq",
    "a: 'b\"\n  - [c\n",
    "x\n\n\n\n y",
    "%YAML 1.1\n...\n!!python/name:os.system",
    "word " * 60 + "end",
    "yes",
    "0123",
    "~",
]


@pytest.mark.parametrize("one", NASTY)
def test_markdown_round_trip(one: str) -> None:
    for other in [*NASTY, ""]:
        provenance = Provenance(one, other, 4, 0, (one, other), "0f", 10, 0, "2026-01-31", (other, "\n"))
        labels = (one, other + "!", "no", "1", "null")
        for texts in ((one, other), (other, one)):
            grimoire = Grimoire("g", one, other, one, labels, *texts, provenance)
            on_disk = grimoire.to_markdown().encode()
            assert Grimoire.from_markdown(on_disk.decode(), id="g") == grimoire


def test_markdown_is_what_a_person_would_write() -> None:
    provenance = Provenance(strong_model="strong-1", seed=0, warnings=("the rain",))
    grimoire = Grimoire(
        "g", "Wetter", "", "Wie ist's?", ("schön", "no"), " Sun.\n\n# Simple grimoire\n", "", provenance
    )
    assert grimoire.to_markdown() == (
        "---\n"
        "task: Wetter\n"
        "task_type: ''\n"
        "description: Wie ist's?\n"
        "labels:\n"
        "- schön\n"
        "- 'no'\n"
        "provenance:\n"
        "  strong_model: strong-1\n"
        "  seed: 0\n"
        "  warnings:\n"
        "  - the rain\n"
        "---\n"
        "\n"
        "# Profound grimoire\n"
        "\n"
        "Sun.\n"
        "\n"
        "\\# Simple grimoire\n"
        "\n"
        "# Simple grimoire\n"
        "\n"
        "\n"
    )


def test_a_file_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "by-hand.md"
    text = "---\ntask: Rain\nlabels: [yes, no, 1]\nprovenance: {date: 2026-01-31}\n---\n# Simple grimoire\nLook\nup.\n"
    expected = Grimoire("by-hand", "Rain", "", "", ("yes", "no", "1"), "", "Look\nup.", Provenance(date="2026-01-31"))
    for written in (text, text.replace("\n", "\r\n"), "\ufeff" + text):
        path.write_bytes(written.encode())
        assert load_grimoire(path) == expected
    filled = load_grimoire(path, TASK)
    assert (filled.task, filled.task_type, filled.description) == ("Rain", "sentiment", TASK.description)
    assert filled.labels == ("yes", "no", "1")


FRONT = "---\ntask: t\n---\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the front matter is missing; expected YAML between two lines of ---"),
        ("# Simple grimoire\nx", "the front matter is missing; expected YAML between two lines of ---"),
        ("---\ntask: t\n# Simple grimoire\nx", "the front matter is missing; expected YAML between two lines of ---"),
        ("---\nlabels: []\n---\n# Simple grimoire\nx", "front matter: task: found {'labels': []}; Field required"),
        ("---\ntask: t\nrules: 3\n---\n", "front matter: rules: found '3'; Extra inputs are not permitted"),
        (
            "---\ntask: t\nlabels: [[a]]\n---\n",
            "front matter: labels.0: found ['a']; Input should be a valid string",
        ),
        (
            "---\ntask: t\nprovenance: {seed: x}\n---\n",
            "front matter: provenance.seed: found 'x'; Input should be a valid integer, "
            "unable to parse string as an integer",
        ),
        (
            "---\ntask: t\nprovenance: {sead: 1}\n---\n",
            "front matter: provenance.sead: found '1'; Unexpected keyword argument",
        ),
        (
            "---\ntask: a\x01b\n---\n",
            "the front matter is not valid YAML: unacceptable character #x0001: special "
            'characters are not allowed in "<unicode string>", position 7',
        ),
        (
            "---\ntask: [t\n---\n",
            "the front matter is not valid YAML: expected ',' or ']', but got '<stream end>' in line 2",
        ),
        (
            FRONT + "Just text.",
            "found no heading above the text; expected '# Profound grimoire' and '# Simple grimoire'",
        ),
        (
            FRONT + "# Simple grimoire\na\n# Simple grimoire\nb",
            "a heading stands twice; write a backslash before one that belongs to the text",
        ),
        (
            FRONT + "# Profound grimoire\n# Simple grimoire\n \n",
            "the profound and the simple text are both empty; expected at least one",
        ),
    ],
)
def test_malformed_markdown(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "g.md"
    path.write_bytes(text.encode())
    with pytest.raises(InputError) as found:
        load_grimoire(path)
    assert str(found.value) == f"{path}: {complaint}"


EFFECT = Effect("coder-1.5b", "profound", 0.03, -0.0149, 0.07, 100, "TREC")
EFFECTS = """---
task: t
task_type: ''
description: ''
labels: []
provenance: {}
effect:
- weak: coder-1.5b
  arm: profound
  difference: 0.03
  low: -0.0149
  high: 0.07
  rows: 100
  source: TREC
---

# Profound grimoire

p

# Simple grimoire

s
"""


def test_a_measured_effect_stands_in_the_front_matter_and_in_one_line() -> None:
    measured = Grimoire("g", "t", "", "", (), "p", "s", Provenance(), (EFFECT,))
    assert measured.to_markdown() == EFFECTS and Grimoire.from_markdown(EFFECTS, id="g") == measured
    assert str(EFFECT) == "+.03 [-.01, +.07] on 100 rows of TREC, coder-1.5b, profound against zero-shot"
    # Ends are rounded; 0 has one sign, and 1 keeps its digit.
    assert str(replace(EFFECT, difference=-0.001, low=-1.0, high=1.0)).startswith("+.00 [-1.00, +1.00] on")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("difference: 0.03", "difference: 3", "difference: found '3'; Input should be less than or equal to 1"),
        ("low: -0.0149", "low: nan", "low: found 'nan'; Input should be less than or equal to 1"),
        ("rows: 100", "rows: 0", "rows: found '0'; Input should be greater than 0"),
        ("arm: profound", "arm: both", "arm: found 'both'; Input should be 'simple' or 'profound'"),
        ("rows: 100", "rows: 100\n  p: 1", "p: found '1'; Unexpected keyword argument"),
    ],
)
def test_a_malformed_effect_is_named(old: str, new: str, complaint: str) -> None:
    with pytest.raises(InputError) as found:
        Grimoire.from_markdown(EFFECTS.replace(old, new), id="g")
    assert str(found.value) == f"front matter: effect.0.{complaint}"


def test_requests_are_few_short_and_not_blank() -> None:
    made = Grimoire("g", "t", "", "", (), "p", "s", Provenance(), requests=("Spam: yes or no?", "- a\n# b"))
    assert Grimoire.from_markdown(made.to_markdown(), id="g") == made
    with pytest.raises(InputError, match="found 101 requests; expected at most 100"):
        replace(made, requests=("Is it?",) * 101)
    for wrong in (" ", "x" * 501):
        with pytest.raises(InputError, match=f"found a request of {len(wrong)} characters"):
            replace(made, requests=(wrong,))


def test_headings_are_known_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "g.md"
    path.write_text(
        "---\ntask: t\n---\n# Profound Grimoire\na\n\\# simple GRIMOIRE\n# SIMPLE GRIMOIRE\nb\n", encoding="utf-8"
    )
    found = load_grimoire(path)
    assert (found.profound, found.simple) == ("a\n# simple GRIMOIRE", "b")
    assert Grimoire.from_markdown(found.to_markdown(), id=found.id) == found


@pytest.mark.parametrize(
    ("body", "heading"),
    [
        ("# Profound grimoire\na\n# Simpel grimoire\nb\n", "# Simpel grimoire"),
        ("# Profound grimoire\na\r\n# simple Grimore\r\nb\n", "# simple Grimore"),
        ("# Profound grimoire\na\n## Simple grimoire\nb\n", "## Simple grimoire"),
        ("# Profound grimoire\na\n#Simple grimoire:\nb\n", "#Simple grimoire:"),
        ("# Profound grimoire\na\n# Short grimoire\nb\n", "# Short grimoire"),
        ("# Simple grimoire\na\n# Profond grimoire\nb\n", "# Profond grimoire"),
        ("# Profund grimoire\na\n# Simple grimoire\nb\n", "# Profund grimoire"),
        ("# Profund grimoire\na\n# Simpel grimoire\nb\n", "# Profund grimoire"),
    ],
)
def test_a_misspelt_heading_is_named(body: str, heading: str) -> None:
    """The text below it would else become part of the one above, and its own place stay empty."""
    with pytest.raises(InputError) as caught:
        Grimoire.from_markdown(FRONT + body, id="g")
    assert str(caught.value) == f"found the heading {heading!r}; expected '# Profound grimoire' and '# Simple grimoire'"


def test_headings_within_a_text_are_none_of_ours() -> None:
    """All of them where one text stands alone; of a file with both headings, none is looked at."""
    text = "# Rules\na\n# Simple cases\nb\n## How to use this grimoire\nc\n\\# Simpel grimoire\nd\n# simple\n#1 rule\ne"
    assert Grimoire.from_markdown(f"{FRONT}# Profound grimoire\n{text}\n", id="g").profound == text
    both = f"{FRONT}# Profound grimoire\n# Simpel grimoire\na\n# Simple grimoire\nb\n"
    assert Grimoire.from_markdown(both, id="g").profound == "# Simpel grimoire\na"


def test_a_colon_in_a_value_is_told_with_what_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "g.md"
    path.write_text("---\ntask: t\ndescription: Urgent: yes or no?\n---\n# Simple grimoire\nx\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_grimoire(path)
    assert str(caught.value) == (
        f"{path}: the front matter is not valid YAML: a value with a colon in it must stand between quotes, as in "
        "'Urgent: yes or no?', found in line 3"
    )


def test_deep_front_matter_is_malformed_too(tmp_path: Path) -> None:
    path = tmp_path / "g.md"
    path.write_text("---\n" + "[" * 20_000 + "\n---\n", encoding="utf-8")
    with pytest.raises(InputError, match="g.md: the front matter is not valid YAML"):
        load_grimoire(path)


# ------------------------------------------------------------------ JSON


def write_json(path: Path, **changes: Any) -> Path:
    card = {"task": "Mood", "strong_model": "strong-1", "sampler": "random", "profound": "\nP {x}\n", "simple": "S"}
    path.write_text(json.dumps(card | changes), encoding="utf-8")
    return path


def test_json_with_and_without_a_card(tmp_path: Path) -> None:
    path = write_json(tmp_path / "g.json")
    provenance = Provenance(strong_model="strong-1", sampler="random")
    bare = Grimoire(grimoire_id("Mood", "P {x}", "S"), "Mood", "", "", (), "P {x}", "S", provenance)
    assert load_grimoire(path) == bare
    full = load_grimoire(path, TASK)  # it names no label, and is taken all the same
    assert full == Grimoire(bare.id, "Mood", "sentiment", TASK.description, TASK.labels, "P {x}", "S", provenance)
    assert Grimoire.from_markdown(full.to_markdown(), id=full.id) == full


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"task": None}, "task: found None; Input should be a valid string"),
        ({"cost": 1}, "cost: found 1; Extra inputs are not permitted"),
        ({"profound": "", "simple": " "}, "the profound and the simple text are both empty; expected at least one"),
        ({"simple": "\ud83d"}, "the grimoire holds half of a surrogate pair; expected valid Unicode"),
    ],
)
def test_malformed_json(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    path = write_json(tmp_path / "g.json", **changes)
    with pytest.raises(InputError) as found:
        load_grimoire(path)
    assert str(found.value) == f"{path}: {complaint}"


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    path.write_text("[1", encoding="utf-8")
    with pytest.raises(InputError, match=r"g.json, line 1: not valid JSON \(Expecting .*\); expected one object"):
        load_grimoire(path)
    with pytest.raises(InputError, match=r"no.json: there is no such file; expected a grimoire \(.md or .json\)"):
        load_grimoire(tmp_path / "no.json")


@pytest.mark.parametrize(
    ("task", "slug"),
    [
        ("AG News", "ag-news"),
        ("  Émotion: ça va?/../x ", "emotion-ca-va-x"),
        ("情感", "task"),
        ("a" * 39 + " b", "a" * 39),
        ("x" * 100, "x" * 40),
    ],
)
def test_ids_are_file_names(task: str, slug: str) -> None:
    assert re.fullmatch(re.escape(slug) + "-[0-9a-f]{8}", grimoire_id(task, "p", "s"))


def test_ids_change_with_the_content() -> None:
    contents = [("T", "p", "s"), ("t", "p", "s"), ("T", "p2", "s"), ("T", "p", "s2"), ("T", "ps", ""), ("T", "", "ps")]
    assert len({grimoire_id(*content) for content in contents}) == 6
    assert grimoire_id("T", " p\n", "s") == grimoire_id("T", "p", "s ")


# ------------------------------------------------------------------ checks


@pytest.mark.parametrize(
    ("text", "labels", "missing"),
    [
        ("Very positive if it glows.", ["positive", "very positive"], ["positive"]),
        ("very positive or POSITIVE", ["positive", "very positive"], []),
        ("no\n  hate, hateful", ["hate", "no hate"], ["hate"]),
        ("C++ and C", ["C", "C++"], []),
        ("C++ alone", ["C", "C++", "C#"], ["C", "C#"]),
        ("n/a, else (yes).", ["yes", "no", "n/a"], ["no"]),
        ("Say World, not worldly", ["World", "Sports"], ["Sports"]),
        ("a.c abc", ["a.c", "a+c"], ["a+c"]),
        ("", ["b", "a"], ["b", "a"]),
        ("anything", [], []),
    ],
)
def test_missing_labels(text: str, labels: list[str], missing: list[str]) -> None:
    assert missing_labels(text, labels) == missing


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (" a \n", "a"),
        ("<think>x\ny</think>\n\na", "a"),
        ("<Thinking>x</thinking><reasoning>y</reasoning>a", "a"),
        ("a <think>x</think> b", "a  b"),
        ("the block was opened by the template\n</think>\na", "a"),
        ("<think><think>x</think>\n</think>a", "a"),
        ("Put thoughts in <think> and end with </thinking>.", "Put thoughts in <think> and end with </thinking>."),
        ([{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "a"}], "a"),
        ([{"type": "reasoning", "reasoning": "x"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
    ],
)
def test_accepted_replies(content: Any, text: str) -> None:
    metadata = {"finish_reason": "stop", "done_reason": "stop", "stop_reason": "end_turn", "status": "completed"}
    assert check_reply(AIMessage(content, response_metadata=metadata)) == text


@pytest.mark.parametrize(
    ("content", "metadata", "complaint"),
    [
        ("", {}, "is empty; expected a text"),
        (" \n\t", {}, "is empty; expected a text"),
        ("<think>x</think>\n", {}, "is empty; expected a text"),
        ([{"type": "thinking", "thinking": "x"}], {}, "is empty; expected a text"),
        ("<think>x", {}, "has an unclosed <think>; allow it more tokens (--option max_tokens=16000)"),
        (
            "<think>x</think>\nRules\n <reasoning>y",
            {},
            "has an unclosed <reasoning>; allow it more tokens (--option max_tokens=16000)",
        ),
        (
            "a",
            {"finish_reason": "length"},
            "was cut (finish_reason 'length'); allow it more tokens (--option max_tokens=16000)",
        ),
        (
            "a",
            {"finish_reason": "MAX_TOKENS"},
            "was cut (finish_reason 'max_tokens'); allow it more tokens (--option max_tokens=16000)",
        ),
        (
            "a",
            {"done_reason": "length"},
            "was cut (done_reason 'length'); allow it more tokens (--option max_tokens=16000)",
        ),
        (
            "a",
            {"stop_reason": "max_tokens"},
            "was cut (stop_reason 'max_tokens'); allow it more tokens (--option max_tokens=16000)",
        ),
        (
            "",
            {"status": "incomplete"},
            "was cut (status 'incomplete') before it said anything but thinking; "
            "allow it more tokens (--option max_tokens=16000)",
        ),
        ("", {"finish_reason": "content_filter"}, "was withheld (finish_reason 'content_filter'); try other examples"),
        ("a \ud83d", {}, "holds half of a surrogate pair; expected valid Unicode"),
    ],
)
def test_rejected_replies(content: Any, metadata: dict[str, str], complaint: str) -> None:
    with pytest.raises(RejectedReply) as found:
        check_reply(AIMessage(content, response_metadata=metadata))
    assert str(found.value) == f"the strong model's reply {complaint}"


# ------------------------------------------------------------------ writing


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def test_write_with_the_openai_client(home: Path) -> None:
    replies = [Reply(PROFOUND, prompt_tokens=300, completion_tokens=40), Reply(SIMPLE, prompt_tokens=90)]
    with OpenAIServer(replies) as server:
        with Journal(home) as journal:
            grimoire = grimoire_writer(server.model(), journal=journal).invoke(GIVEN)
        with Journal(home) as journal:  # as another process would
            assert grimoire_writer(server.model(), journal=journal).invoke(GIVEN) == grimoire
        assert len(server.requests) == 2
        assert PROFOUND in server.prompt(1) and "What a" not in server.prompt(1)  # from the profound text alone
    found = grimoire.provenance
    assert grimoire == Grimoire(
        id=grimoire_id("Mood", PROFOUND, SIMPLE),
        task="Mood",
        task_type="sentiment",
        description="Decide how the writer feels.",
        labels=("glad", "not glad"),
        profound=PROFOUND,
        simple=SIMPLE,
        provenance=Provenance(
            strong_model="strong-1",
            sampler="kmeans",
            per_label=1,
            seed=7,
            examples=tuple(example.id for example in EXAMPLES),
            text_ids=tuple(text_id(example.text) for example in EXAMPLES),
            prompt_sha256=found.prompt_sha256,
            prompt_tokens=390,
            reply_tokens=50,
            date=found.date,
        ),
    )
    assert re.fullmatch("[0-9a-f]{64}", found.prompt_sha256) and re.fullmatch(r"\d{4}-\d\d-\d\d", found.date)
    assert Grimoire.from_markdown(grimoire.to_markdown(), id=grimoire.id) == grimoire


def test_the_date_is_that_of_the_first_call(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*replies: str) -> Grimoire:
        with Journal(home) as journal:
            return grimoire_writer(FakeListChatModel(responses=list(replies)), journal=journal).invoke(GIVEN)

    monkeypatch.setattr("sleicl_chains.models.asking.now", lambda: "2026-01-31T23:59:59+00:00")
    first = write(PROFOUND, SIMPLE)
    monkeypatch.setattr("sleicl_chains.models.asking.now", lambda: "2026-02-01T00:00:00+00:00")
    assert write(PROFOUND, SIMPLE) == first
    assert first.provenance.date == "2026-01-31"


@pytest.mark.parametrize("reply", [Reply(PROFOUND, finish_reason="length"), Reply(" "), Reply("<think>Hm")])
def test_a_rejected_reply_is_never_a_grimoire(home: Path, reply: Reply) -> None:
    with OpenAIServer([reply, PROFOUND, reply, SIMPLE]) as server, Journal(home) as journal:
        write = grimoire_writer(server.model(), journal=journal)
        for _ in range(2):
            with pytest.raises(RejectedReply, match="^the strong model's reply "):
                write.invoke(GIVEN)
        assert write.invoke(GIVEN).simple == SIMPLE
        assert len(server.requests) == 4  # only what was rejected was asked again


def test_a_missing_label_is_asked_for_once(home: Path) -> None:
    with OpenAIServer(["Sun is glad.", PROFOUND, SIMPLE]) as server, Journal(home) as journal:
        write = grimoire_writer(server.model(), journal=journal)
        grimoire = write.invoke(GIVEN)
        assert write.invoke(GIVEN) == grimoire
        turns = server.requests[1]["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
        assert (turns[0], turns[1]["content"]) == (server.requests[0]["messages"][0], "Sun is glad.")
        assert 'does not name "not glad"' in turns[2]["content"]
        assert len(server.requests) == 3
    assert (grimoire.profound, grimoire.provenance.warnings) == (PROFOUND, ())
    assert (grimoire.provenance.prompt_tokens, grimoire.provenance.reply_tokens) == (300, 30)


async def test_a_label_that_stays_missing_is_a_warning() -> None:
    model = FakeListChatModel(responses=["Sun is glad.", "Sun is always glad.", SIMPLE])
    grimoire = await grimoire_writer(model).ainvoke(GIVEN)
    assert (grimoire.profound, grimoire.simple) == ("Sun is always glad.", SIMPLE)
    assert grimoire.provenance.warnings == ('the profound text does not name "not glad"',)
    assert (grimoire.provenance.strong_model, grimoire.provenance.prompt_tokens) == ("FakeListChatModel", None)


async def test_async_gives_the_same_grimoire(home: Path) -> None:
    with OpenAIServer([PROFOUND, SIMPLE]) as server, Journal(home) as journal:
        write = grimoire_writer(server.model(), journal=journal, strong_name="other name")
        grimoire = await write.ainvoke(GIVEN)
        assert write.invoke(GIVEN) == grimoire
        assert (len(server.requests), grimoire.provenance.strong_model) == (2, "other name")


def test_batch_and_callbacks() -> None:
    class Runs(BaseCallbackHandler):
        def __init__(self) -> None:
            self.names: list[str] = []
            self.parents: list[Any] = []

        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            self.names.append(kwargs["name"])

        def on_chat_model_start(self, *args: Any, parent_run_id: Any = None, **kwargs: Any) -> None:
            self.parents.append(parent_run_id)

    runs = Runs()
    write = grimoire_writer(FakeListChatModel(responses=[PROFOUND]))
    first, second = write.batch([GIVEN, {"task": TASK, "examples": []}], {"callbacks": [runs], "max_concurrency": 1})
    assert first.profound == second.profound == PROFOUND
    assert (first.provenance.seed, second.provenance.seed, second.provenance.examples) == (7, None, ())
    assert first.provenance.prompt_sha256 != second.provenance.prompt_sha256
    assert runs.names == ["grimoire_writer"] * 2
    assert len(runs.parents) == 4 and len(set(runs.parents) - {None}) == 2


def test_braces_in_task_and_reply_are_text() -> None:
    task = Task(name="T", description="Fill {this} and {examples}.")
    reply = "Use {format} and {profound}."
    grimoire = grimoire_writer(FakeListChatModel(responses=[reply])).invoke({"task": task, "examples": EXAMPLES})
    assert grimoire.profound == grimoire.simple == reply


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_run_does_not_pay_twice(home: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from langchain_openai import ChatOpenAI
        from sleicl_chains import Example, Journal, Task, grimoire_writer
        strong = ChatOpenAI(model="strong-1", api_key="k", base_url=sys.argv[1], max_retries=0)
        task = Task.model_validate_json(sys.argv[3])
        examples = [Example("What a {day}!", "glad"), Example("Rain again.", "not glad")]
        grimoire_writer(strong, journal=Journal(Path(sys.argv[2]))).invoke({"task": task, "examples": examples})
    """
    with OpenAIServer([PROFOUND, Reply("never sent", hang=True), SIMPLE]) as server:
        arguments = [server.base_url, str(home), TASK.model_dump_json()]
        with subprocess.Popen([sys.executable, "-c", code, *arguments]) as process:
            for _ in range(2):
                assert server.arrived.acquire(timeout=60)
            process.send_signal(signal.SIGKILL)
        with Journal(home) as journal:
            grimoire = grimoire_writer(server.model(), journal=journal).invoke(GIVEN)
        assert (grimoire.profound, grimoire.simple) == (PROFOUND, SIMPLE)
        assert len(server.requests) == 3
        assert server.prompt(1) == server.prompt(2)
