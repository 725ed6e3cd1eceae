"""The wheel in a clean environment, as `pip install` gives it to a user."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sleicl_chains.files import Home

ROOT = Path(__file__).parent.parent


def run(*command: object, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=900, env=environment | more
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def interpreter(version: str) -> str:
    """Return a Python of that version; skips the test where there is none."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    for found in (
        shutil.which(f"python{version}"),
        *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
    ):
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    pytest.skip(f"no Python {version} on this machine")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_demo_runs_from_the_wheel_alone(version: str, wheel: Path, home_with_weights: Home, tmp_path: Path) -> None:
    run(interpreter(version), "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    command = (python.with_name("sleicl"), "demo", "--weak", "embedded:smollm2", "--rows", "6")
    done = run(*command, SLEICL_HOME=str(home_with_weights.root))
    assert "3. embedded:smollm2 answers 6 questions" in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith("profound ")]) == 2
    assert (
        str(tmp_path / "venv") in run(python, "-P", "-c", "import sleicl_chains; print(sleicl_chains.__file__)").stdout
    )
