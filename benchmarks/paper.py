"""The weak model on the paper's tasks: every arm, both answer modes, one table.

    python benchmarks/paper.py --data DIR --grimoires DIR [--weak MODEL] [--tasks TREC,Subj] [--arms A,B] [--home DIR]

DIR/TASK/{task.json,train.jsonl,test.jsonl} are the rows and DIR/TASK/*.json the grimoires that
GPT-4 wrote. Rows go to `work/` beside this file (not committed); what is kept in `results/` holds row
hashes, labels, predictions and scores, no text. A stopped run goes on when started again.
"""

import argparse
import json
import os
import time
from itertools import product
from pathlib import Path

from official import official

from sleicl_chains._folders import Home
from sleicl_chains.answers import Mode
from sleicl_chains.arms import ArmBuilder, limited, without_overlap
from sleicl_chains.baselines import probe
from sleicl_chains.cli.steps import model_options
from sleicl_chains.console import Meter, print_report
from sleicl_chains.embedders import embedder
from sleicl_chains.evaluation import Report
from sleicl_chains.grimoires import load_grimoire
from sleicl_chains.journal import Journal
from sleicl_chains.models import weak_model
from sleicl_chains.splits import distinct, stratified
from sleicl_chains.tasks import load_examples, load_task

HERE = Path(__file__).parent
TASKS = "TREC,Subj,AgNews,SST5,RTE,hate_speech18"
ARMS = (
    "zero-shot,few-shot,knn,simple,profound,zero-shot+hidden,simple+hidden,profound+hidden,zero-shot+fusion,"
    "few-shot+fusion,simple+fusion,profound+fusion"
)
WEAK = "embedded:smollm2"
TRAIN_ROWS = 100
LIMITS: dict[str, dict[str, int]] = {"score": {}, "generate": {"max_tokens": 32}}


def main() -> None:
    """Run all tasks in both modes and keep the results."""
    options = _options()
    home = Home.at(options.home)
    print(
        f"{os.cpu_count()} cores; {options.weak}; {options.limit} test rows a task; seeds {options.seeds}", flush=True
    )
    for name, seed, mode in product(options.tasks.split(","), options.seeds.split(","), options.modes.split(",")):
        started = time.monotonic()
        report = run(options, name, mode, int(seed), home)
        print(f"{name}, {mode}, seed {seed}: {time.monotonic() - started:.0f} s\n", flush=True)
        weak = "" if options.weak == WEAK else f"-{_slug(options.weak)}"
        keep(report, f"{name}-{mode}{weak}-{options.limit}-seed{seed}", Path(report.run))


def run(options: argparse.Namespace, name: str, mode: Mode, seed: int, home: Home) -> Report:
    """Evaluate one task in one mode; the answers already in `work/` are not asked again."""
    data = Path(options.data) / name
    task = load_task(data / "task.json")
    test = limited(load_examples(data / "test.jsonl", task), options.limit)
    rows, _ = without_overlap(distinct(load_examples(data / "train.jsonl", task)), test)
    train = stratified(rows, seed)[:TRAIN_ROWS]
    grimoire = load_grimoire(next((Path(options.grimoires) / name).glob(f"{options.sampler}*.json")), task)
    # 32 tokens hold every label and some words around it; the official layout keeps its own 64.
    given = model_options(options.option)
    weak, journal = weak_model(options.weak, home=home, **LIMITS[mode] | given), Journal(home.journal)
    builder = ArmBuilder(task, weak, embedder(), train=train, grimoire=grimoire, mode=mode, seed=seed, journal=journal)
    baselines = builder.build(["majority", "probe"])
    arms = (
        baselines
        | {"probe-minilm": probe(task, train, embedder("minilm", home=home))}
        | builder.build(options.arms.split(","))
    )
    if mode == "generate" and options.weak == WEAK:
        arms["official"] = official(weak_model(options.weak, home=home, **given), task, grimoire, journal)
    folder = HERE / "work" / f"{name}-{mode}-{_slug(options.weak)}-{options.sampler}-{options.limit}-seed{seed}"
    with Meter(arms) as meter:
        report = builder.evaluate(arms, test, options.weak, run=folder, progress=meter)
    print_report(report, builder.notes)
    return report


def _slug(weak: str) -> str:
    return weak.replace(":", "-").replace("/", "-")


def keep(report: Report, name: str, folder: Path) -> None:
    """Write the summary and the rows without any text."""
    results = HERE / "results" / "paper"
    results.mkdir(parents=True, exist_ok=True)
    summary = {key: value for key, value in report.to_dict().items() if key != "run"}
    (results / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    wanted = ("arm", "row", "gold", "prediction", "valid", "coverage", "scores", "cue", "lists_labels", "unseen")
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({key: _rounded(row[key]) for key in wanted if key in row}) for row in rows]
    (results / f"{name}.rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return round(value, 5) if isinstance(value, float) else value


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--grimoires", required=True)
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--modes", default="score")
    parser.add_argument("--sampler", default="k-means", help="which grimoire: the beginning of its file's name")
    parser.add_argument("--weak", default=WEAK)
    parser.add_argument("--option", "-o", action="append", help="NAME=VALUE for the model, such as num_thread=2")
    parser.add_argument("--arms", default=ARMS)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--home")
    return parser.parse_args()


if __name__ == "__main__":
    main()
