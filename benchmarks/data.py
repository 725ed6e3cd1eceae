"""The rows and grimoires of a benchmark: the same for every script that asks for as many."""

from pathlib import Path
from typing import NamedTuple

from sleicl_chains.evaluation.table import limited, without_overlap
from sleicl_chains.grimoires.grimoire import Grimoire, load_grimoire
from sleicl_chains.tasks.cards import Task, load_task
from sleicl_chains.tasks.rows import Example, load_examples
from sleicl_chains.tasks.splits import distinct, stratified


class Data(NamedTuple):
    """One task, some labelled rows, and test rows that share no text with them."""

    task: Task
    train: list[Example]
    test: list[Example]


def load(folder: Path, *, train: int, test: int, seed: int) -> Data:
    """Return a task of DIR/TASK/{task.json,train.jsonl,test.jsonl}.

    The test rows are the same for every seed; the training rows have the labels' shares.
    """
    task = load_task(folder / "task.json")
    shown = limited(load_examples(folder / "test.jsonl", task), test)
    rows, _ = without_overlap(distinct(load_examples(folder / "train.jsonl", task)), shown)
    return Data(task, stratified(rows, seed)[:train], shown)


def grimoire_of(folder: Path, sampler: str, task: Task | None = None) -> Grimoire:
    """Return the grimoire whose file's name begins with a sampler's, out of DIR/TASK."""
    found = [file for file in sorted(folder.glob(f"{sampler}*")) if file.suffix in (".json", ".md")]
    if not found:
        raise SystemExit(f"{folder}: found no grimoire named {sampler}*.json or .md; see --grimoires and --sampler")
    return load_grimoire(found[0], task)
