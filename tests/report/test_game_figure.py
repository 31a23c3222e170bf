"""The game's picture: arrows where they should point, the circle of the learning rate."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.patches import Circle
from matplotlib.quiver import Quiver

from playground.record.view import View
from playground.report import draw
from playground.report.figures import game
from report.conftest import write


def arrays(dimension=2):
    axis = np.linspace(-2, 2, 5)
    xs, ys = np.meshgrid(axis, axis)
    angle = np.linspace(0, 3, 31)
    trail = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None]
    spectrum = np.array([[[0.3, -2.0], [0.3, 2.0]]])
    found = {"spectrum": {1: spectrum, 11: spectrum / 2}, "trajectory": {30: trail}}
    if dimension == 2:
        found["vector_field"] = {1: np.stack([-ys, xs], axis=-1)[None]}
        found["vector_field_axes"] = {1: np.stack([axis, axis])[None]}
        found["targets"] = {0: np.zeros((1, 1, 2))}
    return found


def made(path, stepper="direct", rounds="simultaneous", **options):
    config = {"optimizer": {"name": "sgd", "lr": 0.1}, "stepper": {"name": stepper},
              "problem": {"name": "landscape/bilinear", "rounds": rounds}}  # fmt: skip
    return write(path, problem="landscape/bilinear", players={"x": ["x"], "y": ["y"]}, members=1,
                 metric={"distance": lambda t, m: np.ones((len(t), len(m)))}, config=config,
                 **options)  # fmt: skip


def test_arrows_follow_the_flow_and_eigenvalues_stand_where_they_are(tmp_path):
    run = made(tmp_path / "run", arrays=arrays())
    left, right = game.figure(View(run)).axes
    (quiver,) = (c for c in left.collections if isinstance(c, Quiver))
    at = quiver.XY.reshape(5, 5, 2)
    u, v = quiver.U.reshape(5, 5), quiver.V.reshape(5, 5)
    np.testing.assert_allclose(at[3, 1], [-1, 1])
    np.testing.assert_allclose([u[3, 1], v[3, 1]], np.array([-1, -1]) / np.sqrt(2))
    points = np.concatenate(
        [c.get_offsets() for c in right.collections if isinstance(c, PathCollection)]
    )
    np.testing.assert_allclose(sorted(points.tolist()), [[0.15, -1], [0.15, 1], [0.3, -2], [0.3, 2]])  # fmt: skip  # noqa: E501
    (circle,) = (p for p in right.patches if isinstance(p, Circle))
    assert circle.center == pytest.approx((10, 0))
    assert circle.radius == pytest.approx(10)


@pytest.mark.parametrize("keys", [{"stepper": "sga"}, {"rounds": "alternating"}])
def test_no_circle_where_the_step_is_not_simultaneous_descent(tmp_path, keys):
    run = made(tmp_path / "run", arrays=arrays(), **keys)
    assert not game.figure(View(run)).axes[1].patches


def test_more_parameters_have_their_eigenvalues_alone(tmp_path):
    run = made(tmp_path / "run", arrays=arrays(3))
    assert len(game.figure(View(run)).axes) == 1
    with pytest.raises(ValueError, match="figure game: this run has overview"):
        draw(made(tmp_path / "none"), "game")
