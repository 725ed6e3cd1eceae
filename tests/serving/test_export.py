"""A recipe as an Ollama model: the same prompt to the byte, whatever the client says, and nobody's model replaced."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sleicl_chains.answering.recipes import Recipe
from sleicl_chains.errors import OptionError, Unsupported
from sleicl_chains.files import Home
from sleicl_chains.models.names import weak_model
from sleicl_chains.models.ollama.address import server_address
from sleicl_chains.models.ollama.model import OllamaModel
from sleicl_chains.models.ollama.server import Server
from sleicl_chains.serving.export import check_name, exported, in_words, rendered
from tests.support.command import Done, sleicl
from tests.support.ollama_server import Asked, OllamaServer, Said, alternatives, chatml, said
from tests.support.real_ollama import PLACE
from tests.support.recipes import EXAMPLES, GRIMOIRE, recipe_of

BASE = "smollm2:135m"
SYSTEM = (
    "You are an expert in topic classification. Say who handles it.\nAnswer with one of: billing, technical.\n\n"
    + GRIMOIRE
)


class Making(OllamaServer):
    """Keeps the models that it is told to create."""

    def __init__(self) -> None:
        super().__init__(self._made)
        self.made: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> "Making":
        super().__enter__()
        return self

    def _made(self, asked: Asked) -> Said | None:
        if asked.route == "/api/create":
            self.made[asked.body["model"]] = asked.body
            return said({"status": "success"})
        if asked.route == "/api/tags":
            (listed,) = self._as_recorded(asked).objects
            new = [
                {"name": f"{name}:latest", "digest": f"digest of {json.dumps(body)}"}
                for name, body in self.made.items()
            ]
            return said({"models": [*listed["models"], *new]})
        if asked.route == "/api/show" and (name := asked.body["model"].removesuffix(":latest")) in self.made:
            (shown,) = self._as_recorded(Asked(asked.route, {"model": BASE}, {})).objects
            return said(shown | {"messages": self.made[name]["messages"]})
        if asked.render_only and asked.body["model"] in self.made:
            made = self.made[asked.body["model"]]["messages"]
            return chatml(Asked(asked.route, {**asked.body, "messages": made + asked.body["messages"]}, {}))
        return alternatives({"billing": 0.5}, prompt_tokens=105) if asked.route == "/api/generate" else None


@pytest.fixture
def making(monkeypatch: pytest.MonkeyPatch) -> Iterator[Making]:
    with Making() as running:
        monkeypatch.setenv("OLLAMA_HOST", running.url)
        yield running


def opened(name: str = BASE) -> OllamaModel:
    found = weak_model(f"ollama:{name}")
    assert isinstance(found, OllamaModel)
    return found


@pytest.fixture
def recipe(making: Making, tmp_path: Path) -> Path:
    return saved(recipe_of(opened(), f"ollama:{BASE}"), tmp_path)


def saved(found: Recipe, folder: Path) -> Path:
    found.save(folder / "recipe.json")
    return folder / "recipe.json"


def export(recipe: Path, name: str, *more: object) -> Done:
    return sleicl("export", "ollama", recipe, name, *more)


# ------------------------------------------------------------------ with a server that keeps what it is sent


def test_the_model_carries_grimoire_and_examples_as_messages(recipe: Path, making: Making) -> None:
    done = export(recipe, "desk")
    assert (done.status, done.out) == (
        0,
        f"desk: made from {BASE}. 105 tokens stand before every question, which leaves 3991 of 4096 for question and "
        "reply. Try: ollama run desk\n",
    )
    assert done.err == "2 training rows travel along as text: whoever has the model can read them.\n"
    turns = [("system", SYSTEM)]
    turns += [turn for text, answer in EXAMPLES for turn in (("user", text), ("assistant", answer))]
    assert making.made["desk"] == {
        "model": "desk", "from": BASE, "stream": False,
        "messages": [{"role": role, "content": text} for role, text in turns],
        "parameters": {"num_ctx": 4096, "num_predict": 64, "temperature": 0.0, "seed": 0, "repeat_penalty": 1.0},
    }  # fmt: skip
    found = export(recipe, "desk", "--json").json()
    assert (found["same_prompt"], found["training_rows"], found["template"]) == (True, 2, False)


def test_a_model_that_was_not_made_here_is_never_replaced_untold(recipe: Path, making: Making, tmp_path: Path) -> None:
    assert export(recipe, "desk").status == 0 and export(recipe, "desk").status == 0  # its own it may replace
    other = export(recipe, "desk", "--home", tmp_path / "other")
    assert (other.status, other.err.splitlines()[-1]) == (
        1,
        f"sleicl: There is a model 'desk' on {making.url} that was not made by this command from this home, or was "
        "changed since; --force replaces it, another name keeps it",
    )
    making.made["desk"]["messages"] = []
    assert export(recipe, "desk").status == 1 and making.made["desk"]["messages"] == []
    assert export(recipe, "desk", "--force").status == 0 and making.made["desk"]["messages"]
    assert "give the new one another name" in export(recipe, BASE, "--force").err


@pytest.mark.parametrize("name", ["", "a b", "d\u00e9sk", "a/b/c/d", "x" * 90, "-desk", "desk:", "../desk", "a\nb"])
def test_a_name_that_ollama_does_not_take_is_refused_first(name: str) -> None:
    with pytest.raises(OptionError, match="is no name of an Ollama model"):
        check_name(name)


def test_usual_names_pass() -> None:
    for name in ("desk", "Desk", "me/desk:v2", "qwen2.5-coder_x:1.5b"):
        check_name(name)


def test_too_little_room_is_refused_before_anything_is_made(recipe: Path, making: Making) -> None:
    done = export(recipe, "desk", "--option", "num_ctx=300")
    assert (done.status, making.made) == (1, {})
    takes, mend = done.err.splitlines()[-1].split("; ")
    assert takes.endswith("takes 105 of 300 tokens, which leaves too little for question and reply")
    assert mend == "give --option num_ctx=1024"


def test_a_recipe_that_reads_probabilities_says_that_a_client_reads_words(making: Making, tmp_path: Path) -> None:
    reader = {"kind": "prior", "prior": {"billing": 0.5, "technical": 0.5}}
    found = recipe_of(opened(), f"ollama:{BASE}", mode="score", prior="mean", cue="Label:", reader=reader)
    done = export(saved(found, tmp_path), "desk")
    assert done.status == 0 and "answers in mode score; a plain client reads the model's words instead" in done.err
    assert making.made["desk"]["messages"][2] == {"role": "assistant", "content": "billing"}  # no cue


def test_the_nearest_rows_are_no_fixed_text(making: Making) -> None:
    with pytest.raises(Unsupported, match="no fixed text stands before all of them"):
        in_words(recipe_of(opened(), f"ollama:{BASE}", grimoire="").model_copy(update={"arm": "knn"}), opened())


def test_an_embedded_recipe_finds_the_same_weights_or_wants_a_name(making: Making, tmp_path: Path) -> None:
    here = opened().weights_digest
    found = recipe_of(opened(), "embedded:smollm2", model={"weights": here})
    assert export(saved(found, tmp_path), "desk").status == 0 and making.made["desk"]["from"] == BASE
    file = saved(found.model_copy(update={"model": {"weights": "0" * 64}}), tmp_path)
    refused = export(file, "desk2")
    assert refused.status == 1 and "Name the model to build on with --from. It has: " in refused.err
    assert export(file, "desk2", "--from", BASE).status == 0 and making.made["desk2"]["from"] == BASE


def test_the_modelfile_says_the_same(recipe: Path) -> None:
    done = sleicl("export", "modelfile", recipe)
    assert done.out == (
        f"FROM {BASE}\nPARAMETER num_ctx 4096\nPARAMETER num_predict 64\nPARAMETER temperature 0.0\nPARAMETER seed 0\n"
        f'PARAMETER repeat_penalty 1.0\nMESSAGE system """{SYSTEM}"""\n'
        'MESSAGE user """My invoice is wrong {sic}"""\nMESSAGE assistant """billing"""\n'
        'MESSAGE user """The app says "error""""\nMESSAGE assistant """technical"""\n'
    )


def test_a_text_that_a_modelfile_would_end_early_is_refused_there_alone(making: Making, tmp_path: Path) -> None:
    file = saved(recipe_of(opened(), f"ollama:{BASE}", grimoire='say """hi"""\nand go on'), tmp_path)
    done = sleicl("export", "modelfile", file)
    assert (done.status, done.out) == (1, "") and "`sleicl export ollama` has no such limit" in done.err
    assert export(file, "desk").status == 0


def test_export_prompt_prints_what_is_sent(recipe: Path) -> None:
    done = sleicl("export", "prompt", recipe, "Is it so?")
    turns = [
        ("system", SYSTEM),
        *((role, text) for one in EXAMPLES for role, text in zip(("user", "assistant"), one, strict=True)),
    ]
    chat = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in [*turns, ("user", "Is it so?")])
    assert done.out == f"{chat}<|im_start|>assistant\n\n"
    assert sleicl("export", "prompt", recipe, "-", stdin="Is it so?\n").out == done.out
    assert "<|im_start|>user\nQUESTION<|im_end|>" in sleicl("export", "prompt", recipe).out


# ------------------------------------------------------------------ with a real server

MADE = "sleicl-test-export"


@pytest.fixture
def emptied(ollama: str) -> Iterator[Server]:
    """The real server; what is made there is taken away again."""
    server = Server(server_address(ollama))
    yield server
    import httpx

    for name in (MADE, f"{MADE}-2"):
        httpx.request("DELETE", f"{ollama}/api/delete", json={"model": name}, trust_env=False)


@pytest.mark.ollama
@pytest.mark.parametrize("base", [BASE, "gemma3:270m-base"])
@pytest.mark.parametrize("shown", [{}, {"grimoire": ""}, {"examples": ()}])
def test_a_real_server_makes_the_very_prompt_of_it(
    base: str, shown: dict[str, Any], emptied: Server, tmp_path: Path, home: Home
) -> None:
    weak = opened(base)
    found = recipe_of(weak, f"ollama:{base}", **shown)
    made = export(saved(found, tmp_path), MADE, "--json").json()
    assert (made["same_prompt"], made["template"], made["messages"]) == (
        True,
        base != BASE,
        1 + 2 * len(found.examples),
    )
    for question in ("Is it so?", 'My {{ .Prompt }} costs 5%\n"ok" {x}'):
        assert rendered(emptied, MADE, question) == weak.render(in_words(found, weak).messages(question))


@pytest.mark.ollama
def test_a_clients_own_system_prompt_does_not_throw_the_grimoire_out(emptied: Server, tmp_path: Path) -> None:
    from ollama import Client

    weak = opened()
    found = recipe_of(weak, f"ollama:{BASE}")
    assert export(saved(found, tmp_path), MADE).status == 0
    own = rendered(emptied, MADE, "Is it so?", "Answer like a pirate.")
    plain = rendered(emptied, MADE, "Is it so?")
    before, question, after = plain.rpartition("<|im_start|>user\nIs it so?")
    assert (
        own == f"{before}<|im_start|>system\nAnswer like a pirate.<|im_end|>\n{question}{after}" and GRIMOIRE in before
    )
    client = Client(emptied.url)
    answers = [client.chat(MADE, messages=[{"role": "user", "content": text}]).message.content for text, _ in EXAMPLES]
    solver = in_words(found, weak)
    assert answers == [weak.invoke([*solver.messages("?")[:-1], ("human", text)]).text for text, _ in EXAMPLES]
    answered = client.chat(
        MADE, messages=[{"role": "system", "content": "Hm."}, {"role": "user", "content": "My invoice"}]
    )
    assert answered.message.content
    client._client.close()


@pytest.mark.ollama
def test_a_system_text_of_the_base_does_not_come_along(emptied: Server, tmp_path: Path) -> None:
    base = f"{MADE}-2"
    emptied.post("/api/create", {"model": base, "from": BASE, "system": "You are Smol.", "stream": False})
    weak = opened(base)
    found = recipe_of(weak, f"ollama:{base}")
    assert export(saved(found, tmp_path), MADE, "--json").json()["same_prompt"]
    assert "Smol" not in rendered(emptied, MADE, "Is it so?")
    stops = [line.split()[-1] for line in emptied.show(MADE)["parameters"].splitlines() if line.startswith("stop")]
    assert stops == ['"<|im_start|>"', '"<|im_end|>"']
    assert "which no Modelfile takes away" in sleicl("export", "modelfile", tmp_path / "recipe.json").err


@pytest.mark.ollama
def test_ollama_create_makes_the_same_of_the_modelfile(emptied: Server, tmp_path: Path) -> None:
    weak = opened("gemma3:270m-base")
    found = recipe_of(weak, "ollama:gemma3:270m-base")
    file = saved(found, tmp_path)
    (tmp_path / "Modelfile").write_text(sleicl("export", "modelfile", file).out, encoding="utf-8")
    program = PLACE / "bin" / "ollama"
    subprocess.run([program, "create", f"{MADE}-2", "-f", tmp_path / "Modelfile"], check=True, capture_output=True)
    assert export(file, MADE).status == 0
    one, other = emptied.show(MADE), emptied.show(f"{MADE}-2")
    assert [one[key] for key in ("template", "messages")] == [other[key] for key in ("template", "messages")]
    assert sorted(one["parameters"].split("\n")) == sorted(other["parameters"].split("\n"))
    assert [(turn["role"], turn["content"]) for turn in one["messages"]] == list(exported(found, weak).messages)
    assert rendered(emptied, MADE, "Is it so?") == rendered(emptied, f"{MADE}-2", "Is it so?")
