"""Parquet: rows read and written a few hundred at a time. The one module that knows pyarrow (the extra `parquet`)."""

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from sleicl_chains.errors import InputError
from sleicl_chains.files import ROWS_LIMIT, open_file

_ROWS = 256
"""Rows that are held at once."""
_BUFFER = 2**20
"""Bytes of a column that are read at once; without a buffer a whole group of rows would be."""
_WHAT = "rows as a Parquet file"


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows as Python values, in their order; at most a few hundred are held.

    Raises:
        InputError: the file cannot be read or is no Parquet file, or pyarrow is not installed.
    """
    for batch in parquet_batches(path):
        yield from batch.to_pylist()


def parquet_columns(path: Path) -> tuple[str, ...]:
    """Return the names of the columns; see `parquet_rows`."""
    with _opened(path) as file:
        return tuple(file.schema_arrow.names)


def parquet_batches(path: Path) -> Iterator[Any]:
    """Yield the rows as Arrow record batches; see `parquet_rows`."""
    arrow, _ = _pyarrow(path)
    with _opened(path) as file:
        try:
            yield from file.iter_batches(_ROWS, use_threads=False)
        except (arrow.ArrowException, OSError) as problem:
            raise _unreadable(path, problem) from None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    arrow, parquet = _pyarrow(path)
    try:
        with open_file(path) as source:
            try:
                file = parquet.ParquetFile(source, buffer_size=_BUFFER, pre_buffer=False)
            except (arrow.ArrowException, OSError) as problem:
                raise _unreadable(path, problem) from None
            _check_size(path, file.metadata)
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; expected {_WHAT}") from None
    except OSError as problem:
        raise _unreadable(path, problem) from None


def _check_size(path: Path, metadata: Any) -> None:
    """Refuse groups of rows that unfold to more than fits: some pages of a few kB do."""
    sizes = (metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
    if max(sizes, default=0) > ROWS_LIMIT:
        raise InputError(f"{path}: a group of rows unfolds to more than {ROWS_LIMIT // 2**20} MiB; write smaller ones")


def _unreadable(path: Path, problem: Exception) -> InputError:
    said = getattr(problem, "strerror", None) or str(problem).partition("\n")[0].rstrip(".")
    return InputError(f"{path}: cannot be read ({said}); expected {_WHAT}")


@contextmanager
def parquet_writer(path: Path, schema: Any) -> Iterator[Callable[[Any], None]]:
    """Give a function that writes Arrow record batches of a schema; the file is there at the end, or not at all."""
    _, parquet = _pyarrow(path)
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        with parquet.ParquetWriter(unfinished, schema) as writer:
            yield writer.write_batch
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_parquet(path: Path, rows: Callable[[], Iterable[Mapping[str, Any]]], last: Sequence[str]) -> None:
    """Write rows of JSON values, which are gone through twice: first for the types of the columns.

    A column whose values have no type in common is written as text, as JSON writes it.

    Args:
        path: of the file.
        rows: gives them from the start.
        last: columns that come after all others: of an answer, as `add_columns` writes them.
    """
    arrow, _ = _pyarrow(path)
    schema = _schema(arrow, rows(), last)
    with parquet_writer(path, schema) as write:
        for some in _batched(rows()):
            columns = [_array(arrow, [row.get(one.name) for row in some], one.type) for one in schema]
            write(arrow.record_batch(columns, schema=schema))


def add_columns(source: Path, path: Path, added: Iterator[Mapping[str, Any] | None], columns: Sequence[str]) -> None:
    """Write the rows of a Parquet file, their types kept, with columns of an answer added.

    Args:
        source: the file.
        path: of the file to write.
        added: for each row what is added, None for one that is left out.
        columns: the names of the four: text, number, true or false, text.
    """
    arrow, _ = _pyarrow(path)
    new = _of_answer(arrow, columns)
    with _opened(source) as file:
        schema = arrow.schema([*file.schema_arrow, *new])
    with parquet_writer(path, schema) as write:
        for batch in parquet_batches(source):
            given = list(islice(added, batch.num_rows))
            kept = batch.filter(arrow.array([row is not None for row in given], arrow.bool_()))
            rows = [row for row in given if row is not None]
            arrays = [arrow.array([row[one.name] for row in rows], one.type) for one in new]
            write(arrow.record_batch([*kept.columns, *arrays], schema=schema))


def _of_answer(arrow: Any, columns: Sequence[str]) -> list[Any]:
    types = (arrow.string(), arrow.float64(), arrow.bool_(), arrow.string())
    return [arrow.field(name, kind) for name, kind in zip(columns, types, strict=True)]


def _schema(arrow: Any, rows: Iterable[Mapping[str, Any]], last: Sequence[str]) -> Any:
    types: dict[str, Any] = {}
    for some in _batched(rows):
        for name in dict.fromkeys(name for row in some for name in row if name not in last):
            types[name] = _common(arrow, types.get(name, arrow.null()), [row.get(name) for row in some])
    own = [arrow.field(name, one if _is_written(arrow, one) else arrow.string()) for name, one in types.items()]
    return arrow.schema([*own, *_of_answer(arrow, last)])


def _is_written(arrow: Any, kind: Any) -> bool:
    """Say whether Parquet holds a type in a way that others read; it has no objects without a key, such as `{}`."""
    try:
        arrow.parquet.write_table(arrow.schema([("_", kind)]).empty_table(), io.BytesIO())
    except arrow.ArrowNotImplementedError:
        return False
    return not arrow.types.is_null(kind)  # a column of nothing at all: few programs could read it


def _common(arrow: Any, known: Any, values: Sequence[Any]) -> Any:
    """Return the type that holds what came before and these; text where there is none."""
    try:
        one, other = (arrow.schema([("_", kind)]) for kind in (known, arrow.array(values).type))
        return arrow.unify_schemas([one, other], promote_options="permissive").field(0).type
    except (arrow.ArrowException, OverflowError):
        return arrow.string()


def _array(arrow: Any, values: Sequence[Any], kind: Any) -> Any:
    if kind == arrow.string():
        values = [one if one is None or isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in values]
    return arrow.array(values, kind)


def _batched(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    found = iter(rows)
    while some := list(islice(found, _ROWS)):
        yield some


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(f"{path}: Parquet needs pyarrow: pip install 'sleicl-chains[parquet]'") from None
    return pyarrow, pyarrow.parquet
