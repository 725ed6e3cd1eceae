"""The command line. Answers go to stdout; progress, cost and warnings to stderr.

Each command parses, calls the library and prints. Heavy imports wait until a command needs them.
"""

import os
import sys
import warnings
from typing import Annotated, NoReturn

import typer

from sleicl_chains.cli import answering, learning, library, models, reporting, rows
from sleicl_chains.errors import OptionError, SleiclError

_INTERRUPTED = 130

app = typer.Typer(
    help="A strong model studies a task once and writes a grimoire; a weak local model answers with it.",
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False,
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
):
    app.command()(command)
app.add_typer(library.app, name="grimoires")
app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command line: exit 0, 1 with one plain line on failure, 2 on misuse."""
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
        _fail(f"{type(problem).__name__}: {problem} (SLEICL_DEBUG=1 shows where)")


def _say_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"Warning: {' '.join(str(message).split()).rstrip('.')}.", file=sys.stderr, flush=True)


def _fail(line: str, status: int = 1) -> NoReturn:
    sys.stdout.flush()
    print(f"sleicl: {' '.join(line.split())}", file=sys.stderr)
    raise SystemExit(status)
