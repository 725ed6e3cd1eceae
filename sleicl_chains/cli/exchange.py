"""`sleicl export`: what was learned, for other programs."""

import typer

from sleicl_chains.cli import sending

export_app = typer.Typer(
    help="Take a recipe or a grimoire to other programs.", no_args_is_help=True, rich_markup_mode=None
)
export_app.command("ollama")(sending.export_ollama)
export_app.command("modelfile")(sending.export_modelfile)
export_app.command("prompt")(sending.export_prompt)
