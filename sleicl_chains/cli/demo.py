"""`sleicl demo`: the whole method on a shipped example task, with a local model."""

from dataclasses import dataclass
from importlib.resources import as_file

from langchain_core.language_models import BaseChatModel

from sleicl_chains.answering.arms import BASELINES, ArmName
from sleicl_chains.cli.console import Meter, print_report
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import keep_written
from sleicl_chains.errors import OptionError
from sleicl_chains.evaluation.table import ArmBuilder, limited
from sleicl_chains.files import Home, data_folder
from sleicl_chains.grimoires.grimoire import Grimoire, load_grimoire
from sleicl_chains.grimoires.samplers import sampler
from sleicl_chains.grimoires.writing.write import grimoire_writer
from sleicl_chains.models.embedders import embedder
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.names import strong_model, weak_model
from sleicl_chains.models.reading import known_reading
from sleicl_chains.models.weights import READER
from sleicl_chains.tasks.cards import Task, load_task
from sleicl_chains.tasks.rows import Example, load_examples

SHOWN = 12
"""Examples that are printed."""


@dataclass(frozen=True)
class Shipped:
    """An example task and the reviewed grimoire for it."""

    grimoire: str
    per_label: int
    """Examples of each label that k-means draws."""
    made: str
    """How the grimoire came about."""
    about: str
    """What the figures are good for."""


SHIPPED = {
    "desk": Shipped(
        grimoire="desk-a4732710",
        per_label=6,
        made="""the one that ships with the package. It was written through letters (`paste:`)
   from the drawn examples alone, without a look at the house's conventions or at any other row""",
        about="""This task was made to show where grimoires earn their place: its labels are a house's own
conventions, which no model knows. Where label names say it all there is little to gain.""",
    ),
    "support": Shipped(
        grimoire="support-d090011a",
        per_label=4,
        made="""the one that ships with the package. It was written and reviewed for this project, from
   training rows alone but not from these examples""",
        about="""This is an illustration: one small task, written for this project as the grimoire was; its
labels mean what they say.""",
    ),
}

ALONE: tuple[ArmName, ...] = ("zero-shot", "profound")
BESIDE: tuple[ArmName, ...] = ("few-shot", "profound+few-shot")

_CLOSING = """
{about}
{n} test rows and one model are no more than that. Measured results on the paper's tasks
are in benchmarks/LOG.md of the project.

With your own data:
  sleicl init your.csv --task card.toml      then describe the task in card.toml
  sleicl write --task card.toml --rows your.csv --strong paste:letters      any strong model, by copy and paste
  sleicl learn --task card.toml --rows your.csv --weak {weak} --grimoire ID --recipe your.recipe.json
  sleicl ask --recipe your.recipe.json "..."
  sleicl evaluate --task card.toml --rows test.csv --train your.csv --recipe your.recipe.json"""


def run_demo(home: Home, *, example: str, rows: int, strong: str | None, weak: str) -> None:
    """Sample, show or write a grimoire, and print two tables; costs about 190 + 4 x `rows` weak calls the first time.

    Raises:
        OptionError: there is no such example.
    """
    if example not in SHIPPED:
        raise OptionError(f"There is no example {example!r}; there are: {', '.join(SHIPPED)}")
    shipped, (task, train, test) = SHIPPED[example], _shipped_task(example)
    model, embeddings, journal = weak_model(weak, home=home), embedder(home=home), Journal(home.journal)
    _show_reading(model, weak, home)
    drawing = sampler("kmeans", per_label=shipped.per_label, seed=0, embeddings=embeddings)
    drawn = drawing.invoke({"task": task, "examples": train})
    _show_examples(task, drawn, len(train), shipped.per_label)
    written = _write(task, drawn, strong, home, journal, shipped.per_label) if strong else None
    grimoire = written or _reviewed(shipped.grimoire)
    _show_grimoire(grimoire, strong, shipped.made)
    builder = ArmBuilder(task, model, embeddings, train=train, grimoire=grimoire, journal=journal, home=home)
    _show_tables(builder, limited(test, rows), weak, home)
    print(_CLOSING.format(about=shipped.about, n=min(rows, len(test)), weak=weak))


def _shipped_task(example: str) -> tuple[Task, list[Example], list[Example]]:
    with as_file(data_folder(f"examples/{example}")) as folder:
        task = load_task(folder / "task.toml")
        return task, load_examples(folder / "train.jsonl", task), load_examples(folder / "test.jsonl", task)


def _show_reading(model: BaseChatModel, weak: str, home: Home) -> None:
    """Say first whether this model can read what is written for it."""
    known = known_reading(model, home)
    if known is None:
        hint = f"; sleicl models check {weak} finds out" if weak.startswith(("embedded:", "ollama:")) else ""
        print(f"Whether {weak} follows guides is not known{hint}.\n")
    elif known.follows_guides:
        print(f"The weak model {weak} {known}.\n")
    else:
        print(
            f"The weak model {weak} {known}, so a grimoire is not expected\n"
            f"to help it. One that follows them: sleicl demo --weak embedded:{READER}\n"
        )


def _show_examples(task: Task, drawn: list[Example], of: int, per_label: int) -> None:
    print(f"1. The task: {task.description}")
    print(f"   k-means drew {len(drawn)} examples from {of} training rows, {per_label} a label; the first {SHOWN}:\n")
    for example in drawn[:SHOWN]:
        text = " ".join(example.text.split())
        print(f"   {example.answer:>10}  {text if len(text) < 90 else text[:87] + '...'}")


def _reviewed(id: str) -> Grimoire:
    """Return the shipped file itself; in the store a user's file of the same id would come first."""
    with as_file(data_folder("vectorstore/grimoires")) as folder:
        return load_grimoire(folder / f"{id}.md")


def _write(task: Task, drawn: list[Example], strong: str, home: Home, journal: Journal, per_label: int) -> Grimoire:
    say(f"{strong} writes the grimoire: 2 calls, 3 if a label is missing.")
    writer = grimoire_writer(strong_model(strong, home=home), strong_name=strong, journal=journal)
    grimoire = writer.invoke({"task": task, "examples": drawn, "sampler": "kmeans", "per_label": per_label, "seed": 0})
    keep_written(grimoire, home)
    return grimoire


def _show_grimoire(grimoire: Grimoire, strong: str | None, made: str) -> None:
    asked = f"{made}; no strong model was asked (`--strong MODEL` asks one)"
    print(f"\n2. The grimoire {grimoire.id},", f"written now by {strong}:\n" if strong else f"{asked}:\n")
    for line in grimoire.profound.splitlines():
        print(f"   {line}")


def _show_tables(builder: ArmBuilder, test: list[Example], weak: str, home: Home) -> None:
    """Print a first table of what needs no examples in the prompt, and then the whole one."""
    print(f"\n3. {weak} answers {len(test)} questions it has not seen, without and with the grimoire.")
    _table(builder, [*BASELINES, *ALONE], test, weak, home)
    print("\n4. The same with worked examples before each question, and with both.")
    _table(builder, [*BASELINES, *ALONE, *BESIDE], test, weak, home)


def _table(builder: ArmBuilder, names: list[str], test: list[Example], weak: str, home: Home) -> None:
    solvers = builder.build(names)
    print(flush=True)
    with Meter(solvers) as meter:
        report = builder.evaluate(solvers, test, weak, runs=home.runs, progress=meter)
    print_report(report)
