"""`sleicl report`: what stands on the page of a run, and what must not."""

import json
import re
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from langchain_core.runnables import Runnable, RunnableLambda

from sleicl_chains.answers import Answer
from sleicl_chains.evaluation.baselines import majority
from sleicl_chains.evaluation.evaluate import evaluate
from sleicl_chains.evaluation.report.pages import Page, render
from sleicl_chains.evaluation.report.plots import front
from sleicl_chains.evaluation.report.runs import Run, read_run
from sleicl_chains.evaluation.report.sources import Texts
from sleicl_chains.evaluation.summary import ArmResult
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.command import Desk, Parrot, by_length, sleicl

QUESTION, REPLY, BOOK = "Is <script>alert(1)</script> & so on happy?", "I'd say <b>sad</b>.", "If it laughs: <happy>."
SEEN = "moods-1234abcd"


class Document(HTMLParser):
    """The tags of a page, its ids and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.loads += [found[name] or "" for name in ("src", "href", "xlink:href", "data", "action") if name in found]
        if tag not in ("meta", "br", "path", "rect", "use"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("br", "path", "rect", "use"):
            assert self.open.pop() == tag


def says(name: str, answers: Mapping[str, Answer]) -> Runnable[str, Answer]:
    return RunnableLambda(lambda question: answers[question], name=name)


def scored(label: str, probability: float, **about: Any) -> Answer:
    scores = {"happy": probability, "sad": 1 - probability}
    return Answer(
        label=label, text=label, valid=True, mode="score", prior="mean", probability=probability, scores=scores, **about
    )


@pytest.fixture
def rows(examples: list[Example]) -> list[Example]:
    return [*examples, Example(QUESTION, "happy")]


@pytest.fixture
def run(task: Task, rows: list[Example], tmp_path: Path) -> Run:
    """Zero-shot is always happy: right on rows 1, 3 and 5. `profound` is right on 1 to 4, and asks help once.

    `few-shot` is generated and gives no answer at all.
    """
    texts = [row.text for row in rows]
    spent = {"prompt_tokens": 10}
    zero = {text: scored("happy", 0.6, cue="Answer:", usage=spent) for text in texts}
    taught = {"cue": "Label:", "grimoire": SEEN, "usage": {"prompt_tokens": 50}}
    named = zip(texts, ["happy", "sad", "happy", "sad", "sad"], (0.9, 0.8, 0.7, 0.6, 0.55), strict=True)
    profound = {text: scored(label, sure, **taught) for text, label, sure in named}
    cost = {"prompt_tokens": 50, "strong_prompt_tokens": 300, "strong_reply_tokens": 4}
    profound[texts[3]] = replace(profound[texts[3]], probability=None, scores={}, deferred=True, usage=cost)
    mute = {text: Answer(label=None, text=REPLY, valid=False, mode="generate", usage=spent) for text in texts}
    arms: list[Runnable[str, Answer]] = [
        majority(task, rows), says("zero-shot", zero), says("few-shot", mute), says("profound", profound),
    ]  # fmt: skip
    evaluate(arms, rows, task=task, weak="embedded:/home/me/tiny.gguf", train_rows=4, run=tmp_path / "run")
    return read_run(tmp_path / "run")


@pytest.fixture
def texts(rows: list[Example], task: Task) -> Texts:
    about = Provenance(strong_model="gpt-9", date="2026-01-31")
    book = Grimoire(SEEN, task.name, "", "", task.labels, BOOK, "", about)
    return Texts({row.id: row.text for row in rows}, {SEEN: book})


def words(page: str) -> str:
    """Return what a reader sees, in one line."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def test_the_page_needs_nothing_beside_it(run: Run, texts: Texts) -> None:
    page = render(run, texts)
    found = Document(page)
    assert found.open == [] and len(found.ids) == len(set(found.ids))
    assert found.tags.count("svg") == 4 and not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    assert all(target.startswith("#") and target[1:] in found.ids for target in found.loads)
    assert "http://" not in page and "https://" not in page and "@import" not in page
    assert set(re.findall(r"url\(#?(\w+)", page)) <= set(found.ids)
    assert "default-src 'none'" in page


def test_the_table_has_every_arm_with_its_cue_and_cost(run: Run, texts: Texts) -> None:
    page = render(run, texts)
    table = page[page.index('<table class="arms">') : page.index("</table>")]
    lines = [words(row) for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)][1:]
    assert [line.split()[0] for line in lines] == ["majority", "zero-shot", "few-shot", "profound"]
    assert lines[1].startswith("zero-shot 0.600 0.231–0.882 0.375 1.000 score / mean Answer: 0.000 0.400 10")
    assert all("<td data-name=" in line or "<th" in line for line in table.splitlines() if "<td" in line)
    assert "0.800" in lines[3] and "+0.200 [" in lines[3] and "score / mean Label:" in lines[3]
    assert lines[3].endswith("50 0.0 0.200 300 + 4") and "The strong model's tokens are not in it" in page
    assert '<tr class="best">\n  <th scope="row" title="profound">' in table


def test_deferring_is_shown_only_where_there_was_any(task: Task, examples: list[Example], tmp_path: Path) -> None:
    evaluate([says("a", {row.text: scored("happy", 0.7) for row in examples})], examples, task=task, run=tmp_path)
    page = render(read_run(tmp_path), Texts())
    assert "deferred" not in page and "strong tokens" not in page


def test_the_grimoire_with_what_it_fixed_and_broke(run: Run, texts: Texts, rows: list[Example]) -> None:
    seen = words(render(run, texts))
    assert "Compared are profound, with a grimoire, and zero-shot, without one, both read by score / mean." in seen
    fixed = seen[seen.index("Fixed: 2") : seen.index("Broken: 1")]
    broken = seen[seen.index("Broken: 1") : seen.index(f"The grimoire {SEEN}")]
    assert rows[1].text in fixed and rows[3].text in fixed and rows[0].text not in fixed
    assert "Right: sad . Without: happy (0.60). With: sad (0.80)." in fixed
    assert "With: sad, asked of the strong model." in fixed
    assert "Without: happy (0.60). With: sad (0.55)." in broken
    assert "gpt-9, 2026-01-31" in seen
    page = Page(run, texts)
    assert page.by_label == [("happy", 0, 1), ("sad", 2, 0)]


def test_confusion_is_that_of_the_best_arm(run: Run) -> None:
    page = Page(run)
    assert page.best.arm == "profound" and page.columns == ["happy", "sad"]
    assert page.confusion == [("happy", [2, 1]), ("sad", [0, 2])]


def test_rows_without_an_answer_have_their_column(task: Task, examples: list[Example], tmp_path: Path) -> None:
    mute = Answer(label=None, text="", valid=False, mode="generate")
    evaluate([says("a", {row.text: mute for row in examples})], examples, task=task, run=tmp_path)
    run = read_run(tmp_path)
    assert Page(run).confusion == [("happy", [0, 0, 2]), ("sad", [0, 0, 2])]
    seen = words(render(run, Texts()))
    assert "no answer" in seen and "The arms give no probabilities, so this cannot be said." in seen


def test_the_page_says_the_verdict_and_what_is_missing(run: Run, texts: Texts) -> None:
    seen = words(render(run, replace(texts, questions={}, missing=["The questions could not be found: moved."])))
    assert "No grimoire is shown to help here. profound, the best arm with a grimoire, against zero-shot" in seen
    assert "The questions could not be found: moved. The page goes without." in seen
    assert f"row {Example(QUESTION, 'happy').id}" in seen


def test_texts_are_escaped(run: Run, texts: Texts) -> None:
    page = render(run, texts)
    assert "<script" not in page and "<happy>" not in page
    assert (
        "Is &lt;script&gt;alert(1)&lt;/script&gt; &amp; so on happy?" in page and "If it laughs: &lt;happy&gt;." in page
    )


def test_names_of_arms_and_labels_are_escaped_in_the_plots_too(tmp_path: Path) -> None:
    task = Task(name="<i>$x$</i>", description="?", labels=("<u>$a_1$", "b&b"))
    rows = [Example("one", "<u>$a_1$"), Example("two", "b&b")]
    said = Answer(label="<u>$a_1$", text="", valid=True, mode="score", probability=0.5, usage={"prompt_tokens": 1})
    arms = {name: says(name, {row.text: said for row in rows}) for name in ("_<script>$\\frac$", "幸せ")}
    evaluate(arms, rows, task=task, run=tmp_path)
    page = render(read_run(tmp_path), Texts())
    tags = Document(page).tags
    assert not {"script", "i", "u"} & set(tags) and page.count("&lt;script&gt;") >= 4 and "幸せ" in page


def test_without_texts_none_is_on_the_page(run: Run, texts: Texts, rows: list[Example]) -> None:
    page = render(run)
    for text in (*(row.text for row in rows), "alert(1)", BOOK, "laughs", REPLY, "gpt-9", "/home/me", *texts.questions):
        assert text not in page
    seen = words(page)
    assert "embedded:tiny.gguf" in seen and "profound fixes 2 and breaks 1 of the 5 rows" in seen
    assert "This page has no text of a question, a reply or a grimoire." in seen


def test_without_texts_an_open_ended_page_has_no_answers(task: Task, tmp_path: Path) -> None:
    """In such a task right answers and replies are texts as well."""
    rows = [Example("Who wrote it?", "Mary Shelley"), Example("Who drew it?", "Tove Jansson")]
    wrong = Answer(label=None, text="Percy said so", valid=True, mode="generate", usage={"prompt_tokens": 3})
    taught = replace(wrong, text="Mary Shelley", grimoire=SEEN)
    open_task = task.model_copy(update={"labels": ()})
    arms = {
        "zero-shot": says("z", {row.text: wrong for row in rows}), "simple": says("s", {r.text: taught for r in rows}),
    }  # fmt: skip
    evaluate(arms, rows, task=open_task, run=tmp_path)
    run = read_run(tmp_path)
    page = render(run)
    for text in ("Shelley", "Jansson", "Percy", "Who "):
        assert text not in page
    assert "mixes up" not in page and "macro-F1" not in page and "Shelley" in render(run, Texts())


def arm(name: str, accuracy: float, tokens: int) -> ArmResult:
    return ArmResult(name, "score", "mean", accuracy, 0, 1, None, 1, None, None, None, None, tokens, 0)


def test_the_front_of_cost_and_accuracy() -> None:
    arms = [arm("dear", 0.8, 90), arm("best", 0.9, 50), arm("free", 0.5, 0), arm("worse", 0.4, 0), arm("tie", 0.5, 9)]
    assert [one.arm for one in front(arms)] == ["free", "best"]


def test_arms_whose_tokens_were_not_counted_are_left_out_of_the_costs(
    task: Task, examples: list[Example], tmp_path: Path
) -> None:
    evaluate([says("a", {row.text: scored("happy", 0.7) for row in examples})], examples, task=task, run=tmp_path)
    page = Page(read_run(tmp_path), Texts())
    assert page.counted == []
    seen = words(render(page.run, Texts()))
    assert "No arm's prompt tokens were counted" in seen and "not counted" in seen


def test_the_same_run_gives_the_same_page_and_nothing_global_is_changed(
    run: Run, texts: Texts, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import of it now fails
    names: tuple[Any, ...] = ("svg.hashsalt", "svg.fonttype", "text.color", "text.parse_math", "font.size")
    before = [matplotlib.rcParams[name] for name in names]
    assert render(run, texts) == render(run, texts)
    assert [matplotlib.rcParams[name] for name in names] == before


def test_only_the_page_loads_matplotlib_and_jinja() -> None:
    program = "import sys, sleicl_chains.cli.reporting, sleicl_chains.evaluation.evaluate;"
    program += "import sleicl_chains.evaluation.report.pages;"
    program += "print([name for name in ('matplotlib', 'jinja2') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_neither_the_page_nor_its_words_load_what_the_terminal_needs() -> None:
    program = (
        "import sys, sleicl_chains.evaluation.report.pages;"
        "print([n for n in ('rich', 'typer', 'sleicl_chains.cli.console') if n in "
    )
    program += "sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.at(tmp_path / "desk")


@pytest.fixture
def kept(desk: Desk, home: Home, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that `sleicl evaluate` made, with a grimoire from a file."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    guide = desk.folder / "guide.json"
    guide.write_text(json.dumps({"task": "desk", "simple": "Money is <billing>."}), encoding="utf-8")
    with Parrot(by_length) as server:
        done = sleicl(
            "evaluate", "--task", desk.card, "--rows", desk.test, "--weak", "openai:m", *server.options,
            "--grimoire", guide, "--json",
        )  # fmt: skip
    return Path(done.json()["run"])


def test_evaluate_then_report(kept: Path, desk: Desk) -> None:
    done = sleicl("report", kept)
    page = kept / "report.html"
    assert (done.status, done.out, done.err) == (0, f"{page}\n", "")
    text = page.read_text(encoding="utf-8")
    assert "Money is &lt;billing&gt;." in text
    assert stat.S_IMODE(page.stat().st_mode) == stat.S_IMODE((kept / "sources.json").stat().st_mode) == 0o600
    assert sleicl("report", kept.name).out == done.out  # by its name in the home's runs


def test_report_without_text_goes_to_a_file_of_its_own(kept: Path, desk: Desk) -> None:
    assert sleicl("report", kept, "--no-text").out == f"{kept / 'report-no-text.html'}\n"
    text = (kept / "report-no-text.html").read_text(encoding="utf-8")
    assert not (kept / "report.html").exists() and "Money is" not in text and str(desk.folder) not in text
    assert not any(question in text for question in desk.texts("test"))


def test_report_as_json_and_where_texts_have_moved(kept: Path, desk: Desk, tmp_path: Path) -> None:
    desk.test.rename(tmp_path / "moved.jsonl")
    done = sleicl("report", kept, "--out", tmp_path / "page.html", "--json")
    found = done.json()
    assert found["page"] == str(tmp_path / "page.html") and found["n"] == 8 and len(found["verdict"]) >= 1
    assert found["missing"][0].startswith("The questions could not be found: ") and found["missing"][0] in done.err
    assert "there is no such file" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_help_names_its_options() -> None:
    shown = sleicl("report", "--help").out
    assert all(option in shown for option in ("RUN", "--out", "--no-text", "--json", "--home"))
    assert "\n  report " in sleicl("--help").out


def test_report_refuses_what_is_no_run_and_no_place(kept: Path, tmp_path: Path) -> None:
    done = sleicl("report", tmp_path)
    assert done.status == 1 and "found no run.json; expected the folder of a run" in done.err
    for place in (tmp_path / "none" / "page.html", tmp_path):
        done = sleicl("report", kept, "--out", place)
        assert (done.status, done.out) == (1, "") and f"{place}: th" in done.err and "folder" in done.err
