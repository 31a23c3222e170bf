"""The arithmetic of the study of the noise scale: planted fronts and enumerated batches."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr

from playground import study


@pytest.fixture(scope="module")
def analysis():
    return study.load_analysis(study.find("mccandlish2018"))


BATCHES = [4, 8, 16, 32, 64, 128, 256, 512, 1024]


@pytest.mark.parametrize(("s_min", "b_crit"), [(60.0, 33.0), (1.5, 2.0), (400.0, 5000.0)])
def test_a_planted_front_is_found(analysis, s_min, b_crit):
    """Steps that solve (S/S_min - 1)(E/E_min - 1) = 1 with E = B S, as a quadratic in S."""
    e_min = b_crit * s_min
    steps = [max(np.roots([b, -(e_min + b * s_min), 0.0]).real) for b in BATCHES]
    fit = analysis.hyperbola(BATCHES, np.array(steps))
    assert (fit.s_min, fit.b_crit) == pytest.approx((s_min, b_crit), rel=1e-4)
    assert fit.r_squared == pytest.approx(1.0)
    assert fit.residual < 1e-4


def test_a_noisy_front_has_its_deviation(analysis):
    """Deviations orthogonal to both parameters to first order leave the fit where it is."""
    size = np.array(BATCHES, float)
    tangent = np.stack([np.ones(9), (33 / size) / (1 + 33 / size)])
    noise = np.random.default_rng(0).standard_normal(9)
    noise -= np.linalg.lstsq(tangent.T, noise, rcond=None)[0] @ tangent
    noise *= 0.02 / noise.std()
    fit = analysis.hyperbola(BATCHES, 60 * (1 + 33 / size) * np.exp(noise))
    assert (fit.s_min, fit.b_crit) == pytest.approx((60, 33), rel=5e-3)
    assert fit.residual == pytest.approx(0.02, rel=1e-2)


def test_a_goal_that_is_not_reached_fails_the_fit(analysis):
    fit = analysis.hyperbola([4, 8, 16], np.array([10.0, np.inf, 5.0]))
    assert np.isnan([fit.s_min, fit.b_crit, fit.r_squared, fit.residual]).all()


@pytest.mark.parametrize("batch", [1, 2])
def test_best_step_against_all_batches(analysis, batch):
    """Mean loss after a step over every batch of a set of four, drawn with replacement."""
    source = np.random.default_rng(1)
    inputs, targets, weight = (source.standard_normal(s) for s in ((4, 3), 4, 3))

    def loss(w):
        return 0.5 * np.mean((inputs @ w - targets) ** 2)

    def mean_gain(rate):
        after = []
        for index in product(range(4), repeat=batch):
            x, y = inputs[list(index)], targets[list(index)]
            after.append(loss(weight - rate * x.T @ (x @ weight - y) / batch))
        return loss(weight) - np.mean(after)

    rates = np.array([0.1, 0.2, 0.4])
    bend, slope, _ = np.polyfit(rates, [mean_gain(rate) for rate in rates], 2)
    theory = analysis.one_step(inputs, targets, weight)
    assert theory.rate(batch) == pytest.approx(-slope / (2 * bend))
    assert theory.gain(batch) == pytest.approx(mean_gain(theory.rate(batch)))
    assert theory.gain(batch) > mean_gain(1.1 * theory.rate(batch))


def test_parabola_of_one_step(analysis):
    """Gains 3 rate - 5 rate^2 of every member: best .3, gain .45."""
    rates = np.repeat([0.1, 0.4], 10)
    loss = np.stack([np.full(20, 7.0), 7.0 - 3 * rates + 5 * rates**2])
    members = [{"values": {"optimizer.lr": rate}} for rate in rates]
    run = SimpleNamespace(members=members, metric=lambda name: (np.array([0, 1]), loss))
    best, gain = analysis.stepped(run)
    assert best == pytest.approx([0.3] * 10)
    assert gain == pytest.approx([0.45] * 10)


def test_steps_to_a_goal(analysis):
    """From 1 to 1/4 in 10 updates is 1/2 after 5; a loss that comes back up does not count."""
    loss = np.array([[2.0, 2.0], [1.0, 1.0], [0.25, 0.9], [1.0, 0.8], [0.1, np.nan]])
    found = analysis.reached(np.array([0, 10, 20, 30, 40]), loss, 0.5)
    assert found == pytest.approx([15.0, np.inf])


def test_a_member_does_not_choose_its_own_rate(analysis):
    """Rate 1 is best for members 0 and 1 alone; leaving one of them out, rate 0 is."""
    steps = np.array([[10.0, 10.0, 10.0], [9.0, 9.0, 20.0]])
    found, best = analysis.cross_chosen(steps)
    assert best.tolist() == [0, 0, 1]
    assert found.tolist() == [10.0, 10.0, 20.0]
    never = np.array([[10.0, 10.0, 10.0], [1.0, np.inf, 1.0]])
    assert analysis.cross_chosen(never)[1].tolist() == [0, 1, 0]


def test_noise_is_pooled_before_the_ratio(analysis):
    values = np.arange(24.0).reshape(6, 4)
    assert analysis.pooled(values, 2, 2).tolist() == [[2.5, 4.5], [10.5, 12.5], [18.5, 20.5]]
    at, scale = np.array([0, 10, 20]), np.array([[1.0, 1.0], [2.0, 2.0], [6.0, 6.0]])
    noise = analysis.Noise(at, scale, scale, {0.5: np.array([15.0, np.inf])})
    assert noise.average(0.5).tolist() == [1.5, 3.0]


def test_rank_correlation_against_scipy(analysis):
    a, b = np.random.default_rng(2).standard_normal((2, 12, 3))
    expected = [spearmanr(a[:, m], b[:, m]).statistic for m in range(3)]
    assert analysis.rank_correlation(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("quick", [False, True])
def test_every_batch_size_is_a_race_of_rates(analysis, quick):
    planned = analysis.runs(quick)
    batches = analysis.CONFIG["quick"]["batches"] if quick else analysis.CONFIG["batches"]
    assert [f"batch {b}" for b in batches] == [n for n in planned if n.startswith("batch")]
    assert planned["batch 64"][-3] == "vary.optimizer.lr=[0.2,0.28,0.4,0.57,0.8]"
