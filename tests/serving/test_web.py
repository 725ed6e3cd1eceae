"""The page of `sleicl web` in a real browser, on a desk and on a telephone, with a server that comes and goes."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.grimoires.store import GrimoireStore
from tests.support.command import environment, hear_interrupts
from tests.support.ollama_server import Asked, OllamaServer, Said, chat, model, recorded, said
from tests.support.real_ollama import chat_model
from tests.support.recipes import recipe_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.slow
WIDTHS = [1200, 390]
HOSTILE = (
    "<script>window.ran = 1</script> <img src={0}/html.png onerror='window.ran = 2'> ![x]({0}/markdown.png) "
    "<iframe src={0}/frame></iframe> <style>@import '{0}/style.css'; body {{ display: none }}</style> <b>bold</b>"
)
READER = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"


class Outside:
    """A server that must not be asked: on loopback, but at another address than the page's."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        found = self.asked

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found.append(self.path)
                self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.2", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.2:{self.http.server_port}"


class Model:
    """What the Ollama server says, which can go away and come back."""

    def __init__(self, outside: str) -> None:
        self.outside = outside
        self.server = OllamaServer(self.answer)
        self.server.__enter__()

    def answer(self, asked: Asked) -> Said | None:
        if asked.route == "/api/show":  # under weights that are known to read guides
            known = recorded("show")
            return replace(
                known, lines=tuple(re.sub("sha256-[0-9a-f]{64}", f"sha256-{READER}", x) for x in known.lines)
            )
        if asked.route != "/api/chat" or asked.render_only:
            return None
        text = str(asked.body["messages"][-1]["content"])
        if "hostile" in text:
            return _one(HOSTILE.format(self.outside) + "\n\n```html\n<i>code</i>\n```\n")
        if "long" in text:
            return replace(chat("word " * 300), pause_s=0.05)
        if "invoice" in text:
            return chat("billing")
        turns = sum(one["role"] == "user" for one in asked.body["messages"])
        return replace(chat(f"**Reply** {turns} to {text}"), pause_s=0.01)

    def goes(self) -> None:
        self.port = int(self.server.url.rpartition(":")[2])
        self.server.__exit__()

    def comes_back(self) -> None:
        self.server = OllamaServer(self.answer, port=self.port)
        self.server.__enter__()


def _one(text: str) -> Said:
    last = chat("x").objects[-1]
    return said({"model": last["model"], "message": {"role": "assistant", "content": text}, "done": False}, last)


@dataclass
class Running:
    """A page with what stands behind it."""

    url: str
    model: Model
    outside: Outside
    log: Path


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


@contextmanager
def started(
    folder: Path, arguments: list[str], log: IO[str] | None = None, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `sleicl web` and yield its address and its process, which is ended."""
    command = [sys.executable, "-c", "from sleicl_chains.cli import main; main()", "web", "--port", "0", *arguments]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=log or subprocess.DEVNULL, text=True,
        env=environment(**variables), preexec_fn=hear_interrupts,
    ) as process:  # fmt: skip
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            yield url, process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`sleicl web` as a user starts it, with a hostile grimoire of two versions and a recipe."""
    folder, outside = tmp_path_factory.mktemp("web"), Outside()
    hostile = HOSTILE.format(outside.url)
    talker = Model(outside.url)
    store = GrimoireStore(Home(folder / "home"))
    about = (f"evil {hostile}", "", f"Sort stamps. {hostile}", (f"l {hostile}",))
    evil = Grimoire("evil", *about, hostile, "", Provenance())
    store.add(evil)
    store.revise(replace(evil, profound=f"{hostile}\nMore."))
    recipe_of(model(talker.server), "ollama:smollm2:135m").save(folder / "desk.recipe.json")
    arguments = ["desk.recipe.json", "--weak", "ollama:smollm2:135m", "--home", "home"]
    host = talker.server.url.removeprefix("http://")
    with (folder / "log").open("w") as log, started(folder, arguments, log, OLLAMA_HOST=host) as (url, process):
        yield Running(url, talker, outside, folder / "log")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    talker.server.__exit__()
    outside.http.shutdown()
    outside.http.server_close()
    assert "Traceback" not in (folder / "log").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["desk.recipe.json", "home", "log"]


@pytest.fixture(params=WIDTHS)
def page(running: Running, browser: "Browser", request: pytest.FixtureRequest) -> "Iterator[Page]":
    """A page that asked nobody but its own server, ran no foreign script and fits its window."""
    opened = browser.new_page(viewport={"width": request.param, "height": 800})
    asked: list[str] = []
    opened.on("request", lambda one: asked.append(one.url))
    opened.on("pageerror", lambda problem: asked.append(f"error: {problem}"))
    opened.goto(running.url)
    opened.locator("#message textarea").wait_for(timeout=60_000)
    yield opened
    assert opened.evaluate("window.ran") is None
    assert opened.evaluate("document.documentElement.scrollWidth") <= request.param
    opened.close()
    assert [one for one in asked if not one.startswith((running.url, "data:", "blob:"))] == []
    assert running.outside.asked == []


def send(page: "Page", text: str) -> None:
    page.locator("#message textarea").fill(text)
    page.locator("#message textarea").press("Enter")


def see(place: "Page | Locator", text: str | re.Pattern[str]) -> None:
    place.get_by_text(text).first.wait_for(timeout=30_000)


def idle(page: "Page") -> None:
    """Wait until the next message can be sent."""
    page.locator("#message .submit-button").wait_for(timeout=30_000)


def test_a_whole_conversation(page: "Page", running: Running) -> None:
    talk = page.locator("#talk")
    send(page, "Is this review positive or negative?")
    see(talk, "Grimoire: sentiment")
    see(talk, "1 to Is this")
    assert talk.locator("strong", has_text="Reply").count() == 1
    system = running.model.server.sent("/api/chat")[-1]["messages"][0]
    assert system["role"] == "system" and "There is a guide" in system["content"]
    assert not talk.get_by_text("near to").first.is_visible()
    talk.get_by_text("Grimoire: sentiment").click()
    see(talk, re.compile("near to"))
    idle(page)

    page.locator("#choice input").click()
    page.get_by_role("option", name="No grimoire").click()
    send(page, "And now?")
    see(talk, "2 to And now?")
    idle(page)
    talk.get_by_label("Retry").click()
    page.wait_for_timeout(300)
    idle(page)
    bodies = [one["messages"] for one in running.model.server.sent("/api/chat")[-2:]]
    assert bodies[0] == bodies[1] and [one["role"] for one in bodies[1]] == ["user", "assistant", "user"]
    assert talk.get_by_text("2 to And now?").count() == 1

    send(page, "a long one")
    page.locator("button.stop-button:visible").wait_for(timeout=30_000)
    see(talk, re.compile("word word word"))
    page.locator("button.stop-button:visible").click()
    assert running.model.server.left.acquire(timeout=10)  # the model is stopped too
    idle(page)
    send(page, "After the stop")
    see(talk, "4 to After the stop")
    last = running.model.server.sent("/api/chat")[-1]["messages"]
    assert last[-2]["content"].startswith("word word") and len(last[-2]["content"]) < 300 * 5


def test_the_server_goes_away_and_comes_back(page: "Page", running: Running) -> None:
    talk = page.locator("#talk")
    send(page, "First")
    see(talk, "1 to First")
    idle(page)
    running.model.goes()
    try:
        send(page, "Are you there?")
        see(talk, re.compile("No answer"))
        idle(page)
        assert "ollama serve" in talk.inner_text()
    finally:
        running.model.comes_back()
    talk.get_by_label("Retry").click()
    see(talk, "2 to Are you there?")  # the failed turn is not shown to the model
    assert not talk.get_by_text("No answer").count()


def test_hostile_texts_are_only_texts(page: "Page", running: Running) -> None:
    talk = page.locator("#talk")
    send(page, f"hostile {HOSTILE.format(running.outside.url)}")
    see(talk, "<i>code</i>")
    idle(page)
    assert talk.inner_text().count("<script>window.ran = 1</script>") >= 2
    assert not talk.locator("img[src*='.png'], iframe, b").count()
    page.locator("#choice input").click()
    page.get_by_role("option", name="evil").click()
    send(page, "with evil")
    see(talk, "2 to with evil")
    idle(page)
    talk.get_by_text("Grimoire: evil").last.click()
    see(talk, "chosen by you")

    page.get_by_role("tab", name="Library").click()
    page.locator("#cards label", has_text="evil").click()
    see(page.locator("#about"), "Sort stamps.")
    see(page.locator("#text"), "More.")
    page.get_by_text("History", exact=True).click()
    see(page.locator("#history"), "evil@1")
    see(page.locator("#diff"), "--- evil@1")
    page.locator("#diff").evaluate("one => one.scrollIntoView({block: 'end'})")  # what is out of sight is not there
    page.locator("#diff .cm-scroller").evaluate("one => one.scrollTo(0, one.scrollHeight)")
    see(page.locator("#diff"), "+More.")
    page.wait_for_timeout(500)
    assert "<script>" in page.locator("#about").inner_text() and "<script>" in page.locator("#text").inner_text()
    assert not page.locator("#about img, #about iframe, #about b, #text img, #diff img, #cards img").count()

    page.get_by_role("tab", name="Try").click()
    page.locator("#rows textarea").fill(HOSTILE.format(running.outside.url).replace("\n", " "))
    page.get_by_role("button", name="Try").click()
    see(page.locator("#told"), "1 of 1 rows answered.")
    assert "<script>" in page.locator("#results").inner_text()
    assert not page.locator("#results img, #results iframe, #results b").count()


def test_the_library_is_searched_and_read(page: "Page") -> None:
    page.get_by_role("tab", name="Library").click()
    see(page.locator("#found"), re.compile(r"15 of 15 grimoires, by name"))
    page.locator("#query textarea, #query input").first.fill("is this review good or bad?")
    page.locator("#query").get_by_role("button").click()
    see(page.locator("#found"), re.compile("nearest first"))
    assert "sentiment" in page.locator("#cards label").first.inner_text()
    page.locator("#cards label", has_text="question-type").click()
    see(page.locator("#about"), re.compile(r"measured: \+\.10 .* rows of TREC"))
    see(page.locator("#text"), "# Profound grimoire")
    boxes = page.locator("#cards label").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert max(boxes) <= (page.viewport_size or {"width": 0})["width"]


def test_a_recipe_is_tried_on_pasted_rows(page: "Page") -> None:
    page.get_by_role("tab", name="Try").click()
    rows = ["text,answer", "My invoice,billing", "An invoice again,technical", "The app,technical"]
    page.locator("#rows textarea").fill("\n".join(rows))
    page.get_by_role("button", name="Try").click()
    see(page.locator("#told"), "3 of 3 rows answered.")
    assert "1 of 3 right: 33% (95% interval 6% to 79%); 1 without a valid answer" in page.locator("#told").inner_text()
    cells = [row.split("\t") for row in page.locator("#results table").inner_text().split("\n") if row]
    assert page.locator("#results tbody tr").count() == 3, cells
    first = page.locator("#results tbody tr").nth(1).locator("td").all_inner_texts()
    assert first == ["An invoice again", "billing", "", "yes", "no: technical"]
    right = page.locator("#results td").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert max(right) <= (page.viewport_size or {"width": 0})["width"]
    page.locator("#rows textarea").fill("text,answer\nx,glad")
    page.get_by_role("button", name="Try").click()
    see(page.locator("#told"), "found the label 'glad'")


def test_two_sessions_have_talks_of_their_own(running: Running, browser: "Browser") -> None:
    pages = [browser.new_page(), browser.new_page()]
    for number, one in enumerate(pages):
        one.goto(running.url)
        send(one, f"I am {number}")
        see(one.locator("#talk"), f"1 to I am {number}")
    send(pages[0], "Who am I?")
    see(pages[0].locator("#talk"), "2 to Who am I?")
    said = [one["content"] for one in running.model.server.sent("/api/chat")[-1]["messages"]]
    assert any("I am 0" in one for one in said) and not any("I am 1" in one for one in said)
    for one in pages:
        one.close()


def test_with_a_password_nothing_is_shown_without_it(tmp_path: Path, browser: "Browser") -> None:
    arguments = ["--weak", "ollama:smollm2:135m", "--home", "home"]
    with started(tmp_path, arguments, SLEICL_WEB_PASSWORD="correct horse") as (url, _):
        page = browser.new_page()
        page.goto(url)
        assert page.request.get(f"{url}/config").status == 401
        joined = page.request.post(f"{url}/gradio_api/queue/join", data=json.dumps({"fn_index": 0, "data": []}))
        assert joined.status == 401
        for word, works in (("wrong horse", False), ("correct horse", True)):
            page.locator("input").nth(0).fill("me")
            page.locator("input[type=password]").fill(word)
            page.get_by_role("button").first.click()
            page.wait_for_timeout(2500)
            assert page.locator("#message").count() == works
        page.close()


def check_conversation(browser: "Browser", folder: Path, weak: str, *, reads: bool) -> None:
    """Talk with a real model in a browser: a grimoire is found, held and dropped, where the model can read one."""
    with started(folder, ["--weak", weak, "--home", "home", "-o", "max_tokens=16"]) as (url, _):
        page = browser.new_page(viewport={"width": 390, "height": 800})
        page.goto(url)
        page.locator("#message textarea").wait_for(timeout=60_000)
        talk, seen = page.locator("#talk"), 0
        for text, found in (
            ("Is this mail a scam? “You have won, click here”", True),
            ("and this one? “The meeting is moved to three”", True),
            ("How many legs does a spider have?", False),
        ):
            send(page, text)
            page.locator("button.stop-button:visible").wait_for(timeout=30_000)
            page.locator("#message .submit-button").wait_for(timeout=240_000)
            seen += found and reads
            assert talk.get_by_text("Grimoire: spam").count() == seen
        replies = [one.inner_text().strip() for one in talk.locator(".bot.message").all()]
        assert len(replies) >= 3 and all(replies)
        assert "does not answer" not in "".join(replies)
        page.close()


@pytest.mark.ollama
def test_a_conversation_on_a_real_ollama(ollama: str, browser: "Browser", tmp_path: Path) -> None:
    name = chat_model(ollama)
    check_conversation(browser, tmp_path, f"ollama:{name}", reads=name.startswith("qwen"))


def test_a_conversation_on_the_embedded_engine(home_with_weights: Home, browser: "Browser") -> None:
    if home_with_weights.root.name != "home":
        home_with_weights.root.rename(home_with_weights.root.parent / "home")
    check_conversation(browser, home_with_weights.root.parent, "embedded:smollm2", reads=False)
