"""Prompts: text files with plain `{names}`, filled in one pass so that values may hold braces."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sleicl_chains.files import data_folder

_NAME = re.compile(r"\{(\w+)\}")


def template(name: str) -> str:
    """Return the text of `prompts/NAME.txt`."""
    return (data_folder("prompts") / f"{name}.txt").read_text(encoding="utf-8").strip()


def variables(name: str) -> set[str]:
    """Return the names that the template asks for."""
    return set(_NAME.findall(template(name)))


def fill(name: str, **values: str) -> str:
    """Return the template with every `{name}` replaced by its value; values are never read as templates.

    Raises:
        KeyError: the template asks for a name that was not given.
        ValueError: a name was given that the template does not ask for.
    """
    return _filled(name, template(name), values)


@dataclass(frozen=True)
class Templates:
    """The templates as each was when it was first asked for, so that what one solver shows does not change under it."""

    _read: dict[str, str] = field(default_factory=dict, repr=False)

    def fill(self, name: str, **values: str) -> str:
        """Do the same as `fill`, from the text that was read first."""
        if name not in self._read:
            self._read.setdefault(name, template(name))  # several threads keep the first
        return _filled(name, self._read[name], values)


def system_text(
    task_type: str, description: str, labels: Sequence[str], grimoire: str = "", *, filler: Callable[..., str] = fill
) -> str:
    """Return what stands before every question: the task, its labels, and below them a grimoire's text."""
    card = {"task_type": task_type, "description": description, "grimoire": grimoire.strip()}
    if labels:
        return filler("answer_label", **card, labels=", ".join(labels)).strip()
    return filler("answer_open", **card).strip()


def _filled(name: str, text: str, values: dict[str, str]) -> str:
    wanted = set(_NAME.findall(text))
    if missing := wanted - set(values):
        raise KeyError(f"prompts/{name}.txt also needs {', '.join(sorted(missing))}")
    if surplus := set(values) - wanted:
        raise ValueError(f"prompts/{name}.txt does not use {', '.join(sorted(surplus))}")
    return _NAME.sub(lambda found: values[found[1]], text)
