"""The options that several commands take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sleicl_chains.answering.readings import Mode, Prior, mode_named, prior_named

if TYPE_CHECKING:
    from sleicl_chains.grimoires.samplers import SamplerName
else:
    SamplerName = str  # typer reads annotations at the start, where samplers take too long to load; they check the name

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="The folder with grimoires, journal, weights and runs.")
]
TaskOption = Annotated[Path, typer.Option("--task", help="Task card, TOML or JSON.")]
RowsOption = Annotated[
    Path, typer.Option("--rows", help="Rows: .jsonl, .json, .csv or .parquet with a text and an answer.")
]
MaybeRows = Annotated[
    Path | None, typer.Option("--rows", help="Labelled rows to draw examples from; none with --sampler none.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Decides samples and fits.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WeakOption = Annotated[
    str, typer.Option("--weak", help="embedded:qwen2.5-coder-1.5b, embedded:PATH.gguf, ollama:NAME, openai:NAME ...")
]
MaybeWeak = Annotated[
    str | None, typer.Option("--weak", help="The weak model: embedded:qwen2.5-coder-1.5b, ollama:NAME ...")
]
StrongName = Annotated[str | None, typer.Option("--strong-name", help="Which model wrote a pasted grimoire.")]
BaseUrl = Annotated[str | None, typer.Option("--base-url", help="Address of an Ollama or OpenAI-compatible server.")]
OllamaUrl = Annotated[str | None, typer.Option("--base-url", help="Address of the Ollama server; else OLLAMA_HOST.")]
ModelOption = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", help="NAME=VALUE for the model, such as n_ctx=8192 or max_tokens=8000; repeatable."),
]
LongModelOption = Annotated[
    list[str] | None,
    typer.Option("--option", help="NAME=VALUE for the model, such as n_ctx=8192; repeatable."),
]
"""Of commands that write a file or what may be put into one, where -o means or looks like the output."""
SamplerOption = Annotated[
    SamplerName, typer.Option("--sampler", help="random, kmeans, hierarchical, hard, similar or none.")
]
CountOption = Annotated[int, typer.Option("-n", help="Examples a label.")]
RatioOption = Annotated[float, typer.Option("--ratio", help="Share of hard rows in the hard sampler, 0 to 1.")]
ChromaOption = Annotated[
    str | None,
    typer.Option("--chroma-url", help="A Chroma server for the index, such as http://127.0.0.1:8000; else the home."),
]
EmbedderOption = Annotated[str, typer.Option("--embeddings", help="wordllama, minilm, ollama:NAME or openai:NAME.")]
MaybeEmbeddings = Annotated[
    str | None, typer.Option("--embeddings", help="Those of knn, fusion and blend; with a recipe, its own.")
]
GrimoireOption = Annotated[str | None, typer.Option("--grimoire", help="A grimoire's id or file.")]
BudgetOption = Annotated[
    int | None, typer.Option("--budget", min=1, help="Most tokens that the strong model may cost.")
]
NoJournal = Annotated[
    bool, typer.Option("--no-journal", help="Keep no record of model calls and no default run folder.")
]
ModeOption = Annotated[
    Mode | None,
    typer.Option(
        "--mode",
        parser=mode_named,
        metavar="NAME",
        help="score (with labels), hidden, fusion, blend, schema or generate.",
    ),
]
PriorOption = Annotated[
    Prior | None,
    typer.Option(
        "--prior",
        parser=prior_named,
        metavar="NAME",
        help="none, content-free, domain, mean (with --train) or affine.",
    ),
]
TextsOption = Annotated[
    Path | None,
    typer.Option("--texts", help="Texts without answers for the prior: rows, or a .txt file with one a line."),
]
RecipeOption = Annotated[Path | None, typer.Option("--recipe", help="A recipe as `sleicl learn` writes it.")]
MaybeTask = Annotated[Path | None, typer.Option("--task", help="Task card, TOML or JSON; a recipe has its own.")]
