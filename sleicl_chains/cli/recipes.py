"""`sleicl recipe`: what a recipe says, as a person reads it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sleicl_chains.cli.options import JsonOption
from sleicl_chains.cli.printing import quoted
from sleicl_chains.cli.steps import print_json

if TYPE_CHECKING:
    from sleicl_chains.answering.recipes import Recipe

app = typer.Typer(help="What was learned.", no_args_is_help=True, rich_markup_mode=None)

_READ = {
    "generate": "from the model's own words",
    "schema": "from words held to a JSON schema",
    "score": "from the probabilities of the labels",
    "hidden": "from the model's state, by a linear model",
    "fusion": "from label probabilities, state and embedding, by one linear model",
    "blend": "from label probabilities, state and embedding, by a linear model each",
}


@app.callback()
def _recipe() -> None:
    """Without this, typer would make the one command the whole of `sleicl recipe`."""


@app.command("show")
def show_recipe(
    file: Annotated[Path, typer.Argument(help="A recipe as `sleicl learn` writes it.")], as_json: JsonOption = False
) -> None:
    """Print a recipe: task, model, what is shown, how answers are read, the verdict, and what it holds."""
    from sleicl_chains.answering.opening import open_recipe
    from sleicl_chains.cli.console import after_learning, print_recipe

    recipe = open_recipe(file)
    if as_json:
        print_json(as_object(recipe))
        return
    for name, told in _told(recipe):
        print(f"{name + ':':<10} {told}")
    print()
    print_recipe(recipe, after_learning(recipe, file) if recipe.choice else "")
    name = quoted(file)
    print(f"\nTo use it: sleicl ask --recipe {name} QUESTION, or a whole file: sleicl batch {name} IN.csv -o OUT.csv")


def as_object(recipe: "Recipe") -> dict[str, Any]:
    """Return what `--json` says of a recipe; its texts, its rows and its fitted numbers are left out."""
    texts = {"reader", "examples", "grimoire", "learned_from", "learned_texts", "tested"}
    shown = recipe.grimoire
    return recipe.model_dump(mode="json", exclude=texts) | {
        "grimoire": {"id": shown.id, "form": recipe.shown.form, "characters": len(shown.text)} if shown else None,
        "training_rows": len(recipe.examples),
    }


def _told(recipe: "Recipe") -> list[tuple[str, str]]:
    task, shown = recipe.task, recipe.shown_grimoire()
    labels = (
        f"{len(task.labels)} labels: {_listed(task.labels)}" if task.labels else "no labels, so a text is the answer"
    )
    options = "".join(f", {name}={value}" for name, value in recipe.options.items())
    weights = f" (weights {str(recipe.model['weights'])[:12]})" if "weights" in recipe.model else ""
    shows = [f"the {recipe.shown.form} text of the grimoire {shown.id}"] if shown and recipe.shown.form else []
    rows = len(recipe.examples)
    if recipe.shown.examples == "knn":
        shows.append(f"of {rows} training rows those nearest to the question")
    elif rows:
        shows.append(f"{rows} examples")
    made = f"{recipe.rows} labelled rows, seed {recipe.seed}" + (f", on {recipe.date[:10]}" if recipe.date else "")
    return [
        ("Task", f"{task.name} ({task.task_type}), {labels}"),
        ("Asks", f"{recipe.weak}{options}{weights}"),
        ("Shows", ", ".join(["the task's description", *shows]) + "; then the question"),
        ("Reads", f"{_READ[recipe.mode]}{_corrected(recipe)}"),
        ("Learned", f"from {made}"),
        ("Holds", (f"{rows} training rows as text" if rows else "no training rows") + _answers_held(recipe)),
    ]


def _answers_held(recipe: "Recipe") -> str:
    """Say that an open-ended task's test is in the file: its answers are texts, not labels."""
    return "" if recipe.task.labels or not recipe.tested else f", of {len(recipe.tested)} tested rows the answers"


def _corrected(recipe: "Recipe") -> str:
    parts = [f"less the prior {recipe.prior!r}"] if recipe.prior != "none" else []
    parts += [f"after the cue {recipe.cue!r}"] if recipe.cue else []
    parts += ["calibrated"] if recipe.calibration else []
    return "".join(f", {part}" for part in parts)


def _listed(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:12]) + (" ..." if len(labels) > 12 else "")
