"""Sets the numbers of `serving.picking`: a conditional logit over the grimoires and none, by maximum likelihood.

    python benchmarks/talks/fit.py FILE [FILE] [--home HOME] [--embeddings wordllama]

Each turn is one choice among the grimoires and none, where the picker takes first what leads by enough itself. What
stood right before is taken as held. Prints the weights as `picking` has them, in units of a lead, and how often they
are right when the conversations are left out in turn.
"""

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from score import Talk, read

from sleicl_chains.files import Home
from sleicl_chains.grimoires.store import GrimoireStore
from sleicl_chains.models.embedders import embedder
from sleicl_chains.serving.picking import Picker

NAMES = ("lead", "_HELD", "_TEXT", "_FOLLOWS", "_BAR")
STEEP, RIDGE, FOLDS = 10.0, 0.1, 11


class Choice(NamedTuple):
    """One turn: what is known of each grimoire and of none, (n_grimoires + 1, 5), and which are right."""

    talk: int
    known: NDArray[np.float64]
    right: list[int]


def main() -> None:
    """Print weights and how well they do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="+")
    parser.add_argument("--home", type=Path, help="where the weights of minilm are")
    parser.add_argument("--embeddings", default="wordllama")
    given = parser.parse_args()
    talks = [talk for file in given.file for talk in read(file)]
    with tempfile.TemporaryDirectory() as folder:
        picker = Picker(GrimoireStore(Home(Path(folder)), embedder(given.embeddings, home=Home.at(given.home))))
        choices = [one for number, talk in enumerate(talks) for one in choices_of(number, talk, picker)]
    weights = fitted(choices)
    print("  ".join(f"{name} {weight / weights[0]:.3f}" for name, weight in zip(NAMES, weights, strict=True)))
    folds = np.random.default_rng(0).integers(0, FOLDS, len(talks))
    right = [
        int((one.known @ fitted([other for other in choices if folds[other.talk] != fold])).argmax()) in one.right
        for fold in range(FOLDS)
        for one in choices
        if folds[one.talk] == fold
    ]
    print(f"left out in turn, with what is right held: {sum(right)} of {len(right)}")


def choices_of(number: int, talk: Talk, picker: Picker) -> list[Choice]:
    """Return a talk's turns."""
    held, choices = None, []
    for turn in talk.turns:
        found = picker.compared(turn.text)
        assert found
        names = [one.task for one in found.index.grimoires]
        known = np.zeros((len(names) + 1, len(NAMES)))
        known[:-1, 0] = found.leads.max(axis=0)
        if held is not None:
            known[held, 1:4] = 1, found.brings_text, found.follows
        known[-1, 4] = 1
        right = [names.index(one) for one in turn.right]
        choices.append(Choice(number, known, right + [len(names)] * (turn.either or not right)))
        held = right[0] if right else None
    return choices


def fitted(choices: list[Choice]) -> NDArray[np.float64]:
    """Return the weights of the largest likelihood, with a small ridge."""

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        total, slope = RIDGE * weights @ weights / 2, RIDGE * weights
        for _, known, right in choices:
            values = STEEP * known @ weights
            shares = np.exp(values - values.max())
            shares /= shares.sum()
            wanted = np.zeros_like(shares)
            wanted[right] = shares[right] / shares[right].sum()
            total -= np.log(shares[right].sum())
            slope = slope - STEEP * known.T @ (wanted - shares)
        return float(total), slope

    found: NDArray[np.float64] = minimize(loss, np.zeros(len(NAMES)), jac=True).x
    return found


if __name__ == "__main__":
    main()
