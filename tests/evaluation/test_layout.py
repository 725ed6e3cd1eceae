"""The page of a run in a real browser: nothing is cut, on a desk and on a telephone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from langchain_core.runnables import RunnableLambda

from sleicl_chains.answers import Answer
from sleicl_chains.evaluation.baselines import majority
from sleicl_chains.evaluation.evaluate import evaluate
from sleicl_chains.evaluation.report.pages import render
from sleicl_chains.evaluation.report.recipes import run_of
from sleicl_chains.evaluation.report.runs import read_run
from sleicl_chains.evaluation.report.sources import Texts
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.recipes import ROWS, after_a_test

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
ARMS = ("zero-shot", "few-shot", "profound+few-shot", "profound+few-shot+blend")


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Chromium, which `.ci/browser` installs; without it the test fails."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path, "found no chromium; .ci/browser installs it"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page_file(task: Task, examples: list[Example], tmp_path: Path) -> Path:
    """A page whose table has all columns, those of a strong model too."""
    usage = {"prompt_tokens": 123456, "strong_prompt_tokens": 98765, "strong_reply_tokens": 4321}

    def says(name: str) -> RunnableLambda[str, Answer]:
        answer = Answer("happy", "happy", valid=True, mode="score", prior="content-free", probability=0.7,
                        scores={"happy": 0.7, "sad": 0.3}, coverage=0.5, usage=usage, deferred=True)  # fmt: skip
        return RunnableLambda(lambda question: answer, name=name)

    solvers = {"majority": majority(task, examples)} | {name: says(name) for name in ARMS}
    evaluate(solvers, examples, run=tmp_path / "run", task=task, weak="embedded:smollm2", train_rows=4)
    file = tmp_path / "page.html"
    file.write_text(render(read_run(tmp_path / "run")), encoding="utf-8")
    return file


@pytest.mark.parametrize("width", [1200, 390])
def test_nothing_lies_beside_the_window(width: int, page_file: Path, browser: "Browser") -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    table = page.locator("table").first
    cells = table.locator("td, th").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert len(cells) > 40 and max(cells) <= width
    for arm in ARMS:
        assert table.get_by_text(arm, exact=True).first.is_visible()


@pytest.mark.parametrize("width", [1200, 390])
def test_a_recipes_rows_unfold_within_the_window(width: int, tmp_path: Path, browser: "Browser") -> None:
    file = tmp_path / "page.html"
    recipe = after_a_test()
    texts = Texts({row.id: f"{row.text} {'and so on ' * 200}" for row in ROWS})
    file.write_text(render(run_of(recipe, file), texts), encoding="utf-8")
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(file.as_uri())
    unchanged = [page.get_by_text(ROWS[at].text) for at in (1, 3)]
    assert not any(one.is_visible() for one in unchanged) and page.get_by_text(ROWS[2].text).is_visible()
    for summary in page.locator("summary").all():
        summary.click()
    assert all(one.is_visible() for one in unchanged)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
