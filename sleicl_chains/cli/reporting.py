"""`sleicl report`: a finished evaluation as a page."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sleicl_chains.cli.options import HomeOption, JsonOption
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import print_json
from sleicl_chains.errors import RunError
from sleicl_chains.files import Home, refuse_unwritable, write_whole


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or its name in the home's runs.")],
    out: Annotated[Path | None, typer.Option("--out", help="The page; else report.html in the run's folder.")] = None,
    no_text: Annotated[
        bool, typer.Option("--no-text", help="No text of a question, a reply or a grimoire: a page to publish.")
    ] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Write one HTML page about a finished evaluation; it needs no network."""
    from sleicl_chains.evaluation.report.pages import render
    from sleicl_chains.evaluation.report.runs import read_run
    from sleicl_chains.evaluation.report.sources import find_texts
    from sleicl_chains.evaluation.words import verdict

    folder = _folder(run, Home.at(home))
    page = out or folder / ("report-no-text.html" if no_text else "report.html")
    refuse_unwritable(page)
    found = read_run(folder)
    texts = None if no_text else find_texts(folder, found, Home.at(home) if home else None)
    # Rows may be private: a page with their texts is for its owner alone, as the run's files are.
    write_whole(page, render(found, texts), mode=0o666 if no_text else 0o600)
    missing = list(texts.missing) if texts else []
    say(missing)
    if as_json:
        about = {"page": str(page), "missing": missing, "verdict": verdict(found.report)}
        print_json(found.report.to_dict() | about)
        return
    print(page)


def _folder(run: Path, home: Home) -> Path:
    """Return the folder of a run; a bare name may be one of the home's."""
    named = home.runs / run
    if not os.path.exists(run) and not os.path.isdir(named):
        raise RunError(f"There is no run {run}, nor one in {home.runs}; `sleicl evaluate` names its run after 'Rows:'")
    return run if os.path.exists(run) else named
