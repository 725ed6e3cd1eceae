"""The wheel: what is in it, that it is complete, and that it works where there is no checkout."""

import ast
import email
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import sleicl_chains

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INFO = f"sleicl_chains-{PROJECT['version']}.dist-info"
SHIPPED = {
    "prompts": "sleicl_chains/prompts",
    "vectorstore/grimoires": "sleicl_chains/vectorstore/grimoires",
    "examples/support": "sleicl_chains/examples/support",
    "examples/desk": "sleicl_chains/examples/desk",
    "sleicl_chains": "sleicl_chains",
}
"""Folders of the repository, and where the wheel has them."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.iterdir()
    assert file.name == f"sleicl_chains-{PROJECT['version']}-py3-none-any.whl"
    return zipfile.ZipFile(file)


@pytest.fixture(scope="module")
def unpacked(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    wheel.extractall(folder)
    return folder


def tracked() -> dict[str, Path]:
    """Return every file that belongs in the wheel by its name there."""
    found = {}
    for source, target in SHIPPED.items():
        for file in (ROOT / source).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                found[f"{target}/{file.relative_to(ROOT / source).as_posix()}"] = file
    return found


def test_the_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if not name.startswith(f"{INFO}/")}
    expected = tracked()
    assert names == set(expected)
    assert {name: wheel.read(name) == file.read_bytes() for name, file in expected.items()} == dict.fromkeys(
        names, True
    )
    needed = {"py.typed", "prompts/write_profound.txt", "prompts/write_simple.txt", "prompts/answer_label.txt"}
    needed |= {"prompts/answer_open.txt", "examples/support/task.toml", "examples/support/train.jsonl"}
    needed |= {"examples/support/test.jsonl", "vectorstore/grimoires/support-d090011a.md"}
    needed |= {f"examples/desk/{name}" for name in ("task.toml", "train.jsonl", "test.jsonl", "conventions.md")}
    needed |= {"vectorstore/grimoires/desk-a4732710.md", "evaluation/guides.toml", "models/readings.json"}
    assert {f"sleicl_chains/{name}" for name in needed} <= names


def test_the_wheel_names_its_licence_version_and_command(wheel: zipfile.ZipFile) -> None:
    info = sorted(name.removeprefix(f"{INFO}/") for name in wheel.namelist() if name.startswith(f"{INFO}/"))
    assert info == ["METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"]
    for name in ("LICENSE", "NOTICE"):
        assert wheel.read(f"{INFO}/licenses/{name}") == (ROOT / name).read_bytes()
    about = email.message_from_bytes(wheel.read(f"{INFO}/METADATA"))
    assert (about["Name"], about["Version"], about["License-Expression"]) == (
        "sleicl-chains",
        PROJECT["version"],
        "MIT",
    )
    assert wheel.read(f"{INFO}/entry_points.txt").decode() == "[console_scripts]\nsleicl = sleicl_chains.cli:main\n"


def test_the_unpacked_wheel_finds_its_own_files(unpacked: Path, tmp_path: Path) -> None:
    program = """if True:
        import sys
        sys.path.insert(0, sys.argv[1])
        import sleicl_chains
        from importlib.resources.abc import Traversable
        from sleicl_chains.files import data_folder
        from sleicl_chains.cli.demo import SHIPPED, _shipped_task
        from sleicl_chains.prompts import template
        from sleicl_chains.grimoires.store import GrimoireStore
        assert sleicl_chains.__file__.startswith(sys.argv[1])
        from sleicl_chains.evaluation.reading import guides
        for name in ("prompts", "vectorstore/grimoires"):
            print(data_folder(name))
        print(len(template("write_profound")) > 100, len(guides()))
        for name, shipped in SHIPPED.items():
            print(data_folder(f"examples/{name}"), [len(rows) for rows in _shipped_task(name)[1:]])
            print(GrimoireStore(sys.argv[2]).get(shipped.grimoire).id)
    """
    command = [sys.executable, "-c", program, str(unpacked), str(tmp_path / "home")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    inside = unpacked / "sleicl_chains"
    assert (done.stderr, done.stdout.splitlines()) == ("", [
        str(inside / "prompts"), str(inside / "vectorstore" / "grimoires"), "True 12",
        f"{inside / 'examples' / 'desk'} [200, 200]", "desk-a4732710",
        f"{inside / 'examples' / 'support'} [180, 240]", "support-d090011a",
    ])  # fmt: skip


def test_every_public_name_resolves_to_what_type_checkers_see() -> None:
    assert sleicl_chains.__all__ == sorted(set(sleicl_chains.__all__))
    assert set(sleicl_chains._HOMES) == set(sleicl_chains.__all__) == set(dir(sleicl_chains))
    for name in sleicl_chains.__all__:
        found = getattr(sleicl_chains, name)
        assert found.__name__ == name and found.__module__ == f"sleicl_chains.{sleicl_chains._HOMES[name]}"
    with pytest.raises(AttributeError, match="module 'sleicl_chains' has no attribute 'cast_spell'"):
        _ = sleicl_chains.cast_spell
    typed: dict[str, str] = {}
    for node in ast.walk(ast.parse(Path(sleicl_chains.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sleicl_chains."):
            typed |= {alias.name: node.module.removeprefix("sleicl_chains.") for alias in node.names}
    assert typed == sleicl_chains._HOMES


def test_importing_the_package_loads_none_of_its_parts() -> None:
    program = "import sys, sleicl_chains; print([name for name in sys.modules if name.startswith('sleicl_chains.')])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
