"""Who may import whom: the rooms of the package stand in an order, and each knows those before it alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "sleicl_chains"
FLOOR = ("errors", "answers", "hashes", "files", "prompts", "statistics")
"""Single modules that every room may use."""
ROOMS = ("tasks", "models", "grimoires", "answering", "evaluation", "learning", "serving", "cli")
STRANGERS = {("tasks", "models"), ("models", "tasks")}
"""Neighbours that do not know each other."""
TERMINAL = {"rich", "typer"}
OPTIONAL = {"langchain_community": [], "pyarrow": ["tasks.parquet"], "gradio": ["serving.web"]}
"""Packages of the extras, and the modules that import them."""


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(path.relative_to(PACKAGE).with_suffix("").parts), ast.parse(path.read_text(encoding="utf-8"))


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            if node.module == "sleicl_chains":
                yield from (f"sleicl_chains.{name.name}" for name in node.names)


def _may(room: str, other: str) -> bool:
    if other == room or other in FLOOR:
        return room not in FLOOR or FLOOR.index(other) <= FLOOR.index(room)
    if room in FLOOR or (room, other) in STRANGERS:
        return False
    return ROOMS.index(other) < ROOMS.index(room)


def test_each_room_knows_those_before_it_alone() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, tree in _modules()
        for name in _imported(tree)
        if name.startswith("sleicl_chains.") and module != "__init__"
        and not _may(module.split(".")[0], name.split(".")[1])
    ]  # fmt: skip
    assert not wrong, "\n".join(wrong)


def test_the_terminal_belongs_to_the_command_line() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, tree in _modules()
        for name in _imported(tree)
        if name.split(".")[0] in TERMINAL and not module.startswith("cli")
    ]
    assert not wrong, "\n".join(wrong)


def test_an_optional_package_is_known_in_one_place() -> None:
    found = {(name.split(".")[0], module) for module, tree in _modules() for name in _imported(tree)}
    assert {package: [module for name, module in found if name == package] for package in OPTIONAL} == OPTIONAL


def test_a_room_begins_with_its_purpose_and_no_import() -> None:
    for module, tree in _modules():
        if module.endswith(".__init__") and not module.startswith("cli"):
            assert ast.get_docstring(tree), module
            assert not list(_imported(tree)), module
