"""A strong model studies a task once and writes a grimoire; a weak local model answers with it.

Names are loaded when first used, so importing this package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sleicl_chains.answering.recipes import Recipe
    from sleicl_chains.answering.solver import solver
    from sleicl_chains.answers import Answer
    from sleicl_chains.errors import SleiclError
    from sleicl_chains.evaluation.baselines import majority, probe
    from sleicl_chains.evaluation.evaluate import evaluate
    from sleicl_chains.evaluation.reading import reading
    from sleicl_chains.evaluation.summary import Report
    from sleicl_chains.evaluation.table import ArmBuilder
    from sleicl_chains.grimoires.grimoire import Grimoire, load_grimoire
    from sleicl_chains.grimoires.retriever import GrimoireRetriever
    from sleicl_chains.grimoires.samplers import sampler
    from sleicl_chains.grimoires.selectors import ExampleSelector
    from sleicl_chains.grimoires.store import GrimoireStore
    from sleicl_chains.grimoires.writing.write import grimoire_writer
    from sleicl_chains.learning.learn import learn
    from sleicl_chains.models.embedders import embedder
    from sleicl_chains.models.journal import Journal
    from sleicl_chains.models.names import strong_model, weak_model
    from sleicl_chains.models.reading import Reading
    from sleicl_chains.serving.asking import Asking
    from sleicl_chains.serving.batch import answer_file
    from sleicl_chains.serving.conversation import Conversation
    from sleicl_chains.serving.middleware import GrimoireMiddleware
    from sleicl_chains.serving.tools import as_tool
    from sleicl_chains.tasks.cards import Task, load_task
    from sleicl_chains.tasks.rows import Example, examples_from_documents, examples_from_rows, load_examples
    from sleicl_chains.tasks.splits import split

_HOMES = {
    "Answer": "answers",
    "ArmBuilder": "evaluation.table",
    "Asking": "serving.asking",
    "Conversation": "serving.conversation",
    "Example": "tasks.rows",
    "ExampleSelector": "grimoires.selectors",
    "Grimoire": "grimoires.grimoire",
    "GrimoireMiddleware": "serving.middleware",
    "GrimoireRetriever": "grimoires.retriever",
    "GrimoireStore": "grimoires.store",
    "Journal": "models.journal",
    "Reading": "models.reading",
    "Recipe": "answering.recipes",
    "Report": "evaluation.summary",
    "SleiclError": "errors",
    "Task": "tasks.cards",
    "answer_file": "serving.batch",
    "as_tool": "serving.tools",
    "embedder": "models.embedders",
    "evaluate": "evaluation.evaluate",
    "examples_from_documents": "tasks.rows",
    "examples_from_rows": "tasks.rows",
    "grimoire_writer": "grimoires.writing.write",
    "learn": "learning.learn",
    "load_examples": "tasks.rows",
    "load_grimoire": "grimoires.grimoire",
    "load_task": "tasks.cards",
    "majority": "evaluation.baselines",
    "probe": "evaluation.baselines",
    "reading": "evaluation.reading",
    "sampler": "grimoires.samplers",
    "solver": "answering.solver",
    "split": "tasks.splits",
    "strong_model": "models.names",
    "weak_model": "models.names",
}

__all__ = [
    "Answer",
    "ArmBuilder",
    "Asking",
    "Conversation",
    "Example",
    "ExampleSelector",
    "Grimoire",
    "GrimoireMiddleware",
    "GrimoireRetriever",
    "GrimoireStore",
    "Journal",
    "Reading",
    "Recipe",
    "Report",
    "SleiclError",
    "Task",
    "answer_file",
    "as_tool",
    "embedder",
    "evaluate",
    "examples_from_documents",
    "examples_from_rows",
    "grimoire_writer",
    "learn",
    "load_examples",
    "load_grimoire",
    "load_task",
    "majority",
    "probe",
    "reading",
    "sampler",
    "solver",
    "split",
    "strong_model",
    "weak_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
