"""The door for files from outside, and how ours are written; hostile ones through the command line."""

import ast
import json
import os
import shutil
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import sleicl_chains
from sleicl_chains.errors import InputError, SleiclError, bounded
from sleicl_chains.files import ROWS_LIMIT, Home, parse_json, read_text, refuse_unwritable, write_whole
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance, grimoire_id, load_grimoire
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.tasks.cards import load_task
from tests.support.command import Desk, Parrot, learning, rows, sleicl, write_rows

LONG = "x" * 5000


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """A test that hangs fails after a minute."""

    def ring(*_: object) -> None:
        pytest.fail("it hangs")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.at(tmp_path / "desk")


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def listed() -> tuple[int, list[str]]:
    """Return how many grimoires `sleicl grimoires list` shows, and its complaints."""
    done = sleicl("grimoires", "list")
    assert done.status == 0, done.err
    return len(done.out.splitlines()), done.err.splitlines()


def refused(*command: object) -> str:
    """Return the one line of bounded length that a command ends with."""
    done = sleicl(*command)
    assert done.status in (1, 2) and done.out == "", done
    line = done.err.splitlines()[-1]
    assert line.startswith("sleicl: ") and len(line) < 1600 and "Traceback" not in done.err, done.err
    return line


# ------------------------------------------------------------------ what is no file, or too large


def guarded(folder: Path, name: str) -> list[Callable[[Path], object]]:
    """Return the commands that read a file of that name."""
    desk = Desk.at(folder / "desk")
    ask = ("ask", "Hm?", "--weak", "embedded:none.gguf")
    commands: dict[str, list[tuple[object, ...]]] = {
        "g.md": [("grimoires", "add", "FILE")],
        "g.json": [("grimoires", "add", "FILE")],
        "card.toml": [("sample", "--task", "FILE", "--rows", desk.train)],
        "card.json": [("sample", "--task", "FILE", "--rows", desk.train)],
        "rows.jsonl": [("sample", "--task", desk.card, "--rows", "FILE"), ("init", "FILE", "--task", folder / "new")],
        "rows.json": [("sample", "--task", desk.card, "--rows", "FILE")],
        "rows.csv": [("sample", "--task", desk.card, "--rows", "FILE")],
        "recipe.json": [("ask", "Hm?", "--recipe", "FILE"), (*ask, "--recipe", "FILE")],
        "model.gguf": [("ask", "Hm?", "--task", desk.card, "--weak", "embedded:FILE")],
    }
    return [lambda path, given=command: _refused(given, path) for command in commands[name]]  # type: ignore[misc]


def _refused(command: tuple[object, ...], path: Path) -> None:
    line = refused(*(str(part).replace("FILE", str(path)) for part in command))
    assert str(path) in line


NAMES = ["g.md", "g.json", "card.toml", "card.json", "rows.jsonl", "rows.json", "rows.csv", "recipe.json", "model.gguf"]


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    for command in guarded(tmp_path, name):
        command(pipe(tmp_path / name))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "model.gguf"])
def test_a_file_of_a_gigabyte_is_not_read(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(ROWS_LIMIT + 1)
    started = time.perf_counter()
    for command in guarded(tmp_path, name):
        command(tmp_path / name)
    assert time.perf_counter() - started < 5


def test_a_device_a_socket_and_a_link_to_one_are_refused(tmp_path: Path) -> None:
    link = tmp_path / "zeros.md"
    link.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"zeros.md: cannot be read \(this is a pipe or a device, not a file\)"):
        read_text(link, "a grimoire")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with pytest.raises(InputError, match=r"cannot be read .*expected a grimoire"):
            read_text(tmp_path / "s", "a grimoire")
    with pytest.raises(InputError, match="this is a folder"):
        read_text(tmp_path, "a grimoire")
    with pytest.raises(InputError, match="embedded null byte"):
        read_text(Path("a\0b"), "a grimoire")


def test_hostile_files_in_the_library_are_named_and_the_others_work(home: Home) -> None:
    shipped, complaints = listed()
    assert complaints == []
    home.grimoires.mkdir(parents=True)
    pipe(home.grimoires / "pipe.md")
    (home.grimoires / "large.md").write_bytes(b"x" * 20_000_000)
    (home.grimoires / "bomb.md").write_text(bomb(), encoding="utf-8")
    (home.grimoires / "zeros.md").symlink_to("/dev/zero")
    started = time.perf_counter()
    found, complaints = listed()
    assert time.perf_counter() - started < 5 and found == shipped
    assert [line.removeprefix(f"{home.grimoires}/").split(":")[0] for line in complaints] == [
        "bomb.md", "large.md", "pipe.md", "zeros.md",
    ]  # fmt: skip
    done = sleicl("grimoires", "search", "mail")
    assert done.status == 0 and len(done.out.splitlines()) == min(4, shipped) and done.err.splitlines() == complaints


def test_pipes_in_the_places_of_our_own_files(tmp_path: Path, desk: Desk, home: Home) -> None:
    run = tmp_path / "run"
    for name in ("summary.json", "run.json"):
        assert str(run) in refused("report", pipe(run / name).parent)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    train = ("--train", desk.train, "--arms", "majority", "--weak", f"embedded:{tmp_path / 'm.gguf'}")
    for name in ("run.json", "rows.jsonl"):
        for path in run.iterdir():
            path.unlink()
        line = refused("evaluate", "--task", desk.card, "--rows", desk.test, *train, "--run", pipe(run / name).parent)
        assert f"{run / name}: " in line and "cannot be read (this is a pipe" in line
    pipe(home.root / "index-embeddings")
    assert "index-embeddings: cannot be read (this is a pipe" in refused("grimoires", "list")
    (home.root / "index-embeddings").unlink()
    write = ("write", "--task", desk.card, "--rows", desk.train, "--strong", f"paste:{tmp_path / 'letters'}")
    assert "there is no reply yet" in refused(*write)
    pipe(tmp_path / "letters" / "01.reply.txt")
    assert "01.reply.txt: cannot be read (this is a pipe" in refused(*write)


def bomb() -> str:
    """Return a short grimoire whose labels unfold to ten to the ninth."""
    lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10) if n else 'x'}]" for n in range(10)]
    text = "---\ntask: t\n" + "\n".join(lines) + "\nlabels: *a9\n---\n# Simple grimoire\nx\n"
    assert len(text) < 1000
    return text


def test_a_value_is_no_anchor_or_alias(tmp_path: Path) -> None:
    path = tmp_path / "g.md"
    for value in ("*important* mail", "&quot;mail&quot;"):
        path.write_text(f"---\ntask: t\ndescription: {value}\n---\n# Simple grimoire\nx\n", encoding="utf-8")
        with pytest.raises(InputError, match="begins with & or [*] must stand between quotes .*, found in line 3"):
            load_grimoire(path)


def test_front_matter_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "g.md"
    path.write_text(f"---\ntask: t\nlabels: [{'a,' * 200_000}]\n---\n# Simple grimoire\nx\n", encoding="utf-8")
    started = time.perf_counter()
    with pytest.raises(InputError, match="front matter has 4000.. characters; expected at most 262144"):
        load_grimoire(path)
    assert time.perf_counter() - started < 1


def test_a_key_of_many_parts_does_not_hang_a_card(tmp_path: Path) -> None:
    for text in (".".join(["a"] * 100_000) + " = 1", "x = {" + " . ".join(['"a"'] * 100_000) + " = 1}"):
        (tmp_path / "card.toml").write_text(text, encoding="utf-8")
        assert "nested too deeply" in refused("sample", "--task", tmp_path / "card.toml", "--rows", "r.jsonl")
    sentences = "Yes. No. It depends... Take one of three. " * 500
    (tmp_path / "card.toml").write_text(f'name = "n"\ndescription = "{sentences}"\n', encoding="utf-8")
    assert load_task(tmp_path / "card.toml").description == sentences


def test_a_grimoire_too_large_to_be_read_again_is_not_written(home: Home) -> None:
    with pytest.raises(InputError, match="expected at most 1048576"):
        GrimoireStore(home).add(book("x" * 2**20))
    assert not home.grimoires.exists()


def book(text: str) -> Grimoire:
    return Grimoire(grimoire_id("t", "", text), "t", "", "", (), "", text, Provenance())


# ------------------------------------------------------------------ the lock


def test_a_slow_file_keeps_no_other_process_from_the_lock(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.make()
    reading, go_on = threading.Event(), threading.Event()

    def slow(path: Path, what: str) -> str:
        reading.set()
        assert go_on.wait(15)
        return read_text(path, what)

    monkeypatch.setattr("sleicl_chains.grimoires.shelf.read_text", slow)
    found: list[object] = []
    for action in (lambda: GrimoireStore(home).search("mail"), GrimoireStore(home).rebuild):
        reading.clear()
        thread = threading.Thread(target=lambda action=action: found.append(action()))
        thread.start()
        assert reading.wait(15)
        with FileLock(home.root / "store.lock").acquire(timeout=0.5):
            pass
        go_on.set()
        thread.join()
        go_on.clear()
    assert len(found) == 2


def test_what_changes_while_the_library_is_read_is_read_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    store = GrimoireStore(home)
    first, late = book("First of all."), book("Came late.")
    store.add(first)
    again: list[str] = []

    def another(path: Path, what: str) -> str:
        if not again:
            again.append("written")
            write_whole(home.grimoires / f"{late.id}.md", late.to_markdown())
        return read_text(path, what)

    monkeypatch.setattr("sleicl_chains.grimoires.shelf.read_text", another)
    assert {first.id, late.id} <= {hit.grimoire.id for hit in store.search("late", k=50)}


# ------------------------------------------------------------------ a key twice, a long name


TWICE = {
    "g.md": "---\ntask: t\ntask: u\n---\n# Simple grimoire\nx\n",
    "nested.md": "---\ntask: t\nprovenance:\n  date: a\n  date: b\n---\n# Simple grimoire\nx\n",
    "g.json": '{"task": "t", "simple": "a", "simple": "b"}',
    "card.toml": 'name = "n"\nname = "m"\n',
    "card.json": '{"name": "n", "description": "d", "name": "m"}',
    "rows.jsonl": '{"text": "a", "answer": "billing"}\n{"text": "c", "answer": "d", "answer": "e"}\n',
    "rows.json": '[{"text": "a", "answer": "b", "answer": "c"}]',
    "recipe.json": '{"format": 1, "format": 1}',
}


@pytest.mark.parametrize("name", TWICE)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, desk: Desk, name: str) -> None:
    path = tmp_path / name
    path.write_text(TWICE[name], encoding="utf-8")
    command: tuple[object, ...] = ("grimoires", "add", path)
    if "card" in name:
        command = ("sample", "--task", path, "--rows", desk.train)
    elif "rows" in name:
        command = ("sample", "--task", desk.card, "--rows", path)
    elif "recipe" in name:
        command = ("ask", "Hm?", "--recipe", path)
    line = refused(*command)
    assert str(path) in line and ("twice" in line or "overwrite" in line), line
    if name == "rows.jsonl":
        assert "rows.jsonl, line 2: not valid JSON (the key 'answer' stands twice)" in line


def test_json_that_no_value_can_be_made_of() -> None:
    for text in ("[" * 100_000, "1" * 10_000, '{"a": 1, "a": 2}', "", '{"' + LONG + '": 1, "' + LONG + '": 2}'):
        with pytest.raises(InputError, match=r"x.json(, line \d)?: not valid JSON \(") as caught:
            parse_json(text, Path("x.json"), "a thing")
        assert len(str(caught.value)) < 300


def test_messages_are_bounded_and_keep_both_ends() -> None:
    assert bounded("A short one; do this.") == "A short one; do this."
    long = str(SleiclError(f"{LONG}: no such thing; {'word ' * 2000}do this"))
    assert len(long) <= 1500 and long.startswith("xxx") and long.endswith("do this") and bounded(long) == long
    assert "no such thing" in long


def test_long_names_and_values_are_one_short_line(tmp_path: Path, desk: Desk, home: Home) -> None:
    (tmp_path / "card.toml").write_text(f'name = "n"\ndescription = "d"\n{LONG} = 1\n', encoding="utf-8")
    (tmp_path / "long.md").write_text(f"---\n{LONG}: 1\ntask: t\n---\n# Simple grimoire\nx\n", encoding="utf-8")
    (tmp_path / "label.jsonl").write_text(json.dumps({"text": "t", "answer": LONG}) + "\n", encoding="utf-8")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    bare, sample = ("ask", "Hm?"), ("sample", "--task", desk.card, "--rows")
    ask = (*bare, "--task", desk.card, "--weak", f"embedded:{tmp_path / 'm.gguf'}")
    evaluate = ("evaluate", "--task", desk.card, "--rows", desk.test, "--weak", f"embedded:{tmp_path / 'm.gguf'}")
    for command in (
        (*ask, "--grimoire", LONG), (*ask, "--train", f"{LONG}.csv"), ("ask", "Hm?", "--recipe", LONG),
        (*bare, "--task", LONG, "--weak", "embedded:smollm2"), (*bare, "--task", desk.card, "--weak", LONG),
        (*bare, "--task", desk.card, "--weak", f"embedded:{LONG}"), (*ask, "-o", f"{LONG}=1"),
        (*ask, "-o", f"n_ctx={LONG}"), (*ask, "-o", f"seed={'9' * 5000}"), (*sample, LONG),
        ("sample", "--task", tmp_path / "card.toml", "--rows", desk.train), ("grimoires", "add", tmp_path / "long.md"),
        (*sample, tmp_path / "label.jsonl"), ("grimoires", "show", LONG), ("init", LONG, "--task", "c"),
        ("grimoires", "remove", LONG), ("grimoires", "add", f"{LONG}.md"), ("report", LONG),
        ("init", desk.train, "--task", LONG), (*evaluate, "--arms", LONG), (*evaluate, "--run", tmp_path / LONG),
        (*evaluate, "--embeddings", LONG), (*ask, "--home", tmp_path / LONG),
        ("grimoires", "search", "--home", LONG, "q"), ("models", "fetch", LONG),
        (*learning(desk, tmp_path / LONG), "--weak", f"embedded:{tmp_path / 'm.gguf'}"),
    ):  # fmt: skip
        line = refused(*command)
        assert "OSError:" not in line and "debug" not in line.lower(), line
    found = sleicl("grimoires", "search", LONG)
    assert found.status == 0 and found.out, found.err


@pytest.mark.parametrize("option", ["n_ctx=abc", "n_ctx=1.5", "path=/etc/passwd", "name=other", "seed=[1]"])
def test_an_option_that_a_model_cannot_have_is_misuse(tmp_path: Path, desk: Desk, option: str) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    done = sleicl("ask", "Hm?", "--task", desk.card, "--weak", f"embedded:{tmp_path / 'm.gguf'}", "-o", option)
    assert done.status == 2 and option.split("=")[0] in done.err and done.err.count("\n") == 1, done.err
    done = sleicl("ask", "Hm?", "--task", desk.card, "--weak", "ollama:m", "-o", option.replace("path", "model"))
    assert done.status == 2 and done.err.count("\n") == 1, done.err


# ------------------------------------------------------------------ writing


def test_a_file_is_written_with_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        for name, mode, expected in (("a", 0o666, 0o640), ("b", 0o600, 0o600)):
            write_whole(tmp_path / name, "text", mode=mode)
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == expected
    finally:
        os.umask(before)
    write_whole(tmp_path / ("n" * 250), "a name as long as a folder takes")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "n" * 250]


def test_what_a_link_points_to_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    for text in ("one", "two"):
        write_whole(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere" / "file").read_text() == text


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path, desk: Desk) -> None:
    done = sleicl("init", desk.train, "--task", pipe(tmp_path / "pipe"), "--force")
    assert done.status == 1 and "pipe" in done.err and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_two_may_write_one_file_at_once(tmp_path: Path) -> None:
    failed: list[Exception] = []

    def write(letter: str) -> None:
        try:
            for _ in range(60):
                write_whole(tmp_path / "file", letter * 50_000)
        except Exception as problem:
            failed.append(problem)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    text = (tmp_path / "file").read_text()
    assert failed == [] and len(text) == 50_000 and len(set(text)) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_told_beforehand(tmp_path: Path) -> None:
    refuse_unwritable(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    for path, said in (
        (tmp_path, "this is a folder"), (tmp_path / "no" / "file", "there is no folder"),
        (tmp_path / LONG, "File name too long"), (Path("/proc/file"), "cannot be written"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            refuse_unwritable(path)


def test_a_corrected_grimoire_stays_and_learning_goes_on(tmp_path: Path, home: Home, monkeypatch: Any) -> None:
    monkeypatch.setattr("sleicl_chains.learning.cut.FEWEST_ROWS", 16)
    monkeypatch.setattr("sleicl_chains.learning.cut.FEWEST_TESTED", 4)
    desk = Desk.at(tmp_path / "desk")
    write_rows(desk.train, rows("train", 10))
    letters = tmp_path / "letters"
    with Parrot(lambda text: "billing") as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
        command = learning(desk, tmp_path / "recipe.json", "--weak", "openai:m", *server.options)
        command += ["--strong", f"paste:{letters}", "--option", "max_retries=0"]
        for number in (1, 2):
            assert sleicl(*command).status == 1
            (letters / f"{number:02}.reply.txt").write_text(f"Rule {number}: billing is money, technical is not.")
        first = sleicl(*command)
        assert first.status == 0, first.err
        path = next(home.grimoires.glob("*.md"))
        path.write_text(path.read_text().replace("money", "bills and money"))
        corrected = path.read_text()
        second = sleicl(*command)
    assert second.status == 0 and second.out == first.out, second.err
    assert (
        f"Note: {path.stem} was changed since and keeps its text; `sleicl grimoires restore {path.stem}@1`"
        in second.err
    )
    assert path.read_text() == corrected


# ------------------------------------------------------------------ a home that only others may write


@pytest.fixture
def closed() -> Iterator[Home]:
    """A home with one grimoire, indexed, that this process may read but not write."""
    home = Home(Path(tempfile.mkdtemp(prefix="sleicl-")))  # not below pytest's folder, which is closed to others
    GrimoireStore(home).add(TIDES)
    for path in [home.root, *home.root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # nothing is closed to root
    yield home
    os.seteuid(user)
    for path in [home.root, *home.root.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(home.root)


TIDES = Grimoire("tides", "tides", "", "", (), "", "The moon pulls the sea.", Provenance())


def state(home: Home) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_mtime_ns) for path in home.root.rglob("*"))


def test_a_home_that_cannot_be_written_is_read_and_searched_all_the_same(closed: Home) -> None:
    before = state(closed)
    for command in (["list"], ["show", "tides"], ["search", "moon and sea", "-k", "1"]):
        done = sleicl("grimoires", *command, "--home", closed.root)
        assert done.status == 0 and "tides" in done.out and done.err == "", done
    assert state(closed) == before


def test_what_must_be_written_there_says_what_helps(closed: Home) -> None:
    assert "Permission denied" in (line := refused("grimoires", "remove", "tides", "--home", closed.root))
    assert "--home names another folder" in line
    card = closed.root.with_name(f"{closed.root.name}.toml")
    card.write_text('name = "n"\ndescription = "d"\n', encoding="utf-8")
    line = refused("ask", "Hm?", "--task", card, "--weak", "openai:m", "--home", closed.root)
    card.unlink()
    assert "--no-journal keeps no record, --home names another folder" in line


# ------------------------------------------------------------------ nobody passes by the door


ALLOWED = {
    ("files.py", "os.open"): "the door itself, and `write_whole`",
    ("prompts.py", "read_text"): "shipped with the package",
    ("evaluation/reading.py", "read_text"): "shipped with the package",
    ("models/reading.py", "read_text"): "shipped with the package; those of the home come by the door",
    ("grimoires/shelf.py", "read_text"): "a shipped file in a zipped package",
    ("evaluation/evaluate.py", "os.open"): "makes an empty file",
    ("evaluation/evaluate.py", "open"): "appends to the run's rows, which the door has read before",
    ("models/journal.py", "os.open"): "makes an empty file",
    ("serving/job.py", "os.open"): "goes on writing an output of its own; pipes and devices are refused before",
    ("models/packages.py", "open"): "what an installer complains of is written there",
    ("models/packages.py", "read_text"): "the same, in a folder made for it",
    ("serving/picking.py", "read_text"): "shipped with the package",
    ("learning/choice.py", "read_text"): "shipped with the package",
    ("models/weights.py", "open"): "writes the joined file; its parts come by the door",
}


def reads() -> set[tuple[str, str]]:
    """Return by module the calls that read or open a file otherwise than through the door."""
    package = Path(sleicl_chains.__file__).parent
    found = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            last = called.rpartition(".")[2]
            if called in ("open", "io.open", "os.open") or (
                "." in called and last in ("read_text", "read_bytes", "open")
            ):
                name = path.relative_to(package).as_posix()
                found.add((name, called if called.startswith("os.") else last))
    return found


def test_no_module_reads_files_past_the_door() -> None:
    assert reads() - {("cli/options.py", "open")} == set(ALLOWED)
