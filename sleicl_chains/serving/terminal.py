"""The chat in a terminal: a line is read, what it says is done, until the user leaves.

prompt_toolkit reads the line and is imported nowhere else. While an answer comes, nothing but plain writes happens.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sleicl_chains.errors import SleiclError, one_line
from sleicl_chains.serving.commands import BLOCK, Chat, completions

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion
    from prompt_toolkit.document import Document
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
    from prompt_toolkit.output import Output


def talk(chat: Chat) -> None:
    """Read and answer until the user leaves, by Ctrl-D or a command. What fails is said, and the talk goes on."""
    from prompt_toolkit.application import create_app_session

    # Not given to the session of lines itself, which then would not look whether the terminal is a dumb one.
    with create_app_session(output=_output(chat)):
        session = _session(chat)
        while not chat.left:
            try:
                typed = session.prompt(f"{chat.screen.clean(chat.judge.name) if chat.judge else ''}> ")
            except KeyboardInterrupt:
                chat.screen.note("Ctrl-D or /bye leaves")
            except EOFError:
                return
            else:
                if typed.strip():
                    _do(chat, typed)


def _do(chat: Chat, typed: str) -> None:
    try:
        chat.hear(typed)
    except KeyboardInterrupt:
        chat.screen.end("stopped")
    except SleiclError as problem:
        chat.screen.complain(str(problem))
    except OSError as problem:
        chat.screen.complain(f"{problem.filename}: {problem.strerror}" if problem.filename else one_line(problem))
    except Exception as problem:  # a provider's client has errors of its own, and none of them is worth the talk
        chat.screen.complain(f"{type(problem).__name__}: {one_line(problem)}")


def is_open_block(text: str) -> bool:
    r"""Say whether a text begins a block of lines and does not end it.

    >>> is_open_block('\"\"\"one'), is_open_block('\"\"\"one\ntwo\"\"\"'), is_open_block("one")
    (True, False, False)
    """
    text = text.strip()
    return text.startswith(BLOCK) and (len(text) < 2 * len(BLOCK) or not text.endswith(BLOCK))


def _session(chat: Chat) -> "PromptSession[str]":
    """Return what reads the lines; what was typed is remembered until the chat ends and is nowhere on the disk."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.application import get_app
    from prompt_toolkit.filters import Condition
    from prompt_toolkit.history import InMemoryHistory
    from prompt_toolkit.shortcuts import CompleteStyle

    in_block = Condition(lambda: is_open_block(get_app().current_buffer.text))
    return PromptSession(
        history=InMemoryHistory(), key_bindings=_keys(), multiline=in_block, prompt_continuation="  ",
        completer=_completer(chat), complete_while_typing=False, complete_style=CompleteStyle.READLINE_LIKE,
        enable_suspend=True,
    )  # fmt: skip


def _output(chat: Chat) -> "Output":
    """Return where the line is drawn: on the answers' stream, or where that is no terminal on the notes'."""
    from prompt_toolkit.output import create_output
    from prompt_toolkit.output.plain_text import PlainTextOutput
    from prompt_toolkit.output.vt100 import Vt100_Output
    from prompt_toolkit.utils import is_dumb_terminal

    screen = chat.screen
    stream = screen.out if screen.out.isatty() else screen.notes
    if is_dumb_terminal():
        return PlainTextOutput(stream)
    output = create_output(stdout=stream)
    if isinstance(output, Vt100_Output):
        # Only a menu at the bottom of the screen would have to know where the cursor is; some terminals do not say.
        output.enable_cpr = False
    return output


def _keys() -> "KeyBindings":
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: "KeyPressEvent") -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c")
    def _(event: "KeyPressEvent") -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    return keys


def _completer(chat: Chat) -> "Completer":
    from prompt_toolkit.completion import Completer, Completion

    class Commands(Completer):
        def get_completions(self, document: "Document", complete_event: "CompleteEvent") -> "Iterable[Completion]":
            try:
                begun, found = completions(chat, document.text_before_cursor)
            except SleiclError:  # a library or a server that cannot be asked completes nothing
                return
            for one in found:
                yield Completion(one, start_position=-len(begun))

    return Commands()
