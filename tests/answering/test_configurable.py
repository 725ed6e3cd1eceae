"""Solvers as LangChain's hooks see them: configurable fields, schemas and the graph."""

import copy
import pickle
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import ConfigurableField, ConfigurableFieldSingleOption, RunnableLambda
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from sleicl_chains import Grimoire, Task, solver
from sleicl_chains.answering.recipes import Recipe, Verdict, told_by
from sleicl_chains.errors import InputError, OptionError
from sleicl_chains.evaluation.settings import arm_name, settings_of
from sleicl_chains.grimoires.grimoire import Provenance
from sleicl_chains.tasks.rows import Example
from tests.support.fake_models import Scorer, Writer

MOODS = Task(name="moods", description="Classify the mood.", labels=("happy", "sad"))
TALK = Task(name="talk", description="Say one sentence.")
ROWS = [Example("I won.", "happy"), Example("It rains.", "sad")]
ARM = ConfigurableField(id="arm")


def made(text: str, simple: str = "") -> Grimoire:
    return Grimoire(text.lower(), "moods", "", "", ("happy", "sad"), text, simple, Provenance())


SUN, FOG = made("SUN", "sun"), made("FOG")


def scorer() -> Scorer:
    return Scorer(think=lambda prompt: {"sad": 0.9, "happy": 0.1} if "FOG" in prompt else {"happy": 0.9, "sad": 0.1})


def test_the_arm_is_configured_while_it_runs() -> None:
    model = scorer()
    chain = solver(model, MOODS, arm="profound", grimoire=SUN, examples=ROWS, prior="none").configurable_fields(arm=ARM)
    said = [
        chain.invoke("Hm."),
        chain.invoke("Hm.", {"configurable": {"arm": "zero-shot"}}),
        chain.with_config(configurable={"arm": "simple+few-shot"}).invoke("Hm."),
    ]
    assert [(one.arm, one.grimoire) for one in said] == [
        ("profound", "sun"), ("zero-shot", None), ("simple+few-shot", "sun"),
    ]  # fmt: skip
    shown = [("SUN" in prompt, "sun" in prompt, "I won." in prompt) for prompt in model.asked("score")]
    assert shown == [(True, False, False), (False, False, False), (False, True, True)]


async def test_the_grimoire_is_an_object_or_one_of_named_ones() -> None:
    chain = solver(scorer(), MOODS, arm="profound", grimoire=SUN, prior="none")
    free = chain.configurable_fields(grimoire=ConfigurableField(id="grimoire"))
    assert (await free.ainvoke("Hm.")).label == "happy"
    assert (await free.ainvoke("Hm.", {"configurable": {"grimoire": FOG}})).label == "sad"
    options = ConfigurableFieldSingleOption(id="guide", options={"sun": SUN, "fog": FOG}, default="sun")
    named = chain.configurable_fields(grimoire=options)
    found = named.batch(["Hm.", "Hm."], [{"configurable": {"guide": name}} for name in ("fog", "sun")])
    assert [one.grimoire for one in found] == ["fog", "sun"]


def test_each_pair_is_fitted_once() -> None:
    model = scorer()
    chain: Any = solver(model, MOODS, arm="profound", grimoire=SUN)  # its prior takes three texts
    fields = chain.configurable_fields(arm=ARM, grimoire=ConfigurableField(id="grimoire"))
    for _ in range(3):
        fields.invoke("Hm.")
        fields.invoke("Hm.", {"configurable": {"grimoire": FOG}})
    assert len(model.asked("score")) == 2 * (3 + 3)


def test_what_cannot_be_is_said() -> None:
    chain: Any = solver(scorer(), MOODS, prior="none")
    fields = chain.configurable_fields(arm=ARM)
    with pytest.raises(OptionError, match="There is no arm 'oracle'; expected"):
        fields.invoke("Hm.", {"configurable": {"arm": "oracle"}})
    with pytest.raises(OptionError, match="found 'knn[+]hidden'; what is shown can be configured"):
        fields.invoke("Hm.", {"configurable": {"arm": "knn+hidden"}})
    with pytest.raises(InputError, match="The arm 'simple' needs a grimoire with a simple text; no grimoire was given"):
        fields.invoke("Hm.", {"configurable": {"arm": "simple"}})


def test_a_recipe_stays_as_it_was_learned() -> None:
    model = scorer()
    recipe = Recipe(
        task=MOODS, weak="fake:1", model=told_by(model), arm="zero-shot", mode="score", prior="none", rows=4, seed=0,
        cue="Answer:", reader={"kind": "prior", "prior": {"happy": 0.5, "sad": 0.5}},
        verdict=Verdict(finding="no difference shown"),
    )  # fmt: skip
    chain: Any = solver(recipe, model=model)
    assert chain.invoke("Hm.").label == "happy"
    with pytest.raises(InputError, match="they cannot be configured"):
        chain.configurable_fields(arm=ARM).invoke("Hm.", {"configurable": {"arm": "few-shot"}})


def test_runs_and_tables_are_told_which_it_was() -> None:
    chain: Any = solver(scorer(), MOODS, arm="profound", grimoire=SUN, prior="none")
    fields = chain.configurable_fields(arm=ARM)
    runs = RunCollectorCallbackHandler()
    config = {"callbacks": [runs], "configurable": {"arm": "zero-shot"}, "metadata": {"user": "me"}}
    fields.invoke("Hm.", config)
    (run,) = runs.traced_runs
    metadata = (run.extra or {})["metadata"]
    assert run.name == "zero-shot" and metadata["user"] == "me"
    bare = solver(scorer(), MOODS, prior="none")
    assert metadata["settings"] == settings_of(bare) != settings_of(chain)
    for other in (
        fields.with_config(configurable={"arm": "zero-shot"}),
        fields.bind().with_config(configurable={"arm": "zero-shot"}, tags=["t"]),
    ):
        assert (arm_name(other), settings_of(other)) == ("zero-shot", settings_of(bare))
    tagged = chain.with_config(tags=["t"])
    assert (arm_name(tagged), settings_of(tagged)) == ("profound", settings_of(chain)) == (
        arm_name(fields), settings_of(fields),
    )  # fmt: skip


@pytest.mark.parametrize("copied", (copy.deepcopy, lambda chain: pickle.loads(pickle.dumps(chain))))
def test_copies_can_be_configured(copied: Any) -> None:
    chain: Any = solver(FakeListChatModel(responses=["sad"]), MOODS, examples=ROWS).configurable_fields(arm=ARM)
    assert copied(chain).invoke("Hm.", {"configurable": {"arm": "few-shot"}}).arm == "few-shot"


def test_it_says_what_goes_in_and_what_comes_out() -> None:
    chain: Any = solver(Writer(), MOODS, mode="generate")
    assert chain.InputType is str and chain.get_output_schema().model_fields["root"].annotation.__name__ == "Answer"
    assert chain.get_input_jsonschema() == {"title": "zero-shot_input", "type": "string"}
    answer = chain.get_output_jsonschema()["$defs"]["Answer"]
    assert {"label", "text", "valid", "probability", "grimoire"} <= set(answer["properties"])
    fields = chain.configurable_fields(arm=ARM)
    arm = fields.get_config_jsonschema()["$defs"]["Configurable"]["properties"]["arm"]
    assert arm["default"] == "zero-shot" and "profound+few-shot" in arm["enum"]


def test_the_graph_shows_the_steps() -> None:
    chain: Any = RunnableLambda(lambda given: given["q"]) | solver(Writer(), MOODS, mode="generate")
    names = [node.name for node in chain.get_graph().nodes.values()]
    assert names[1:] == ["Lambda", "zero-shot prompt", "Writer", "generate reader", "zero-shot_output"]
    own = solver(Writer(), MOODS, mode="generate").get_graph()
    assert [(own.nodes[edge.source].name, own.nodes[edge.target].name) for edge in own.edges] == [
        ("zero-shot_input", "zero-shot prompt"), ("zero-shot prompt", "Writer"), ("Writer", "generate reader"),
        ("generate reader", "zero-shot_output"),
    ]  # fmt: skip
    assert "zero-shot prompt" in own.draw_mermaid()
