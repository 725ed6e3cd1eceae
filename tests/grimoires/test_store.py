import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import chromadb
import pytest
from chromadb.api.client import Client
from chromadb.api.models.Collection import Collection
from filelock import FileLock
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_tests.integration_tests import RetrieversIntegrationTests

from sleicl_chains.errors import EmbedderChanged, GrimoireNotFound, InputError, InputNote, ModelError, StoreError
from sleicl_chains.files import Home, read_text
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance, grimoire_id
from sleicl_chains.grimoires.index import open_client
from sleicl_chains.grimoires.retriever import GrimoireRetriever
from sleicl_chains.grimoires.store import GrimoireStore, Hit
from sleicl_chains.tasks.cards import Task
from tests.support.chroma_server import ChromaServer, chroma_server

WEATHER = Task(name="weather", description="Will it rain tomorrow?", labels=("yes", "no"))
SPORTS = Task(name="sports news", description="Is the article about football or tennis?", labels=("football", "tennis"))


def make(task: Task, simple: str, profound: str = "", *, sampler: str = "kmeans", strong: str = "strong-1") -> Grimoire:
    return Grimoire(
        id=grimoire_id(task.name, profound, simple),
        task=task.name,
        task_type=task.task_type,
        description=task.description,
        labels=task.labels,
        profound=profound,
        simple=simple,
        provenance=Provenance(strong_model=strong, sampler=sampler),
    )


CLOUDS = make(WEATHER, "Dark clouds mean yes.", "Look at the sky first. Dark clouds and falling pressure mean yes.")
WIND = make(WEATHER, "Wind from the west means yes.", sampler="random", strong="strong-2")
GOALS = make(SPORTS, "", "Goals, corners and a goalkeeper belong to football; sets and serves to tennis.")
SHIPPED = replace(
    make(Task(name="cooking", description="Is it a soup or a cake?"), "A spoon of sugar means cake."),
    requests=("Will this be sweet?",),
)


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shipped grimoires with one in it, and a readme."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "README.md").write_text("Reviewed grimoires.")
    (folder / f"{SHIPPED.id}.md").write_text(SHIPPED.to_markdown())
    monkeypatch.setattr(
        "sleicl_chains.grimoires.shelf.data_folder", lambda name: {"vectorstore/grimoires": folder}[name]
    )
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def store(home: Home) -> GrimoireStore:
    """A store of three grimoires and the shipped one; they are indexed at the first search."""
    home.grimoires.mkdir(parents=True)
    for grimoire in (CLOUDS, WIND, GOALS):
        (home.grimoires / f"{grimoire.id}.md").write_text(grimoire.to_markdown())
    return GrimoireStore(home)


def ids(hits: list[Hit]) -> list[str]:
    return [hit.grimoire.id for hit in hits]


def everything(store: GrimoireStore) -> set[str]:
    return set(ids(store.search("anything at all", k=1000)))


# ------------------------------------------------------------------ files


def test_a_grimoire_comes_back_as_it_went_in(home: Home) -> None:
    with GrimoireStore(home.root) as store:
        assert store.add(CLOUDS) == CLOUDS.id
    assert [path.name for path in home.grimoires.iterdir()] == [f"{CLOUDS.id}.md"]
    assert GrimoireStore(str(home.root)).get(CLOUDS.id) == CLOUDS


def test_the_list_is_sorted_and_holds_the_shipped_ones(store: GrimoireStore) -> None:
    assert store.list() == sorted([CLOUDS, WIND, GOALS, SHIPPED], key=lambda grimoire: grimoire.id)
    assert store.problems == []


def test_an_unknown_id_suggests_near_ones(store: GrimoireStore) -> None:
    with pytest.raises(GrimoireNotFound) as caught:
        store.get("sports")
    assert str(caught.value) == f"There is no grimoire 'sports'; did you mean {GOALS.id!r}?"
    with pytest.raises(GrimoireNotFound, match="see `sleicl grimoires list`"):
        store.get("../../secret")


def test_a_deleted_grimoire_is_gone(store: GrimoireStore) -> None:
    store.delete(WIND.id)
    assert WIND not in store.list()
    assert WIND.id not in everything(store)
    with pytest.raises(GrimoireNotFound):
        store.delete(WIND.id)


def test_a_shipped_grimoire_stays(store: GrimoireStore, shipped: Path) -> None:
    with pytest.raises(StoreError, match="came with the package"):
        store.delete(SHIPPED.id)
    assert (shipped / f"{SHIPPED.id}.md").exists()
    # The user's file of the same id goes before it; once it is removed the shipped one is back.
    corrected = replace(SHIPPED, description="Soup or cake?")
    store.add(corrected)
    assert store.get(SHIPPED.id) == corrected
    store.delete(SHIPPED.id)
    assert store.get(SHIPPED.id) == SHIPPED


def test_adding_again_keeps_corrections_made_by_hand(store: GrimoireStore, home: Home) -> None:
    dated = replace(CLOUDS, provenance=replace(CLOUDS.provenance, date="2026-01-31"))
    store.add(dated)
    assert store.get(CLOUDS.id) == dated, "the same texts: the newer file counts"
    path = home.grimoires / f"{CLOUDS.id}.md"
    path.write_text(path.read_text().replace("Dark", "Very dark"))
    corrected = path.read_text()
    with pytest.warns(InputNote, match=f"changed since and keeps its text; `sleicl grimoires restore {CLOUDS.id}@1`"):
        assert store.add(CLOUDS) == CLOUDS.id
    assert path.read_text() == corrected


@pytest.mark.parametrize("id", ["", "../up", "a/b", ".hidden", "README", "a\0b", "line\nbreak"])
def test_an_id_that_is_no_file_name(home: Home, id: str) -> None:
    with pytest.raises(InputError, match="cannot be a file name"):
        GrimoireStore(home).add(replace(CLOUDS, id=id))
    assert not home.root.exists()


def test_files_that_are_no_grimoires_are_skipped_and_told(store: GrimoireStore, home: Home) -> None:
    (home.grimoires / "README.md").write_text("My notes.")
    (home.grimoires / ".half-written.md.tmp").write_text("---")
    (home.grimoires / "notes.md").write_text("Just a note.")
    (home.grimoires / "latin.md").write_bytes("Müll".encode("latin-1"))
    (home.grimoires / "folder.md").mkdir()
    assert len(store.search("rain", k=10)) == 4
    assert [problem.removeprefix(str(home.grimoires)) for problem in store.problems] == [
        "/folder.md: this is a folder; expected a grimoire",
        "/latin.md, line 1: found byte 0xfc, which is not UTF-8 text; expected a grimoire",
        "/notes.md: the front matter is missing; expected YAML between two lines of ---",
    ]
    assert len(store.list()) == 4
    with pytest.raises(GrimoireNotFound, match="notes.md: the front matter is missing"):
        store.get("notes")
    (home.grimoires / "notes.md").unlink()
    store.list()
    assert len(store.problems) == 2


# ------------------------------------------------------------------ search


def test_the_nearest_grimoire_comes_first(store: GrimoireStore) -> None:
    hits = store.search("Will there be rain?")
    assert {hit.grimoire for hit in hits[:2]} == {CLOUDS, WIND} and len(hits) == 4
    assert 1 >= hits[0].score >= hits[1].score >= hits[2].score >= hits[3].score >= 0
    assert ids(store.search("The goalkeeper let in two goals", k=1)) == [GOALS.id]


def perfect(store: GrimoireStore, query: str | Task) -> Grimoire:
    (hit,) = store.search(query, k=1)
    assert hit.score == pytest.approx(1.0, abs=1e-5) and hit.score <= 1
    return hit.grimoire


def test_a_text_of_its_own_scores_one(store: GrimoireStore) -> None:
    assert perfect(store, WIND.simple) == WIND
    # The profound text counts where there are both.
    assert perfect(store, CLOUDS.profound) == CLOUDS
    assert perfect(store, SPORTS) == GOALS, "a task finds its like"


def test_scores_of_several_questions_are_averaged(home: Home) -> None:
    """Vectors by hand: the text "east" is (1, 0), "north" (0, 1), and so on."""
    store = GrimoireStore(home, Compass())
    east, north = make(Task(name="east", description="?"), "east"), make(Task(name="north", description="?"), "north")
    store.add(east)
    store.add(north)
    found = {hit.grimoire.task: hit.score for hit in store.search(["east", "east", "north"], k=5)}
    assert found["east"] == pytest.approx(2 / 3, abs=1e-5) and found["north"] == pytest.approx(1 / 3, abs=1e-5)
    west = {hit.grimoire.task: hit.score for hit in store.search("west", k=5)}
    assert west["east"] == 0.0, "a negative cosine counts as none"


class Compass(Embeddings):
    POINTS = {"east": [1.0, 0.0], "north": [0.0, 1.0], "west": [-1.0, 0.0]}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.POINTS.get(text.split("\n")[0], [0.6, -0.8]) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def test_filters(store: GrimoireStore) -> None:
    assert set(ids(store.search("rain", filters={"task": "weather"}))) == {CLOUDS.id, WIND.id}
    assert ids(store.search("rain", filters={"task": "weather", "sampler": "random"})) == [WIND.id]
    assert ids(store.search("rain", filters={"strong_model": "strong-2"})) == [WIND.id]
    assert store.search("rain", filters={"task": "chess"}) == []
    with pytest.raises(InputError, match="found the filter 'lang'; expected task, strong_model, sampler, task_type"):
        store.search("rain", filters={"lang": "en"})
    with pytest.raises(InputError, match=r"the filter 'task' is \['a'\]; expected a text"):
        store.search("rain", filters={"task": ["a"]})


def test_filters_by_what_a_task_is(store: GrimoireStore) -> None:
    german = replace(make(Task(name="wetter", description="Regnet es?", labels=("Ja", "nicht_ja")), "?"), language="de")
    store.add(german)
    assert set(ids(store.search("rain", filters={"labels": "No"}))) == {CLOUDS.id, WIND.id}
    assert ids(store.search("rain", filters={"labels": ["tennis", "football"]})) == [GOALS.id]
    assert ids(store.search("rain", filters={"labels": "nicht ja", "language": "DE"})) == [german.id]
    assert store.search("rain", filters={"labels": ["tennis", "yes"]}) == []
    assert len(store.search("rain", filters={"task_type": "Classification"}, k=9)) == 5
    assert store.get(german.id).language == "de", "it stands in the file"


def test_k_and_questions_are_checked(store: GrimoireStore) -> None:
    assert len(store.search("rain", k=2)) == 2
    with pytest.raises(InputError, match="k=0"):
        store.search("rain", k=0)
    with pytest.raises(InputError, match="no question"):
        store.search([])


def test_an_empty_library(home: Home, shipped: Path) -> None:
    (shipped / f"{SHIPPED.id}.md").unlink()
    store = GrimoireStore(home)
    assert (store.list(), store.search("rain"), store.rebuild()) == ([], [], 0)


async def test_search_async(store: GrimoireStore) -> None:
    assert await store.asearch("rain", k=2) == store.search("rain", k=2)


# ------------------------------------------------------------------ the index follows the files


def test_edited_added_and_removed_files_are_followed(store: GrimoireStore, home: Home) -> None:
    everything(store)
    path = home.grimoires / f"{WIND.id}.md"
    path.write_text(path.read_text().replace("Wind from the west", "A goldfish that swims in circles"))
    (home.grimoires / "by hand.md").write_text(
        "---\ntask: chess\nlabels: [white, black]\n---\n# Simple grimoire\nCastling early protects the king.\n"
    )
    (home.grimoires / f"{GOALS.id}.md").unlink()
    assert ids(store.search("a goldfish swims in circles", k=1)) == [WIND.id]
    assert ids(store.search("castling and the king", k=1)) == ["by hand"]
    assert everything(store) == {CLOUDS.id, WIND.id, SHIPPED.id, "by hand"}


def test_only_what_changed_is_embedded_again(home: Home) -> None:
    embeddings = Counting()
    store = GrimoireStore(home, embeddings)
    store.add(CLOUDS)
    embeddings.texts.clear()
    store.add(WIND)
    store.search("rain")
    assert embeddings.texts == [WIND.description, WIND.simple]


class Counting(Compass):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += texts
        return super().embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return [1.0, 0.0]


def test_records_are_written_in_parts_of_what_chroma_takes(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[str, int]] = []
    real_add, real_delete = Collection.add, Collection.delete

    def add(self: Collection, ids: list[str], **rest: object) -> None:
        sizes.append(("add", len(ids)))
        real_add(self, ids=ids, **rest)  # type: ignore[arg-type]  # passed on as it came

    def delete(self: Collection, ids: list[str]) -> object:
        sizes.append(("delete", len(ids)))
        return real_delete(self, ids=ids)

    monkeypatch.setattr(Collection, "add", add)
    monkeypatch.setattr(Collection, "delete", delete)
    monkeypatch.setattr(Client, "get_max_batch_size", lambda self: 3)
    home.grimoires.mkdir(parents=True)
    for number in range(4):
        grimoire = make(WEATHER, f"Rule {number}")
        (home.grimoires / f"{grimoire.id}.md").write_text(grimoire.to_markdown())
    store = GrimoireStore(home)
    assert len(everything(store)) == 5
    for path in home.grimoires.iterdir():
        path.unlink()
    assert everything(store) == {SHIPPED.id}
    added, deleted = [("add", 3), ("add", 2)], [("delete", 3), ("delete", 1)]
    assert sizes == [*2 * added, ("add", 1), *2 * deleted], "one grimoire has a request"


# ------------------------------------------------------------------ what can go wrong


def test_another_embedder_is_told_and_rebuilt(store: GrimoireStore, home: Home) -> None:
    assert len(everything(store)) == 4
    other = GrimoireStore(home, DeterministicFakeEmbedding(size=16))
    with pytest.raises(EmbedderChanged, match="Run `sleicl grimoires rebuild`"):
        other.search("rain")
    late = make(WEATHER, "Swallows that fly low mean yes.")
    with pytest.raises(EmbedderChanged, match=f"{late.id}.md is written, but cannot be searched yet"):
        other.add(late)
    assert other.rebuild() == 5
    assert everything(other) == {CLOUDS.id, WIND.id, GOALS.id, SHIPPED.id, late.id}
    with pytest.raises(EmbedderChanged):
        store.search("rain")


def ruin(home: Home, how: str) -> None:
    sqlite = home.chroma / "chroma.sqlite3"
    if how == "garbage":
        sqlite.write_bytes(b"no database" * 1000)
    elif how == "cut":
        os.truncate(sqlite, 20_000)
    elif how == "a file":
        home.chroma.rename(home.root / "away")
        home.chroma.write_text("not a folder")


@pytest.mark.parametrize("how", ["garbage", "cut", "a file"])
def test_a_ruined_index_is_told_and_rebuilt(store: GrimoireStore, home: Home, how: str) -> None:
    assert len(everything(store)) == 4
    ruin(home, how)
    assert len(everything(store)) == 4, "no file has changed: the vectors are still in memory"
    store = GrimoireStore(home)
    with pytest.raises(StoreError, match="index cannot be used .*`sleicl grimoires rebuild`"):
        store.search("rain")
    assert len(store.list()) == 4, "the files do not need the index"
    assert store.rebuild() == 4
    assert len(everything(store)) == 4
    assert not (home.root / "chroma.old").exists()


def test_an_index_that_lost_records_is_not_believed(store: GrimoireStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Collection.get

    def short(self: Collection, **asked: Any) -> object:
        return real(self, **(asked | {"limit": 1} if asked["include"] else asked))

    monkeypatch.setattr(Collection, "get", short)
    with pytest.raises(StoreError, match="it lacks 3 of 4 records; run `sleicl grimoires rebuild`"):
        store.search("rain")


def test_an_embedder_that_fails_leaves_the_index_alone(store: GrimoireStore, home: Home) -> None:
    assert len(everything(store)) == 4

    class Down(Compass):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise ConnectionError("no server at localhost:11434")

    with pytest.raises(ModelError, match="Down could not embed: no server at localhost:11434"):
        GrimoireStore(home, Down()).rebuild()
    assert len(everything(store)) == 4


def test_a_held_lock_times_out(store: GrimoireStore, home: Home) -> None:
    hasty = GrimoireStore(home, lock_timeout_s=0.05)
    with FileLock(home.root / "store.lock"):
        with pytest.raises(StoreError, match="another process has held the store for 0.05 s"):
            hasty.search("rain")
        assert len(hasty.list()) == 4, "reading files waits for nobody"
    assert len(hasty.search("rain")) == 4


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("oops")
    with pytest.raises(StoreError, match="home cannot be used"):
        GrimoireStore(tmp_path / "home").add(CLOUDS)


# ------------------------------------------------------------------ several processes


WRITER = """
import sys
from sleicl_chains.grimoires.grimoire import Grimoire, Provenance
from sleicl_chains.grimoires.store import GrimoireStore
home, name, count, each, server = sys.argv[1:]
store = GrimoireStore(home, client=server or None, lock_timeout_s=500)
for start in range(0, int(count), int(each)):
    part = [
        Grimoire(f"{name}-{number}", "t", "", "", (), f"Rule {number} of {name}.", "", Provenance())
        for number in range(start, start + int(each))
    ]
    print(*store.add_all(part), sep="\\n", flush=True)
"""


def writer(home: Home, name: str, count: int, *, each: int = 1, server: str = "") -> subprocess.Popen[str]:
    """Start a process that adds grimoires, so many in one go, and prints the id of each one added."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    command = [sys.executable, "-c", WRITER, str(home.root), name, str(count), str(each), server]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_two_processes_adding_at_once_lose_nothing(home: Home) -> None:
    reader = GrimoireStore(home)
    sizes = []
    with writer(home, "one", 10) as one, writer(home, "two", 10) as two:
        while None in (one.poll(), two.poll()):
            # Searches between the others' writes; an open Chroma client would not find what they add.
            sizes.append(len(everything(reader)))
            time.sleep(0.1)
    assert (one.returncode, two.returncode) == (0, 0)
    assert sizes == sorted(sizes)
    assert everything(reader) == {f"{name}-{number}" for name in ("one", "two") for number in range(10)} | {SHIPPED.id}


@pytest.mark.slow
@pytest.mark.parametrize("served", [False, True])
def test_two_processes_of_three_thousand_each_lose_nothing(home: Home, server: ChromaServer, served: bool) -> None:
    url = server.url if served else ""
    with (
        writer(home, "one", 3000, each=100, server=url) as one,
        writer(home, "two", 3000, each=100, server=url) as two,
    ):
        reported = [id for process in (one, two) for id in process.communicate()[0].split()]
    assert (one.returncode, two.returncode) == (0, 0)
    wanted = {f"{name}-{number}" for name in ("one", "two") for number in range(3000)}
    assert set(reported) == wanted and len(reported) == 6000
    store = GrimoireStore(home, client=url or None)
    assert set(ids(store.search("anything at all", k=10_000))) == wanted | {SHIPPED.id}
    for number in range(0, 3000, 300):
        assert store.search(f"Rule {number} of one.", k=1)[0].score == pytest.approx(1.0, abs=1e-5)


def test_several_at_once_are_added_wholly_or_not_at_all(store: GrimoireStore, home: Home) -> None:
    late = make(WEATHER, "Swallows that fly low mean yes.")
    with pytest.raises(InputError, match="cannot be a file name"):
        store.add_all([late, replace(CLOUDS, id="../up")])
    (home.grimoires / f"{CLOUDS.id}.md").write_text("notes")
    with pytest.raises(StoreError, match=f"{CLOUDS.id}.md is there and is no grimoire; mend or rename it"):
        store.add_all([late, CLOUDS])
    assert late.id not in everything(store)
    assert store.add_all([late, GOALS]) == [late.id, GOALS.id]
    assert store.add_all([]) == []
    assert perfect(store, late.simple) == late


# ------------------------------------------------------------------ what stays in memory


def test_as_long_as_no_file_changes_nothing_is_opened(store: GrimoireStore, home: Home) -> None:
    before = store.search("rain")
    hasty = GrimoireStore(home, lock_timeout_s=0.05)
    assert hasty.search("rain") == before
    with FileLock(home.root / "store.lock"):
        assert hasty.search("rain") == before, "the lock is not asked for"
        (home.grimoires / f"{WIND.id}.md").unlink()
        with pytest.raises(StoreError, match="another process has held the store"):
            hasty.search("rain")
    assert WIND.id not in everything(hasty)


def test_in_a_large_library_a_change_is_seen_after_a_second(
    store: GrimoireStore, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sleicl_chains.grimoires.shelf.MANY", 2)
    monkeypatch.setattr("sleicl_chains.grimoires.shelf.LOOK_EVERY_S", 1000.0)
    everything(store)
    path = home.grimoires / f"{WIND.id}.md"
    path.write_text(path.read_text().replace("Wind from the west", "A goldfish"))
    assert store.get(WIND.id).simple == "A goldfish means yes."
    assert WIND in store.list(), "not looked at again yet"
    (home.grimoires / f"{GOALS.id}.md").unlink()
    assert {GOALS, WIND}.isdisjoint(store.list()), "a file that goes is seen at once, and so is the rest"
    monkeypatch.setattr("sleicl_chains.grimoires.shelf.LOOK_EVERY_S", 0.0)
    path.write_text(path.read_text().replace("goldfish", "shark"))
    assert store.search("a shark", k=1)[0].grimoire.simple == "A shark means yes."


def test_only_files_that_changed_are_read_again(
    store: GrimoireStore, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = time.time() - 100
    for path in home.grimoires.iterdir():
        os.utime(path, (long_ago, long_ago))
    monkeypatch.setattr("sleicl_chains.grimoires.shelf._SETTLED_NS", -1)  # changed just now, by its other clock
    read: list[str] = []

    def reading(path: Path, what: str) -> str:
        read.append(path.stem)
        return read_text(path, what)

    monkeypatch.setattr("sleicl_chains.grimoires.shelf.read_text", reading)
    assert len(store.list()) == len(read) == 4
    read.clear()
    everything(store)
    assert read == []
    path = home.grimoires / f"{WIND.id}.md"
    path.write_text(path.read_text().replace("Wind", "Hail"))
    assert "Hail" in next(one for one in store.list() if one.id == WIND.id).simple
    assert read == [WIND.id]


def test_an_index_of_the_former_form_gives_way_without_a_word(store: GrimoireStore, home: Home) -> None:
    home.chroma.mkdir()
    client = open_client(home.chroma)
    client.create_collection("sleicl-grimoires", metadata={"embedder": "other", "library": ""}, embedding_function=None)
    client.close()
    assert len(everything(store)) == 4
    client = open_client(home.chroma)
    assert {one.name for one in client.list_collections()} == {"sleicl-task", "sleicl-rules", "sleicl-requests"}
    # One that was made before grimoires had requests lacks their collection, and that is all it lacks.
    client.delete_collection("sleicl-requests")
    client.close()
    assert len(everything(GrimoireStore(home))) == 4
    (found,) = GrimoireStore(home).match(SHIPPED.requests[0], k=1)
    assert found.grimoire == SHIPPED and found.why.ground == "requests"


def test_a_killed_writer_loses_nothing_that_it_reported(home: Home) -> None:
    with writer(home, "one", 10_000) as killed:
        assert killed.stdout is not None
        reported = [killed.stdout.readline().strip() for _ in range(8)]
        killed.send_signal(signal.SIGKILL)
        reported += killed.stdout.read().split()
    store = GrimoireStore(home, lock_timeout_s=5)
    assert set(reported) <= everything(store)
    assert everything(store) == {grimoire.id for grimoire in store.list()}
    assert store.problems == []
    store.add(CLOUDS)
    assert perfect(store, CLOUDS.profound) == CLOUDS


# ------------------------------------------------------------------ a Chroma server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ChromaServer]:
    with chroma_server(tmp_path / "served") as running:
        yield running


def test_homes_share_a_server_named_by_its_address(server: ChromaServer, home: Home, tmp_path: Path) -> None:
    url = server.url
    one, other = GrimoireStore(home, client=url), GrimoireStore(tmp_path / "other", client=url)
    one.add(CLOUDS)
    other.add(GOALS)
    assert everything(one) == {CLOUDS.id, SHIPPED.id}
    assert everything(other) == {GOALS.id, SHIPPED.id}
    assert everything(GrimoireStore(home, client=url)) == {CLOUDS.id, SHIPPED.id}
    assert not home.chroma.exists()
    with writer(home, "one", 4, server=url) as first, writer(home, "two", 4, server=url) as second:
        assert (first.wait(), second.wait()) == (0, 0)
    written = {f"{name}-{number}" for name in ("one", "two") for number in range(4)}
    assert everything(one) == {CLOUDS.id, SHIPPED.id} | written
    for store in (one, other):
        close(store._opened)


def close(client: Any) -> None:
    """Close the sockets that Chroma leaves open."""
    for part in (client, client._admin_client):
        part._server._session.close()


def test_a_chroma_server(server: ChromaServer, home: Home) -> None:
    process, port = server
    client = chromadb.HttpClient(host="127.0.0.1", port=port)
    store = GrimoireStore(home, client=client)
    for grimoire in (CLOUDS, WIND, GOALS):
        store.add(grimoire)
    assert ids(store.search("The goalkeeper let in two goals", k=1)) == [GOALS.id]
    assert ids(store.search("rain", filters={"task": "weather", "sampler": "random"})) == [WIND.id]
    (requests,) = (one.name for one in client.list_collections() if one.name.startswith("sleicl-requests"))
    client.delete_collection(requests)  # as of an index that was made before there were any
    (found,) = GrimoireStore(home, client=client).match(SHIPPED.requests[0], k=1)
    assert found.grimoire == SHIPPED and found.why.ground == "requests"
    store.delete(WIND.id)
    assert everything(store) == {CLOUDS.id, GOALS.id, SHIPPED.id}
    assert not home.chroma.exists()
    other = GrimoireStore(home, DeterministicFakeEmbedding(size=16), client=client)
    with pytest.raises(EmbedderChanged):
        other.search("rain")
    assert (other.rebuild(), len(everything(other))) == (3, 3)
    process.kill()
    process.wait(timeout=10)
    assert len(everything(other)) == 3, "no file has changed: the vectors are still in memory"
    with pytest.raises(StoreError, match="is the Chroma server running"):
        GrimoireStore(home, client=client).search("rain")
    close(client)


# ------------------------------------------------------------------ the retriever


class TestGrimoireRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _library(self, store: GrimoireStore) -> None:
        self.store = store

    @property
    def retriever_constructor(self) -> type[GrimoireRetriever]:
        return GrimoireRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, object]:
        return {"store": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "Will it rain?"


def test_documents_of_the_retriever(store: GrimoireStore) -> None:
    retriever = GrimoireRetriever(store=store, k=1)
    (found,) = retriever.invoke(CLOUDS.profound)
    assert (found.id, found.page_content) == (CLOUDS.id, CLOUDS.profound)
    assert json.loads(json.dumps(found.metadata)) == {
        "grimoire": CLOUDS.id,
        "task": "weather",
        "strong_model": "strong-1",
        "sampler": "kmeans",
        "score": pytest.approx(1.0, abs=1e-5),
    }
    simple = GrimoireRetriever(store=store, k=1, form="simple")
    assert simple.invoke(CLOUDS.simple)[0].page_content == CLOUDS.simple
    assert simple.invoke(GOALS.profound)[0].page_content == GOALS.profound, "it has no simple text"
    assert retriever.invoke(WIND.simple)[0].page_content == WIND.simple, "it has no profound text"


async def test_the_retriever_filters_and_checks(store: GrimoireStore) -> None:
    retriever = GrimoireRetriever(store=store, filters={"sampler": "random"})
    assert [document.id for document in retriever.invoke("rain")] == [WIND.id]
    assert [document.id for document in await retriever.ainvoke("rain", k=3)] == [WIND.id]
    with pytest.raises(InputError, match="k=0"):
        retriever.invoke("rain", k=0)
    near = GrimoireRetriever(store=store, score_threshold=0.99)
    assert [document.id for document in near.invoke(WIND.simple)] == [WIND.id]
    assert [document.id for document in await near.ainvoke(WIND.simple)] == [WIND.id]
    assert near.invoke("nothing like it at all") == []
    with pytest.raises(ValueError, match="Extra inputs"):
        GrimoireRetriever(store=store, top=3)  # type: ignore[call-arg]  # on purpose
