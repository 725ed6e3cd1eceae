"""Honest tables: the same rows for every arm, every output counted, an interval beside each number.

Answers go to disk one row at a time and the summary is computed from the disk, so an interrupted
run goes on where it stopped and a finished one can be read again.
"""

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langchain_core.runnables import Runnable

from sleicl_chains._folders import write_whole
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, PromptTooLong, RejectedReply, RunError
from sleicl_chains.observations import GROUPS
from sleicl_chains.statistics import (
    expected_calibration_error,
    macro_f1,
    mcnemar,
    paired_difference,
    risk_coverage,
    wilson,
)
from sleicl_chains.tasks import Example, Task, fold

Progress = Callable[[str, int, int], None]
"""Called with the arm, the answers done over all arms, and the answers to do over all arms."""

Difference = tuple[float, float, float] | tuple[None, None, None]
"""Of two accuracies on the same rows, with its interval; None where there is nothing to compare with."""


@dataclass(frozen=True)
class ArmResult:
    """One line of the table. Rates are over all n rows."""

    arm: str
    mode: str
    prior: str
    accuracy: float
    low: float
    high: float
    macro_f1: float | None
    """None for an open-ended task."""
    valid: float
    coverage: float | None
    """Mean probability of all labels together before renormalising; None outside mode `score`."""
    difference: float | None
    """Accuracy less that of the run's own zero-shot arm; None without one, and for that arm itself."""
    difference_low: float | None
    difference_high: float | None
    prompt_tokens_total: int
    seconds_total: float
    failed: int = 0
    """Rows without an answer because the prompt was too long or the reply was rejected; they count as wrong."""
    unseen: float = 0.0
    """Mean share of the labels that were out of sight and scored by a floor (Ollama shows 20 tokens)."""
    calibration_error: float | None = None
    """How far probabilities are from accuracies, 0 to 1; None unless each valid answer of the weak model has one."""
    risk_area: float | None = None
    """Mean share of wrong answers when the least sure are left out, over all shares left out; None likewise."""
    deferred: float = 0.0
    """Share of the rows that a strong model answered, since the weak one was not sure enough."""
    strong_prompt_tokens_total: int = 0
    strong_reply_tokens_total: int = 0


@dataclass(frozen=True)
class Comparison:
    """Two arms of one run, both picked on the very rows that they are compared on, so in favour of the winner."""

    best_with: str
    best_without: str
    difference: float
    """Accuracy with less accuracy without, paired."""
    low: float
    high: float
    p: float
    """Exact two-sided McNemar test: how often the rows on which they differ would split so by chance."""


@dataclass(frozen=True)
class Report:
    """What an evaluation found."""

    task: str
    n: int
    weak: str
    train_rows: int
    majority: float | None
    """Accuracy of train's most frequent label; None when the run has no such arm."""
    arms: list[ArmResult]
    grimoire: "Comparison | None" = None
    """The best arm with a grimoire against the best without; None when the run lacks one or the other."""
    run: str = ""
    """The folder with the rows; empty when nothing was kept."""

    @property
    def defers(self) -> bool:
        """Whether a strong model answered any row."""
        return any(arm.deferred for arm in self.arms)

    def to_dict(self) -> dict[str, Any]:
        """Return the object that `sleicl evaluate --json` prints."""
        return asdict(self)


def evaluate(
    solvers: Mapping[str, Runnable[str, Answer]] | Sequence[Runnable[str, Answer]],
    examples: Sequence[Example],
    *,
    run: str | Path | None = None,
    task: Task | None = None,
    weak: str = "",
    train_rows: int = 0,
    max_concurrency: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Answer every row by every solver and return the table.

    Costs one solver call a row and arm, less what `run` already holds.

    Args:
        solvers: by arm name, or a sequence of chains that carry their names.
        examples: the rows; the same for every arm.
        run: folder for `run.json`, `rows.jsonl` (hashes, labels, scores, in mode `generate` also the
            reply; never a question's text) and `summary.json`. An unfinished run of the same settings
            goes on. After changing a chain of your own, take another folder.
        task: for its name and labels; by default the answers that occur are the labels.
        weak: name of the model, for the report.
        train_rows: how many rows priors, probes and examples were taken from, for the report.
        max_concurrency: calls in flight at once; more than one only helps models on other machines.
        progress: called after every answer.

    Raises:
        InputError: there are no rows or no solvers.
        RunError: `run` holds another evaluation.
        SleiclError: whatever a solver raises, except that a prompt that is too long and a rejected
            reply are recorded as failed rows, which count as wrong.
    """
    named = dict(solvers) if isinstance(solvers, Mapping) else {_name(chain): chain for chain in solvers}
    if not examples or not named or len(named) < len(solvers):
        raise InputError(
            f"evaluate: found {len(examples)} rows and {len(named)} arms; expected at least one of each, "
            "and arms of different names"
        )
    with nullcontext(run) if run else tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with _alone(folder):
            rows = _Rows(folder, named, examples)
            rows.answer_all(named, max_concurrency, progress or (lambda arm, done, total: None))
            found = summarise(rows.read(), examples, list(named), task)
            report = Report(weak=weak, train_rows=train_rows, run=str(run or ""), **found)
            write_whole(folder / "summary.json", json.dumps(_about_now() | report.to_dict(), indent=1) + "\n")
    return report


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second evaluation out of the folder; both would write its rows."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            yield
    except Timeout:
        raise RunError(
            f"{folder} is in use by another evaluation; wait for it, or give another folder with --run"
        ) from None


def _about_now() -> dict[str, Any]:
    from importlib.metadata import version

    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "sleicl_chains": version("sleicl-chains")}


def _name(chain: Runnable[str, Answer]) -> str:
    return str(_metadata(chain).get("arm") or chain.get_name())


def settings_of(chain: Runnable[str, Answer]) -> str:
    """Return the digits under which a solver's answers may be continued.

    A chain of someone else's is told by how it prints itself, which shows its parts but not what a
    function in it does.
    """
    return str(_metadata(chain).get("settings") or hashlib.sha256(repr(chain).encode()).hexdigest()[:16])


def run_name(task: Task, solvers: Mapping[str, Runnable[str, Answer]], examples: Sequence[Example]) -> str:
    """Return a folder name that the same command finds again, and no other evaluation."""
    parts = [*row_keys(examples), *(f"{arm}:{settings_of(chain)}" for arm, chain in solvers.items())]
    slug = re.sub(r"[^a-z0-9]+", "-", task.name.lower())[:40].strip("-")
    return f"{slug}-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}"


def _metadata(chain: Runnable[str, Answer]) -> Mapping[str, Any]:
    config: Mapping[str, Any] = getattr(chain, "config", None) or {}
    return config.get("metadata") or {}


# ------------------------------------------------------------------ rows on disk


class _Rows:
    """The answers of one run in `rows.jsonl`, one object a line, in the order they came."""

    def __init__(self, folder: Path, solvers: Mapping[str, Any], examples: Sequence[Example]) -> None:
        self.examples = dict(zip(row_keys(examples), examples, strict=True))
        self.file = folder / "rows.jsonl"
        self._claim(folder / "run.json", solvers)
        if not self.file.exists():
            # Replies of a model may repeat what it was asked: for the owner's eyes alone.
            os.close(os.open(self.file, os.O_CREAT | os.O_WRONLY, 0o600))
        self.done = {(row["arm"], row["row"]) for row in self.read()}

    def _claim(self, manifest: Path, solvers: Mapping[str, Any]) -> None:
        """Note what this run is of, or make sure that it is what the folder was made for."""
        rows = hashlib.sha256("".join(self.examples).encode()).hexdigest()[:16]
        arms = {arm: settings_of(chain) for arm, chain in solvers.items()}
        found: dict[str, Any] = (
            json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {"rows": rows, "arms": {}}
        )
        if found["rows"] != rows or any(arms[arm] != found["arms"].get(arm, arms[arm]) for arm in arms):
            what = "other rows" if found["rows"] != rows else "other settings"
            raise RunError(f"{manifest.parent} holds a run with {what}; give another folder with --run, or delete it")
        write_whole(manifest, json.dumps({"rows": rows, "arms": found["arms"] | arms}, indent=1) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Return the rows on disk; a last line that a kill cut off is removed first."""
        if not self.file.exists():
            return []
        data = self.file.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self.file, len(whole))
        return [json.loads(line) for line in whole.splitlines()]

    def answer_all(self, solvers: Mapping[str, Runnable[str, Answer]], concurrency: int, progress: Progress) -> None:
        """Answer what is missing, arm by arm, so that the engine keeps an arm's fixed text."""
        missing = {arm: [key for key in self.examples if (arm, key) not in self.done] for arm in solvers}
        total = sum(len(keys) for keys in missing.values())
        done = 0
        with self.file.open("a", encoding="utf-8") as file:
            for arm, keys in missing.items():
                for key, answer in self._answers(solvers[arm], keys, concurrency):
                    file.write(json.dumps(self._row(arm, key, answer), ensure_ascii=False) + "\n")
                    file.flush()  # what the system has survives kill -9
                    done += 1
                    progress(arm, done, total)

    def _answers(self, chain: Runnable[str, Answer], keys: list[str], concurrency: int) -> Iterator[tuple[str, Answer]]:
        if concurrency == 1:
            for key in keys:
                yield key, _attempt(chain, self.examples[key].text)
            return
        # return_exceptions: rows that came back are written before a failure of another stops the run
        texts = [self.examples[key].text for key in keys]
        for at, answer in chain.batch_as_completed(texts, {"max_concurrency": concurrency}, return_exceptions=True):
            yield keys[at], _failed(answer) if isinstance(answer, Exception) else answer

    def _row(self, arm: str, key: str, answer: Answer) -> dict[str, Any]:
        example = self.examples[key]
        row = {"arm": arm, "row": key, "gold": example.answer, "prediction": answer.answer, "valid": answer.valid}
        about = {"mode": answer.mode, "prior": answer.prior, "grimoire": answer.grimoire, "note": answer.note}
        numbers = {"probability": answer.probability, "coverage": answer.coverage, "scores": dict(answer.scores)}
        said: dict[str, Any] = {"reply": answer.text} if answer.mode == "generate" else {}
        if answer.mode in GROUPS:
            said = {"cue": answer.cue, "lists_labels": answer.lists_labels, "unseen": list(answer.unseen)}
        cost = {"usage": dict(answer.usage), "seconds": answer.seconds, "deferred": answer.deferred}
        return row | about | numbers | said | cost


def row_keys(examples: Sequence[Example]) -> list[str]:
    """Return a key for each row: its content hash, and a number from the second of equal rows on."""
    seen: dict[str, int] = {}
    keys = []
    for example in examples:
        seen[example.id] = seen.get(example.id, 0) + 1
        keys.append(example.id if seen[example.id] == 1 else f"{example.id}#{seen[example.id]}")
    return keys


def _attempt(chain: Runnable[str, Answer], text: str) -> Answer:
    started = time.perf_counter()
    try:
        answer = chain.invoke(text)
    except (PromptTooLong, RejectedReply) as problem:
        return _failed(problem)
    return answer if answer.seconds else replace(answer, seconds=time.perf_counter() - started)


def _failed(problem: Exception) -> Answer:
    if isinstance(problem, PromptTooLong | RejectedReply):
        found = getattr(problem, "answer", None) or Answer(label=None, text="", valid=False)
        return replace(found, note=f"failed: {problem}")
    raise problem


# ------------------------------------------------------------------ the summary


def summarise(
    rows: Sequence[Mapping[str, Any]], examples: Sequence[Example], arms: Sequence[str], task: Task | None = None
) -> dict[str, Any]:
    """Compute the table from rows as they lie on disk; every arm must have answered every row."""
    labels = task.labels if task else tuple(sorted({example.answer for example in examples}))
    by_arm: dict[str, dict[str, Mapping[str, Any]]] = {arm: {} for arm in arms}
    for row in rows:
        if row["arm"] in by_arm:
            by_arm[row["arm"]][row["row"]] = row
    keys = row_keys(examples)
    ordered = {arm: [found[key] for key in keys] for arm, found in by_arm.items()}
    right = {arm: [is_right(row["prediction"], row["gold"], labels) for row in found] for arm, found in ordered.items()}
    results = [
        _summarise_arm(arm, found, labels, right[arm], less_zero_shot(arm, right)) for arm, found in ordered.items()
    ]
    top = next((result.accuracy for result in results if result.arm == "majority"), None)
    name = task.name if task else ""
    return {"task": name, "n": len(examples), "majority": top, "arms": results, "grimoire": compare(right, ordered)}


def compare(right: Mapping[str, list[bool]], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Comparison | None:
    """Set the best arm with a grimoire against the best one without; a tie goes to the earlier arm.

    Takes by arm whether each answer is right, and the rows. None where there is only one kind of arm.
    """
    models = [arm for arm in right if asks_a_model(arm)]
    shown = [arm for arm in models if shows_grimoire(arm, rows[arm])]
    plain = [arm for arm in models if arm not in shown]
    if not shown or not plain:
        return None
    best = max(shown, key=lambda arm: sum(right[arm]))
    other = max(plain, key=lambda arm: sum(right[arm]))
    return Comparison(best, other, *paired_difference(right[best], right[other]), mcnemar(right[best], right[other]))


def less_zero_shot(arm: str, right: Mapping[str, list[bool]]) -> Difference:
    """Return an arm's accuracy less that of zero-shot, with its interval, from whether each answer is right, by arm.

    None where there is no zero-shot, and for that arm itself.
    """
    if arm == "zero-shot" or "zero-shot" not in right:
        return None, None, None
    return paired_difference(right[arm], right["zero-shot"])


def asks_a_model(arm: str) -> bool:
    """Say whether an arm of a table asks the weak model; the baselines do not."""
    return arm != "majority" and not arm.startswith("probe")


def shows_grimoire(arm: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether an arm of a table shows a grimoire: by its name, or like a recipe by what its rows note."""
    return arm.startswith(("simple", "profound")) or any(row["grimoire"] for row in rows)


def is_right(prediction: str | None, gold: str, labels: Sequence[str]) -> bool:
    """Say whether an answer is right; in an open-ended task but for case, white space and a final full stop."""
    if labels or prediction is None:
        return prediction == gold
    return fold(prediction).rstrip(".") == fold(gold).rstrip(".")


def _summarise_arm(
    arm: str, rows: list[Mapping[str, Any]], labels: Sequence[str], right: list[bool], difference: Difference
) -> ArmResult:
    low, high = wilson(sum(right), len(rows))
    covered = [row["coverage"] for row in rows if row["coverage"] is not None]
    first = next((row for row in rows if row["mode"]), rows[0])
    sure = confidences(rows, right)

    def tokens(kind: str) -> int:
        return sum(row["usage"].get(kind, 0) for row in rows)

    return ArmResult(
        arm=arm,
        mode=first["mode"],
        prior=first["prior"],
        accuracy=sum(right) / len(rows),
        low=low,
        high=high,
        macro_f1=macro_f1([r["gold"] for r in rows], [r["prediction"] for r in rows], labels) if labels else None,
        valid=sum(row["valid"] for row in rows) / len(rows),
        coverage=sum(covered) / sum(not row.get("deferred") for row in rows) if covered else None,
        difference=difference[0],
        difference_low=difference[1],
        difference_high=difference[2],
        prompt_tokens_total=tokens("prompt_tokens"),
        seconds_total=round(sum(row["seconds"] for row in rows), 3),
        failed=sum(row["note"].startswith("failed") for row in rows),
        unseen=sum(len(row.get("unseen", ())) for row in rows) / (len(rows) * max(1, len(labels))),
        calibration_error=expected_calibration_error(*sure) if sure else None,
        risk_area=risk_coverage(*sure)[1] if sure else None,
        deferred=sum(row.get("deferred", False) for row in rows) / len(rows),
        strong_prompt_tokens_total=tokens("strong_prompt_tokens"),
        strong_reply_tokens_total=tokens("strong_reply_tokens"),
    )


def confidences(rows: Sequence[Mapping[str, Any]], right: Sequence[bool]) -> tuple[list[float], list[bool]] | None:
    """Return the probability of each valid answer and whether it is right; None unless each has a probability.

    What a strong model answered is left out: its probability is not known.
    """
    pairs = zip(rows, right, strict=True)
    valid = [(row["probability"], hit) for row, hit in pairs if row["valid"] and not row.get("deferred")]
    if not valid or any(probability is None for probability, _ in valid):
        return None
    return [probability for probability, _ in valid], [hit for _, hit in valid]
