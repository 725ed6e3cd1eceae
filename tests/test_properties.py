"""What holds for every reader, whatever the scores and priors: invented ones, the same in each run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sleicl_chains.answering.calibration import Calibration, fit_calibration
from sleicl_chains.answering.evidence import Observation
from sleicl_chains.answering.fitting import fit_reader
from sleicl_chains.answering.priors import mean_shares, remove_prior
from sleicl_chains.answering.readers import AffineReader, LinearReader, PriorReader, Reader, load_reader
from sleicl_chains.answering.readings import GROUPS
from sleicl_chains.models.abilities import LabelScores

LABELS = ("a", "b", "c", "d", "e")
invented = settings(
    derandomize=True, database=None, deadline=None, max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the empty home, which these do not use
)  # fmt: skip

shares = st.floats(1e-9, 1.0)
numbers = st.floats(-5, 5)


def observation(masses: Mapping[str, float], state: Sequence[float] = ()) -> Observation:
    """Return evidence of label masses, scaled to add up to 1 as a model's do."""
    total = sum(masses.values())
    scaled = {label: mass / total for label, mass in masses.items()}
    return Observation(LabelScores(scaled, coverage=min(1.0, total), prompt_tokens=1, requests=1), state=state)


@st.composite
def masses(draw: st.DrawFn) -> dict[str, float]:
    """Draw masses of two to five labels, over nine powers of ten."""
    return {label: draw(shares) for label in LABELS[: draw(st.integers(2, 5))]}


@st.composite
def readers(draw: st.DrawFn, labels: Sequence[str]) -> Reader:
    """Draw any reader for some labels; the linear one reads the scores and two numbers of state."""
    each = st.tuples(*[numbers] * len(labels))
    kind = draw(st.sampled_from(["prior", "affine", "linear"]))
    if kind == "prior":
        return PriorReader({label: draw(shares) for label in labels})
    if kind == "affine":
        return AffineReader(tuple(labels), draw(each), draw(each))
    known = tuple(labels[: draw(st.integers(1, len(labels)))])
    size = len(labels) + 2
    row = st.tuples(*[numbers] * size)
    return LinearReader(
        known, ("scores", "state"), draw(row), draw(st.tuples(*[st.floats(0.1, 5)] * size)),
        tuple(draw(row) for _ in known), tuple(draw(numbers) for _ in known), tuple(labels),
    )  # fmt: skip


cases = masses().flatmap(lambda found: st.tuples(st.just(found), readers(list(found)), st.tuples(numbers, numbers)))
Case = tuple[dict[str, float], Reader, tuple[float, float]]


def permuted(reader: Reader, order: Mapping[str, str]) -> Reader:
    """Return the reader with its labels renamed; the linear one's scores change places with them."""
    found = reader.to_dict()
    if found["kind"] == "prior":
        return PriorReader({order[label]: share for label, share in found["prior"].items()})
    found["labels"] = [order[label] for label in found["labels"]]
    if found["kind"] == "linear":
        found["all_labels"] = [order[label] for label in found["all_labels"]]
    return load_reader(found)


# ------------------------------------------------------------------ any reader


@invented
@given(cases)
def test_shares_add_up_to_one_and_none_is_negative(case: Case) -> None:
    found, reader, state = case
    said = reader.shares(observation(found, state))
    assert set(said) == set(found)
    assert sum(said.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in said.values())


@invented
@given(cases, st.permutations(LABELS))
def test_labels_by_other_names_get_the_same_shares(case: Case, names: list[str]) -> None:
    found, reader, state = case
    order = dict(zip(found, [name for name in names if name in found], strict=True))
    reader = load_reader(reader.to_dict())  # rounded to six digits, as the renamed one will be
    said = reader.shares(observation(found, state))
    renamed = {order[label]: mass for label, mass in found.items()}
    assert permuted(reader, order).shares(observation(renamed, state)) == pytest.approx(
        {order[label]: share for label, share in said.items()}, abs=1e-9
    )


@invented
@given(cases, st.randoms(use_true_random=False))
def test_the_order_of_the_scores_does_not_matter(case: Case, random: Random) -> None:
    found, reader, state = case
    mixed = dict(random.sample(sorted(found.items()), len(found)))
    assert reader.shares(observation(mixed, state)) == pytest.approx(reader.shares(observation(found, state)))


@invented
@given(cases, st.floats(1e-3, 1e3))
def test_masses_that_all_grow_alike_change_nothing(case: Case, factor: float) -> None:
    """The same constant added to every log-score."""
    found, reader, state = case
    scaled = {label: mass * factor for label, mass in found.items()}
    assert reader.shares(observation(scaled, state)) == pytest.approx(
        reader.shares(observation(found, state)), abs=1e-9
    )


@invented
@given(cases)
def test_a_reader_in_a_file_says_the_same(case: Case) -> None:
    found, reader, state = case
    again = load_reader(reader.to_dict())
    assert again.shares(observation(found, state)) == pytest.approx(reader.shares(observation(found, state)), abs=2e-3)


# ------------------------------------------------------------------ priors


@invented
@given(masses(), st.floats(1e-3, 1e3), st.data())
def test_a_prior_counts_by_its_ratios_alone(found: dict[str, float], factor: float, data: st.DataObject) -> None:
    prior = {label: data.draw(shares) for label in found}
    scaled = {label: share * factor for label, share in prior.items()}
    assert remove_prior(found, scaled) == pytest.approx(remove_prior(found, prior))


@invented
@given(masses(), st.data())
def test_a_lean_of_the_model_cancels_out(found: dict[str, float], data: st.DataObject) -> None:
    """Where a model multiplies each label by a number of its own, in the prior as in the question."""
    prior = {label: data.draw(shares) for label in found}
    lean = {label: data.draw(st.floats(1e-2, 1e2)) for label in found}
    leaning = remove_prior(
        {label: found[label] * lean[label] for label in found}, {label: prior[label] * lean[label] for label in found}
    )
    assert leaning == pytest.approx(remove_prior(found, prior))


@invented
@given(st.lists(st.tuples(*[shares] * 3), min_size=1, max_size=8))
def test_a_mean_of_shares_is_one_too_in_any_order(rows: list[tuple[float, ...]]) -> None:
    scaled = [{label: value / sum(row) for label, value in zip(LABELS, row, strict=False)} for row in rows]
    found = mean_shares(scaled)
    assert sum(found.values()) == pytest.approx(1)
    assert mean_shares(reversed(scaled)) == pytest.approx(found)


# ------------------------------------------------------------------ fits

few = settings(invented, max_examples=15)


def evidence(masses: Mapping[str, float], told: float) -> Observation:
    """Return evidence of each kind."""
    return replace(observation(masses, [told, 1.0]), vector=[told * told])


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[dict[str, float]], list[str]]:
    """Draw six to twenty-four rows of masses and their answers, which need not have all labels."""
    rows = draw(st.lists(st.tuples(*[st.floats(1e-4, 1.0)] * 3), min_size=6, max_size=24))
    answers = draw(st.lists(st.sampled_from("abc"), min_size=len(rows), max_size=len(rows)))
    return [dict(zip("abc", row, strict=True)) for row in rows], answers


@few
@given(tables())
def test_fitted_readers_give_shares_whatever_they_are_fitted_on(
    table: tuple[list[dict[str, float]], list[str]],
) -> None:
    seen, answers = [evidence(row, row["a"]) for row in table[0]], table[1]
    fits = [fit_reader(mode, seen, answers, GROUPS[mode], "abc") for mode in GROUPS]
    for reader in fits:
        for one in seen:
            assert sum(reader.shares(one).values()) == pytest.approx(1)


@few
@given(tables(), st.permutations("abc"))
def test_fits_with_labels_by_other_names_answer_the_same(
    table: tuple[list[dict[str, float]], list[str]], names: list[str]
) -> None:
    order = dict(zip("abc", names, strict=True))
    seen, answers = [evidence(row, row["a"]) for row in table[0]], table[1]
    renamed = [evidence({order[label]: mass for label, mass in row.items()}, row["a"]) for row in table[0]]
    renamed_answers = [order[answer] for answer in answers]
    pairs = [
        (
            fit_reader(mode, seen, answers, GROUPS[mode], "abc"),
            fit_reader(mode, renamed, renamed_answers, GROUPS[mode], names),
        )
        for mode in GROUPS
    ]
    for reader, other in pairs:
        for one, same in zip(seen, renamed, strict=True):
            wanted = {order[label]: share for label, share in reader.shares(one).items()}
            assert other.shares(same) == pytest.approx(wanted, abs=0.01)


@invented
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40), st.floats(0, 1), st.floats(0, 1))
def test_a_calibration_is_a_probability_and_keeps_the_order(
    rows: list[tuple[float, bool]], one: float, other: float
) -> None:
    found = fit_calibration([share for share, _ in rows], [right for _, right in rows])
    low, high = sorted((one, other))
    assert 0 < found.of(low) <= found.of(high) < 1
    assert isinstance(found, Calibration)
