"""`sleicl batch`: whole files of rows, answered into another file."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TextIO, cast

import typer

from sleicl_chains.cli.options import (
    BaseUrl,
    HomeOption,
    JsonOption,
    LongModelOption,
    MaybeEmbeddings,
    MaybeWeak,
    TextsOption,
)
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import model_options, print_json
from sleicl_chains.errors import OptionError
from sleicl_chains.files import Home

if TYPE_CHECKING:
    from sleicl_chains.serving.asking import Outcome


def batch(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE|GRIMOIRE", help="A recipe; or with --weak a grimoire's id or .md file."),
    ],
    rows: Annotated[str, typer.Argument(metavar="IN", help="Rows: .csv, .tsv, .jsonl, .json, .parquet; - for stdin.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help=".csv, .tsv, .jsonl or .parquet; - for stdout.")
    ],
    text_column: Annotated[
        str | None, typer.Option(help="Column with the text; else as the recipe's card says.")
    ] = None,
    weak: MaybeWeak = None,
    base_url: BaseUrl = None,
    option: LongModelOption = None,
    embeddings: MaybeEmbeddings = None,
    texts: TextsOption = None,
    prefix: Annotated[
        str, typer.Option(help="Before the names of the added columns: answer, probability, valid, error.")
    ] = "",
    bad: Annotated[Path | None, typer.Option(help="File for rows that cannot be asked; else OUT.bad.jsonl.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there, whoever made it.")] = False,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls at once, for models on other machines.")] = 1,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Answer every row of a file; stopped, the same command goes on where it was."""
    from sleicl_chains.answering.opening import Shown, open_recipe, open_solver
    from sleicl_chains.cli.console import Meter
    from sleicl_chains.serving.asking import Asking
    from sleicl_chains.serving.batch import answer_file, answer_pipe, check_files

    if output == "-" and (as_json or bad or force):
        raise OptionError("-o -: rows go to stdout and bad ones to stderr; --json, --bad and --force want a file")
    learned = open_recipe(Path(recipe)) if recipe.endswith(".json") else None
    shown = Shown(grimoire=None if learned else recipe, texts=texts)
    if learned is None and weak is None:
        raise OptionError(f"{recipe} is no recipe (.json); a grimoire names no model, so give one: --weak MODEL")
    source = _stdin() if rows == "-" else Path(rows)
    if output != "-":
        check_files(source, Path(output), bad)  # before a model is opened, or even fetched
    opened = open_solver(
        None, learned, Home.at(home), weak=weak, options=model_options(option, base_url), embeddings=embeddings,
        shown=shown,
    )  # fmt: skip
    with Meter(["answers"]) as meter:
        column = text_column or opened.task.text_column
        asking = Asking(opened.chain, column, prefix, concurrency, meter)
        if output == "-":
            found = answer_pipe(asking, source, _bytes_to(sys.stdout), _bytes_to(sys.stderr))
        else:
            found = answer_file(asking, source, Path(output), bad=bad, force=force)
    if as_json:
        print_json(found.to_dict())
    elif output == "-":
        say(_summary(found))
    else:
        print(_summary(found))


def _summary(found: "Outcome") -> str:
    before = f" ({found.kept} of them before)" if found.kept else ""
    told = [f"{found.output}: {found.answered} of {found.rows} rows answered{before}"]
    told += [f"{found.invalid} without a valid answer"] if found.invalid else []
    where = f" in {found.bad_file}" if found.bad_file else ""
    told += [f"{found.bad} bad row{'s' if found.bad > 1 else ''}{where}"] if found.bad else []
    first = f". First bad row, {found.first_bad}" if found.first_bad else ""
    return f"{', '.join(told)}{first}".rstrip(".") + "."


def _stdin() -> BinaryIO:
    """Return stdin as bytes."""
    found: BinaryIO = getattr(sys.stdin, "buffer", None) or io.BytesIO(sys.stdin.read().encode())
    return found


def _bytes_to(stream: TextIO) -> BinaryIO:
    """Return where bytes of UTF-8 can be written: as they are into a file or a pipe, printable on a terminal."""
    buffer: BinaryIO | None = getattr(stream, "buffer", None)
    return buffer if buffer and not stream.isatty() else cast(BinaryIO, _Decoded(stream))


class _Decoded(io.RawIOBase):
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(bytes(data).decode())
        return len(data)

    def flush(self) -> None:
        self._stream.flush()
