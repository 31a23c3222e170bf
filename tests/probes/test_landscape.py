"""Slices of known functions, and the invariances of directions."""

import pytest
import torch

from playground.parameters import Layout
from playground.probes.landscape import points, random_direction, slices

CENTER = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
DIRECTIONS = torch.tensor([[1.0, 0, 2], [0, 3.0, -1]], dtype=torch.float64)


def quadratic(where):
    assert len(where) <= 4
    value = where.square().sum(1)
    return {"f": (value, 0.1 * value), "g": (-value, torch.full_like(value, torch.nan))}


def test_a_quadratic_on_a_grid():
    a, b = torch.linspace(-1, 2, 5).double(), torch.linspace(0, 1, 3).double()
    found = slices(quadratic, CENTER, DIRECTIONS, [a, b], at_once=4)
    for i, j in ((0, 0), (4, 1), (2, 2)):
        x = CENTER + a[i] * DIRECTIONS[0] + b[j] * DIRECTIONS[1]
        assert found.values["f"][i, j] == pytest.approx(x.square().sum())
        assert found.stderr["f"][i, j] == pytest.approx(0.1 * x.square().sum())
    assert found.values["g"].shape == (5, 3)
    assert found.stderr["g"].isnan().all()


def test_a_line_has_one_axis():
    a = torch.linspace(-1, 1, 7).double()
    found = slices(quadratic, CENTER, DIRECTIONS[:1], [a], at_once=3)
    assert found.values["f"].shape == (7,)
    assert torch.allclose(points(CENTER, DIRECTIONS[:1], [a])[3], CENTER)


@pytest.mark.parametrize(
    ("directions", "axes", "words"),
    [
        (DIRECTIONS[:, :2], 2, r"directions must be \[D, 3\], not \(2, 2\)"),
        (DIRECTIONS[0], 1, r"directions must be \[D, 3\]"),
        (DIRECTIONS, 1, "2 directions with 1 axes"),
    ],
)
def test_shapes_that_do_not_fit(directions, axes, words):
    with pytest.raises(ValueError, match=words):
        slices(quadratic, CENTER, directions, [torch.zeros(2)] * axes)


LAYOUT = Layout({"w": (4, 3), "b": (4,)})


def test_a_direction_has_its_norm():
    drawn = random_direction(LAYOUT, torch.Generator().manual_seed(0), norm=2.0)
    assert drawn.norm().item() == pytest.approx(2)


def test_filter_normalised_slices_do_not_see_the_scale_of_layers():
    """A ReLU network with layers scaled by c and 1 / c is the same function, on the slice too."""
    layout = Layout({"0.weight": (5, 3), "0.bias": (5,), "2.weight": (2, 5), "2.bias": (2,)})
    theta = torch.randn(layout.size, generator=torch.Generator().manual_seed(1)).double()
    theta[layout.slices["0.bias"]] = 0
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)).double()

    def network(where):
        p = layout.views(where)
        hidden = (x @ p["0.weight"].mT + p["0.bias"].unsqueeze(1)).relu()
        out = hidden @ p["2.weight"].mT + p["2.bias"].unsqueeze(1)
        return {"f": (out.square().sum((1, 2)), torch.zeros(len(where)))}

    scaled = theta.clone()
    scaled[layout.slices["0.weight"]] *= 7
    scaled[layout.slices["2.weight"]] /= 7
    lines = {}
    for filtered in (True, False):
        found = []
        for center in (theta, scaled):
            d = random_direction(layout, torch.Generator().manual_seed(3),
                                 like=center if filtered else None)  # fmt: skip
            found.append(slices(network, center, d[None], [torch.linspace(-1, 1, 9).double()]))
        lines[filtered] = [line.values["f"] for line in found]
    assert torch.allclose(*lines[True])
    assert not torch.allclose(*lines[False], rtol=0.1)
