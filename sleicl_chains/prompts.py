"""Prompts: text files with plain `{names}`, filled in one pass so that values may hold braces."""

import re

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
    text = template(name)
    wanted = set(_NAME.findall(text))
    if missing := wanted - set(values):
        raise KeyError(f"prompts/{name}.txt also needs {', '.join(sorted(missing))}")
    if surplus := set(values) - wanted:
        raise ValueError(f"prompts/{name}.txt does not use {', '.join(sorted(surplus))}")
    return _NAME.sub(lambda found: values[found[1]], text)
