import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.image import imread

from playground import load
from playground.record.atomic import RecordError
from playground.record.view import Series, View
from playground.report import draw, draw_all, names
from playground.report.drawing.curves import curve, summary
from playground.report.drawing.style import Sheet, number, tick_text, values_text
from playground.report.drawing.text import optimizer_text, result_text, subtitle
from playground.report.figures import overview
from playground.report.figures.gan import long_arrow, probability
from playground.report.figures.overview import informative, reference

RNG = np.random.default_rng(0)
GRID = np.linspace(-2, 2, 9)
AXES = np.stack([GRID, GRID])[None]
TRAIL = np.cumsum(RNG.normal(size=(2, 31, 2)), axis=1) * 0.1

LANDSCAPE = {
    "trajectory": {0: TRAIL[:, :1], 30: TRAIL},
    "contour": {0: (AXES[0, 0] ** 2 + AXES[0, 1][:, None] ** 2)[None]},
    "contour_axes": {0: AXES},
    "targets": {0: np.zeros((1, 1, 2))},
    "gradient.x": {30: RNG.normal(size=(2, 2))},
    "momentum.x": {30: RNG.normal(size=(2, 2))},
    "update.x": {30: RNG.normal(size=(2, 2))},
}
GAN = {
    "samples": {30: RNG.normal(size=(2, 50, 2))},
    "data": {30: RNG.normal(size=(1, 50, 2))},
    "centres": {30: RNG.normal(size=(1, 8, 2))},
    "field": {30: RNG.normal(size=(2, 9, 9))},
    "field_axes": {30: AXES},
    "arrows": {30: RNG.normal(size=(2, 20, 2))},
    "arrow_points": {30: RNG.normal(size=(2, 20, 2))},
}
DIGITS = {
    "confusion": {30: RNG.integers(0, 9, size=(2, 10, 10))},
    "misread_images": {30: RNG.integers(0, 17, size=(2, 4, 8, 8)).astype(np.uint8)},
    "misread_labels": {30: np.array([[1, 2, 3, -1]] * 2)},
    "misread_predictions": {30: np.array([[4, 5, 6, -1]] * 2)},
}
MOONS = {
    "boundary": {30: RNG.uniform(size=(2, 9, 9)).astype(np.float16)},
    "boundary_axes": {30: AXES},
    "points": {30: RNG.normal(size=(1, 20, 2))},
    "labels": {30: RNG.integers(0, 2, size=(1, 20))},
}
REGRESSION = {
    "weights": {30: RNG.normal(size=(2, 5))},
    "true_weights": {30: np.ones((1, 5))},
    "predictions": {30: RNG.normal(size=(2, 20))},
    "observations": {30: RNG.normal(size=(1, 20))},
}
CURVE = {
    "curve": {30: RNG.normal(size=(2, 20))},
    "curve_target": {30: RNG.normal(size=(1, 2, 20))},
    "curve_points": {30: RNG.normal(size=(1, 2, 5))},
}
SUMS = {
    "predictions": {30: RNG.uniform(0, 2, size=(2, 40))},
    "observations": {30: RNG.uniform(0, 2, size=(1, 40))},
    "gradient_by_step-model": {k: RNG.uniform(1e-9, 1, size=(2, 2, 12)) for k in (1, 30)},
}
RL = {"returns": {30: RNG.uniform(0, 500, size=(2, 10))}, "threshold": {30: np.array([475.0])}}


def rising(time, member):
    return np.minimum(500.0, 20.0 * time[:, None] + member[None])


def share(time, member):
    return np.full((len(time), len(member)), 0.5)


CASES = {
    "landscape": ("landscape/rosenbrock", {"x": ["x"]}, ("distance", "value"), LANDSCAPE),
    "gan": ("gan/ring", {"generator": ["0.weight"], "discriminator": ["0.weight"]},
            ("reverse_kl", "reverse_kl/perfect", "modes", "high_quality"), GAN),
    "digits": ("supervised/digits", {"model": ["0.weight"]},
               ("accuracy", "train_accuracy", "test_loss", "train_loss"), DIGITS),
    "two_moons": ("supervised/two_moons", {"model": ["0.weight"]}, ("accuracy",), MOONS),
    "regression": ("supervised/linear_regression", {"model": ["0.weight"]},
                   ("value", "distance", "test_loss", "train_loss"), REGRESSION),
    "curve": ("supervised/chebyshev", {"model": ["0.weight"]}, ("test_loss", "train_loss"), CURVE),
    "sums": ("supervised/adding", {"model": ["head.weight"]}, ("mse", "test_loss"), SUMS),
    "rl": ("rl/cartpole", {"agent": ["policy.0.weight"]},
           ("return", "return/stochastic", "train/return", "entropy"), RL),
}  # fmt: skip


def build(record, case, name=None, **options):
    problem, players, metrics, arrays = CASES[case]
    given = {"problem": problem, "players": players, "arrays": arrays,
             "metric": {m: rising if case == "rl" else share for m in metrics}}  # fmt: skip
    return record(name or case, **{**given, **options})


@pytest.mark.parametrize("case", CASES)
def test_every_domain_has_three_figures(record, case):
    paths = draw_all(build(record, case))
    domain = CASES[case][0].partition("/")[0]
    assert [path.stem for path in paths] == ["overview", "gradient_norms", domain]
    for path in paths:
        pixels = imread(path)
        assert pixels.shape[0] > 300
        assert pixels.shape[1] > 900
        assert pixels.std() > 0.02


@pytest.mark.parametrize("case", CASES)
def test_without_arrays_there_is_no_picture(record, case):
    run = build(record, case, "none", arrays={}, metric={"loss": share}, gradients=False)
    assert [path.stem for path in draw_all(run)] == ["overview"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_picture_shows_what_arrays_there_are(record, case):
    arrays = CASES[case][3]
    for place, missing in enumerate(arrays):
        kept = {name: known for name, known in arrays.items() if name != missing}
        run = build(record, case, f"without{place}", arrays=kept, gradients=False)
        drawn = [path.stem for path in draw_all(run)]
        assert drawn == ["overview", run.manifest["problem"].partition("/")[0]][: len(drawn)]


def test_draw_says_what_there_is(record):
    run = build(record, "digits", arrays={})
    assert names(run) == ["overview", "gradient_norms", "supervised"]
    with pytest.raises(ValueError, match="gan: this run has overview, gradient_norms, supervised"):
        draw(run, "gan")
    with pytest.raises(ValueError, match="do not hold"):
        draw(run, "supervised")
    assert names(record("custom", problem="custom")) == ["overview", "gradient_norms"]


def test_pixels_change_with_the_data_and_only_with_it(record):
    def spike(update, member):
        values = np.ones((len(update), len(member)))
        values[37, 1] = 100.0
        return values

    def ones(update, member):
        return np.ones((len(update), len(member)))

    flat = draw(record("a", iterations=500, norm=ones))
    same = draw(record("b", iterations=500, norm=ones))
    other = draw(record("c", iterations=500, norm=spike))
    assert flat.read_bytes() == same.read_bytes()
    assert not np.array_equal(imread(flat), imread(other))


def test_figures_can_be_drawn_again_after_the_run_was_moved(record, tmp_path):
    run = build(record, "landscape")
    before = {path.name: path.read_bytes() for path in draw_all(run)}
    shutil.rmtree(run.path / "figures")
    shutil.move(run.path, tmp_path / "elsewhere")
    again = draw_all(load(tmp_path / "elsewhere"))
    assert all(path.is_relative_to(tmp_path / "elsewhere") for path in again)
    assert {path.name: path.read_bytes() for path in again} == before


def test_a_live_run_is_drawn_as_far_as_it_is(record):
    run = build(record, "digits", status="running")
    assert list((run.path / "records").glob("*-000-*.parquet"))
    assert len(draw_all(run)) == 3
    empty = record("empty", gradients=False, iterations=0, status="running")
    assert [path.stem for path in draw_all(empty)] == ["overview"]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "value",
    [np.nan, 1e300, *(pytest.param(v, marks=SLOW) for v in (np.inf, 0.0, -1.0))],
)
def test_members_that_break_are_drawn(record, value):
    def broken(time, member):
        values = np.ones((len(time), len(member)))
        values[len(time) // 2 :, 0] = value
        return values

    trail = TRAIL.copy()
    trail[0, 15:] = value
    run = build(record, "landscape", norm=broken, events=[(15, 0)],
                metric={"distance": broken, "value": broken},
                arrays=LANDSCAPE | {"trajectory": {30: trail}})  # fmt: skip
    assert len(draw_all(run)) == 3


def test_a_run_without_any_finite_value_is_drawn(record):
    def nothing(time, member):
        return np.full((len(time), len(member)), np.nan)

    arrays = LANDSCAPE | {"trajectory": {30: np.full_like(TRAIL, np.nan)}}
    run = build(record, "landscape", norm=nothing, metric={"distance": nothing}, arrays=arrays)
    assert len(draw_all(run)) == 3


def test_the_dirac_gan_is_drawn_as_a_path(record):
    arrays = {"trajectory": {30: TRAIL}, "targets": {30: np.zeros((1, 1, 2))}}
    players = {"generator": ["theta"], "discriminator": ["0.weight"]}
    run = build(record, "gan", "dirac", problem="gan/dirac", arrays=arrays, players=players)
    assert draw(run, "gan").name == "gan.png"


@pytest.mark.slow
def test_varying_values_have_their_own_colours(record):
    members = [{"index": k, "seed": k % 2, "values": {"optimizer.lr": 10.0 ** -(k // 2)}}
               for k in range(8)]  # fmt: skip
    for case in ("digits", "landscape", "rl"):
        arrays = CASES[case][3] if case == "landscape" else {}
        wide = {name: {i: np.repeat(a, 4, axis=0) if len(a) == 2 else a for i, a in known.items()}
                for name, known in arrays.items()}  # fmt: skip
        run = build(record, case, f"vary-{case}", members=members, arrays=wide)
        assert draw_all(run)


def test_no_pyplot_and_no_engine():
    code = (
        "import sys, playground.report.comparison.report\n"
        "import playground.report.figures.gan, playground.report.figures.rl\n"
        "import playground.report.figures.supervised, playground.report.figures.overview\n"
        "bad = {'matplotlib.pyplot', 'torch', 'playground.engine', 'playground.config'}\n"
        "sys.exit(str(bad & set(sys.modules)) if bad & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_threads_draw_the_same_pixels(record):
    runs = [build(record, case) for case in ("landscape", "digits", "gan")]
    serial = [draw(run, "gradient_norms").read_bytes() for run in runs]
    with ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(lambda run: draw(run, "gradient_norms"), runs))
    assert [path.read_bytes() for path in paths] == serial


def test_a_folder_that_cannot_be_made_is_one_clear_error(record):
    run = record()
    (run.path / "figures").rmdir()
    (run.path / "figures").write_text("in the way")
    with pytest.raises(RecordError, match="figures"):
        draw(run)


def test_curve_draws_members_while_they_are_few():
    def lines(members):
        ax = Sheet.make("t").figure.add_subplot()
        curve(ax, Series(np.arange(20), RNG.normal(size=(20, members))), "#000000")
        return len(ax.lines), len(ax.collections)

    assert lines(1) == (1, 0)
    assert lines(10) == (11, 0)  # members and their mean
    assert lines(11) == (1, 1)  # mean and band


def test_on_a_log_axis_the_mean_is_geometric():
    series = Series(np.arange(2), np.array([[1.0, 100.0], [0.0, 4.0]]))
    _, centre, _, _ = summary(series, log=True)
    assert centre == pytest.approx([10.0, 4.0])


def test_the_last_panel_shows_what_moved(record):
    assert informative(View(record("still")))[1] == "alignment"

    class Clipped(View):
        def gradient(self, player, quantity, tap="gradient", tensor=""):
            if quantity == "clip_coefficient":
                return Series(np.arange(2), np.array([[1.0], [0.5]]))
            return super().gradient(player, quantity, tap, tensor)

    assert informative(Clipped(record("clipped")))[1] == "clip_coefficient"


def test_reference_lines(record):
    assert reference(View(build(record, "rl"))) == (475.0, "solved")
    assert reference(View(build(record, "gan"))) == (0.5, "perfect sampler")
    assert reference(View(build(record, "digits"))) is None


def test_optimizer_text(record):
    config = {
        "optimizer": {"name": "adam", "lr": 0.1, "schedule": "constant", "clip_norm": None},
        "players": {"generator": None, "discriminator": {"name": "sgd", "lr": 0.5}},
    }
    view = View(build(record, "gan", config=config))
    assert optimizer_text(view) == "generator: adam lr 0.1; discriminator: sgd lr 0.5"


@pytest.mark.parametrize(
    ("given", "text"),
    [(1e-8, "1e-8"), (0.25, "0.25"), (1234567.0, "1.23e6"), (-2e-5, "-2e-5"), (1234.6, "1235")],
)
def test_number(given, text):
    assert number(given) == text


def test_tick_text():
    assert [tick_text(v) for v in (1e-5, 0.001, 0.02, 1.0, 1000.0, 2.5e6)] == [
        "1e-5", "0.001", "0.02", "1", "1000", "2.5e6",
    ]  # fmt: skip


def test_result_text():
    assert result_text([0.5, 0.7, np.nan]) == "0.6 ± 0.14 (1 not finite)"
    assert result_text([2.0]) == "2"
    assert result_text([np.inf]) == "not finite"
    assert values_text({"name": "sgd", "lr": 0.1, "nesterov": True, "betas": [0.9, 0.99]}) == (
        "lr 0.1, nesterov, betas 0.9 0.99"
    )


def test_discriminator_and_arrows():
    assert probability(np.array([-1e4, 0.0, np.log(3), 1e4])) == pytest.approx([0, 0.5, 0.75, 1])
    arrows = np.stack([np.arange(101.0), np.zeros(101)], axis=1)
    assert long_arrow(arrows) == 95.0
    assert long_arrow(np.full((3, 2), np.nan)) == 0.0


def test_forks_and_replays_say_of_what(record):
    view = View(record())
    view.manifest["fork"] = {
        "run": "/somewhere/digits",
        "from": 20,
        "changes": ["optimizer.lr=0.3"],
    }
    assert "fork of digits after iteration 20: optimizer.lr=0.3" in subtitle(view)
    lines = [line for ax in overview.figure(view).axes for line in ax.get_lines()]
    assert any(list(line.get_xdata()) == [20, 20] for line in lines)
    del view.manifest["fork"]
    view.manifest["replay"] = {"run": "/somewhere/digits", "iteration": 7}
    assert "replay of digits, measured at iteration 7" in subtitle(view)
