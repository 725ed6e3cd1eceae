"""`models check` of whether a model reads, and what `evaluate` and `learn` say of one that is known not to."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sleicl_chains.evaluation.reading import PLAIN, guides, questions_version
from sleicl_chains.files import Home
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.reading import Reading, keep_reading
from sleicl_chains.models.weights import KNOWN
from tests.support.command import Desk, Done, Parrot, learning, sleicl
from tests.support.ollama_server import OllamaServer, alternatives, recorded, said

KEYS = [
    "score", "low", "high", "chance", "n", "zero_shot", "difference", "difference_low", "difference_high", "mode",
    "test", "kinds", "follows_guides",
]  # fmt: skip
LINE = "m does not follow guides (.25, chance .25); a larger model may"


@pytest.fixture(autouse=True)
def few_guides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two guides, 64 questions, the plain one's in other words too, and no shipped readings."""
    few = tuple(next(guide for guide in guides() if guide.kind == kind) for kind in (PLAIN, "long"))
    monkeypatch.setattr("sleicl_chains.evaluation.reading.guides", lambda: few)
    monkeypatch.setattr("sleicl_chains.models.reading._shipped", lambda: {})


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the models were that were measured."""
    from sleicl_chains.evaluation import reading

    models: list[Any] = []
    measure = reading._measured

    def counted(model: Any, *more: Any) -> Reading:
        models.append(model)
        return measure(model, *more)

    monkeypatch.setattr(reading, "_measured", counted)
    return models


def known(score: float) -> Reading:
    gap = score - 0.25
    return Reading(score, score - 0.05, score + 0.05, 0.25, 96, 0.25, gap, gap - 0.1, gap + 0.1, "score", "questions")


# ------------------------------------------------------------------ models check


def test_check_measures_once_tells_the_contracts_keys_and_measures_again_if_told(
    home_with_weights: Home, measured: list[Any]
) -> None:
    found = sleicl("models", "check", "embedded:smollm2", "--json").json()["reading"]
    assert list(found) == KEYS and len(measured) == 1
    assert (found["n"], found["chance"], found["mode"], found["test"]) == (16, 0.25, "score", questions_version())
    long, other = (found["kinds"][kind]["score"] for kind in ("long", "in other words"))
    assert found["kinds"] == {"long": {"score": long, "n": 16}, "in other words": {"score": other, "n": 16}}
    assert found["follows_guides"] is False and found["low"] <= found["score"] <= found["high"]
    assert found["difference"] == pytest.approx(found["score"] - found["zero_shot"])
    assert home_with_weights.journal.exists()
    assert [file.stem for file in home_with_weights.readings.iterdir()] == [KNOWN["smollm2"].files[0].sha256]

    done = sleicl("models", "check", "embedded:smollm2")
    lines = done.out.splitlines()
    assert (done.status, done.err, len(measured)) == (0, "", 1) and lines[0] == "name: embedded:smollm2"
    assert lines[-3].startswith("reading: does not follow guides (") and lines[-3].endswith(
        ", chance .25)  <- a larger model may; grimoires are not expected to help this one"
    )
    assert lines[-2].startswith(
        f"  plain guides {found['score']:.2f} [{found['low']:.2f}, {found['high']:.2f}], n = 16"
    )
    assert f"without the guide {found['zero_shot']:.2f}; difference {found['difference']:+.2f} [" in lines[-2]
    kinds = f"long {long:.2f} (n = 16), in other words {other:.2f} (n = 16)"
    assert lines[-1] == f"  other guides, not counted in: {kinds}"

    again = sleicl("models", "check", "embedded:smollm2", "--again", "--json").json()["reading"]
    assert again == found and len(measured) == 2


def test_check_tells_of_one_that_reads_without_advice(home: Home, weights: Path, measured: list[Any]) -> None:
    name = f"embedded:{next(weights.glob('*.gguf'))}"
    # Kept readings of other questions are not taken here.
    keep_reading(weak_model(name), replace(known(0.9), test=questions_version()), home)
    lines = sleicl("models", "check", name).out.splitlines()
    assert lines[-3] == "reading: follows guides (.90, chance .25)" and not measured


def test_an_ollama_model_is_measured_too_and_where_the_home_is_closed_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: list[Any]
) -> None:
    (tmp_path / "closed").write_text("in the way")
    first = guides()[0].codes[0][0]
    with OllamaServer(
        lambda asked: alternatives({f" {first}": 0.5, " blue": 0.2}) if asked.body.get("logprobs") else None
    ) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        for count in (1, 2):
            found = sleicl("models", "check", "ollama:smollm2:135m", "--home", tmp_path / "closed", "--json").json()
            reading = found["reading"]
            assert (reading["score"], reading["n"], reading["mode"], len(measured)) == (0.25, 16, "score", count)


def test_what_check_finds_is_printed_before_a_long_test_that_fails(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> Reading:
        from sleicl_chains.errors import ServerDown

        raise ServerDown("the server is gone")

    monkeypatch.setattr("sleicl_chains.evaluation.reading._measured", gone)
    with OllamaServer() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        done = sleicl("models", "check", "ollama:smollm2:135m")
    assert done.status == 1 and "template: True" in done.out.splitlines()
    assert done.err.splitlines()[-1] == "sleicl: the server is gone"


def test_a_model_for_embeddings_is_not_asked_to_read(
    home: Home, monkeypatch: pytest.MonkeyPatch, measured: list[Any]
) -> None:
    shown = recorded("show").objects[0] | {"capabilities": ["embedding"]}
    with OllamaServer(lambda asked: said(shown) if asked.route == "/api/show" else None) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        assert sleicl("models", "check", "ollama:smollm2:135m", "--json").json()["reading"] is None and not measured


# ------------------------------------------------------------------ evaluate and learn


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk.at(tmp_path / "desk")


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    file = tmp_path / "guide.md"
    file.write_text("---\ntask: desk\n---\n\n# Simple grimoire\n\nMoney is billing.\n", encoding="utf-8")
    return file


def keep(parrot: Parrot, score: float, home: Home) -> None:
    """Let it be known how well the model that the commands open reads."""
    keep_reading(weak_model("openai:m", base_url=parrot.base_url), known(score), home)


def evaluated(desk: Desk, parrot: Parrot, *more: object) -> list[str]:
    source = ("--task", desk.card, "--rows", desk.test, "--limit", 1, "--weak", "openai:m", *parrot.options, "--json")
    notes: list[str] = sleicl("evaluate", *source, *more).json()["notes"]
    return notes


def learned(desk: Desk, parrot: Parrot, *more: object) -> Done:
    done = sleicl(*learning(desk, desk.folder / "recipe.json", "--weak", "openai:m", *parrot.options, *more))
    assert done.status == 0, done.err
    return done


def test_evaluate_says_so_of_a_model_that_is_known_not_to_read_where_a_grimoire_is_shown(
    desk: Desk, parrot: Parrot, guide: Path, home: Home
) -> None:
    keep(parrot, 0.25, home)
    assert evaluated(desk, parrot, "--grimoire", guide).count(LINE) == 1
    assert LINE in evaluated(desk, parrot, "--grimoire", guide, "--train", desk.train, "--arms", "simple+few-shot")
    assert LINE not in evaluated(desk, parrot)
    assert LINE not in evaluated(desk, parrot, "--grimoire", guide, "--arms", "zero-shot")


@pytest.mark.parametrize("score", [None, 0.9])
def test_evaluate_says_nothing_of_a_model_that_reads_or_is_not_known(
    score: float | None, desk: Desk, parrot: Parrot, guide: Path, home: Home
) -> None:
    if score:
        keep(parrot, score, home)
    assert not [note for note in evaluated(desk, parrot, "--grimoire", guide) if "guides" in note]


def test_learn_says_so_before_it_begins(desk: Desk, parrot: Parrot, guide: Path, home: Home) -> None:
    keep(parrot, 0.25, home)
    lines = learned(desk, parrot, "--grimoire", guide).err.splitlines()
    assert lines.count(f"{LINE}.") == 1
    assert lines.index(f"{LINE}.") < next(at for at, line in enumerate(lines) if line.startswith("Written: "))
    assert f"{LINE}." not in learned(desk, parrot).err.splitlines()


def test_learn_says_nothing_of_a_model_that_is_not_known_or_where_none_will_be_written(
    desk: Desk, parrot: Parrot, guide: Path, home: Home, tmp_path: Path
) -> None:
    assert "guides" not in learned(desk, parrot, "--grimoire", guide).err
    keep(parrot, 0.25, home)
    done = learned(desk, parrot, "--strong", f"paste:{tmp_path / 'letters'}")
    assert "is not asked for a grimoire" in done.err and LINE not in done.err
