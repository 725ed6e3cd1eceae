"""`evaluate`: every row answered by every arm, and the run folder that the answers lie in.

Answers go to disk one row at a time and the summary is computed from the disk, so an interrupted
run goes on where it stopped and a finished one can be read again.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from langchain_core.runnables import Runnable

from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError, PromptTooLong, RejectedReply, RunError
from sleicl_chains.evaluation.answered import AnsweredRow, read_rows, row_keys
from sleicl_chains.evaluation.progress import Progress
from sleicl_chains.evaluation.settings import arm_name, former_settings, settings_of
from sleicl_chains.evaluation.summary import Report, summarise
from sleicl_chains.files import REPORT_LIMIT, ROWS_LIMIT, parse_json, read_file, read_text, write_whole
from sleicl_chains.hashes import short_hash
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

_MANIFEST = "what the run is of, as `sleicl evaluate` writes it"


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
    named = _named(solvers, examples)
    with nullcontext(run) if run else tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with _alone(folder):
            rows = _Rows(folder, named, examples)
            rows.answer_all(named, max_concurrency, progress or (lambda *_: None))
            found = summarise(rows.read(), examples, list(named), task, seen)
            report = Report(weak=weak, train_rows=train_rows, run=str(run or ""), notes=list(notes), **found)
            if report.majority is None:
                report = replace(report, majority=majority)
            write_whole(folder / "summary.json", json.dumps(_about_now() | report.to_dict(), indent=1) + "\n")
    return report


def _named(
    solvers: Mapping[str, Runnable[str, Answer]] | Sequence[Runnable[str, Answer]], examples: Sequence[Example]
) -> dict[str, Runnable[str, Answer]]:
    """Return the solvers by arm; without arms or rows, or with two arms of one name, there is no table."""
    named = dict(solvers) if isinstance(solvers, Mapping) else {arm_name(chain): chain for chain in solvers}
    if not examples or not named or len(named) < len(solvers):
        raise InputError(
            f"evaluate: found {len(examples)} rows and {len(named)} arms; expected at least one of each, "
            "and arms of different names"
        )
    return named


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Lock the folder against a second evaluation, which would write the same rows."""
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


def run_name(task: Task, solvers: Mapping[str, Runnable[str, Answer]], examples: Sequence[Example]) -> str:
    """Return a folder name made of the task, the rows and the arms' settings: the same for the same evaluation."""
    parts = [*row_keys(examples), *(f"{arm}:{settings_of(chain)}" for arm, chain in solvers.items())]
    slug = re.sub(r"[^a-z0-9]+", "-", task.name.lower())[:40].strip("-")
    return f"{slug}-{short_hash(' '.join(parts))[:12]}"


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
        """Write the run's rows and settings to its manifest, or refuse a folder that holds others.

        Args:
            manifest: the file that says it.
            solvers: by arm.
            answered: arms of which there are answers; of which rows and settings they are, only the file knows.
        """
        rows = short_hash("".join(self.examples))
        arms = {arm: settings_of(chain) for arm, chain in solvers.items()}
        found: dict[str, Any] = _manifest(manifest) if manifest.exists() else {"rows": rows, "arms": {}}
        if unknown := sorted(answered - found["arms"].keys()):
            raise RunError(
                f"{self.file} has answers of {', '.join(unknown)}, but no {manifest} says of which rows and settings. "
                "Put that file back, or give another folder with --run"
            )
        accepted = {arm: (None, arms[arm], former_settings(chain)) for arm, chain in solvers.items()}
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
