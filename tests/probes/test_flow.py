"""Signals through networks against closed forms, SciPy's integrals and regressions, numpy."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import linregress, norm

from playground.nets import ACTIVATIONS
from playground.probes.flow import formulas as flow

F64 = torch.float64


def noise(*shape, seed=1, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_activation_between_two_layers_is_recognised(name, dtype):
    z = 3 * noise(2, 7, 3, 4, dtype=dtype)
    after = torch.stack([ACTIVATIONS[name][1]()(part) for part in z])  # torch.nn's module
    assert flow.matches(z, after.reshape(2, 7, 12)) == [name]
    assert flow.matches(z, z + after.roll(1, dims=1)) == []
    assert flow.matches(z, after[:, :-1]) == []
    z[1] = torch.nan
    after[1] = torch.nan
    assert flow.matches(z, after) == [name]  # a broken member hides nothing


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_a_normal_signal_transmits_against_integrals(name):
    function = ACTIVATIONS[name][0]

    def number(g):
        value = lambda x: g(torch.tensor(x, dtype=F64)).item()  # noqa: E731
        return lambda q: quad(
            lambda z: value(q**0.5 * z) ** 2 * norm.pdf(z), -9, 9, points=[0], limit=400
        )[0]

    squares = (0.01, 1.0, 9.0)
    value, slope = flow.transmitted(name, torch.tensor(squares))
    step = 1e-6
    derivative = lambda x: (function(x + step) - function(x - step)) / (2 * step)  # noqa: E731
    for k, q in enumerate(squares):
        assert value[k].item() == pytest.approx(number(function)(q), rel=1e-5)
        assert slope[k].item() == pytest.approx(number(derivative)(q), rel=1e-4)


@pytest.mark.parametrize("name", flow.HOMOGENEOUS)
def test_homogeneous_ones_are_what_they_are_called(name):
    z, function = 3 * noise(50), ACTIVATIONS[name][0]
    torch.testing.assert_close(function(2.5 * z), 2.5 * function(z))


def test_squares_of_any_shape_and_number():
    square = noise(300, 2).abs()
    value, slope = flow.transmitted("tanh", square)
    alone = flow.transmitted("tanh", square[123])
    torch.testing.assert_close(value[123], alone[0])
    torch.testing.assert_close(slope[123], alone[1])
    value, slope = flow.transmitted("relu", torch.tensor([torch.nan, 1.0]))
    assert torch.isnan(value[0])
    assert torch.isnan(slope[0])
    assert not torch.isnan(torch.stack([value[1], slope[1]])).any()


def test_relu_s_closed_forms():
    value, slope = flow.transmitted("relu", torch.tensor([4.0]))
    assert (value.item(), slope.item()) == (pytest.approx(2, rel=1e-9), pytest.approx(0.5))
    value, slope = flow.transmitted("leaky_relu", torch.tensor([4.0]))
    half = (1 + 0.01**2) / 2
    assert (value.item(), slope.item()) == (pytest.approx(4 * half), pytest.approx(half))


def test_silent_units_by_hand():
    """300 rows: a unit active on 2 of them is below 1 %, on 4 above."""
    z = torch.full((1, 300, 4), -1.0)
    z[0, :2, 0] = z[0, :4, 1] = z[0, :, 2] = 1.0
    assert flow.silent("relu", z).item() == pytest.approx(0.5)
    assert flow.inactive("relu", z).double().mean().item() == pytest.approx(1 - 306 / 1200)
    far = torch.tensor([[[3.1, -3.1, 2.9, 0.0]]])  # tanh' at 3.1 is .008, at 2.9 .012
    assert flow.inactive("tanh", far)[0, 0].tolist() == [True, True, False, False]
    assert flow.silent("tanh", far).item() == 0.5
    far = torch.tensor([[[6.1, -6.1, 5.8, 0.0]]])  # sigmoid' / (1/4): .0089, .012
    assert flow.inactive("sigmoid", far)[0, 0].tolist() == [True, True, False, False]


@pytest.mark.parametrize(("name", "largest"), [("tanh", 1), ("sigmoid", 0.25), ("relu", 1)])
def test_largest_slopes(name, largest):
    assert flow.largest_slope(name) == pytest.approx(largest, rel=1e-6)


def test_dormant_units_by_hand():
    z = torch.tensor([[[0.0, 1.0, 3.0, 0.02], [0.0, 1.0, 3.0, -5.0]]])  # sizes 0, 1, 3, .01
    for threshold, share in ((0.0, 0.25), (0.009, 0.25), (0.01, 0.5), (1.0, 0.75)):
        assert flow.dormant("relu", z, threshold).item() == share


def test_trends_against_scipy():
    values = noise(6, 3).exp()
    values[2, 2] = 0.0
    slope, error = flow.trend(list(values))
    for k in range(2):
        found = linregress(np.arange(6), values[:, k].log().numpy())
        assert slope[k].item() == pytest.approx(found.slope)
        assert error[k].item() == pytest.approx(found.stderr)
    assert torch.isnan(slope[2])
    slope, error = flow.trend(list(values[:2, :2]))
    torch.testing.assert_close(slope, (values[1] / values[0]).log()[:2])
    assert torch.isnan(error).all()


def test_mean_squares_have_the_error_of_their_rows():
    value = noise(2, 50, 4)
    mean, error = flow.mean_square(value)
    rows = value.square().mean(2).numpy()
    np.testing.assert_allclose(mean, rows.mean(1))
    np.testing.assert_allclose(error, rows.std(1, ddof=1) / 50**0.5)


def test_singular_values_against_numpy():
    weight = noise(3, 6, 2, 4, dtype=torch.float32)
    weight[1, 5] = weight[1, 4]  # no full rank
    weight[2, 0, 0, 0] = torch.nan
    high, condition = flow.singular(weight)
    values = np.linalg.svd(weight[0].flatten(1).double().numpy(), compute_uv=False)
    assert high[0].item() == pytest.approx(values[0])
    assert condition[0].item() == pytest.approx(values[0] / values[-1])
    assert condition[1].item() == float("inf")
    assert torch.isnan(torch.stack([high[2], condition[2]])).all()
