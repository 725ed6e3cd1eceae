"""What a search of the library can be narrowed by."""

from collections.abc import Mapping, Sequence

from sleicl_chains.errors import InputError
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.index import folded
from sleicl_chains.tasks.labels import fold

Filters = Mapping[str, str | Sequence[str]]
"""`task`, `strong_model` and `sampler` as they stand in the grimoire; `task_type` and `language` whatever the case;
`labels`, one or several, all of which it must have."""
_EXACT = ("task", "strong_model", "sampler")
_NAMES = (*_EXACT, "task_type", "labels", "language")


def check_filters(filters: Filters) -> None:
    """Refuse a filter that there is not.

    Raises:
        InputError: a name is unknown, or a value that must be a text is none.
    """
    if unknown := sorted(set(filters) - set(_NAMES)):
        raise InputError(f"search: found the filter {unknown[0]!r}; expected {', '.join(_NAMES)}")
    for name, value in filters.items():
        if name != "labels" and not isinstance(value, str):
            raise InputError(f"search: the filter {name!r} is {value!r}; expected a text")


def passes(grimoire: Grimoire, filters: Filters) -> bool:
    """Say whether a grimoire has all that the filters ask for."""
    return all(_has(grimoire, name, value) for name, value in filters.items())


def _has(grimoire: Grimoire, name: str, value: str | Sequence[str]) -> bool:
    if name == "labels":
        wanted = [value] if isinstance(value, str) else value
        return folded(wanted) <= folded(grimoire.labels)
    if name in ("task_type", "language"):
        return fold(getattr(grimoire, name)) == fold(str(value))
    found: str = grimoire.task if name == "task" else getattr(grimoire.provenance, name)
    return found == value
