import numpy as np
import pytest
from matplotlib.figure import Figure

from playground.record.view import View
from playground.report.drawing import trajectory
from playground.report.drawing.trajectory import Trail
from playground.report.figures.landscape import focus, last_vector


def test_chunks_are_joined_without_the_repeated_point():
    chunks = {0: np.zeros((1, 1, 2)), 2: np.array([[[0, 0], [1, 1], [2, 2.0]]]),
              3: np.array([[[2, 2], [3, 3.0]]])}  # fmt: skip
    path = trajectory.trail({"trajectory": chunks})
    assert path.iterations.tolist() == [0, 1, 2, 3]
    assert path.points[0, :, 0].tolist() == [0, 1, 2, 3]


def test_no_trajectory():
    assert trajectory.trail({}) is None


def test_the_contour_that_shows_most_of_the_paths_is_chosen():
    def axes(half):
        return np.linspace(-half, half, 3)[None].repeat(2, axis=0)[None]

    arrays = {
        "contour_axes": {0: axes(1.0), 5: axes(4.0), 9: axes(8.0)},
        "contour": {k: np.full((1, 3, 3), k) for k in (0, 5, 9)},
    }
    path = Trail(np.arange(2), np.array([[[0.0, 0.0], [3.0, 3.0]]]))
    assert trajectory.ground(arrays, path).values[0, 0] == 5
    assert trajectory.ground({}, path) is None


def test_distance_and_basin_of_the_nearest_target():
    places = np.array([[0.0, 0.0], [10.0, 0.0]])
    path = Trail(np.arange(2), np.array([[[3.0, 4.0], [9.0, 0.0]], [[0.0, 1.0], [np.nan, 0.0]]]))
    series = trajectory.distance(path, places)
    assert series.values[:, 0].tolist() == [5.0, 1.0]
    assert np.isnan(series.values[1, 1])
    assert trajectory.basins(path, places).tolist() == [1, 0]


def test_paths_end_where_they_are_no_longer_finite():
    ax = Figure().add_subplot()
    points = np.zeros((3, 4, 2))
    points[1, 2:] = np.inf
    points[2, 0] = np.nan
    trajectory.paths(ax, points, ["#000000"])
    lengths = [len(path.vertices) for path in ax.collections[0].get_paths()]
    assert lengths == [5, 3]  # the last point is drawn twice; the third has no start
    assert len(ax.collections[1].get_offsets()) == 2


def test_many_members_draw_a_bounded_number_of_points():
    ax = Figure().add_subplot()
    trajectory.paths(ax, np.random.default_rng(0).normal(size=(1000, 5000, 2)), ["#000000"])
    drawn = ax.collections[0].get_paths()
    assert len(drawn) == trajectory.PATHS
    assert sum(len(path.vertices) for path in drawn) < 1.5 * trajectory.POINTS


def test_focus_is_the_first_member_still_finite():
    points = np.zeros((3, 2, 2))
    points[0, -1] = np.inf
    assert focus(Trail(np.arange(2), points)) == 1


@pytest.mark.parametrize(("member", "expected"), [(0, [1.0, 3.0]), (1, [2.0, 4.0])])
def test_last_vector_joins_the_players(record, member, expected):
    arrays = {"gradient.x": {5: np.array([[1.0], [2.0]])},
              "gradient.y": {5: np.array([[3.0], [4.0]])}}  # fmt: skip
    run = record(problem="landscape/bilinear", players={"x": ["x"], "y": ["y"]}, arrays=arrays)
    assert last_vector(View(run), "gradient", member).tolist() == expected
    assert last_vector(View(run), "momentum", member) is None
