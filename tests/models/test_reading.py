"""What is known of whether a model reads: by its weights where those decide, else by how it was opened."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sleicl_chains.evaluation.reading import REWORDED, questions_version
from sleicl_chains.files import Home
from sleicl_chains.hashes import short_hash
from sleicl_chains.models import reading
from sleicl_chains.models.llamacpp.model import EmbeddedModel
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.reading import (
    Kind,
    Reading,
    keep_reading,
    known_reading,
    reading_of,
    reading_problem,
)
from sleicl_chains.models.weights import KNOWN, READER
from tests.support.fake_models import Scorer, Writer
from tests.support.ollama_server import OllamaServer, model, said

READS = Reading(
    score=0.8, low=0.7, high=0.9, chance=0.25, n=96, zero_shot=0.25, difference=0.55, difference_low=0.4,
    difference_high=0.7, mode="score", test="questions", kinds={"long": Kind(0.5, 16), "both": Kind(0.25, 32)},
)  # fmt: skip
DOES_NOT = replace(READS, score=0.25, low=0.17, high=0.35, difference=0.0, difference_low=-0.1, difference_high=0.1)


@pytest.fixture(autouse=True)
def nothing_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sleicl_chains.models.reading._shipped", lambda: {})


D, E, F = ("d" * 64, "e" * 64, "f" * 64)
"""Digests."""


class Weighed(Scorer):
    """Tells which weights it has, and has a setting."""

    digest: str = D
    warmth: float = 0.0

    @property
    def weights_digest(self) -> str:
        return self.digest

    @property
    def identity(self) -> dict[str, Any]:
        return {"weights": self.digest, "warmth": self.warmth}


class Glimpse(Weighed):
    """Shows its likeliest tokens alone, as a server does."""

    alternatives: ClassVar[int] = 20
    model_name: str = "glimpse"

    @property
    def identity(self) -> dict[str, Any]:
        return super().identity | {"engine": "a server"}


def kept(home: Home) -> dict[str, Any]:
    """Return what lies in the folder of the readings, by key."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in home.readings.glob("*.json")}


def put(home: Home, content: str | bytes, key: str = D) -> None:
    """Put something in the place of a reading."""
    home.make().readings.mkdir(exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode()
    (home.readings / f"{key}.json").write_bytes(data)


def gguf(path: Path, holds: str) -> EmbeddedModel:
    path.write_bytes(b"GGUF" + holds.encode())
    return EmbeddedModel(path=path)


# ------------------------------------------------------------------ the rule and its words


@pytest.mark.parametrize(
    ("low", "difference_low", "reads"),
    [
        (0.36, 0.01, True), (0.351, 0.001, True), (0.35, 0.1, False), (0.9, 0.0, False), (0.9, -0.1, False),
        (0.2, 0.1, False),
    ],
)  # fmt: skip
def test_a_model_reads_clearly_above_chance_and_above_its_own_guesses(
    low: float, difference_low: float, reads: bool
) -> None:
    assert replace(READS, low=low, difference_low=difference_low).follows_guides is reads


def test_it_is_said_in_one_line() -> None:
    assert str(READS) == "follows guides (.80, chance .25)"
    assert str(DOES_NOT) == "does not follow guides (.25, chance .25)"
    assert str(replace(READS, score=1.0, chance=0.0)) == "follows guides (1.00, chance .00)"


def test_a_reading_goes_to_json_and_back() -> None:
    for found in (READS, DOES_NOT, replace(READS, kinds={})):
        data = json.loads(json.dumps(found.to_dict()))
        assert data["follows_guides"] is found.follows_guides and Reading.from_dict(data) == found
    assert list(READS.to_dict()) == [
        "score", "low", "high", "chance", "n", "zero_shot", "difference", "difference_low", "difference_high", "mode",
        "test", "kinds", "follows_guides",
    ]  # fmt: skip


def test_the_verdict_is_found_anew_and_what_later_versions_add_is_left_aside() -> None:
    assert Reading.from_dict(DOES_NOT.to_dict() | {"follows_guides": True, "new": 1}) == DOES_NOT


@pytest.mark.parametrize("name", [name for name in READS.to_dict() if name != "follows_guides"])
def test_a_reading_that_lacks_something_is_none(name: str) -> None:
    data = READS.to_dict()
    del data[name]
    with pytest.raises(KeyError):
        Reading.from_dict(data)


# ------------------------------------------------------------------ what is kept, and what of it is known


def test_what_was_kept_is_known_for_these_weights_alone(home: Home) -> None:
    keep_reading(Weighed(), READS, home)
    keep_reading(Weighed(digest=E), DOES_NOT, home)
    assert (known_reading(Weighed(), home), known_reading(Weighed(digest=E), home)) == (READS, DOES_NOT)
    assert known_reading(Weighed(digest=F), home) is None
    assert (reading_of(D, home), reading_of(E, home), reading_of(F, home)) == (READS, DOES_NOT, None)


def test_each_reading_has_a_file_of_its_own_which_names_the_model(home: Home) -> None:
    """So two processes that measure two models at once lose nothing."""
    keep_reading(Weighed(), READS, home)
    keep_reading(Glimpse(digest=E), DOES_NOT, home)
    assert len(kept(home)) == 2 and kept(home)[D] == {"name": "Weighed"} | READS.to_dict()
    (other,) = kept(home).keys() - {D}
    assert kept(home)[other] == {"name": "glimpse"} | DOES_NOT.to_dict() and other != E
    assert [file.stat().st_mode & 0o777 for file in home.readings.iterdir()] == [0o600] * 2
    keep_reading(Weighed(), DOES_NOT, home)
    assert len(kept(home)) == 2 and kept(home)[D] == {"name": "Weighed"} | DOES_NOT.to_dict()


def test_a_model_that_tells_no_weights_is_known_by_its_identity(home: Home) -> None:
    keep_reading(Writer(), READS, home)
    assert known_reading(Writer(reply=str), home) == READS and known_reading(Scorer(), home) is None
    assert list(kept(home)) == [short_hash(json.dumps(Writer().identity, sort_keys=True))]


def test_exact_probabilities_are_those_of_the_weights_under_all_settings(home: Home) -> None:
    keep_reading(Weighed(warmth=0.5), READS, home)
    assert list(kept(home)) == [D] and known_reading(Weighed(warmth=0.7), home) == READS


@pytest.mark.parametrize(
    ("make", "mode"), [(Glimpse, "score"), (Weighed, "generate"), (Glimpse, "generate")], ids=["few", "words", "both"]
)
def test_what_is_said_in_words_or_of_few_tokens_is_of_these_settings_alone(
    make: type[Weighed], mode: str, home: Home
) -> None:
    opened = replace(DOES_NOT, mode=mode)
    keep_reading(make(), opened, home)
    assert known_reading(make(), home) == opened and D not in kept(home)
    assert [known_reading(one, home) for one in (make(warmth=0.5), make(digest=E))] == [None, None]
    exact = Weighed(warmth=0.7)
    assert known_reading(exact, home) is None and reading_of(D, home) is None

    keep_reading(exact, READS, home)  # of the same weights: known for all, but what is known of these settings is more
    assert known_reading(make(), home) == opened
    assert [known_reading(one, home) for one in (make(warmth=0.5), exact)] == [READS, READS]
    assert known_reading(make(digest=E), home) is None


def test_of_two_readings_that_of_the_wanted_questions_is_told(home: Home) -> None:
    keep_reading(Glimpse(), replace(DOES_NOT, test="older"), home)
    keep_reading(Weighed(), READS, home)
    assert known_reading(Glimpse(), home, test="questions") == READS
    assert known_reading(Glimpse(), home) == replace(DOES_NOT, test="older")
    assert known_reading(Glimpse(), home, test="newest") is None


def test_the_home_of_the_environment_is_looked_up_by_default(home: Home) -> None:
    keep_reading(Weighed(), DOES_NOT, home)
    assert known_reading(Weighed()) == DOES_NOT and reading_problem(Weighed())


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sleicl_chains.models.reading._shipped", lambda: {D: {"name": "d"} | READS.to_dict()})


def test_shipped_readings_are_known_everywhere(home: Home, shipped: None) -> None:
    assert known_reading(Weighed(), home) == reading_of(D, home) == READS and not home.root.exists()
    assert known_reading(Glimpse(), home) == READS
    assert known_reading(Weighed(digest=E), home) is None and known_reading(Weighed(), home, test="newest") is None


def test_the_users_own_measurement_comes_before_the_shipped_one(home: Home, shipped: None) -> None:
    keep_reading(Weighed(), DOES_NOT, home)
    assert known_reading(Weighed(), home) == known_reading(Weighed(), home, test="questions") == DOES_NOT
    assert reading_of(D, home) == DOES_NOT and reading_problem(Weighed(), home)
    assert known_reading(Weighed(), Home(home.root / "another")) == READS
    keep_reading(Weighed(), replace(DOES_NOT, test="newer"), home)
    assert known_reading(Weighed(), home) == known_reading(Weighed(), home, test="newer") != READS


def test_where_the_own_one_is_damaged_the_shipped_one_is_told(home: Home, shipped: None) -> None:
    for content in ("{", "[]", json.dumps(READS.to_dict() | {"score": None})):
        put(home, content)
        assert known_reading(Weighed(), home) == reading_of(D, home) == READS


def test_readings_of_other_questions_are_told_but_not_as_those_of_a_test(home: Home) -> None:
    keep_reading(Weighed(), replace(DOES_NOT, test="older"), home)
    assert known_reading(Weighed(), home, test="questions") is None
    assert known_reading(Weighed(), home) == replace(DOES_NOT, test="older")
    assert reading_problem(Weighed(), home).endswith("does not follow guides (.25, chance .25); a larger model may")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "\0", "[" * 100_000, b"\xff{}", "[1" * 600_000], ids=range(8))
def test_a_damaged_file_is_taken_for_none_and_replaced(content: str | bytes, home: Home) -> None:
    put(home, content)
    assert known_reading(Weighed(), home) is None and reading_problem(Weighed(), home) == ""
    keep_reading(Weighed(), READS, home)
    assert known_reading(Weighed(), home) == READS


WHOLE = READS.to_dict()
DAMAGED: list[Any] = [
    None, 3, [], "", {}, {"score": 1}, WHOLE | {"n": "many"}, WHOLE | {"n": float("inf")}, WHOLE | {"score": None},
    WHOLE | {"kinds": 3}, WHOLE | {"kinds": ["long"]}, WHOLE | {"kinds": {"long": 3}},
    WHOLE | {"kinds": {"long": {"score": 1}}},
]  # fmt: skip


@pytest.mark.parametrize("entry", DAMAGED)
def test_a_damaged_reading_is_taken_for_none_and_replaced(entry: Any, home: Home) -> None:
    put(home, json.dumps(entry))
    assert known_reading(Weighed(), home) is None and reading_problem(Weighed(), home) == ""
    keep_reading(Weighed(), READS, home)
    assert known_reading(Weighed(), home) == READS


def test_a_damaged_reading_leaves_the_others_alone(home: Home) -> None:
    keep_reading(Weighed(), READS, home)
    put(home, "?", key=E)
    assert known_reading(Weighed(), home) == READS and known_reading(Weighed(digest=E), home) is None


def test_what_is_no_file_or_no_folder_in_their_place_is_none(home: Home, tmp_path: Path) -> None:
    (home.make().readings / f"{D}.json").mkdir(parents=True)
    other = Home(tmp_path / "other")
    other.make().readings.write_text(json.dumps({D: READS.to_dict()}), encoding="utf-8")
    for place in (home, other):
        assert known_reading(Weighed(), place) is None
        with pytest.raises(OSError):
            keep_reading(Weighed(), READS, place)


def test_the_shipped_readings_are_whole_and_of_the_questions_that_are_asked() -> None:
    """Those of packaged weights, so that nobody has to measure them."""
    shipped = json.loads((Path(reading.__file__).parent / "readings.json").read_text(encoding="utf-8"))
    for digest, data in shipped.items():
        found = Reading.from_dict(data)
        assert len(digest) == 64 and found.to_dict() == {key: data[key] for key in data if key != "name"} | {
            "follows_guides": found.follows_guides
        }
        assert (found.test, found.n, found.mode, len(found.kinds)) == (questions_version(), 96, "score", 5)
        assert found.kinds[REWORDED].n == 96
    named = {weights.files[0].sha256: name for name, weights in KNOWN.items() if name != "minilm"}
    assert {digest: shipped[digest]["name"] for digest in named} == named
    readers = [name for digest, name in named.items() if Reading.from_dict(shipped[digest]).follows_guides]
    assert readers == [READER]


def test_a_user_is_told_of_a_model_that_is_known_not_to_read_and_of_no_other(home: Home) -> None:
    assert reading_problem(Weighed(), home) == ""
    keep_reading(Weighed(), READS, home)
    assert reading_problem(Weighed(), home) == ""
    keep_reading(Weighed(), DOES_NOT, home)
    assert reading_problem(Weighed(), home) == "Weighed does not follow guides (.25, chance .25); a larger model may"


def test_what_is_no_model_is_not_known(home: Home) -> None:
    thing: Any = object()
    assert known_reading(thing, home) is None


# ------------------------------------------------------------------ the same weights under several names


def test_the_same_file_under_two_names_and_paths_is_one_model(home: Home, tmp_path: Path) -> None:
    one, copy, other = (
        gguf(tmp_path / name, holds) for name, holds in (("a.gguf", "x"), ("b.gguf", "x"), ("c.gguf", "y"))
    )
    named = EmbeddedModel(path=copy.path, name="mine", n_ctx=512, temperature=0.5)
    keep_reading(one, DOES_NOT, home)
    assert [known_reading(weak, home) for weak in (one, copy, named, other)] == [DOES_NOT] * 3 + [None]
    assert reading_problem(named, home).startswith("embedded:mine does not follow guides")
    assert list(kept(home)) == [hashlib.sha256(b"GGUFx").hexdigest()]


def showing(modelfile: str) -> OllamaServer:
    return OllamaServer(lambda asked: said({"modelfile": modelfile}) if asked.route == "/api/show" else None)


def test_an_ollama_model_of_one_blob_is_known_by_its_digest(home: Home, tmp_path: Path) -> None:
    """So it is the embedded model of the same file, which was measured."""
    embedded = gguf(tmp_path / "m.gguf", "x")
    keep_reading(embedded, DOES_NOT, home)
    digest = hashlib.sha256(b"GGUFx").hexdigest()
    for path in (f"/models/blobs/sha256-{digest}", f'"C:\\blobs\\sha256-{digest}"', f"@sha256:{digest}"):
        with showing(f'# FROM smollm2:135m\n\nFROM {path}\nTEMPLATE "x"\nPARAMETER stop y\n') as server:
            assert known_reading(model(server), home) == DOES_NOT
            problem = reading_problem(model(server), home)
            assert problem == "ollama:smollm2:135m does not follow guides (.25, chance .25); a larger model may"


def test_what_ollama_shows_decides_for_its_settings_and_not_for_the_embedded_engine(home: Home, tmp_path: Path) -> None:
    embedded, digest = gguf(tmp_path / "m.gguf", "x"), hashlib.sha256(b"GGUFx").hexdigest()
    with showing(f"FROM /models/blobs/sha256-{digest}\n") as server:
        weak, roomy = model(server), model(server, num_ctx=8192)
        assert weak.weights_digest == digest
        keep_reading(weak, DOES_NOT, home)
        assert [known_reading(one, home) for one in (weak, model(server))] == [DOES_NOT] * 2
        assert [known_reading(one, home) for one in (roomy, embedded)] == [None] * 2 and digest not in kept(home)
        keep_reading(embedded, READS, home)
        assert [known_reading(one, home) for one in (weak, roomy, embedded)] == [DOES_NOT, READS, READS]


BLOB, OTHER = f"FROM /blobs/sha256-{D}", f"FROM /blobs/sha256-{E}"


@pytest.mark.parametrize(
    "modelfile",
    [f"{BLOB}\nADAPTER /blobs/sha256-{E}", f"{BLOB}\n{OTHER}", "FROM /files/model.gguf", "FROM other", ""],
)  # fmt: skip
def test_one_of_an_adapter_or_two_files_is_not_the_model_of_one_of_them(modelfile: str, home: Home) -> None:
    for digest in (D, E):
        keep_reading(Weighed(digest=digest), DOES_NOT, home)
    with showing(modelfile) as server:
        weak = model(server)
        assert weak.weights_digest == "" and known_reading(weak, home) is None
        keep_reading(weak, READS, home)  # by its identity
        assert known_reading(weak, home) == READS and known_reading(model(server, num_ctx=512), home) is None


def test_of_a_server_that_is_down_nothing_is_known(home: Home) -> None:
    weak = weak_model("ollama:smollm2:135m", home=home, attempts=1)
    assert known_reading(weak, home) is None and reading_problem(weak, home) == ""
