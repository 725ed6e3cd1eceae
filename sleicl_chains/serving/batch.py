"""Whole files of rows, answered one row after the other into another file, which a stop at any point leaves usable.

The output is its own record: after a stop its rows are compared with the input's, and what is missing is answered.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from langchain_core.runnables import Runnable

from sleicl_chains.errors import InputError, OptionError
from sleicl_chains.files import refuse_unwritable
from sleicl_chains.serving.asking import (
    Asking,
    Chain,
    Outcome,
    answer_rows,
    check_columns,
    checked,
    counted,
    form_of,
    streamed,
    total_of,
)
from sleicl_chains.serving.job import Job
from sleicl_chains.serving.outputs import Writer
from sleicl_chains.tasks.rows import LINES, PARQUET, TABLES
from sleicl_chains.tasks.streams import open_rows

_WHAT = "the file to write as .csv, .tsv, .jsonl or .parquet, or - for stdout"


def answer_file(
    asking: Asking | Chain,
    source: str | Path | BinaryIO,
    output: str | Path,
    *,
    bad: Path | None = None,
    force: bool = False,
) -> Outcome:
    """Answer the rows of a file or a pipe into a file; what an earlier, stopped call has written is kept.

    Beside the output stand a file of bad rows, if there are any, and OUTPUT.batch.json, by which a later call knows
    that the output is its own.

    Args:
        asking: how; a chain is asked by the column `text`, one row at a time.
        source: the rows: .csv, .tsv, .jsonl, .json or .parquet, or an open pipe.
        output: its ending decides the form.
        bad: where bad rows go, by default OUTPUT.bad.jsonl.
        force: whether files that are there already are replaced.

    Raises:
        InputError: the input cannot be read, no row could be asked, or a file that would be written is there already
            and was not begun by the same call.
        ModelError: the model failed; the same call goes on from there.
    """
    asking = Asking(asking) if isinstance(asking, Runnable) else asking
    source, output = Path(source) if isinstance(source, str) else source, Path(output)
    bad = check_files(source, output, bad)
    with _alone(output):
        return Job(asking, source, output, bad).answer(force=force)


def check_files(source: Path | BinaryIO, output: Path, bad: Path | None = None) -> Path:
    """Return the file of bad rows; ask no model for files that are not there or may not be written.

    Raises:
        InputError: one is not what it must be; see `answer_file`.
    """
    bad = bad or output.with_name(f"{output.name}.bad.jsonl")
    if output.suffix.lower() not in (*TABLES, *LINES, *PARQUET):
        raise OptionError(f"{output}: found the ending {output.suffix!r}; expected {_WHAT}")
    if os.path.realpath(bad) == os.path.realpath(output):
        raise OptionError(f"{bad}: answered and bad rows cannot go to one file; name another for the bad ones")
    for file in (output, bad):
        refuse_unwritable(file)
        if file.exists() and not file.is_file():
            raise InputError(f"{file}: is no regular file; expected {_WHAT}")
        if isinstance(source, Path) and file.exists() and source.exists() and file.samefile(source):
            raise InputError(f"{file}: the rows are read from this file; name another one to write")
    if isinstance(source, Path):
        open_rows(source).close()
    return bad


def answer_pipe(asking: Asking, source: Path | BinaryIO, output: BinaryIO, bad: BinaryIO) -> Outcome:
    """Answer the rows of a file or a pipe into a pipe, a table as a table and all else as one object a line.

    Args:
        asking: how.
        source: the rows.
        output: is not closed.
        bad: where bad rows go, one object a line; it is not closed either.

    Raises:
        InputError: the input cannot be read, or no row could be asked.
        ModelError: the model failed.
    """
    outcome = Outcome(output="-")
    with streamed(source) as stream:
        check_columns(stream, asking, source)
        form = form_of(stream, asking, stream.sign if stream.form == "table" else "")
        output.write(form.head().encode())
        answer_rows(asking, counted(stream.rows, set(), outcome), form, Writer(output, bad), outcome, total_of(source))
    return checked(outcome)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Hold an output, or refuse one that another process writes."""
    from filelock import FileLock, Timeout

    place = output.with_name(f".{output.name}.lock")
    try:
        with FileLock(place, timeout=0):
            try:
                yield
            finally:
                place.unlink(missing_ok=True)
    except Timeout:
        raise InputError(f"{output}: another process is writing it; wait for its end, or name another file") from None
