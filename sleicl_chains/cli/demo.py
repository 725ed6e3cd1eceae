"""`sleicl demo`: the whole method on the shipped example task, with a local model."""

from importlib.resources import as_file

from sleicl_chains.cli.console import Meter, print_report
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import keep_written
from sleicl_chains.evaluation.table import ArmBuilder, limited
from sleicl_chains.files import Home, data_folder
from sleicl_chains.grimoires.grimoire import Grimoire, load_grimoire
from sleicl_chains.grimoires.samplers import sampler
from sleicl_chains.grimoires.writing.write import grimoire_writer
from sleicl_chains.models.embedders import embedder
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.names import strong_model, weak_model
from sleicl_chains.tasks.cards import Task, load_task
from sleicl_chains.tasks.rows import Example, load_examples

SHIPPED = "support-d090011a"
"""The reviewed grimoire for the example task."""

PER_LABEL = 4

_REVIEWED = """the one that ships with the package. It was written and reviewed for this project, from training
   rows alone but not from these examples; no strong model was asked (`--strong MODEL` asks one)"""

_CLOSING = """
This is an illustration: one small task, written for this project as the grimoire was, {n} test rows and
{model}. Measured results on the paper's tasks are in benchmarks/LOG.md of the project.

With your own data:
  sleicl init your.csv --task card.toml      then describe the task in card.toml
  sleicl write --task card.toml --rows your.csv --strong paste:letters      any strong model, by copy and paste
  sleicl learn --task card.toml --rows your.csv --weak {weak} --grimoire ID --recipe your.recipe.json
  sleicl ask --recipe your.recipe.json "..."
  sleicl evaluate --task card.toml --rows test.csv --train your.csv --recipe your.recipe.json"""


def run_demo(home: Home, *, rows: int, strong: str | None, weak: str) -> None:
    """Sample, show or write a grimoire, and print the table; costs about 200 + 4 x `rows` weak calls the first time."""
    task, train, test = _shipped_task()
    test = limited(test, rows)
    model = weak_model(weak, home=home)
    embeddings, journal = embedder(home=home), Journal(home.journal)
    drawn = sampler("kmeans", per_label=PER_LABEL, seed=0, embeddings=embeddings).invoke(
        {"task": task, "examples": train}
    )
    _show_examples(task, drawn, len(train))
    grimoire = _write(task, drawn, strong, home, journal) if strong else _reviewed()
    _show_grimoire(grimoire, strong)
    builder = ArmBuilder(task, model, embeddings, train=train, grimoire=grimoire, journal=journal)
    solvers = builder.build()
    print(f"\n3. The weak model {weak} answers {len(test)} questions it has not seen, arm by arm.\n", flush=True)
    with Meter(solvers) as meter:
        report = builder.evaluate(solvers, test, weak, runs=home.runs, progress=meter)
    print_report(report)
    size = "a model of 135 million parameters" if weak == "embedded:smollm2" else f"the model {weak}"
    print(_CLOSING.format(n=report.n, model=size, weak=weak))


def _shipped_task() -> tuple[Task, list[Example], list[Example]]:
    with as_file(data_folder("examples/support")) as folder:
        task = load_task(folder / "task.toml")
        return task, load_examples(folder / "train.jsonl", task), load_examples(folder / "test.jsonl", task)


def _show_examples(task: Task, drawn: list[Example], of: int) -> None:
    shown = 2 * len(task.labels)
    print(f"1. The task: {task.description}")
    print(f"   k-means drew {len(drawn)} examples from {of} training rows, {PER_LABEL} a label; the first {shown}:\n")
    for example in drawn[:shown]:
        text = " ".join(example.text.split())
        print(f"   {example.answer:>10}  {text if len(text) < 90 else text[:87] + '...'}")


def _reviewed() -> Grimoire:
    """Return the shipped file itself; in the store a user's file of the same id would come first."""
    with as_file(data_folder("vectorstore/grimoires")) as folder:
        return load_grimoire(folder / f"{SHIPPED}.md")


def _write(task: Task, drawn: list[Example], strong: str, home: Home, journal: Journal) -> Grimoire:
    say(f"{strong} writes the grimoire: 2 calls, 3 if a label is missing.")
    writer = grimoire_writer(strong_model(strong, home=home), strong_name=strong, journal=journal)
    grimoire = writer.invoke({"task": task, "examples": drawn, "sampler": "kmeans", "per_label": PER_LABEL, "seed": 0})
    keep_written(grimoire, home)
    return grimoire


def _show_grimoire(grimoire: Grimoire, strong: str | None) -> None:
    print(f"\n2. The grimoire {grimoire.id},", f"written now by {strong}:\n" if strong else f"{_REVIEWED}:\n")
    for line in grimoire.profound.splitlines():
        print(f"   {line}")
    print("\n   and its simple form:\n")
    for line in grimoire.simple.splitlines():
        print(f"   {line}")
