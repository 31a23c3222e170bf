"""Pictures of slices: what their panels hold, and the words beside them."""

import numpy as np
import pytest

from playground.record.atomic import RecordError
from playground.record.loss_landscapes import list_slices, load_slice, save_slice
from playground.record.view import View
from playground.report import names
from playground.report.figures import loss_landscape as slices

TIMES = np.array([0, 1, 2, 4, 8])
ABOUT = {"directions": "principal", "player": "model", "member": 0, "iteration": 8}


def content(quantities=("objective",), lines=False, path=True):
    """A slice of a^2 + b^2, and a path whose true values are 1 above it."""
    a, b = np.linspace(-2, 1, 7), np.linspace(-1, 1, 5)
    grid = a**2 if lines else a[:, None] ** 2 + b**2
    arrays = {"offsets/0": a} | ({} if lines else {"offsets/1": b})
    places = np.stack([np.linspace(-1.5, 0, 5), np.linspace(-0.5, 0, 5)], 1)
    for name in quantities:
        arrays |= {f"values/{name}": grid, f"stderr/{name}": np.full_like(grid, 0.1)}
        if path:
            flat = (places**2).sum(1)
            arrays |= {f"path/values/{name}": flat + 1, f"path/projected/{name}": flat,
                       f"path/stderr/{name}": np.full(5, 0.1),
                       f"path/projected_stderr/{name}": np.full(5, 0.1)}  # fmt: skip
    if path:
        D = 1 if lines else 2
        arrays |= {"path/iterations": TIMES, "path/coordinates": places[:, :D],
                   "path/outside": np.array([0.5, 0.4, 0.3, 0.2, 0.0]),
                   "path/explained": np.array([0.9, 0.08, 0.02]),
                   "path/random_walk": np.array([0.7, 0.2, 0.1])}  # fmt: skip
    return arrays


def drawn(record, arrays, about=ABOUT, **options):
    run = record(**options)
    save_slice(run.path, "principal", arrays, about)
    return run, slices.figure(View(run), "principal")


def everything(figure):
    found = [text.get_text() for text in figure.texts]
    for ax in figure.axes:
        found += [ax.get_title(loc="left"), ax.get_xlabel(), ax.get_ylabel()]
    return " ".join(found)


def titled(figure, title):
    return next(ax for ax in figure.axes if ax.get_title(loc="left") == title)


def test_a_slice_comes_back_as_it_was_written(record):
    run = record()
    save_slice(run.path, "b", {"values/objective/policy": np.arange(3.0)}, {"member": 1})
    save_slice(run.path, "a", {}, {})
    assert list_slices(run.path) == ["a", "b"]
    found = load_slice(run.path, "b")
    assert found.about == {"member": 1}
    assert found.group("values")["objective/policy"].tolist() == [0, 1, 2]
    assert "slice-b" in names(run)
    (run.path / "slices" / "b.npz").write_bytes(b"torn")
    with pytest.raises(RecordError, match=r"cannot read .*b\.npz"):
        load_slice(run.path, "b")


def test_points_have_the_colours_of_their_true_values_on_the_grounds_scale(record):
    _, figure = drawn(record, content())
    ground = figure.axes[0]
    path = next(c for c in ground.collections if c.get_array() is not None and
                len(c.get_offsets()) == 5)  # fmt: skip
    assert path.get_array().tolist() == pytest.approx([3.5, 2.40625, 1.625, 1.15625, 1.0])
    contour = ground.collections[0]
    assert (contour.norm.boundaries == path.norm.boundaries).all()
    assert path.get_offsets()[0].tolist() == [-1.5, -0.5]


def test_the_share_of_variance_stands_beside_a_random_walks(record):
    _, figure = drawn(record, content())
    words = everything(figure)
    assert "98.0 % (90.0 + 8.0) of the variance of 5 snapshots" in words
    assert "a random walk seen at the same iterations: 90.0 % (70.0 + 20.0)" in words
    assert "principal direction 2 (8.0 % of variance)" in words
    along = titled(figure, "objective along the path")
    outside = titled(figure, "distance from the plane")
    assert {line.get_label(): line.get_ydata().tolist() for line in outside.lines} == {
        "from the plane": [0.5, 0.4, 0.3, 0.2, 0.0],
        "from the centre": pytest.approx(np.hypot([0.5, 0.4, 0.3, 0.2, 0.0],
                                                  np.hypot(*content()["path/coordinates"].T))),
    }  # fmt: skip
    by_name = {line.get_label(): line.get_ydata() for line in along.lines}
    assert np.allclose(by_name["true"] - by_name["on the plane"], 1)


def test_agents_show_the_policys_term_and_the_return(record):
    arrays = content(("objective", "objective/policy", "objective/value", "return"))
    about = {**ABOUT, "player": "agent"}
    _, figure = drawn(record, arrays, about, problem="rl/cartpole", players={"agent": ["w"]})
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert [t for t in titles if t] == [
        "surrogate objective, policy", "return, deterministic policy",
        "surrogate objective, policy along the path", "return, deterministic policy along the path",
        "distance from the plane",
    ]  # fmt: skip
    assert "Returns are of new episodes" in everything(figure)


def test_games_say_who_is_held(record):
    about = {**ABOUT, "player": "x"}
    _, figure = drawn(record, content(), about, problem="landscape/bilinear",
                      players={"x": ["x"], "y": ["y"]})  # fmt: skip
    assert "Held at the centre: y." in everything(figure)
    assert "landscape/bilinear: x, member 0, principal directions" in everything(figure)


@pytest.mark.parametrize("path", [True, False])
@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("spoil", [None, np.nan, np.inf, "all", "flat"])
def test_whatever_the_values_are_a_picture_comes(record, path, lines, spoil):
    arrays = content(lines=lines, path=path)
    values = arrays["values/objective"]
    if spoil == "all":
        values[:] = np.nan
    elif spoil == "flat":
        values[:] = 1.0
    elif spoil is not None:
        values.flat[1] = spoil
    run, figure = drawn(record, arrays)
    assert figure is not None
    assert run.figure("slice-principal").exists()
