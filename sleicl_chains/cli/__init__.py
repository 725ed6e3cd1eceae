"""The command line. Answers go to stdout; progress, cost and warnings to stderr.

Each command parses, calls the library and prints. Heavy imports wait until a command needs them.
"""

import codecs
import io
import os
import sys
import warnings
from typing import Annotated, NoReturn

import typer

from sleicl_chains.cli import (
    answering,
    batch,
    browsing,
    chatting,
    exchange,
    learning,
    library,
    matching,
    models,
    recipes,
    reporting,
    rows,
    serving,
    versions,
)
from sleicl_chains.cli.printing import guard, say
from sleicl_chains.errors import InputNote, OptionError, SleiclError, bounded

_INTERRUPTED = 130

app = typer.Typer(
    help="A strong model studies a task once and writes a grimoire; a weak local model answers with it.",
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
)  # fmt: skip


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"sleicl-chains {version('sleicl-chains')}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for command in (
    answering.demo,
    rows.init,
    rows.sample,
    library.write,
    learning.learn,
    answering.evaluate,
    reporting.report,
    answering.ask,
    batch.batch,
    chatting.chat,
    serving.serve,
    browsing.web,
):
    app.command()(command)
library.app.command()(matching.match)
for name in ("history", "diff", "edit", "tag", "restore", "duplicates"):
    library.app.command()(getattr(versions, name))
library.app.command("export")(exchange.export_grimoires)
library.app.command("import")(exchange.import_grimoires)
app.add_typer(library.app, name="grimoires")
app.add_typer(exchange.export_app, name="export")
app.add_typer(exchange.import_app, name="import")
app.add_typer(models.app, name="models")
app.add_typer(recipes.app, name="recipe")


def main() -> None:
    """Run the command line: exit 0, 1 with one plain line on failure, 2 on misuse."""
    _lose_nothing()  # before `guard`, which puts its own object in stdout's place
    guard()
    warnings.showwarning = _say_warning
    warnings.filterwarnings("always", category=UserWarning, module=r"sleicl_chains\.")
    try:
        app(prog_name="sleicl")
    except OptionError as problem:
        _fail(str(problem), 2)
    except SleiclError as problem:
        _fail(str(problem))
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:  # Typer ends so at Ctrl-C, without a word
            _fail("stopped; the same command goes on from here", _INTERRUPTED)
        raise
    except Exception as problem:
        if os.environ.get("SLEICL_DEBUG"):
            raise
        if isinstance(problem, OSError) and problem.filename:
            _fail(f"{problem.filename}: {problem.strerror}")
        _fail(f"{type(problem).__name__}: {problem} (SLEICL_DEBUG=1 shows where)")


def _lose_nothing() -> None:
    """Have stdout write as escapes what its encoding cannot hold, and say so once."""
    said: list[str] = []

    def escaped(problem: UnicodeError) -> tuple[str | bytes, int]:
        if not said and isinstance(problem, UnicodeEncodeError):
            said.append(problem.encoding)
            text = f"stdout is {problem.encoding}, which lacks some characters; they are written as escapes"
            print(f"Warning: {text}. PYTHONIOENCODING=utf-8 shows them.", file=sys.stderr, flush=True)
        return codecs.backslashreplace_errors(problem)

    codecs.register_error("sleicl", escaped)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="sleicl")


def _say_warning(message: Warning | str, *_: object, **__: object) -> None:
    name = "Note" if isinstance(message, InputNote) else "Warning"
    say(f"{name}: {bounded(' '.join(str(message).split()).rstrip('.'))}.")


def _fail(line: str, status: int = 1) -> NoReturn:
    sys.stdout.flush()
    say(f"sleicl: {bounded(' '.join(line.split()))}")
    raise SystemExit(status)
