import math
import random
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from sklearn.metrics import f1_score

from sleicl_chains.statistics import (
    calibration_bins,
    expected_calibration_error,
    macro_f1,
    mcnemar,
    paired_difference,
    risk_coverage,
    sign_flips,
    wilson,
)

Z = 1.959963984540054


def test_wilson_of_81_in_263() -> None:
    """With z = 1.959964: rate .3079848, z*z = 3.841459, z*z/n = .0146063.

    middle = (.3079848 + .0073032) / 1.0146063 = .3107491
    half   = 1.959964 / 1.0146063 * sqrt(.3079848 * .6920152 / 263 + 3.841459 / (4 * 263 * 263))
           = 1.931748 * sqrt(.000810380 + .0000138843) = .0554605
    """
    assert wilson(81, 263) == pytest.approx((0.2552886, 0.3662096), abs=2e-6)


@pytest.mark.parametrize("n", [1, 2, 10, 263, 10_000])
def test_wilson_at_the_ends(n: int) -> None:
    """With no right answer the upper end is z*z / (n + z*z), the lower end 0; all right is its mirror image."""
    assert wilson(0, n) == pytest.approx((0, Z * Z / (n + Z * Z)), abs=1e-12)
    assert wilson(n, n) == pytest.approx((n / (n + Z * Z), 1), abs=1e-12)
    assert wilson(0, n)[0] >= 0 and wilson(n, n)[1] <= 1


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("right, n", [(1, 3), (5, 10), (81, 263), (999, 1000)])
def test_wilson_agrees_with_scipy_and_is_symmetric(right: int, n: int) -> None:
    low, high = wilson(right, n)
    found = binomtest(right, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((found.low, found.high), abs=1e-12)
    assert wilson(n - right, n) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize("n", [20, 100])
def test_wilson_covers_the_true_rate_95_times_in_100(n: int) -> None:
    """Exact: the probability of all counts whose interval holds the rate, averaged over rates."""
    rates = np.linspace(0.05, 0.95, 91)
    covers = [
        sum(binom.pmf(k, n, rate) for k in range(n + 1) if wilson(k, n)[0] <= rate <= wilson(k, n)[1]) for rate in rates
    ]
    assert np.mean(covers) == pytest.approx(0.95, abs=0.01)
    assert min(covers) > 0.9


def test_macro_f1_by_hand() -> None:
    """Gold a a b c, predicted a b b and nothing.

    a: 1 hit of 2 gold and 1 predicted, 2/3. b: 1 of 1 and 2, 2/3. c: 0 of 1, 0. d does not occur. Mean 4/9.
    """
    assert macro_f1(["a", "a", "b", "c"], ["a", "b", "b", None], ["a", "b", "c", "d"]) == pytest.approx(4 / 9)


@pytest.mark.parametrize("seed", range(20))
def test_macro_f1_agrees_with_scikit_learn(seed: int) -> None:
    draw = random.Random(seed)
    labels = [f"label {n}" for n in range(draw.randint(2, 6))]
    gold = draw.choices(labels, k=draw.randint(1, 60))
    predicted = [draw.choice([answer, draw.choice(labels), None]) for answer in gold]
    there = sorted({*gold, *predicted} - {None}, key=str)  # scikit-learn counts a label that does not occur as 0
    expected = f1_score(gold, [p or "none" for p in predicted], labels=there, average="macro", zero_division=0)
    assert macro_f1(gold, predicted, labels) == pytest.approx(expected)


def test_macro_f1_at_the_ends() -> None:
    assert macro_f1(["a", "b"], ["a", "b"], ["a", "b"]) == 1.0
    assert macro_f1(["a", "b"], ["b", "a"], ["a", "b"]) == 0.0
    assert macro_f1(["a", "b"], [None, None], ["a", "b"]) == 0.0
    assert macro_f1([], [], ["a", "b"]) == 0.0
    with pytest.raises(ValueError):
        macro_f1(["a"], [], ["a"])


def arms(seed: int, n: int, ours: float, theirs: float) -> tuple[list[bool], list[bool]]:
    draw = random.Random(seed)
    return [draw.random() < ours for _ in range(n)], [draw.random() < theirs for _ in range(n)]


@pytest.mark.parametrize("seed, n", [(0, 40), (1, 100), (2, 250)])
def test_the_interval_is_that_of_a_plain_paired_bootstrap(seed: int, n: int) -> None:
    right, baseline = arms(seed, n, 0.7, 0.5)
    draw = np.random.default_rng(99)
    means = []
    for _ in range(4000):
        rows = draw.integers(n, size=n)
        means.append(sum(right[row] - baseline[row] for row in rows) / n)
    low, high = np.percentile(means, [2.5, 97.5])
    found = paired_difference(right, baseline)
    assert found[0] == pytest.approx((sum(right) - sum(baseline)) / n)
    assert found[1:] == pytest.approx((low, high), abs=1.5 / n)  # means lie on a grid of 1/n


@pytest.mark.parametrize("seed", range(5))
def test_swapping_the_arms_mirrors_the_interval(seed: int) -> None:
    right, baseline = arms(seed, 120, 0.6, 0.5)
    difference, low, high = paired_difference(right, baseline)
    assert low <= difference <= high
    assert paired_difference(baseline, right) == pytest.approx((-difference, -high, -low), abs=1.01 / 120)


@pytest.mark.parametrize("right", [[True], [False] * 7, [True, False, True] * 33])
def test_an_arm_against_itself_is_exactly_nothing(right: list[bool]) -> None:
    assert paired_difference(right, right) == (0.0, 0.0, 0.0)


def test_all_against_none_is_exactly_one() -> None:
    assert paired_difference([True] * 9, [False] * 9) == (1.0, 1.0, 1.0)


def test_the_same_rows_give_the_same_interval_in_any_order() -> None:
    right, baseline = arms(3, 90, 0.6, 0.5)
    assert paired_difference(right, baseline) == paired_difference(right[::-1], baseline[::-1])
    assert paired_difference(right, baseline, seed=1) != paired_difference(right, baseline, seed=2)


def test_arms_on_different_numbers_of_rows_are_no_pair() -> None:
    with pytest.raises(ValueError):
        paired_difference([True], [True, False])


def test_the_interval_covers_the_true_difference_95_times_in_100() -> None:
    """400 draws of 150 rows at rates .6 and .5; the count of hits is itself random, by about 1.1%."""
    covered = 0
    for seed in range(400):
        _, low, high = paired_difference(*arms(seed, 150, 0.6, 0.5), resamples=1000)
        covered += low <= 0.1 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_mcnemar_by_hand() -> None:
    """Six rows differ, five for us: 2 * (1 + 6) / 64 = .21875. Rows on which both agree do not matter."""
    right, baseline = [True] * 5 + [False], [False] * 5 + [True]
    assert mcnemar(right, baseline) == mcnemar(baseline, right) == pytest.approx(0.21875, rel=1e-12)
    assert mcnemar([*right, True, False], [*baseline, True, False]) == pytest.approx(0.21875, rel=1e-12)


def test_mcnemar_at_the_ends() -> None:
    assert mcnemar([True, False], [True, False]) == 1.0
    assert mcnemar([True, False], [False, True]) == 1.0
    assert mcnemar([True] * 5000, [False] * 5000) == pytest.approx(0, abs=1e-300)
    assert not math.isnan(mcnemar([], []))


@pytest.mark.parametrize("won, lost", [(10, 3), (3, 10), (40, 41), (700, 500)])
def test_mcnemar_agrees_with_scipy(won: int, lost: int) -> None:
    right, baseline = [True] * won + [False] * lost, [False] * won + [True] * lost
    assert mcnemar(right, baseline) == pytest.approx(binomtest(won, won + lost).pvalue)


SURE = [0.9, 0.8, 0.6, 0.4]
HITS = [True, False, True, False]


def test_calibration_by_hand() -> None:
    """Two bins of two: .4 and .6, mean .5, half right: off by 0. .8 and .9, mean .85, half right: off by .35.

    The error is (2 * 0 + 2 * .35) / 4 = .175.
    """
    low, high = calibration_bins(SURE, HITS, 2)
    assert low == pytest.approx((2, 0.5, 0.5)) and high == pytest.approx((2, 0.85, 0.5))
    assert expected_calibration_error(SURE, HITS, 2) == pytest.approx(0.175)


def test_a_bin_an_answer_where_there_are_fewer_answers_than_bins() -> None:
    """.1 + .8 + .4 + .4 over four."""
    assert [part.rows for part in calibration_bins(SURE, HITS)] == [1, 1, 1, 1]
    assert expected_calibration_error(SURE, HITS) == pytest.approx(0.425)


def test_bins_are_of_equal_mass() -> None:
    """Equal widths would put 95 of these into one bin."""
    probability = [0.97] * 95 + [0.1, 0.2, 0.3, 0.4, 0.5]
    assert {part.rows for part in calibration_bins(probability, [True] * 100)} == {10}
    assert [part.rows for part in calibration_bins(SURE * 6, HITS * 6)] == [2, 3, 2, 3, 2, 2, 3, 2, 3, 2]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_does_not_matter_where_probabilities_tie(seed: int) -> None:
    draw = random.Random(seed)
    pairs = [(draw.choice([0.5, 0.7, 0.9]), draw.random() < 0.6) for _ in range(40)]
    found = []
    for _ in range(2):
        probability, hits = [value for value, _ in pairs], [hit for _, hit in pairs]
        found.append((expected_calibration_error(probability, hits), risk_coverage(probability, hits)[1]))
        draw.shuffle(pairs)
    assert found[0] == pytest.approx(found[1], abs=1e-12)


def test_calibration_at_the_ends() -> None:
    assert expected_calibration_error([1.0] * 20, [True] * 20) == 0.0
    assert expected_calibration_error([1.0] * 20, [False] * 20) == 1.0
    assert (calibration_bins([], []), expected_calibration_error([], [])) == ([], 0.0)
    assert expected_calibration_error([0.75] * 4, [True, True, True, False]) == pytest.approx(0)
    with pytest.raises(ValueError):
        calibration_bins([0.5], [])


def test_risk_and_coverage_by_hand() -> None:
    """Kept by falling probability: right, wrong, right, wrong. Risks 0, 1/2, 1/3, 2/4; mean 1/3."""
    points, area = risk_coverage(SURE, HITS)
    assert [kept for kept, _ in points] == [0.25, 0.5, 0.75, 1.0]
    assert [risk for _, risk in points] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_equal_probabilities_are_kept_in_random_order() -> None:
    """Two of three of one probability are right, so each of the three counts as 1/3 wrong; then comes a wrong one.

    Risks 1/3, 1/3, 1/3 and (1 + 1) / 4; mean 3/8.
    """
    points, area = risk_coverage([0.9, 0.9, 0.9, 0.2], [True, False, True, False])
    assert [risk for _, risk in points] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1 / 2])
    assert area == pytest.approx(3 / 8)


def test_risk_at_full_coverage_is_the_error_rate_and_perfect_order_is_best() -> None:
    draw = random.Random(0)
    hits = [draw.random() < 0.7 for _ in range(50)]
    wrong = hits.count(False) / 50
    best, any_order = risk_coverage([float(hit) for hit in hits], hits), risk_coverage([0.5] * 50, hits)
    worst = risk_coverage([1 - float(hit) for hit in hits], hits)
    for found in (best, any_order, worst):
        assert found[0][-1] == pytest.approx((1.0, wrong))
    assert best[1] < any_order[1] < worst[1] and any_order[1] == pytest.approx(wrong)
    assert risk_coverage([], []) == ([], 0.0)


def all_flips(differences: list[list[float]]) -> list[float]:
    """Return the p of every comparison by all 2^n ways to give the rows signs, each held against the largest."""
    steps = np.array(differences)
    unit = steps / np.sqrt((steps**2).sum(axis=1, keepdims=True))
    signs = np.array(list(product((-1, 1), repeat=steps.shape[1])))
    largest = np.abs(signs @ unit.T).max(axis=1)
    return [float((largest >= abs(one.sum()) - 1e-9).mean()) for one in unit]


@pytest.mark.parametrize(
    "differences",
    [
        [[1.0] * 6],
        [[1.0, 1.0, 1.0, -1.0, 0.0, 0.0, 1.0, 1.0]],
        [[0.3, -0.1, 0.25, 0.4, 0.05, 0.2, -0.15, 0.1, 0.3]],
        [[0.3, -0.1, 0.25, 0.4, 0.05, 0.2, -0.15, 0.1, 0.3], [1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0]],
        [[1.0] * 8, [1.0, -1.0] * 4, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0, 0.0]],
    ],
)
def test_sign_flips_agree_with_all_flips(differences: list[list[float]]) -> None:
    """10,000 flips: three standard errors of a p are at most .015."""
    assert sign_flips(differences) == pytest.approx(all_flips(differences), abs=0.015)


def test_sign_flips_by_hand() -> None:
    """Of ten equal rows only two of 1,024 flips are as far out; rows of 0 change nothing."""
    assert sign_flips([[1.0] * 10])[0] == pytest.approx(2 / 1024, abs=0.0015)
    assert sign_flips([[0.2] * 10 + [0.0] * 50])[0] == pytest.approx(2 / 1024, abs=0.0015)
    assert sign_flips([[0.0] * 10]) == [1.0] and sign_flips([[1.0, -1.0]]) == [1.0] and sign_flips([[]]) == [1.0]
    assert sign_flips([[1.0] * 60], flips=100) == [1 / 101]  # never 0


_STEPS = st.integers(2, 25).flatmap(
    lambda n: st.lists(st.lists(st.floats(-1, 1), min_size=n, max_size=n), min_size=1, max_size=4)
)


@settings(max_examples=40, deadline=None)
@given(_STEPS)
def test_several_sign_flips_together_are_never_surer_than_each_alone(differences: list[list[float]]) -> None:
    together = sign_flips(differences, flips=500)
    for at, one in enumerate(differences):
        assert 0 < sign_flips([one], flips=500)[0] <= together[at] <= 1


@settings(max_examples=40, deadline=None)
@given(_STEPS, st.sampled_from([0.25, 4.0, -1.0]))
def test_equal_comparisons_have_equal_sign_flips_whatever_unit_and_side(
    differences: list[list[float]], unit: float
) -> None:
    first = differences[0]
    found = sign_flips([*differences, [unit * step for step in first], first], flips=500)
    assert found[0] == found[-1] == found[-2]


def test_sign_flips_of_nothing_to_find_are_below_a_level_as_often_as_it_says() -> None:
    """Three prompts that go together, on 30 rows: any of them, in 600 runs; two standard errors are .018."""
    rng, found = np.random.default_rng(0), 0
    for run in range(600):
        shared = rng.normal(size=30)
        steps = [(shared + rng.normal(size=30)).tolist() for _ in range(3)]
        found += min(sign_flips(steps, seed=run, flips=400)) < 0.05
    assert found / 600 == pytest.approx(0.05, abs=0.02)
