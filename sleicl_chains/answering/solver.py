"""The function `solver`: a weak model and a task in, a chain out that answers one question at a time.

It chooses the defaults and refuses what does not fit together. What it builds is a `steps.Solver`, which does the
answering; `chains` wraps that as a LangChain runnable.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, overload

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableSerializable

from sleicl_chains.answering.arms import Arm, ArmName
from sleicl_chains.answering.chains import Fit, chain_of
from sleicl_chains.answering.choosing import Choose, chooser, choosing
from sleicl_chains.answering.deferring import deferring
from sleicl_chains.answering.neighbours import Neighbours
from sleicl_chains.answering.observer import Observer
from sleicl_chains.answering.readings import Mode, Prior, looks_at, mode_named, needs_labelled_rows, prior_named
from sleicl_chains.answering.recipes import Recipe
from sleicl_chains.answering.steps import Solver
from sleicl_chains.answers import Answer
from sleicl_chains.errors import InputError
from sleicl_chains.files import Home
from sleicl_chains.grimoires.grimoire import Grimoire
from sleicl_chains.grimoires.samplers import few_shot_examples
from sleicl_chains.models.abilities import scoring_problem
from sleicl_chains.models.journal import Journal
from sleicl_chains.tasks.cards import Task
from sleicl_chains.tasks.rows import Example

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings


@overload
def solver(
    weak: BaseChatModel,
    task: Task,
    *,
    arm: ArmName | Arm = ...,
    grimoire: Grimoire | None = ...,
    grimoires: Sequence[Grimoire] = ...,
    choose: Choose = ...,
    examples: Sequence[Example] = ...,
    mode: Mode | None = ...,
    prior: Prior | None = ...,
    prior_texts: Sequence[str] = ...,
    train: Sequence[Example] = ...,
    embeddings: "Embeddings | None" = ...,
    journal: Journal | None = ...,
    name: str = ...,
    defer_below: float | None = ...,
    to: BaseChatModel | None = ...,
) -> RunnableSerializable[str, Answer]: ...
@overload
def solver(
    weak: Recipe,
    *,
    model: BaseChatModel | None = ...,
    embeddings: "Embeddings | None" = ...,
    home: Home | None = ...,
    journal: Journal | None = ...,
    name: str = ...,
    defer_below: float | None = ...,
    to: BaseChatModel | None = ...,
) -> RunnableSerializable[str, Answer]: ...
def solver(
    weak: BaseChatModel | Recipe,
    task: Task | None = None,
    *,
    model: BaseChatModel | None = None,
    home: Home | None = None,
    arm: ArmName | Arm = "zero-shot",
    grimoire: Grimoire | None = None,
    grimoires: Sequence[Grimoire] = (),
    choose: Choose = "similar",
    examples: Sequence[Example] = (),
    mode: Mode | None = None,
    prior: Prior | None = None,
    prior_texts: Sequence[str] = (),
    train: Sequence[Example] = (),
    embeddings: "Embeddings | None" = None,
    journal: Journal | None = None,
    name: str = "",
    defer_below: float | None = None,
    to: BaseChatModel | None = None,
) -> RunnableSerializable[str, Answer]:
    """Return a chain that answers a question with one weak request: two for the state, three for the state and scores.

    `solver(recipe)` answers as a recipe says, and takes nothing but `model` and `embeddings`, `home`, `journal`, `name`
    and the last two arguments. It opens a model that runs on this machine; any other, and other embeddings, the user
    opens: a file does not decide where questions, keys and money go.

    Args:
        weak: any chat model, or a recipe. The modes `score`, `fusion` and `blend` need a model that gives label
            probabilities, `hidden` one that gives its state (embedded models).
        task: its labels are the possible answers; without labels the answer is free text.
        arm: what stands before the question.
        grimoire: for the arms `simple` and `profound`.
        grimoires: several in its place, of which one is chosen for each question (`Answer.grimoire` tells which).
        choose: how: `similar`, by the cosine of question and text, or `classifier`, by a model of when the weak one is
            right with which, fitted at the first question on `train`: one answer a row and grimoire, once.
        examples: for the arms with `few-shot`, shown as earlier turns in the given order; without any, those of `train`
            that the grimoire was written from, or else a few of each label by k-means with seed 0.
        mode: `score` where the task has labels and the model can, else `generate` with the reason in `Answer.note`.
            `schema` holds the reply to a JSON schema. `hidden` reads the model's state by a linear model,
            `fusion` its state, label scores and the question's embedding by one, `blend` by one for each of the three,
            pooled. They are fitted at the first question: two requests for the state and one for the scores of each
            row of `train`, once.
        prior: taken off the label scores; `mean` when there are `prior_texts`, else `content-free`.
            It costs one weak call a text (3 if content-free, 20 if `domain`, one a training row if `affine`), once,
            at the first question.
        prior_texts: training texts for the priors `mean` and `domain`. A model that shows only its likeliest tokens
            (Ollama) is also tried on six of them with each of four cues, see `cues`.
        train: labelled rows, for the arms `knn` and `few-shot`, the modes `hidden`, `fusion` and `blend` and the prior
            `affine`. A row that is also an example is asked without it.
        embeddings: for `knn`, `fusion`, `blend` and `choose`; `wordllama` by default, with a recipe its own.
        journal: keeps every call; a repeated one is answered from it.
        name: what to call the chain in tables; by default the arm.
        model: with a recipe, its weak model, if it is open already.
        home: with a recipe, where fetched weights of its model and embeddings lie.
        defer_below: answers of a lower probability, or of none, are asked again of the model `to`, which costs one
            call each; `Answer.deferred` tells which.
        to: a strong model.

    A chain of one model, task and grimoire has LangChain's `configurable_fields` `arm` and `grimoire`.

    Raises:
        InputError: the arm lacks its grimoire, examples or rows, or a name is unknown.
        RecipeRefused: a recipe names a model or embeddings that are not on this machine, and none were given.
        Unsupported: a mode that the model or task does not have.
        PromptTooLong: (when asked) the prompt does not fit; nothing is ever cut.
    """
    chain: RunnableSerializable[str, Answer]
    if (defer_below is None) != (to is None):
        raise InputError("defer_below and to belong together: a probability, and the model that then answers")
    if isinstance(weak, Recipe):
        given = (task, grimoire, mode, prior) != (None,) * 4 or examples or prior_texts or train or grimoires
        if given or arm != "zero-shot":
            raise InputError("solver: a recipe says itself what is shown and how answers are read; leave the rest out")
        steps = weak.steps(model, embeddings=embeddings, home=home, journal=journal, name=name or "recipe")
        chain, task = chain_of(steps), steps.task
    elif model is not None:
        raise InputError("solver: `model` goes with a recipe; here the first argument is the model")
    elif task is None:
        raise InputError("solver: a model needs a task; a recipe has its own")
    elif grimoire is not None and grimoires:
        raise InputError("solver: found both `grimoire` and `grimoires`; give one, or several to choose among")
    else:
        shown = Arm.of(arm)
        build = partial(
            _steps, weak, task, mode=mode or shown.reading, prior=prior, examples=tuple(examples),
            texts=tuple(prior_texts), rows=tuple(train), embeddings=embeddings, journal=journal, name=name,
        )  # fmt: skip
        built = [build(shown, grimoire=one) for one in (grimoires or (grimoire,))]
        chain = _choosing(built, choose, train, embeddings) if grimoires else chain_of(*built[0], build)
    if to is None or defer_below is None:
        return chain
    return deferring(chain, to, task, below=defer_below, journal=journal)


def _steps(
    weak: BaseChatModel, task: Task, arm: Arm, *, grimoire: Grimoire | None, mode: Mode | None, prior: Prior | None,
    examples: tuple[Example, ...], texts: tuple[str, ...], rows: tuple[Example, ...],
    embeddings: "Embeddings | None", journal: Journal | None, name: str,
) -> tuple[Solver, Fit]:  # fmt: skip
    """Return the steps with every default chosen, their reader still missing, and what it is fitted on."""
    mode, note = _mode(weak, task, mode)
    prior = prior_named(prior or ("mean" if texts else "content-free"))
    if embeddings is None and (arm.examples == "knn" or looks_at(mode, "vector")):
        from sleicl_chains.models.embedders import embedder

        embeddings = embedder()
    if arm.examples == "few-shot" and rows and not examples:
        examples = tuple(few_shot_examples(task, rows, grimoire, seed=0)[0])
    observer = Observer(
        weak, task, arm, grimoire, examples if arm.shows_examples else (),
        Neighbours(rows, embeddings) if arm.examples == "knn" and embeddings else None,
        cue_texts=texts, embeddings=embeddings, journal=journal,
    )  # fmt: skip
    return Solver(observer, mode, prior if mode == "score" else "none", note=note, name=name), Fit(texts, rows)


def _choosing(
    built: Sequence[tuple[Solver, Fit]], choose: Choose, rows: Sequence[Example], embeddings: "Embeddings | None"
) -> RunnableSerializable[str, Answer]:
    """Return a chain that chooses among solvers that differ in their grimoire."""
    first = built[0][0]
    if not (form := first.observer.arm.form):
        raise InputError(f"The arm {first.observer.arm.name!r} shows no grimoire; take one such as 'profound'")
    if choose == "classifier" and needs_labelled_rows(first.mode, first.prior):
        raise InputError(
            f"choose='classifier' learns from right and wrong answers to the rows that mode {first.mode!r} with the "
            f"prior {first.prior!r} was fitted on, which are nearly all right; take mode 'score' or choose='similar'"
        )
    chains = [chain_of(*one) for one in built]  # which refuses a grimoire without that text
    texts = [getattr(one.observer.grimoire, form) for one, _ in built]
    if embeddings is None:
        from sleicl_chains.models.embedders import embedder

        embeddings = embedder()
    name = first.name or f"{first.observer.arm.name} of {len(chains)}, {choose}"
    return choosing(chains, chooser(choose, texts, chains, rows, embeddings), name=name)


def _mode(weak: BaseChatModel, task: Task, given: Mode | None) -> tuple[Mode, str]:
    """Return the mode, and why it is not the one that the task would have; a server may be asked what it gives."""
    if given is not None:
        return mode_named(given), ""
    if not task.labels:
        return "generate", ""
    reason = scoring_problem(weak)
    return ("generate", f"generated and parsed: {reason}") if reason else ("score", "")
