"""The weak model on the paper's tasks: every arm and the recipe that `learn` makes, one table a task and seed.

    python benchmarks/paper.py --data DIR --grimoires DIR [--weak MODEL] [--embeddings minilm] [--tasks TREC,Subj]
        [--arms A,B] [--prior none] [--seeds 0,1,2] [--home DIR] [--add]

DIR/TASK/{task.json,train.jsonl,test.jsonl} are the rows and DIR/TASK/*.json the grimoires that
GPT-4 wrote. Rows go to `work/` beside this file (not committed); what is kept in `results/` holds row
hashes, labels, predictions and what was learned, no text. A stopped run goes on when started again.
`--add` puts arms beside those that are kept already of the same rows.
`paper_summary.py` puts tasks and seeds together.
"""

import argparse
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from data import grimoire_of, load
from official import official

from sleicl_chains.answering.arms import RECIPE
from sleicl_chains.answering.readings import Mode
from sleicl_chains.answering.recipes import Recipe
from sleicl_chains.cli.console import Meter, print_recipe, print_report
from sleicl_chains.cli.steps import model_options
from sleicl_chains.evaluation.baselines import probe
from sleicl_chains.evaluation.summary import ArmResult, Report, compare, less_zero_shot
from sleicl_chains.evaluation.table import ArmBuilder
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.learning.learn import learn
from sleicl_chains.models.embedders import embedder
from sleicl_chains.models.journal import Journal
from sleicl_chains.models.names import weak_model

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "paper"
TASKS = "TREC,Subj,AgNews,SST5,RTE,hate_speech18"
# `blend` is first: it reads state and scores of a question at once, and the other readings find both in the journal.
ARMS = (
    "zero-shot+blend,few-shot+blend,simple+blend,profound+blend,zero-shot,few-shot,simple,profound,"
    "zero-shot+hidden,few-shot+hidden,simple+hidden,profound+hidden,"
    "zero-shot+fusion,few-shot+fusion,simple+fusion,profound+fusion,knn,recipe"
)
WEAK, SPACE, PRIOR, SAMPLER = "embedded:smollm2", "wordllama", "mean", "k-means"
TRAIN_ROWS = 100
DIFFERENCE = ("difference", "difference_low", "difference_high")
LIMITS: dict[str, dict[str, int]] = {"score": {}, "generate": {"max_tokens": 32}}


def main() -> None:
    """Run all tasks in both modes and keep the results."""
    options = _options()
    home = Home.at(options.home)
    print(
        f"{os.cpu_count()} cores; {options.weak}; {options.limit} test rows a task; seeds {options.seeds}", flush=True
    )
    for seed, name, mode in product(options.seeds.split(","), options.tasks.split(","), options.modes.split(",")):
        unusual = suffix(options.weak, options.embeddings, options.prior, options.sampler)
        kept = f"{name}-{mode}{unusual}-{options.limit}-seed{seed}"
        if options.add and not (RESULTS / f"{kept}.json").exists():  # before the hours of the run
            raise SystemExit(f"results/paper has no {kept} to add to; run without --add")
        started = time.monotonic()
        report, learned = run(options, name, mode, int(seed), home)
        print(f"{name}, {mode}, seed {seed}: {time.monotonic() - started:.0f} s\n", flush=True)
        summary = {key: value for key, value in report.to_dict().items() if key != "run"} | {"recipe": learned}
        found = predictions(Path(report.run))
        if options.add:
            summary, found = added(summary, found, kept)
        keep(summary, found, kept)


def run(options: argparse.Namespace, name: str, mode: Mode, seed: int, home: Home) -> tuple[Report, dict[str, Any]]:
    """Evaluate one task in one mode; the answers already in `work/` are not asked again."""
    task, train, test = load(Path(options.data) / name, train=TRAIN_ROWS, test=options.limit, seed=seed)
    grimoire = grimoire_of(Path(options.grimoires) / name, options.sampler, task)
    # 32 tokens hold every label and some words around it; the official layout keeps its own 64.
    given = model_options(options.option)
    weak, journal = weak_model(options.weak, home=home, **LIMITS[mode] | given), Journal(home.journal)
    space = embedder(options.embeddings, home=home)
    builder = ArmBuilder(task, weak, space, train, grimoire, mode, options.prior, seed=seed, journal=journal, home=home)
    names = options.arms.split(",")
    learned: dict[str, Any] = {}
    if RECIPE in names:
        builder.recipe, learned = learn_recipe(builder, grimoire, options.weak, options.embeddings)
    probes = {
        "probe": probe(task, train, embedder()),
        "probe-minilm": probe(task, train, embedder("minilm", home=home)),
    }
    arms = builder.build(list(dict.fromkeys(["majority", *names]))) | probes
    if mode == "generate" and options.weak == WEAK:
        arms["official"] = official(weak_model(options.weak, home=home, **given), task, grimoire, journal)
    about = f"{slug(options.weak)}-{slug(options.embeddings)}-{options.prior}-{options.sampler}-{options.limit}"
    folder = HERE / "work" / f"{name}-{mode}-{about}-seed{seed}"
    with Meter(arms) as meter:
        report = builder.evaluate(arms, test, options.weak, run=folder, progress=meter)
    print_report(report)
    return report, learned


def learn_recipe(
    builder: ArmBuilder, grimoire: Grimoire, weak_name: str, embeddings: str
) -> tuple[Recipe, dict[str, Any]]:
    """Learn from the labelled rows alone; return the recipe, and what of it may be published."""
    assert builder.journal is not None
    started, before = time.monotonic(), len(builder.journal)
    recipe = learn(
        builder.task, builder.train, weak=builder.weak, weak_name=weak_name, grimoires=[grimoire], seed=builder.seed,
        embeddings=embeddings, space=builder.embeddings, journal=builder.journal,
    )  # fmt: skip
    seconds = time.monotonic() - started
    print_recipe(recipe)
    print(f"learned in {seconds:.0f} s", flush=True)
    kept = {"arm", "mode", "prior", "verdict", "also_tried", "choice", "warnings", "rows"}
    told = recipe.model_dump(mode="json", include=kept)
    return recipe, told | {"seconds": round(seconds, 1), "new_calls": len(builder.journal) - before}


def slug(name: str) -> str:
    """Return the name of a model or of embeddings as a part of a file name."""
    return name.replace(":", "-").replace("/", "-")


def suffix(weak: str, space: str, prior: str = PRIOR, sampler: str = SAMPLER) -> str:
    """Return what tells results apart that are not of the usual model, embeddings, prior or grimoire."""
    usual = {weak: WEAK, space: SPACE, prior: PRIOR, sampler: SAMPLER}
    return "".join(f"-{slug(found)}" for found, expected in usual.items() if found != expected)


def keep(summary: dict[str, Any], found: dict[str, Any], name: str, folder: Path = RESULTS) -> None:
    """Write one compact file without any text: the table, what was learned, and every prediction.

    Row hashes and labels stand once; right answers and predictions are places in the list of labels, an arm a line,
    -1 where a reply gave no answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gold, told = found["gold"], found["predictions"]
    said = {label for answers in (gold, *told.values()) for label in answers.values() if label is not None}
    place: dict[str | None, int] = {label: at for at, label in enumerate(sorted(said))} | {None: -1}
    coded = {arm: [place[answers[row]] for row in gold] for arm, answers in told.items()}
    parts = {
        **{key: value for key, value in summary.items() if key != "arms"}, "labels": sorted(said), "rows": list(gold),
        "gold": [place[gold[row]] for row in gold],
    }  # fmt: skip
    lines = [f"{json.dumps(key)}: {_compact(value)}" for key, value in parts.items()]
    lines += [f'"arms": [\n{_listed(map(_compact, summary["arms"]))}]']
    lines += [f'"predictions": {{\n{_listed(f"{json.dumps(arm)}: {_compact(at)}" for arm, at in coded.items())}}}']
    (folder / f"{name}.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _listed(lines: Iterable[str]) -> str:
    return ",\n".join(lines)


def read_kept(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `keep` wrote under a name: the table, and the right answers and predictions by row hash."""
    kept = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    rows, labels = kept.pop("rows"), [*kept.pop("labels"), None]  # the last one is at -1
    told = {
        arm: dict(zip(rows, (labels[at] for at in said), strict=True)) for arm, said in kept.pop("predictions").items()
    }
    gold = dict(zip(rows, (labels[at] for at in kept.pop("gold")), strict=True))
    return kept, {"gold": gold, "predictions": told}


def predictions(folder: Path) -> dict[str, Any]:
    """Return the right answers and each arm's by row hash, from the rows of a run."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_bytes().splitlines()]
    found: dict[str, Any] = {"gold": {row["row"]: row["gold"] for row in rows}, "predictions": {}}
    for row in rows:
        found["predictions"].setdefault(row["arm"], {})[row["row"]] = row["prediction"]
    return found


def added(summary: dict[str, Any], found: dict[str, Any], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is kept under this name with the arms of this run, which replace those of the same names."""
    kept, earlier = read_kept(name)
    if earlier["gold"] != found["gold"]:
        raise SystemExit(f"{name} is kept of other rows: nothing can be added to it; run without --add")
    arms = {arm["arm"]: arm for arm in [*kept["arms"], *summary["arms"]]}
    told = earlier["predictions"] | found["predictions"]
    both = kept | {"arms": list(arms.values()), "recipe": summary["recipe"] or kept["recipe"]}
    return compared(both, told, found["gold"]), {"gold": found["gold"], "predictions": told}


def compared(summary: dict[str, Any], told: dict[str, Any], gold: dict[str, str]) -> dict[str, Any]:
    """Return a report whose comparisons of arms are made anew, as `evaluate` makes them of the arms of one run."""
    right = {arm: [said[row] == answer for row, answer in gold.items()] for arm, said in told.items()}
    learned = (summary.get("recipe") or {}).get("arm", "")
    shown = {RECIPE: "of the recipe"} if learned.startswith(("simple", "profound")) else {}
    known = [ArmResult(**{"grimoire": shown.get(arm["arm"]), **arm}) for arm in summary["arms"] if arm["arm"] in right]
    best = compare(right, known)
    arms = [arm | dict(zip(DIFFERENCE, less_zero_shot(arm["arm"], right), strict=True)) for arm in summary["arms"]]
    return summary | {"arms": arms, "grimoire": asdict(best) if best else None}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--grimoires", required=True)
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--modes", default="score")
    parser.add_argument("--sampler", default=SAMPLER, help="which grimoire: the beginning of its file's name")
    parser.add_argument("--weak", default=WEAK)
    parser.add_argument("--embeddings", default=SPACE, help="of fusion, blend and knn")
    parser.add_argument("--option", "-o", action="append", help="NAME=VALUE for the model, such as num_thread=2")
    parser.add_argument("--prior", default=PRIOR, help="of the arms that score labels; none leaves it in")
    parser.add_argument("--arms", default=ARMS)
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--home")
    parser.add_argument("--add", action="store_true", help="to what results/ has of the same rows, add these arms")
    return parser.parse_args()


if __name__ == "__main__":
    main()
