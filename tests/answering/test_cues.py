"""Choosing the cue on unlabelled texts: by covered mass, and the labels named only where they are out of sight."""

from pathlib import Path

import pytest

from sleicl_chains.answering.arms import Arm
from sleicl_chains.answering.cues import CUE, CUES, Cue, choose_cue
from sleicl_chains.answering.prompt import Prompt
from sleicl_chains.answering.solver import solver
from sleicl_chains.evaluation.settings import settings_of
from sleicl_chains.models.abilities import LabelScores
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.command import Desk, sleicl
from tests.support.ollama_server import Asked, OllamaServer, Said, alternatives, chat, model


def scores(coverage: float, unseen: tuple[str, ...] = ()) -> LabelScores:
    return LabelScores({"a": 0.5, "b": 0.5}, coverage, 10, 1, unseen)


def test_the_cue_of_most_mass_is_taken() -> None:
    """Category: covers .1 + .7 of two texts, the others .3 + .3."""
    asked = []

    def scored(cue: Cue, text: str) -> LabelScores:
        asked.append((cue, text))
        return scores({"one": 0.1, "two": 0.7}[text] if cue.text == "Category:" else 0.3)

    assert choose_cue(scored, ["one", "two"]) == Cue("Category:")
    assert len(asked) == 2 * len(CUES)


def test_the_labels_are_named_where_too_many_are_out_of_sight() -> None:
    def scored(cue: Cue, text: str) -> LabelScores:
        if cue.lists_labels:
            return scores(0.9 if cue.text == "Label:" else 0.8)
        return scores(0.5, ("b",))

    assert choose_cue(scored, ["one"]) == Cue("Label:", lists_labels=True)


def test_the_labels_are_not_named_where_they_are_in_sight_anyway() -> None:
    assert choose_cue(lambda cue, text: scores(1.0 if cue.lists_labels else 0.4), ["one"]) == CUE


def test_without_texts_nothing_is_tried() -> None:
    def never(cue: Cue, text: str) -> LabelScores:
        raise AssertionError

    assert choose_cue(never, []) == Cue("Answer:", lists_labels=True)


def test_six_texts_are_enough_and_come_from_all_over() -> None:
    """They are grouped by label where they come from."""
    seen = set()

    def scored(cue: Cue, text: str) -> LabelScores:
        seen.add(text)
        return scores(0.5)

    choose_cue(scored, [str(number) for number in range(48)])
    assert seen == {"0", "8", "16", "24", "32", "40"}


def test_what_is_shown(task: Task) -> None:
    chat = Prompt(task, Arm(examples="few-shot"), examples=(Example("I laughed.", "happy"),))
    shown = [message.text for message in chat.messages("My dog is ill.", Cue("Label:", lists_labels=True))]
    assert shown[1:] == [
        "I laughed.\nOptions: happy, sad", "Label: happy", "My dog is ill.\nOptions: happy, sad", "Label:",
    ]  # fmt: skip
    assert [message.text for message in chat.messages("My dog is ill.")][1:] == [
        "I laughed.",
        "happy",
        "My dog is ill.",
    ]


def _in_sight_when_named(asked: Asked) -> Said | None:
    """Show both labels only where the question names them, and most mass after "Category:"."""
    if asked.route != "/api/generate":
        return None
    prompt = asked.body["prompt"]
    share = 0.4 if prompt.endswith("Category:") else 0.2
    if "Options: happy, sad" in prompt:
        return alternatives({" happy": share, " sad": share if "ill" in prompt else share / 2, " a": 0.1})
    return alternatives({" happy": share, " the": 0.1, " a": 0.05})


def test_a_solver_on_ollama_chooses_and_says_how_it_asked(task: Task) -> None:
    with OllamaServer(_in_sight_when_named) as server:
        chain = solver(model(server), task, prior_texts=["I laughed.", "What a day!"])
        answer = chain.invoke("My dog is ill.")
        before = len(server.sent("/api/generate"))
        assert before == 4 * 2 + 4 * 2 + 2 + 1  # cues, cues with the labels named, prior, question
        chain.invoke("Nobody came.")
        assert len(server.sent("/api/generate")) == before + 1
    assert (answer.label, answer.cue, answer.lists_labels, answer.unseen) == ("sad", "Category:", True, ())
    assert answer.coverage == pytest.approx(0.8)
    assert answer.scores == pytest.approx({"happy": 1 / 3, "sad": 2 / 3})  # .5 and .5, less the prior 2/3 and 1/3


def test_a_label_out_of_sight_is_marked_in_the_answer(task: Task) -> None:
    with OllamaServer(lambda asked: alternatives({" sad": 0.5}) if asked.route == "/api/generate" else None) as server:
        answer = solver(model(server), task, prior="none").invoke("My dog is ill.")
    assert (answer.label, answer.unseen, answer.coverage) == ("sad", ("happy",), 0.5)


def test_no_answer_is_made_up_where_no_label_is_in_sight(task: Task) -> None:
    with OllamaServer(lambda asked: alternatives({" a": 0.5}) if asked.route == "/api/generate" else None) as server:
        answer = solver(model(server), task, prior="none").invoke("My dog is ill.")
    assert (answer.label, answer.valid, answer.coverage, answer.unseen) == (None, False, 0.0, ("happy", "sad"))
    assert answer.note.startswith("no label was among the tokens")


@pytest.mark.filterwarnings("ignore:Ollama 0.12.3 was not tried")
def test_an_old_server_answers_in_words_and_the_reason_is_kept(task: Task) -> None:
    def answer(asked: Asked) -> Said | None:
        return chat("sad") if asked.route == "/api/chat" and not asked.render_only else None

    with OllamaServer(answer, version="0.12.3") as server:
        answered = solver(model(server), task).invoke("My dog is ill.")
    assert (answered.label, answered.mode) == ("sad", "generate")
    assert answered.note == "generated and parsed: Ollama 0.12.3 gives no log-probabilities (since 0.12.11; update it)"


def _billing_in_sight(asked: Asked) -> Said | None:
    return alternatives({" billing": 0.5, " a": 0.1}) if asked.route == "/api/generate" else None


def test_what_could_not_be_seen_is_said_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk.at(tmp_path)
    with OllamaServer(_billing_in_sight) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        command = (
            "ask",
            "--task",
            desk.card,
            "--weak",
            "ollama:smollm2:135m",
            "--prior",
            "none",
            "My card was charged.",
        )
        plain, found = sleicl(*command), sleicl(*command, "--json").json()
    assert (plain.out, plain.status) == ("billing\n", 0)
    assert plain.err == "Out of sight of the server, so not measured: technical.\n"
    assert (found["unseen"], found["coverage"], found["note"]) == (["technical"], 0.5, "")


def test_the_table_says_what_was_out_of_sight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk.at(tmp_path)
    with OllamaServer(_billing_in_sight) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        done = sleicl(
            "evaluate", "--task", desk.card, "--rows", desk.test, "--weak", "ollama:smollm2:135m", "--arms", "zero-shot"
        )
    assert done.status == 0, done.err
    assert "Labels out of sight, scored by a floor: zero-shot 50%." in done.out


def test_a_broken_connection_is_no_wrong_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run stops with the reason, and the same command goes on where it stopped."""
    desk, broken = Desk.at(tmp_path), [True]

    def answer(asked: Asked) -> Said | None:
        if asked.route != "/api/chat" or asked.render_only:
            return None
        return Said(chat("billing").lines[:1], drop=True) if broken else chat("billing")

    with OllamaServer(answer) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        command = ("evaluate", "--task", desk.card, "--rows", desk.test, "--weak", "ollama:smollm2:135m",
                   "--arms", "zero-shot", "--mode", "generate", "--json")  # fmt: skip
        stopped = sleicl(*command)
        assert stopped.status == 1 and "broke off" in stopped.err
        broken.clear()
        (arm,) = sleicl(*command).json()["arms"]
    assert (arm["accuracy"], arm["failed"]) == (0.5, 0)


def test_a_changed_wording_of_the_options_is_another_run(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    from sleicl_chains import prompts

    with OllamaServer() as server:
        before = settings_of(solver(model(server), task))
        real = prompts.template
        monkeypatch.setattr(prompts, "template", lambda name: real(name).replace("Options:", "Choose:"))
        assert settings_of(solver(model(server), task)) != before
