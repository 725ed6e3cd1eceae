"""A run of somebody's own chain, with a client object in it, goes on in another process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from sleicl_chains.answers import Answer
from sleicl_chains.errors import RunError
from sleicl_chains.evaluation.evaluate import evaluate
from sleicl_chains.evaluation.settings import former_settings, settings_of
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example
from tests.support.command import Parrot

ROWS = [Example(text, "sad") for text in ("It rains.", "It pours.", "It hails.")]


def read(text: str) -> Answer:
    return Answer(label=text, text=text, valid=True)


def chain(base_url: str, *, system: str = "Say a mood.", **options: Any) -> Runnable[str, Answer]:
    model = ChatOpenAI(model="m", api_key=SecretStr("k"), base_url=base_url, max_retries=0, **options)
    prompt = ChatPromptTemplate.from_messages([("system", system), ("human", "{question}")])
    first: Any = RunnableLambda(lambda text: {"question": text})
    whole: Runnable[str, Answer] = first | prompt | model | StrOutputParser() | RunnableLambda(read)
    return whole


CHILD = """
import sys
from pathlib import Path
from tests.cli.test_resume_chains import ROWS, chain, evaluate
evaluate({"own": chain(sys.argv[1])}, ROWS, run=Path(sys.argv[2]))
"""


def test_a_chain_with_a_client_goes_on_in_another_process(tmp_path: Path, task: Task) -> None:
    run = tmp_path / "run"
    with Parrot(lambda text: "sad") as server:
        command = [sys.executable, "-c", CHILD, server.base_url, str(run)]
        subprocess.run(command, check=True, timeout=120, cwd=Path(__file__).parent.parent)
        assert len(server.requests) == 3
        lines = (run / "rows.jsonl").read_text().splitlines(keepends=True)
        (run / "rows.jsonl").write_text("".join(lines[:2]))  # as if it had been killed
        report = evaluate({"own": chain(server.base_url)}, ROWS, run=run, task=task)
        assert len(server.requests) == 4 and report.arms[0].accuracy == 1
        for other in (chain(server.base_url, temperature=1), chain(server.base_url, system="Say one mood.")):
            with pytest.raises(RunError, match="other settings"):
                evaluate({"own": other}, ROWS, run=run, task=task)
        assert len(server.requests) == 4


def test_parts_that_count_and_parts_that_do_not() -> None:
    def own(model: Any) -> Runnable[str, Answer]:
        both: Any = {"a": model, "b": model.bind(stop=["x"])}
        last: Any = RunnableLambda(read)
        return ChatPromptTemplate.from_template("{q}") | both | last  # type: ignore[no-any-return]  # it is a chain

    def model(**options: Any) -> ChatOpenAI:
        return ChatOpenAI(**{"model": "m", "api_key": SecretStr("k"), "base_url": "http://127.0.0.1:1/v1", **options})

    first = settings_of(own(model()))
    assert first == settings_of(own(model())) == settings_of(own(model(api_key=SecretStr("other"), timeout=9)))
    assert first != settings_of(own(model().with_retry()))
    others = [own(model(model="n")), own(model(seed=1)), own(model().bind(stop=["y"]))]
    assert len({first, *map(settings_of, others)}) == 4


def test_a_function_that_calls_its_own_chain_is_told_too() -> None:
    def again(text: str) -> Answer:
        return whole.invoke(text) if text else read(text)

    first: Any = RunnableLambda(again)
    whole: Runnable[str, Answer] = first | RunnableLambda(read)
    assert settings_of(whole) == settings_of(whole)


def test_a_run_that_an_earlier_version_began_goes_on(tmp_path: Path, task: Task) -> None:
    own: Runnable[str, Answer] = RunnableLambda(lambda text: Answer("sad", "sad", valid=True))
    evaluate({"own": own}, ROWS, run=tmp_path, task=task)
    manifest = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**manifest, "arms": {"own": former_settings(own)}}))
    evaluate({"own": own}, ROWS, run=tmp_path, task=task)
    assert json.loads((tmp_path / "run.json").read_text()) == manifest
