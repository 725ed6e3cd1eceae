"""The chat as a person sees it: real processes on pseudo-terminals, and whole screens of tmux compared."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pexpect
import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input

from sleicl_chains.answering.opening import open_store
from sleicl_chains.cli.printing import printable
from sleicl_chains.files import Home
from sleicl_chains.serving.commands import Chat
from sleicl_chains.serving.conversation import Conversation
from sleicl_chains.serving.screen import Screen
from sleicl_chains.serving.terminal import is_open_block, talk
from tests.serving.test_commands import Terminal, said
from tests.support.command import environment
from tests.support.fake_models import Writer
from tests.support.ollama_server import Asked, OllamaServer, Said, answering, chat

READY = r"\x1b\[\?2004h"
"""Sent at each prompt: bracketed paste is on. The prompt's text is drawn with moves of the cursor."""
PROGRAM = "from sleicl_chains.cli import main; main()"
WEAK = ("chat", "--weak", "ollama:smollm2:135m", "--grimoire", "none")


@pytest.fixture
def keyboard(home: Home) -> Iterator[tuple[PipeInput, Chat]]:
    """Keys that reach a chat in this process."""
    weak = Writer(reply=lambda prompt: f"heard {prompt.rpartition('human: ')[2]!r}")
    with create_pipe_input() as keys, create_app_session(input=keys):
        yield keys, Chat(Conversation(weak), Screen(Terminal(), Terminal(), printable), home=home, name="fake:one")


def messages(keyboard: tuple[PipeInput, Chat], typed: str) -> list[str]:
    """Type, leave, and return the messages that were sent."""
    keys, chat = keyboard
    keys.send_text(f"{typed}\x04")
    talk(chat)
    return [turn.text for turn in chat.conversation.turns]


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("one\rtwo\r", ["one", "two"]),
        ("one\x1b\rtwo\r", ["one\ntwo"]),  # Alt-Enter
        ("\x1b[200~one\ntwo\nthree\x1b[201~\r", ["one\ntwo\nthree"]),  # a paste
        ('"""one\rtwo\r"""\r', ["one\ntwo"]),
        ('"""one"""\r', ["one"]),
        ("   \r", []),
        ("wrong\x03right\r", ["right"]),  # Ctrl-C
        ("/he\t\r", []),  # Tab
        ("//\tx\r", ["/x"]),
        ("/bye\rnever\r", []),
    ],
)
def test_what_keys_send(typed: str, sent: list[str], keyboard: tuple[PipeInput, Chat]) -> None:
    assert messages(keyboard, typed) == sent


def test_a_completed_command_is_obeyed(keyboard: tuple[PipeInput, Chat]) -> None:
    messages(keyboard, "/he\t\r")
    assert "/grimoire NAME|auto|none" in said(keyboard[1])[0]


def test_ctrl_c_on_an_empty_line_says_how_to_leave(
    keyboard: tuple[PipeInput, Chat], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert messages(keyboard, "wrong\x03\x03right\r") == ["right"]
    assert said(keyboard[1])[1].count("[Ctrl-D or /bye leaves]\n") == 1


def test_what_fails_is_said_and_the_chat_goes_on(
    keyboard: tuple[PipeInput, Chat], monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = keyboard[1].conversation.weak

    def reply(prompt: str) -> str:
        if "bad" in prompt.rpartition("human: ")[2]:
            raise RuntimeError("of a\nprovider's client")
        return "ok"

    monkeypatch.setattr(weak, "reply", reply)
    assert messages(keyboard, "bad\r/nothing\r/save /\rgood\r") == ["bad", "good"]
    out, notes = said(keyboard[1])
    assert "ok\n" in out and "RuntimeError: of a provider's client\n/nothing is no command; " in notes


def test_blocks() -> None:
    assert [is_open_block(text) for text in ('"""', '"""a', ' """a\n', '"""a"""', '""""""', 'a"""', '"""a"""b')] == [
        True, True, True, False, False, False, True,
    ]  # fmt: skip


@pytest.mark.slow
def test_piped_input_is_answered_once_and_plainly() -> None:
    with answering(chat("Hello there, friend.")) as server:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *WEAK, "--base-url", server.url, "--system", "Be kind."],
            input="hi\n/help\n", capture_output=True, text=True, env=environment(), timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "Hello there, friend. \n", "")
        (body,) = server.sent("/api/chat")
    assert [(one["role"], one["content"]) for one in body["messages"]] == [
        ("system", "Be kind."), ("user", "hi\n/help"),
    ]  # fmt: skip


class Screened:
    """A chat on a screen of tmux, of 80 columns and 30 lines; behind it stands its exit status."""

    def __init__(self, *arguments: object) -> None:
        self._socket = f"sleicl-test-{os.getpid()}"
        command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
        shown = f"{shlex.join(command)}; echo left $?; exec sleep 60"
        self._tmux("new-session", "-d", "-s", "chat", "-x", "80", "-y", "30", shown)

    def type(self, *keys: str) -> None:
        self._tmux("send-keys", "-t", "chat", *keys)

    def paste(self, text: str) -> None:
        self._tmux("set-buffer", text)
        self._tmux("paste-buffer", "-p", "-t", "chat")

    def lines(self) -> list[str]:
        """Return what stands on the screen, without the empty end."""
        return self._tmux("capture-pane", "-p", "-t", "chat").rstrip().splitlines()

    def until(self, *expected: str, seconds: float = 30.0) -> None:
        """Wait until the screen is exactly this."""
        end = time.monotonic() + seconds
        while self.lines() != [*expected] and time.monotonic() < end:
            time.sleep(0.05)
        assert self.lines() == [*expected]

    def until_ready(self, seconds: float = 60.0) -> None:
        """Wait for the first prompt."""
        end = time.monotonic() + seconds
        while self.lines()[-1:] != [">"] and time.monotonic() < end:
            time.sleep(0.05)
        assert self.lines()[-1:] == [">"]

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self._socket, "-f", os.devnull, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment()).stdout


@pytest.fixture
def screens() -> Iterator[list[Screened]]:
    if not shutil.which("tmux"):
        pytest.skip("tmux is not installed; it shows what stands on the screen")
    opened: list[Screened] = []
    yield opened
    for screen in opened:
        screen.close()


WELCOME = "[ollama:smollm2:135m; /help lists the commands, Ctrl-D leaves]"


@pytest.mark.slow
def test_a_whole_screen_of_stopping_and_leaving(screens: list[Screened]) -> None:
    slow = Said(chat("one two three four five six seven eight nine ten").lines, pause_s=0.5)
    with answering(slow, chat("Yes.")) as server:
        screen = Screened(*WEAK, "--base-url", server.url)
        screens.append(screen)
        screen.until_ready()
        screen.type("count", "Enter")
        screen.until(WELCOME, "> count", "one two")
        screen.type("C-c")
        screen.until(WELCOME, "> count", "one two ^C [stopped]", ">")
        assert server.left.acquire(timeout=10)  # the model need not go on either
        screen.type("oops", "C-c")
        screen.type("C-c")
        screen.until(WELCOME, "> count", "one two ^C [stopped]", ">", "[Ctrl-D or /bye leaves]", ">")
        screen.paste("three\nlines\npasted")
        screen.type("Enter")
        talked = [
            WELCOME, "> count", "one two ^C [stopped]", ">", "[Ctrl-D or /bye leaves]",
            "> three", "  lines", "  pasted", "Yes.",
        ]  # fmt: skip
        screen.until(*talked, ">")
        assert [one["content"] for one in server.sent("/api/chat")[1]["messages"]] == [
            "count", "one two", "three\nlines\npasted",
        ]  # fmt: skip
        screen.type("/bey", "Enter")
        talked += ["> /bey", *wrapped(_NO_COMMAND)]
        screen.until(*talked, ">")
        screen.type("Up", "Up", "Enter")  # what was pasted, out of the history
        talked += ["> three", "  lines", "  pasted", "Yes."]
        screen.until(*talked, ">")
        screen.type("C-d")
        screen.until(*talked, ">", "left 0")


_NO_COMMAND = "/bey is no command; did you mean /bye? /help lists them, and //... sends a message that begins with /"


@pytest.mark.slow
def test_a_whole_screen_of_why(screens: list[Screened], home: Home) -> None:
    with answering(chat("It is.")) as server:
        screen = Screened("chat", "--weak", "ollama:smollm2:135m", "--base-url", server.url, "--grimoire", "spam")
        screens.append(screen)
        screen.until_ready()
        screen.type("You won a prize!", "Enter")
        talked = [WELCOME, "> You won a prize!", "[spam-abd35001: chosen by you]", "It is."]
        screen.until(*talked, ">")
        screen.type("/why", "Enter")
        grimoire = open_store(home).get("spam-abd35001")
        why = [
            *wrapped(f"  {grimoire.description}"),
            f"  its profound text was shown, {len(grimoire.text())} characters",
        ]
        screen.until(*talked, "> /why", "spam-abd35001: chosen by you", *why, ">")


def wrapped(line: str, width: int = 80) -> list[str]:
    """Return a line as a terminal breaks it."""
    return [line[at : at + width].rstrip() for at in range(0, len(line), width)]


@pytest.mark.slow
def test_a_server_that_goes_and_comes_back(home: Home) -> None:
    slow = Said(chat("one two three four five six").lines, pause_s=0.5)

    def again(asked: Asked) -> Said | None:
        return chat("Back again.") if asked.route == "/api/chat" and not asked.render_only else None

    with answering(slow) as server:
        port = int(server.url.rpartition(":")[2])
        child = on_terminal(*WEAK, "--base-url", server.url, "-o", "attempts=1")
        child.expect(READY)
        child.send("count\r")
        child.expect("one two")
    child.expect("broke off before its end; the server's log may say why\r\n")
    child.expect(READY)
    child.send("still there?\r")
    child.expect(f"No Ollama server answers at http://127.0.0.1:{port} .*Start it with `ollama serve`")
    child.expect(READY)
    with OllamaServer(again, port=port) as server:
        child.send("and now?\r")
        child.expect("Back again.")
        child.expect(READY)
        assert [one["content"] for one in server.sent("/api/chat")[-1]["messages"]] == ["and now?"]
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def on_terminal(*arguments: object, **variables: str) -> "pexpect.spawn[str]":
    """Run `sleicl` on a pseudo-terminal."""
    settings = environment(TERM="xterm-256color") | variables
    command = ["-c", PROGRAM, *map(str, arguments)]
    return pexpect.spawn(sys.executable, command, env=settings, encoding="utf-8", timeout=60)


@pytest.mark.slow
def test_a_dumb_terminal_gets_no_escapes() -> None:
    with answering(chat("Hello.")) as server:
        child = on_terminal(*WEAK, "--base-url", server.url, TERM="dumb")
        child.expect("leaves]\r\n> ")
        before = child.before
        child.send("hi\r")
        child.expect("Hello. \r\n> ")
        child.send("\x04")
        child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0 and "\x1b" not in f"{before}{child.before}"


@pytest.mark.slow
def test_it_asks_before_it_fetches(home: Home) -> None:
    child = on_terminal("chat")
    child.expect(r"Download Qwen2.5-Coder-1.5B-Instruct, Q4_K_M \(1.1 GB, Apache-2.0\)\? \[y/N\]: ")
    child.send("\r")
    child.expect("sleicl: No chat model is on this machine: run `ollama pull NAME`")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 1 and not home.weights.exists()


@pytest.mark.slow
def test_the_embedded_engine_stops_and_goes_on(home_with_weights: Home) -> None:
    child = on_terminal("chat", "--weak", "embedded:smollm2", "--grimoire", "none", "-o", "max_tokens=40")
    child.expect(READY)
    child.send("Count from one to a thousand, a number a line.\r")
    child.expect(r"\x1b\[\?2004l.*\w")
    child.sendintr()
    child.expect(r"\[stopped\]")
    child.expect(READY)
    child.send("What is two and two?\r")
    child.expect(r"\x1b\[\?2004l.*\w")
    child.expect(READY)
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
