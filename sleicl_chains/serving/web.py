"""The page of `sleicl web`: chat, library, and a recipe tried on pasted rows. The one module that knows gradio.

Nothing that it shows is trusted, see `web_texts`. What a session said stays in this process's memory and goes with it.
"""

import asyncio
import hmac
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from langchain_core.language_models import BaseChatModel

from sleicl_chains.errors import InputError, SleiclError, one_line
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.grimoires.versions import difference
from sleicl_chains.serving.conversation import Conversation
from sleicl_chains.serving.pasted import ROWS, Tried, pasted_rows, summary, tried
from sleicl_chains.serving.web_texts import both_texts, card, facts, literal, note_of, shown_reply, version_lines

if TYPE_CHECKING:
    from fastapi import FastAPI

    from sleicl_chains.answering.opening import Opened

Message = dict[str, Any]
"""What is shown in the chat, as Gradio takes it."""
_CARDS = 40
_WAITING = 32
"""Requests that wait for the model; more are refused."""
_LONGEST = 100_000
"""Characters of a message."""
_OFTEN_S = 0.05
"""How often a growing answer is shown."""
_KEPT_S = 6 * 3600.0
"""How long a talk is kept after its last message."""


@dataclass(frozen=True)
class Page:
    """What a page is made of."""

    weak: BaseChatModel
    store: GrimoireStore
    model: str
    """The model's name, to be shown."""
    note: str = ""
    """What should be known of the model."""
    recipes: Mapping[str, "Opened"] = field(default_factory=dict)
    """Solvers that can be tried, by the names to be shown."""


class Talk:
    """One browser session's talk, and what is shown of it."""

    def __init__(self, page: Page) -> None:
        self.talk = Conversation(page.weak, page.store)
        self.shown: list[Message] = []
        self._before = (0, 0)
        self._text = ""

    def ask(self, text: str) -> None:
        """Show a message of the user's, to be answered."""
        self._before, self._text = (len(self.talk.turns), len(self.shown)), text
        self.shown.append({"role": "user", "content": shown_reply(text)})

    def again(self) -> None:
        """Take the last message and its answer back, and ask it anew."""
        turns, shown = self._before
        del self.talk.turns[turns:], self.shown[shown:]
        self.ask(self._text)

    def forget(self) -> None:
        """Begin anew."""
        self.talk.clear()
        self.shown, self._before, self._text = [], (0, 0), ""

    def answer(self, choice: str) -> Iterator[list[Message]]:
        """Yield all that is to be shown, while the answer to the last message comes.

        Args:
            choice: `auto`, `none` or a grimoire's id.
        """
        kept, coming = self.shown, _Coming()
        if not self._text.strip():
            return
        try:
            if len(self._text) > _LONGEST:
                raise InputError(f"the message has {len(self._text):,} characters; at most {_LONGEST:,} are taken")
            self._choose(choice)
            # A talk's pieces are a generator, which must be closed where the answer is stopped.
            with closing(cast(Any, self.talk.pieces(self._text))) as pieces:
                coming.note = note_of(self.talk, self.talk.turns[-1].pick)
                for messages in coming.follow(pieces):
                    self.shown = [*kept, *messages]
                    yield self.shown
            coming.ended = "the reply reached its longest" if self.talk.turns[-1].ended == "cut" else ""
        except SleiclError as problem:
            coming.problem = str(problem)
        except Exception as problem:  # raised, it would hide the talk for good
            coming.problem = f"{type(problem).__name__}: {one_line(problem):.500}"
        self.shown = [*kept, *coming.messages()]
        yield self.shown

    def _choose(self, choice: str) -> None:
        if choice in ("auto", "none"):
            self.talk.grimoire = cast(Any, choice)
        else:
            self.talk.grimoire = cast(GrimoireStore, self.talk.store).get(choice)


@dataclass
class _Coming:
    """An answer as far as it has come."""

    note: tuple[str, str] | None = None
    thinking: str = ""
    reply: str = ""
    problem: str = ""
    ended: str = ""

    def follow(self, pieces: Any) -> Iterator[list[Message]]:
        yield self.messages()
        last = 0.0
        for text, thinking in pieces:
            self.thinking, self.reply = (self.thinking + text, self.reply) if thinking else (
                self.thinking, self.reply + text)  # fmt: skip
            if (now := time.monotonic()) - last >= _OFTEN_S:
                last = now
                yield self.messages()

    def messages(self) -> list[Message]:
        parts = [_folded(*self.note)] if self.note else []
        if self.thinking:
            parts.append(_folded("Thinking", shown_reply(self.thinking)))
        if self.reply:
            parts.append({"role": "assistant", "content": shown_reply(self.reply)})
        if self.problem:
            parts.append({"role": "assistant", "content": f"⚠ **No answer.** {literal(self.problem)}"})
        if self.ended:
            parts.append({"role": "assistant", "content": f"*({literal(self.ended)})*"})
        return parts


def _folded(title: str, body: str) -> Message:
    return {"role": "assistant", "content": body, "metadata": {"title": title, "status": "done"}}


def page_app(page: Page, password: str | None = None) -> "FastAPI":
    """Return the page as an ASGI application; with a password it asks for it first.

    Raises:
        InputError: gradio is not installed.
    """
    gr = _gradio()
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    blocks = _blocks(gr, page)
    blocks.queue(max_size=_WAITING, default_concurrency_limit=1, api_open=False)
    mounted: FastAPI = gr.mount_gradio_app(
        app, blocks, path="/", footer_links=[], run_history=False, show_error=False, max_file_size=1, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, css=_CSS, theme=_theme(gr),
        auth=_check_of(password) if password else None,
        auth_message="Any name will do; the password is the one that the server was started with.",
    )  # fmt: skip
    return mounted


def _check_of(password: str) -> Callable[[str, str], Awaitable[bool]]:
    async def check(_: str, given: str) -> bool:
        if hmac.compare_digest(given.encode(errors="replace"), password.encode(errors="replace")):
            return True
        await asyncio.sleep(1)  # so that trying many takes long
        return False

    return check


def _gradio() -> Any:
    # Before the import, which reads them: else it looks up names on the internet.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import gradio
    except ImportError:
        raise InputError("The page needs gradio: pip install 'sleicl-chains[web]'") from None
    return gradio


def _theme(gr: Any) -> Any:
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def _blocks(gr: Any, page: Page) -> Any:
    with gr.Blocks(title="sleicl", analytics_enabled=False, fill_height=True) as blocks:
        with gr.Tab("Chat", scale=1):
            _chat(gr, page, blocks)
        with gr.Tab("Library"):
            _library(gr, page, blocks)
        with gr.Tab("Try"):
            _try(gr, page)
    return blocks


_HIDDEN = {"api_visibility": "private"}
_AT_ONCE = {**_HIDDEN, "queue": False, "show_progress": "hidden"}


def _chat(gr: Any, page: Page, blocks: Any) -> None:
    talk = gr.State(time_to_live=_KEPT_S)
    about = f"Model: {literal(page.model)}. {literal(page.note)}"
    with gr.Row(elem_id="chat-head"):
        gr.Markdown(about, elem_id="model", latex_delimiters=[])
        choice = gr.Dropdown(
            _choices(page), value="auto", show_label=False, container=False, allow_custom_value=True, elem_id="choice"
        )
    bot = gr.Chatbot(
        height="calc(100dvh - 190px)", show_label=False, buttons=["copy"], layout="bubble", sanitize_html=True,
        latex_delimiters=[], allow_file_downloads=False, group_consecutive_messages=False, elem_id="talk",
        placeholder="For each message the grimoire that fits is found, if one does.",
    )  # fmt: skip
    box = gr.Textbox(
        placeholder="Message", show_label=False, container=False, lines=1, max_lines=8, autofocus=True,
        submit_btn=True, stop_btn=False, max_length=_LONGEST, elem_id="message",
    )  # fmt: skip
    busy = {"submit_btn": False, "stop_btn": True}
    idle = {"submit_btn": True, "stop_btn": False}

    def ask(text: str | None, talk: Talk | None) -> tuple[Any, ...]:
        talk = talk or Talk(page)
        if not text or not text.strip():
            return talk, talk.shown, gr.update(**idle)
        talk.ask(text)
        return talk, talk.shown, gr.Textbox(value="", **busy)

    def again(talk: Talk | None) -> tuple[Any, ...]:
        talk = talk or Talk(page)
        talk.again()
        return talk, talk.shown, gr.Textbox(**busy)

    def answer(talk: Talk, choice: str) -> Iterator[list[Message]]:
        yield from talk.answer(choice)

    def forget(talk: Talk | None) -> list[Message]:
        if talk:
            talk.forget()
        return []

    asked = box.submit(ask, [box, talk], [talk, bot, box], **_AT_ONCE)
    retried = bot.retry(again, [talk], [talk, bot, box], **_AT_ONCE)
    runs = [one.then(answer, [talk, choice], bot, concurrency_id="model", show_progress="hidden", **_HIDDEN)
            for one in (asked, retried)]  # fmt: skip
    for run in runs:
        run.then(lambda: gr.Textbox(**idle), None, box, **_AT_ONCE)
    box.stop(lambda: gr.Textbox(**idle), None, box, cancels=runs, **_AT_ONCE)
    bot.clear(forget, talk, bot, cancels=runs, **_AT_ONCE)
    blocks.load(lambda: gr.Dropdown(choices=_choices(page)), None, choice, **_AT_ONCE)


def _choices(page: Page) -> list[tuple[str, str]]:
    try:
        found = page.store.list()
    except SleiclError:
        found = []
    return [("Grimoire: the one that fits", "auto"), ("No grimoire", "none")] + [
        (f"{one.task} ({one.id})", one.id) for one in found
    ]


def _library(gr: Any, page: Page, blocks: Any) -> None:
    store = page.store
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            query = gr.Textbox(show_label=False, placeholder="Search: a task in your words", elem_id="query",
                               max_length=2000, container=False, submit_btn="Search")  # fmt: skip
            said = gr.Markdown(latex_delimiters=[], elem_id="found")
            cards = gr.Radio([], show_label=False, container=False, elem_id="cards")
        with gr.Column(scale=3, min_width=320, visible=False) as side:
            about = gr.Markdown(latex_delimiters=[], elem_id="about")
            form = {"interactive": False, "wrap_lines": True, "show_line_numbers": False, "max_lines": 30}
            with gr.Accordion("Text", open=True):
                text = gr.Code(language="markdown", show_label=False, elem_id="text", buttons=["copy"], **form)
            with gr.Accordion("History", open=False):
                history = gr.Code(show_label=False, elem_id="history", buttons=[], **form, lines=1)
                with gr.Row() as pair:
                    first = gr.Dropdown([], label="From", allow_custom_value=True, elem_id="from")
                    second = gr.Dropdown([], label="To", allow_custom_value=True, elem_id="to")
                diff = gr.Code(show_label=False, elem_id="diff", buttons=["copy"], **form)

    def search(wanted: str | None) -> tuple[Any, ...]:
        wanted = (wanted or "").strip()
        try:
            whole = store.list()
            found = [hit.grimoire for hit in store.search(wanted, k=_CARDS)] if wanted else whole
        except SleiclError as problem:
            return literal(str(problem)), gr.Radio(choices=[], value=None)
        shown = found[:_CARDS]
        order = "nearest first" if wanted else "by name"
        told = f"{len(shown)} of {len(whole)} grimoires, {order}. Choose one to read it."
        return told, gr.Radio(choices=[(card(one), one.id) for one in shown], value=None)

    def show(id: str | None) -> tuple[Any, ...]:
        nothing: tuple[Any, ...] = ("", "", gr.Row(), gr.Dropdown(choices=[]), gr.Dropdown(choices=[]), gr.Code(""))
        if not id:
            return gr.Column(visible=False), "", *nothing
        try:
            grimoire, versions = store.get(id), store.history(id)
            names = [version.reference for version in versions]
            before, after, several = names[-2:][0], names[-1], len(names) > 1
            return (
                gr.Column(visible=True), facts(grimoire), both_texts(grimoire), version_lines(versions),
                gr.Row(visible=several), gr.Dropdown(choices=names, value=before),
                gr.Dropdown(choices=names, value=after), gr.Code(compare(before, after), visible=several),
            )  # fmt: skip
        except SleiclError as problem:
            return gr.Column(visible=True), literal(str(problem)), *nothing

    def compare(one: str | None, other: str | None) -> str:
        if not one or not other:
            return ""
        try:
            return difference(store.version(one).grimoire, store.version(other).grimoire) or "the same text"
        except SleiclError as problem:
            return str(problem)

    gr.on([query.submit, blocks.load], search, query, [said, cards], show_progress="minimal", **_HIDDEN)
    cards.change(
        show, cards, [side, about, text, history, pair, first, second, diff], show_progress="hidden", **_HIDDEN
    )
    gr.on([first.input, second.input], compare, [first, second], diff, show_progress="hidden", **_HIDDEN)


def _try(gr: Any, page: Page) -> None:
    if not page.recipes:
        gr.Markdown("No recipe was given. Start the page with one, or several: `sleicl web RECIPE.json`. "
                    "`sleicl learn` makes them.", elem_id="told")  # fmt: skip
        return
    names = list(page.recipes)
    recipe = gr.Dropdown(names, value=names[0], label="Recipe", elem_id="recipe")
    rows = gr.Textbox(
        label=f"Rows: one text a line, or CSV with the columns text and answer; at most {ROWS}", lines=8, max_lines=16,
        elem_id="rows", placeholder="text,answer\nMy invoice is wrong,billing",
    )  # fmt: skip
    with gr.Row():
        start = gr.Button("Try", variant="primary", elem_id="start")
        stop = gr.Button("Stop", elem_id="end")
    told = gr.Markdown(latex_delimiters=[], elem_id="told")
    table = gr.Markdown(latex_delimiters=[], elem_id="results")

    def run(name: str, text: str) -> Iterator[tuple[str, str]]:
        opened = page.recipes[name]
        results: list[Tried] = []
        try:
            asked = pasted_rows(text, opened.task)
            yield f"0 of {len(asked)} rows answered", ""
            for result in tried(opened.chain, asked):
                results.append(result)
                yield _told(results, len(asked)), _table(results)
        except SleiclError as problem:
            yield f"⚠ {literal(str(problem))} {_told(results, len(results)) if results else ''}", _table(results)
        except Exception as problem:
            yield f"⚠ {literal(f'{type(problem).__name__}: {one_line(problem):.500}')}", _table(results)

    running = start.click(
        run, [recipe, rows], [told, table], concurrency_id="model", show_progress="minimal", **_HIDDEN
    )
    stop.click(None, None, None, cancels=[running], **_HIDDEN)


def _told(results: list[Tried], total: int) -> str:
    return f"{len(results)} of {total} rows answered. {literal(summary(results))}"


def _table(results: list[Tried]) -> str:
    """Return a Markdown table of the rows and what was answered."""
    if not results:
        return ""
    judged = any(one.right is not None for one in results)
    head = ["text", "answer", "prob.", "valid", *(["right"] if judged else [])]
    lines = ["|".join(head), "|".join(["---"] * len(head))]
    for one in results:
        chance = "" if one.probability is None else f"{one.probability:.2f}"
        answer = literal(one.answer or "–", 300) + (f" *({literal(one.note, 160)})*" if one.note else "")
        right = {True: "yes", False: f"no: {literal(one.row.answer or '', 60)}", None: ""}[one.right]
        valid = "yes" if one.valid else "no"
        lines.append("|".join([literal(one.row.text, 200), answer, chance, valid, *([right] if judged else [])]))
    return "\n".join(f"|{line}|" for line in lines)


_CSS = """
footer { display: none }
#chat-head { align-items: center; gap: 8px }
#chat-head > * { min-width: min(280px, 100%) !important }
#cards .wrap { flex-direction: column; flex-wrap: nowrap; max-height: 70dvh; overflow-y: auto }
#cards label { white-space: pre-line; width: 100%; align-items: flex-start }
#cards label span { display: block; min-width: 0; overflow-wrap: anywhere }
#cards label span::first-line { font-weight: 600 }
#results table { table-layout: auto; width: 100%; font-size: 14px }
#results td, #results th { padding: 4px 6px; vertical-align: top }
#results th, #results td { overflow-wrap: anywhere !important; word-break: normal !important; min-width: 2.8em }
#results th { white-space: nowrap }
#results td:nth-child(2) { min-width: 5.5em }
#talk img { display: none }
#talk .message:has(.thought-group) { padding: 0; border: 0; background: none; box-shadow: none }
#talk .message-row:has(.thought-group) + .message-buttons { display: none }
@media (max-width: 640px) {
  #cards .wrap { max-height: 45dvh }
  #talk { height: calc(100dvh - 245px) !important }
  #results table { font-size: 13px }
  #results td, #results th { padding: 3px 4px }
}
"""
