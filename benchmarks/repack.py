"""The same weights in forms that the engine computes faster: how much faster, and what it does to the answers.

    python -m benchmarks.repack --data DIR --grimoires DIR --weights FILE.gguf [--forms Q8_0,Q4_0] [--task TREC]
        [--arms zero-shot,profound] [--rows 60] [--work DIR] [--home DIR]

Each form is made here of the file, tensor by tensor: what is stored in a K-form is widened to 32 bits and rounded anew
(the package `gguf`, a minute or two a gigabyte). Prints a row for each form: size, rows a second, the mean and the
largest absolute change of a label's probability, how often the answer is the same, and the accuracy with the file's own
beside it. Only training rows are asked; a form is worth offering only if its accuracy holds there. The journal is
off. Run it on a quiet machine: forms take turns on every row, so that each sees the same noise.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import gguf

from benchmarks.data import grimoire_of, load
from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.solver import solver
from sleicl_chains.answers import Answer
from sleicl_chains.files import Home
from sleicl_chains.models.names import weak_model
from sleicl_chains.tasks.rows import Example

OWN = "own"
"""The file as it is."""


def main() -> None:
    """Make the forms, ask, and print."""
    options = _options()
    files = {OWN: Path(options.weights)}
    for form in options.forms.split(","):
        files[form] = converted(files[OWN], form, Path(options.work))
    task, train, _ = load(Path(options.data) / options.task, train=options.rows, test=options.rows, seed=0)
    grimoire = grimoire_of(Path(options.grimoires) / options.task, options.sampler, task)
    print(f"{os.cpu_count()} cores; {options.task}; {len(train)} training rows")
    print("| arm | form | MB | rows/s | against own | mean change | largest | same answer | accuracy |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    models = {form: weak_model(f"embedded:{file}", home=Home.at(options.home)) for form, file in files.items()}
    for arm in options.arms.split(","):
        chains = {
            form: solver(weak, task, arm=Arm.of(arm), grimoire=grimoire, mode="score", prior="none")
            for form, weak in models.items()
        }
        answers: dict[str, list[Answer]] = {form: [] for form in chains}
        seconds: dict[str, list[float]] = {form: [] for form in chains}
        for chain in chains.values():
            chain.invoke(train[0].text)  # the engine starts, and keeps the arm's fixed text
        for at, row in enumerate(train):
            first = at % len(chains)
            for form in [*chains, *chains][first : first + len(chains)]:
                started = time.perf_counter()
                answers[form].append(chains[form].invoke(row.text))
                seconds[form].append(time.perf_counter() - started)
        for form in chains:
            size = files[form].stat().st_size / 1e6
            print(f"| {arm} | {form} | {size:.0f} | {_line(answers, seconds, form, train)} |", flush=True)


def _line(answers: dict[str, list[Answer]], seconds: dict[str, list[float]], form: str, rows: list[Example]) -> str:
    pace = 1 / statistics.median(seconds[form])
    ratio = statistics.median(own / ours for own, ours in zip(seconds[OWN], seconds[form], strict=True))
    pairs = list(zip(answers[form], answers[OWN], strict=True))
    changes = [abs((ours.scores or {})[label] - share) for ours, own in pairs for label, share in own.scores.items()]
    same = sum(ours.label == own.label for ours, own in pairs) / len(pairs)
    right = sum(ours.label == row.answer for ours, row in zip(answers[form], rows, strict=True)) / len(rows)
    return f"{pace:.2f} | {ratio:.2f} | {statistics.mean(changes):.3f} | {max(changes):.3f} | {same:.3f} | {right:.3f}"


def converted(source: Path, form: str, work: Path) -> Path:
    """Return a file of the same weights in another form; made once."""
    target = work / f"{source.stem}.{form}.gguf"
    if target.exists():
        return target
    work.mkdir(parents=True, exist_ok=True)
    kind = gguf.GGMLQuantizationType[form]
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target.with_suffix(".part"), architecture)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        data, stored = tensor.data, tensor.tensor_type
        if stored not in (gguf.GGMLQuantizationType.F32, kind):
            data, stored = gguf.quants.quantize(gguf.quants.dequantize(data, stored), kind), kind
        writer.add_tensor(tensor.name, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    target.with_suffix(".part").replace(target)
    return target


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--grimoires", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--forms", default="Q8_0,Q4_0")
    parser.add_argument("--task", default="TREC")
    parser.add_argument("--sampler", default="k-means")
    parser.add_argument("--arms", default="zero-shot,profound")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--work", default=str(Path(__file__).parent / "work"))
    parser.add_argument("--home")
    return parser.parse_args()


if __name__ == "__main__":
    main()
