"""`sleicl report`: a finished evaluation, or the test of a recipe, as a page."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleicl_chains.cli.options import HomeOption, JsonOption
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import print_json
from sleicl_chains.errors import OptionError, RunError
from sleicl_chains.files import Home, refuse_unwritable, write_whole

if TYPE_CHECKING:
    from sleicl_chains.evaluation.report.runs import Run
    from sleicl_chains.evaluation.report.sources import Texts


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's folder, its name in the home's runs, or a recipe's file.")
    ],
    rows: Annotated[
        Path | None, typer.Option("--rows", help="The rows that a recipe was learned from, to show their texts.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The page; else report.html in the run's folder, or NAME.report.html by a recipe."),
    ] = None,
    no_text: Annotated[
        bool, typer.Option("--no-text", help="No text of a question, a reply or a grimoire: a page to publish.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Write one HTML page about a finished evaluation, or the test of a recipe; it needs no network."""
    from sleicl_chains.evaluation.report.pages import render
    from sleicl_chains.evaluation.words import verdict

    if os.path.isfile(run):
        found, texts, page = _of_recipe(run, rows, out, no_text)
    elif rows:
        raise OptionError("--rows goes with the file of a recipe; a run's folder says where its rows are")
    else:
        found, texts, page = _of_run(run, home, out, no_text)
    # Rows may be private: a page with their texts is for its owner alone, as the run's files are.
    write_whole(page, render(found, texts), mode=0o666 if no_text else 0o600)
    missing = list(texts.missing) if texts else []
    say(missing)
    if as_json:
        about = {"page": str(page), "missing": missing, "verdict": list(found.verdict) or verdict(found.report)}
        print_json(found.report.to_dict() | about)
        return
    print(page)


def _of_run(run: Path, home: Path | None, out: Path | None, no_text: bool) -> "tuple[Run, Texts | None, Path]":
    """Return a kept run, its texts and the place of its page."""
    from sleicl_chains.evaluation.report.runs import read_run
    from sleicl_chains.evaluation.report.sources import find_texts

    folder = _folder(run, Home.at(home))
    page = out or folder / ("report-no-text.html" if no_text else "report.html")
    refuse_unwritable(page)
    found = read_run(folder)
    return found, None if no_text else find_texts(folder, found, Home.at(home) if home else None), page


def _of_recipe(file: Path, rows: Path | None, out: Path | None, no_text: bool) -> "tuple[Run, Texts | None, Path]":
    """Return the test of a recipe, its texts and the place of its page."""
    from sleicl_chains.answering.opening import open_recipe
    from sleicl_chains.evaluation.report.recipes import run_of, texts_of

    page = out or file.with_name(f"{file.stem}.{'report-no-text' if no_text else 'report'}.html")
    refuse_unwritable(page)
    recipe = open_recipe(file)
    found = run_of(recipe, file)
    return found, None if no_text else texts_of(recipe, rows), page


def _folder(run: Path, home: Home) -> Path:
    """Return the folder of a run; a bare name may be one of the home's."""
    named = home.runs / run
    if not os.path.exists(run) and not os.path.isdir(named):
        raise RunError(f"There is no run {run}, nor one in {home.runs}; `sleicl evaluate` names its run after 'Rows:'")
    return run if os.path.exists(run) else named
