"""`sleicl init` and `sleicl sample`: from rows to a card and to examples."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleicl_chains.cli.options import (
    CountOption,
    EmbedderOption,
    HomeOption,
    JsonOption,
    MaybeWeak,
    NoJournal,
    RatioOption,
    RowsOption,
    SamplerOption,
    SeedOption,
    TaskOption,
)
from sleicl_chains.cli.printing import say
from sleicl_chains.cli.steps import journal_of, print_json, read
from sleicl_chains.errors import InputError
from sleicl_chains.files import Home, refuse_unwritable, write_whole

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

    from sleicl_chains.answers import Answer
    from sleicl_chains.grimoires.samplers import SamplerName
    from sleicl_chains.tasks.cards import Task
    from sleicl_chains.tasks.rows import Example


def init(
    data: Annotated[Path, typer.Argument(help="Rows to look at.")],
    card: Annotated[Path, typer.Option("--task", help="The card to write, .toml or .json.")],
    text_column: Annotated[str | None, typer.Option(help="Column with the text.")] = None,
    answer_column: Annotated[str | None, typer.Option(help="Column with the right answer.")] = None,
    labels: Annotated[str | None, typer.Option(help="The labels, with commas between; else those of the rows.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the card.")] = False,
    home: HomeOption = None,
) -> None:
    """Write a task card for rows: labels inferred, the description to be filled in."""
    from sleicl_chains.tasks.cards import card_text
    from sleicl_chains.tasks.infer import infer_task

    if os.path.exists(card) and not force:
        raise InputError(f"{card}: the card is there already; give --force to overwrite it")
    refuse_unwritable(card)
    listed = labels.split(",") if labels is not None else ()
    task = infer_task(data, text_column=text_column, answer_column=answer_column, labels=listed)
    as_json = json.dumps(task.model_dump(mode="json"), ensure_ascii=False, indent=1) + "\n"
    write_whole(card, as_json if card.suffix == ".json" else card_text(task))
    shown = ", ".join(task.labels[:50]) + (" ..." if len(task.labels) > 50 else "")
    number = "1 label" if len(task.labels) == 1 else f"{len(task.labels)} labels"
    found = f"{number}: {shown}" if task.labels else "no labels (open-ended)"
    print(
        f"{card}: {found}. Now write its description: the better it says what each label means, the better all arms do."
    )


def sample(
    card: TaskOption,
    rows: RowsOption,
    sampler: SamplerOption = "kmeans",
    n: CountOption = 4,
    seed: SeedOption = 0,
    weak: MaybeWeak = None,
    ratio: RatioOption = 1.0,
    embeddings: EmbedderOption = "wordllama",
    as_json: JsonOption = False,
    no_journal: NoJournal = False,
    home: HomeOption = None,
) -> None:
    """Draw examples as the strong model would see them."""
    task, examples = read(card, rows)
    place = Home.at(home)
    drawn = draw(
        task, examples, sampler, place, per_label=n, seed=seed, weak=weak, ratio=ratio, embeddings=embeddings,
        no_journal=no_journal,
    )  # fmt: skip
    if as_json:
        print_json([{"text": e.text, "answer": e.answer, "id": e.id} for e in drawn])
        return
    for example in drawn:
        print(f"{example.answer}\t{' '.join(example.text.split())}")


def draw(
    task: "Task", examples: list["Example"], name: "SamplerName", home: Home, *, per_label: int, seed: int,
    weak: str | None, ratio: float, embeddings: str, no_journal: bool,
) -> list["Example"]:  # fmt: skip
    """Run a sampler; the hard one asks the weak model first."""
    from sleicl_chains.answering.opening import open_space
    from sleicl_chains.grimoires.samplers import sampler

    space = open_space(embeddings, home, journal_of(home, no_journal) if ":" in embeddings else None)
    zero_shot = _zero_shot(weak, task, home, no_journal) if weak and name == "hard" else None
    chain = sampler(name, per_label=per_label, seed=seed, embeddings=space, weak=zero_shot, ratio=ratio)
    if zero_shot:
        say([f"{weak} answers up to 50 rows of each label first, to find the hard ones."])
    return chain.invoke({"task": task, "examples": examples})


def _zero_shot(weak: str, task: "Task", home: Home, no_journal: bool) -> "Runnable[str, Answer]":
    from sleicl_chains.answering.opening import open_weak
    from sleicl_chains.answering.solver import solver

    return solver(open_weak(weak, task, home), task, arm="zero-shot", journal=journal_of(home, no_journal))
