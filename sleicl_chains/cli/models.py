"""`sleicl models`: what can run here."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleicl_chains.cli.options import HomeOption, JsonOption, ModelOption, OllamaUrl
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import journal_or_none, model_options, print_json
from sleicl_chains.errors import InputError
from sleicl_chains.files import Home

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from sleicl_chains.models.ollama.check import Finding
    from sleicl_chains.models.reading import Reading
    from sleicl_chains.models.weights import Weights

app = typer.Typer(help="The models that run here.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_models(base_url: OllamaUrl = None, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List the models of the Ollama server, and the weights that install as ordinary packages."""
    place = Home.at(home)
    rows = [_with_reading(row, place) for row in [*_ollama_rows(base_url), *_packaged_rows(place)]]
    if as_json:
        print_json(list(map(_as_json, rows)))
        return
    for row in rows:
        known = [row["reading"]] if row["reading"] else []
        print("\t".join(str(value) for value in [*_cells(row), *known]))


def _ollama_rows(base_url: str | None) -> list[dict[str, Any]]:
    """Return the server's models; a note, and none, where they cannot be had."""
    from sleicl_chains.errors import ModelError
    from sleicl_chains.models.ollama.address import server_address
    from sleicl_chains.models.ollama.installed import installed_models
    from sleicl_chains.models.ollama.server import Server

    try:
        found = installed_models(Server(server_address(base_url), attempts=1))
    except ModelError as problem:
        say([str(problem)])
        return []
    return [asdict(model) | {"name": f"ollama:{model.name}"} for model in found]


def _packaged_rows(home: Home) -> list[dict[str, Any]]:
    from sleicl_chains.models.weights import KNOWN, is_fetched

    return [
        {
            "name": name,
            "title": weights.title,
            "megabytes": weights.megabytes,
            "licence": weights.licence,
            "fetched": is_fetched(name, home),
            "weights": _digest(weights),
        }
        for name, weights in KNOWN.items()
    ]


def _with_reading(row: dict[str, Any], home: Home) -> dict[str, Any]:
    """Return a row with what is known of how well the model follows guides."""
    from sleicl_chains.models.reading import reading_of

    return row | {"reading": reading_of(row["weights"], home)}


def _digest(weights: "Weights") -> str:
    """Return the digest that a model is known by; of several files, that of the first, which holds the weights."""
    return weights.files[0].sha256


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"reading": row["reading"].to_dict() if row["reading"] else None}


def _cells(row: dict[str, Any]) -> list[str]:
    size = f"{row['megabytes']} MB"
    if "title" in row:
        return [row["name"], row["title"], size, row["licence"], "here" if row["fetched"] else "not fetched"]
    uses = "/".join(row["capabilities"])
    context = f"context {row['context']}" if row["context"] else "context unknown"
    template = "chat template" if row["template"] else "no chat template"
    return [row["name"], size, f"{row['parameters']} {row['quantization']}".strip(), context, template, uses]


@app.command("fetch")
def fetch_models(
    names: Annotated[
        list[str] | None, typer.Argument(help="Of `sleicl models list`; smollm2 alone by default.")
    ] = None,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Fetch weights from the package index into the home folder and check them."""
    from sleicl_chains.models.weights import KNOWN, fetch

    place = Home.at(home)
    folders = {}
    for name in names or ["smollm2"]:
        folders[name] = fetch(name, place)
        if not as_json:
            print(folders[name], flush=True)
    if as_json:
        rows = [{"name": name, "folder": str(path), "weights": _digest(KNOWN[name])} for name, path in folders.items()]
        print_json([_as_json(_with_reading(row, place)) for row in rows])


@app.command("check")
def check_model(
    name: str,
    base_url: OllamaUrl = None,
    option: ModelOption = None,
    again: Annotated[bool, typer.Option("--again", help="Measure the reading even where it is known.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Report what a model can do, whether it follows a written guide, its speed, and what to do where something is off.

    The first check of a model that is not known asks it some 390 short questions.
    """
    from sleicl_chains.models.names import weak_model

    place = Home.at(home)
    model = weak_model(name, home=place, **model_options(option, base_url))
    findings = _findings(name, model)
    if not as_json:
        _print_findings(findings)  # before the many questions, which may fail
    found = _reading(model, place, again) if _answers(findings) else None
    if as_json:
        told = {finding.what: finding.found for finding in findings}
        off = [{"what": finding.what, "fix": finding.fix} for finding in findings if not finding.ok]
        print_json({"name": name, **told, "reading": found.to_dict() if found else None, "off": off})
    elif found:
        print("\n".join(_reading_lines(found)))


def _print_findings(findings: "list[Finding]") -> None:
    for finding in findings:
        print(f"{finding.what}: {finding.found}" + ("" if finding.ok else f"  <- {finding.fix}"), flush=True)


def _findings(name: str, model: "BaseChatModel") -> "list[Finding]":
    """Return what the check of a local model finds; a few short calls."""
    from sleicl_chains.models.llamacpp.model import EmbeddedModel
    from sleicl_chains.models.llamacpp.model import check as check_embedded

    # Only now that the address was found good: the ollama package raises at its import over a bad one.
    from sleicl_chains.models.ollama.check import Finding
    from sleicl_chains.models.ollama.check import check as check_ollama
    from sleicl_chains.models.ollama.model import OllamaModel

    if isinstance(model, OllamaModel):
        return check_ollama(model)
    if isinstance(model, EmbeddedModel):
        return [Finding(key, value) for key, value in check_embedded(model).items()]
    raise InputError(f"{name}: only local models can be checked; expected ollama:NAME or embedded:NAME")


def _answers(findings: "list[Finding]") -> bool:
    """Say whether it is a model that answers; one of embeddings has nothing to read a guide with."""
    return all(finding.found for finding in findings if finding.what == "answers")


def _reading(model: "BaseChatModel", home: Home, again: bool) -> "Reading":
    from sleicl_chains.cli.console import Meter
    from sleicl_chains.evaluation.reading import reading

    with Meter(["reading"]) as meter:
        return reading(model, home=home, again=again, journal=None if again else journal_or_none(home), progress=meter)


def _reading_lines(found: "Reading") -> list[str]:
    """Say the verdict and what it rests on."""
    advice = "" if found.follows_guides else "  <- a larger model may; grimoires are not expected to help this one"
    kinds = ", ".join(f"{name} {kind.score:.2f} (n = {kind.n})" for name, kind in found.kinds.items())
    return [
        f"reading: {found}{advice}",
        f"  plain guides {found.score:.2f} [{found.low:.2f}, {found.high:.2f}], n = {found.n}; the same questions "
        f"without the guide {found.zero_shot:.2f}; difference {found.difference:+.2f} "
        f"[{found.difference_low:+.2f}, {found.difference_high:+.2f}]",
        f"  other guides, not counted in: {kinds}",
    ]
