"""`sleicl write` and `sleicl grimoires`: making grimoires and keeping them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleicl_chains.answering.opening import open_store, open_task
from sleicl_chains.cli.options import (
    BaseUrl,
    BudgetOption,
    ChromaOption,
    CountOption,
    EmbedderOption,
    HomeOption,
    JsonOption,
    MaybeRows,
    MaybeWeak,
    ModelOption,
    NoJournal,
    RatioOption,
    SamplerOption,
    SeedOption,
    StrongName,
    TaskOption,
)
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.rows import draw
from sleicl_chains.cli.steps import journal_of, model_options, print_json, read, wanted_task
from sleicl_chains.errors import InputError, OptionError, StoreError
from sleicl_chains.files import Home

if TYPE_CHECKING:
    from sleicl_chains.grimoires.grimoire import Grimoire
    from sleicl_chains.grimoires.store import GrimoireStore

app = typer.Typer(help="The library of grimoires.", no_args_is_help=True, rich_markup_mode=None)


def write(
    card: TaskOption,
    strong: Annotated[str, typer.Option("--strong", help="openai:NAME, paste:DIR or any PROVIDER:MODEL of LangChain.")],
    rows: MaybeRows = None,
    sampler: SamplerOption = "kmeans",
    n: CountOption = 4,
    seed: SeedOption = 0,
    weak: MaybeWeak = None,
    ratio: RatioOption = 1.0,
    strong_name: StrongName = None,
    base_url: BaseUrl = None,
    option: ModelOption = None,
    embeddings: EmbedderOption = "wordllama",
    budget: BudgetOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the first prompt and what it will cost; the strong model is not asked."),
    ] = False,
    no_journal: NoJournal = False,
    chroma_url: ChromaOption = None,
    home: HomeOption = None,
) -> None:
    """Let a strong model write a grimoire from a few examples; store it and print its id."""
    from sleicl_chains.grimoires.writing.calls import profound_prompt
    from sleicl_chains.grimoires.writing.costs import check_budget, examples_tokens, writing_tokens
    from sleicl_chains.grimoires.writing.write import grimoire_writer
    from sleicl_chains.models.names import strong_model

    place = Home.at(home)
    if rows is None and sampler != "none":
        raise OptionError("--rows is missing: give labelled rows, or --sampler none to go by the description alone")
    task, examples = read(card, rows) if rows else (open_task(card), [])
    # Opened first, so that what is wrong with it is told before a sampler asks the weak model.
    model = None if dry_run else strong_model(strong, home=place, **model_options(option, base_url))
    drawn = draw(
        task, examples, sampler, place, per_label=n, seed=seed, weak=weak, ratio=ratio, embeddings=embeddings,
        no_journal=no_journal,
    )  # fmt: skip
    tokens = writing_tokens(task, examples_tokens(drawn))
    cost = f"2 calls, 3 if a label is missing; up to about {tokens} tokens, read and written"
    say([f"{len(drawn)} examples go to {strong}: {cost}; more if it thinks long."])
    if model is None:
        print(profound_prompt(task, drawn))
        return
    check_budget(tokens, budget)
    writer = grimoire_writer(
        model, strong_name=strong_name or strong, journal=journal_of(place, no_journal), budget=budget
    )
    written = writer.invoke({"task": task, "examples": drawn, "sampler": sampler, "per_label": n, "seed": seed})
    _print_written(written, open_store(place, chroma_url=chroma_url))


def _print_written(grimoire: "Grimoire", store: "GrimoireStore") -> None:
    """Say what the strong model used, store what it wrote, and print the id."""
    used = grimoire.provenance
    say(f"Warning: {warning}" for warning in used.warnings)
    if used.prompt_tokens is not None:
        say([f"Used {used.prompt_tokens} tokens in, {used.reply_tokens} out."])
    try:
        print(store.add(grimoire))
    except (StoreError, InputError):  # it was paid for, and there may be no journal
        print(grimoire.to_markdown())
        raise


@app.command("list")
def list_all(
    removed: Annotated[bool, typer.Option("--removed", help="Those that were removed and can be restored.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List all grimoires, your own and the shipped ones, and whether what they do was measured."""
    store = open_store(Home.at(home))
    found = store.removed() if removed else store.list()
    say(store.problems)
    about = [
        {"id": g.id, "task": g.task, "strong_model": g.provenance.strong_model, "sampler": g.provenance.sampler,
         "date": g.provenance.date, "measured": bool(g.effects)} for g in found
    ]  # fmt: skip
    if as_json:
        print_json(about)
        return
    for row in about:
        measured = "measured" if row.pop("measured") else "not measured"
        print(*row.values(), measured, sep="\t")


@app.command()
def show(id: str, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Print a grimoire as Markdown."""
    from dataclasses import asdict

    grimoire = open_store(Home.at(home)).get(id)
    if as_json:
        print_json(asdict(grimoire))
        return
    print(grimoire.to_markdown(), end="")
    say(f"Measured: {effect}" for effect in grimoire.effects)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="A task in words, a question, or a task card's path.")],
    k: Annotated[int, typer.Option("-k", help="How many.")] = 4,
    as_json: JsonOption = False,
    chroma_url: ChromaOption = None,
    home: HomeOption = None,
) -> None:
    """Find the grimoires nearest to a task or a question; a task's description finds better than one question."""
    wanted = wanted_task(query)
    store = open_store(Home.at(home), chroma_url=chroma_url)
    hits = store.search(wanted, k=k)
    say(store.problems)
    rows = [{"id": hit.grimoire.id, "task": hit.grimoire.task, "score": round(hit.score, 4)} for hit in hits]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        print(f"{row['score']:.3f}\t{row['id']}\t{row['task']}")


@app.command()
def add(
    file: Annotated[Path, typer.Argument(help="Markdown, or JSON with task, strong_model, sampler, profound, simple.")],
    card: Annotated[
        Path | None, typer.Option("--task", help="The card, for the description that searches look at.")
    ] = None,
    chroma_url: ChromaOption = None,
    home: HomeOption = None,
) -> None:
    """Store a grimoire from a file and print its id; another text under an id becomes its next version."""
    from sleicl_chains.cli.versions import say_near
    from sleicl_chains.grimoires.grimoire import load_grimoire
    from sleicl_chains.tasks.cards import load_task

    grimoire = load_grimoire(file, load_task(card) if card else None)
    say(f"Warning: {warning}" for warning in grimoire.provenance.warnings)
    store = open_store(Home.at(home), chroma_url=chroma_url)
    id = store.add(grimoire)
    say_near(store, id)
    print(id)


@app.command()
def remove(id: str, home: HomeOption = None) -> None:
    """Take one of your grimoires out of the library; `restore` brings it back."""
    open_store(Home.at(home)).delete(id)
    print(id)


@app.command()
def rebuild(embeddings: EmbedderOption = "wordllama", chroma_url: ChromaOption = None, home: HomeOption = None) -> None:
    """Make the index anew from the Markdown files; later commands search it by the same embeddings."""
    place = Home.at(home)
    store = open_store(place, embeddings, chroma_url)
    count = store.rebuild()
    say(store.problems)
    place.remember_embeddings(embeddings)
    print(f"{count} grimoires indexed")
