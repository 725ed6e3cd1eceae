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
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.load.serializable import Serializable
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.base import RunnableBindingBase

from sleicl_chains.answering.arms import asks_a_model
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, PromptTooLong, RejectedReply, RunError
from sleicl_chains.evaluation.answered import AnsweredRow, read_rows
from sleicl_chains.files import REPORT_LIMIT, ROWS_LIMIT, parse_json, read_file, read_text, write_whole
from sleicl_chains.models.identity import identity
from sleicl_chains.statistics import (
    expected_calibration_error,
    macro_f1,
    mcnemar,
    paired_difference,
    risk_coverage,
    wilson,
)
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.labels import fold
from sleicl_chains.tasks.rows import Example

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
    """Mean probability of all labels together before renormalising, of the weak model's answers that have one; None
    outside mode `score`."""
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
    grimoire: str | None = None
    """Id of the grimoire that the arm shows, as its rows note it."""
    seen: int = 0
    """Evaluated rows that the arm owes something to: its grimoire was written from them, its reader or recipe learned
    from them, or they are among the rows that it shows. They flatter its figures."""

    @property
    def shows_grimoire(self) -> bool:
        """Whether the arm shows a grimoire: by its name, or like a recipe by what its rows note."""
        return self.arm.startswith(("simple", "profound")) or self.grimoire is not None

    @property
    def reading(self) -> str:
        """How answers are read: the mode, and what was taken off the scores."""
        mode = "" if self.mode == "none" else self.mode
        return mode if self.prior in ("none", "") else f"{mode} / {self.prior}"

    @property
    def asked_strong(self) -> bool:
        """Whether a strong model was asked, if only in vain."""
        return bool(self.deferred or self.strong_prompt_tokens_total or self.strong_reply_tokens_total)


@dataclass(frozen=True)
class Comparison:
    """Two arms of one run, both picked on the very rows that they are compared on, so in favour of the winner.

    See `compare` for how they are picked.
    """

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
    notes: list[str] = field(default_factory=list)
    """What a reader of the table should know. They hold no text of a question, a reply or a grimoire."""

    @property
    def defers(self) -> bool:
        """Whether a strong model was asked about any row."""
        return any(arm.asked_strong for arm in self.arms)

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
    notes: Sequence[str] = (),
    seen: Mapping[str, int] | None = None,
    majority: float | None = None,
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
        notes: what a reader of the table should know, for the report; no texts.
        seen: by arm, how many of the rows it was written from, fitted on or shows; `ArmBuilder` counts them.
        majority: accuracy of train's most frequent label, for the report, where no arm `majority` says it.

    Raises:
        InputError: there are no rows or no solvers.
        RunError: `run` holds another evaluation, or files that cannot be read.
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
            found = summarise(rows.read(), examples, list(named), task, seen)
            report = Report(weak=weak, train_rows=train_rows, run=str(run or ""), notes=list(notes), **found)
            if report.majority is None:
                report = replace(report, majority=majority)
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

    A chain of someone else's is told by its parts: models by their identity, a function by its name or text, but not
    by what it calls. An Ollama server is asked which weights it has.
    """
    return str(_metadata(chain).get("settings") or _digits(json.dumps(_told(chain), sort_keys=True)))


def _former_settings(chain: Runnable[str, Answer]) -> str:
    """Return the digits that versions up to 0.1.0 gave, the same in each process where no address is printed."""
    return str(_metadata(chain).get("settings") or _digits(repr(chain)))


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _told(part: object, above: tuple[int, ...] = ()) -> Any:
    """Return what tells a chain's part from others, as JSON data; the same in each process."""
    if isinstance(part, Runnable) and (settings := _metadata(part).get("settings")):
        return settings
    if isinstance(part, BaseChatModel):
        return identity(part)
    if id(part) in above:  # a function may call the chain that it is in
        return type(part).__name__
    told = partial(_told, above=(*above, id(part)))
    if isinstance(part, RunnableBindingBase):
        return [told(part.bound), told(part.kwargs), told(part.config.get("configurable", {}))]
    if isinstance(part, RunnableLambda):
        return [_printed(part), *map(told, part.deps)]
    if isinstance(part, Serializable):  # sequences, prompts, parsers
        return [type(part).__name__, {name: told(getattr(part, name)) for name in type(part).model_fields}]
    if isinstance(part, Mapping):
        return {str(name): told(item) for name, item in part.items()}
    if isinstance(part, list | tuple):
        return [told(item) for item in part]
    return sorted(map(_printed, part)) if isinstance(part, set | frozenset) else _printed(part)


def _printed(part: object) -> str:
    return re.sub(r"\b0x[0-9a-fA-F]+\b", "", repr(part))


def run_name(task: Task, solvers: Mapping[str, Runnable[str, Answer]], examples: Sequence[Example]) -> str:
    """Return a folder name that the same command finds again, and no other evaluation."""
    parts = [*row_keys(examples), *(f"{arm}:{settings_of(chain)}" for arm, chain in solvers.items())]
    slug = re.sub(r"[^a-z0-9]+", "-", task.name.lower())[:40].strip("-")
    return f"{slug}-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:12]}"


def _metadata(chain: Runnable[str, Answer]) -> Mapping[str, Any]:
    config: Mapping[str, Any] = getattr(chain, "config", None) or {}
    return config.get("metadata") or {}


# ------------------------------------------------------------------ rows on disk


_MANIFEST = "what the run is of, as `sleicl evaluate` writes it"


class _Rows:
    """The answers of one run in `rows.jsonl`, one object a line, in the order they came."""

    def __init__(self, folder: Path, solvers: Mapping[str, Any], examples: Sequence[Example]) -> None:
        self.examples = dict(zip(row_keys(examples), examples, strict=True))
        self.file = folder / "rows.jsonl"
        found = self.read()
        self._claim(folder / "run.json", solvers, {row.arm for row in found})
        if not self.file.exists():
            # Replies of a model may repeat what it was asked: for the owner's eyes alone.
            os.close(os.open(self.file, os.O_CREAT | os.O_WRONLY, 0o600))
        self.done = {(row.arm, row.row) for row in found}

    def _claim(self, manifest: Path, solvers: Mapping[str, Any], answered: set[str]) -> None:
        """Note what this run is of, or make sure that it is what the folder was made for.

        Args:
            manifest: the file that says it.
            solvers: by arm.
            answered: arms of which there are answers; of which rows and settings they are, only the file knows.
        """
        rows = hashlib.sha256("".join(self.examples).encode()).hexdigest()[:16]
        arms = {arm: settings_of(chain) for arm, chain in solvers.items()}
        found: dict[str, Any] = _manifest(manifest) if manifest.exists() else {"rows": rows, "arms": {}}
        if unknown := sorted(answered - found["arms"].keys()):
            raise RunError(
                f"{self.file} has answers of {', '.join(unknown)}, but no {manifest} says of which rows and settings. "
                "Put that file back, or give another folder with --run"
            )
        accepted = {arm: (None, arms[arm], _former_settings(chain)) for arm, chain in solvers.items()}
        if found["rows"] != rows or any(found["arms"].get(arm) not in accepted[arm] for arm in arms):
            what = "other rows" if found["rows"] != rows else "other settings"
            raise RunError(f"{manifest.parent} holds a run with {what}; give another folder with --run, or delete it")
        write_whole(manifest, json.dumps({"rows": rows, "arms": found["arms"] | arms}, indent=1) + "\n")

    def read(self) -> list[AnsweredRow]:
        """Return the rows on disk; a last line that a kill cut off is removed first."""
        if not self.file.exists():
            return []
        data = read_file(self.file, "the rows of a run", ROWS_LIMIT)
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            self._end(data[len(whole) :], len(whole))
        return read_rows(self.file)

    def _end(self, last: bytes, at: int) -> None:
        """Remove a last line that was cut off; one that lacks nothing but its line end gets it."""
        try:
            json.loads(last)
        except ValueError:
            os.truncate(self.file, at)
            return
        with self.file.open("ab") as file:
            file.write(b"\n")

    def answer_all(self, solvers: Mapping[str, Runnable[str, Answer]], concurrency: int, progress: Progress) -> None:
        """Answer what is missing, arm by arm, so that the engine keeps an arm's fixed text."""
        missing = {arm: [key for key in self.examples if (arm, key) not in self.done] for arm in solvers}
        total = sum(len(keys) for keys in missing.values())
        done = 0
        with self.file.open("a", encoding="utf-8") as file:
            for arm, keys in missing.items():
                for key, answer in self._answers(solvers[arm], keys, concurrency):
                    row = AnsweredRow.of(arm, key, self.examples[key].answer, answer)
                    file.write(json.dumps(row.to_dict(), ensure_ascii=False) + "\n")
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


def _manifest(file: Path) -> dict[str, Any]:
    """Return which rows and settings a run is of."""
    why = "expected rows and arms"
    try:
        found = parse_json(read_text(file, _MANIFEST, REPORT_LIMIT), file, _MANIFEST)
    except InputError as problem:
        found, why = None, str(problem).removeprefix(str(file)).lstrip(",: ")
    if isinstance(found, dict) and isinstance(found.get("rows"), str) and isinstance(found.get("arms"), dict):
        return {"rows": found["rows"], "arms": found["arms"]}
    raise RunError(
        f"{file}: found no note of rows and settings ({why}). Put the file back as it was, or give another folder "
        "with --run"
    )


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
        cost = dict(getattr(problem, "usage", {}))
        read = getattr(problem, "answer", None)
        found = read if isinstance(read, Answer) else Answer(label=None, text="", valid=False, usage=cost)
        return replace(found, note=f"failed: {problem}")
    raise problem


# ------------------------------------------------------------------ the summary


def summarise(
    rows: Sequence[AnsweredRow], examples: Sequence[Example], arms: Sequence[str], task: Task | None = None,
    seen: Mapping[str, int] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Compute the table from rows as they lie on disk; every arm must have answered every row.

    `seen` says by arm how many of the rows it owes something to.
    """
    labels = task.labels if task else tuple(sorted({example.answer for example in examples}))
    by_arm: dict[str, dict[str, AnsweredRow]] = {arm: {} for arm in arms}
    for row in rows:
        if row.arm in by_arm:
            by_arm[row.arm][row.row] = row
    keys = row_keys(examples)
    ordered = {arm: [found[key] for key in keys] for arm, found in by_arm.items()}
    right = {arm: [is_right(row.prediction, row.gold, labels) for row in found] for arm, found in ordered.items()}
    found = [
        _summarise_arm(arm, found, labels, right[arm], less_zero_shot(arm, right)) for arm, found in ordered.items()
    ]
    results = [replace(arm, seen=(seen or {}).get(arm.arm, 0)) for arm in found]
    top = next((result.accuracy for result in results if result.arm == "majority"), None)
    name = task.name if task else ""
    return {"task": name, "n": len(examples), "majority": top, "arms": results, "grimoire": compare(right, results)}


def compare(right: Mapping[str, list[bool]], arms: Sequence[ArmResult]) -> Comparison | None:
    """Set the best arm with a grimoire against the best one without; None where there is only one kind of arm.

    Two arms that owe nothing to the evaluated rows go before others, then two that are read in the same way: only
    between such arms is the difference the grimoire's. A tie goes to the earlier arm.

    Args:
        right: by arm, whether each answer is right.
        arms: what they are.
    """
    models = [arm for arm in arms if asks_a_model(arm.arm)]
    shown = [arm for arm in models if arm.shows_grimoire]
    pairs = [(arm, other) for arm in shown for other in models if not other.shows_grimoire]
    if not pairs:
        return None

    def rank(pair: tuple[ArmResult, ArmResult]) -> tuple[bool, bool, int, int]:
        one, other = pair
        return not (one.seen or other.seen), one.reading == other.reading, sum(right[one.arm]), sum(right[other.arm])

    best, other = (arm.arm for arm in max(pairs, key=rank))
    return Comparison(best, other, *paired_difference(right[best], right[other]), mcnemar(right[best], right[other]))


def less_zero_shot(arm: str, right: Mapping[str, list[bool]]) -> Difference:
    """Return an arm's accuracy less that of zero-shot, with its interval, from whether each answer is right, by arm.

    None where there is no zero-shot, and for that arm itself.
    """
    if arm == "zero-shot" or "zero-shot" not in right:
        return None, None, None
    return paired_difference(right[arm], right["zero-shot"])


def is_right(prediction: str | None, gold: str, labels: Sequence[str]) -> bool:
    """Say whether an answer is right; in an open-ended task but for case, white space and a final full stop."""
    if labels or prediction is None:
        return prediction == gold
    return fold(prediction).rstrip(".") == fold(gold).rstrip(".")


def _summarise_arm(
    arm: str, rows: list[AnsweredRow], labels: Sequence[str], right: list[bool], difference: Difference
) -> ArmResult:
    low, high = wilson(sum(right), len(rows))
    covered = [row.coverage for row in rows if row.coverage is not None and not row.deferred]
    first = next((row for row in rows if row.mode), rows[0])
    sure = confidences(rows, right)

    def tokens(kind: str) -> int:
        return sum(row.usage.get(kind, 0) for row in rows)

    return ArmResult(
        arm=arm,
        mode=first.mode,
        prior=first.prior,
        accuracy=sum(right) / len(rows),
        low=low,
        high=high,
        macro_f1=macro_f1([r.gold for r in rows], [r.prediction for r in rows], labels) if labels else None,
        valid=sum(row.valid for row in rows) / len(rows),
        coverage=sum(covered) / len(covered) if covered else None,
        difference=difference[0],
        difference_low=difference[1],
        difference_high=difference[2],
        prompt_tokens_total=tokens("prompt_tokens"),
        seconds_total=round(sum(row.seconds for row in rows), 3),
        failed=sum(row.note.startswith("failed") for row in rows),
        unseen=sum(len(row.unseen) for row in rows) / (len(rows) * max(1, len(labels))),
        calibration_error=expected_calibration_error(*sure) if sure else None,
        risk_area=risk_coverage(*sure)[1] if sure else None,
        deferred=sum(row.deferred for row in rows) / len(rows),
        strong_prompt_tokens_total=tokens("strong_prompt_tokens"),
        strong_reply_tokens_total=tokens("strong_reply_tokens"),
        grimoire=grimoire_of(rows),
    )


def grimoire_of(rows: Sequence[AnsweredRow]) -> str | None:
    """Return the id of the grimoire that an arm's rows note; None where they note none."""
    return next((row.grimoire for row in rows if row.grimoire), None)


def confidences(rows: Sequence[AnsweredRow], right: Sequence[bool]) -> tuple[list[float], list[bool]] | None:
    """Return the probability of each valid answer and whether it is right; None unless each has a probability.

    What a strong model answered is left out: its probability is not known.
    """
    pairs = zip(rows, right, strict=True)
    valid = [(row.probability, hit) for row, hit in pairs if row.valid and not row.deferred]
    known = [(probability, hit) for probability, hit in valid if probability is not None]
    if not valid or len(known) < len(valid):
        return None
    return [probability for probability, _ in known], [hit for _, hit in known]
