"""The optimizer's own doing: closed forms on quadratics, torch's state, counts by a loop."""

import math

import numpy as np
import pytest
import torch
from harness import PROBED, final, probed, quiet

import playground
from playground.optim.config import SGD, Adagrad, Adam, AMSGrad, RMSprop
from playground.optim.optimizer import Optimizer
from playground.parameters import Layout
from playground.probes.step.formulas import BINS, edges, magnitudes, quantiles, step_length
from playground.probes.step.probe import turned

pytestmark = pytest.mark.usefixtures("without_figures")
EPS = torch.finfo(torch.float64).eps


def length(*four, precision=EPS):
    found = step_length(*(torch.tensor([x], dtype=torch.float64) for x in four), precision)
    return {name: value.item() for name, value in found.items()}


@pytest.mark.parametrize("rate", [1e-6, 0.1, 1.0, 1.7, 2.5])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_alpha_of_descent_on_a_parabola_is_rate_times_curvature_minus_one(rate, offset):
    curvature, x = 1.0, 1.3
    after = x - rate * curvature * x
    losses = [0.5 * curvature * p**2 + offset for p in (x, after)]
    slopes = [curvature * p * (after - x) for p in (x, after)]
    found = length(*losses, *slopes)
    assert found["too_short"] == 0.0 or (rate == 1e-6 and offset == 1e3)
    if not found["too_short"]:
        assert found["concave"] == 0.0
        assert found["alpha"] == pytest.approx(rate - 1, abs=1e-6)


def test_the_parabola_is_the_least_squares_fit():
    """Of four numbers that no parabola has, against NumPy's solver."""
    four = np.array([2.0, 1.7, -0.9, 0.2])
    design = [[1, 0, 0], [1, 1, 1], [0, 1, 0], [0, 1, 2]]
    _, b, c = np.linalg.lstsq(np.array(design, float), four, rcond=None)[0]
    assert length(*four)["alpha"] == pytest.approx(1 / (-b / (2 * c)) - 1)


def test_concave_short_and_non_finite_are_told_apart():
    concave = length(0.0, -1.5, -1.0, -2.0)  # -t - t^2/2
    assert (concave["concave"], concave["too_short"]) == (1.0, 0.0)
    assert math.isnan(concave["alpha"])
    short = length(1.0, 1.0 - 1e-17, -1e-17, -1e-17)
    assert short["too_short"] == 1.0
    assert math.isnan(short["alpha"])
    assert math.isnan(short["concave"])
    assert length(0.0, 0.0, 0.0, 0.0)["too_short"] == 1.0
    assert all(math.isnan(v) for v in length(1.0, math.inf, -1.0, 2.0).values())
    assert length(0.0, 1.5, 1.0, 2.0)["alpha"] < -1  # uphill


def test_quantiles_are_entries():
    values = torch.tensor([[5.0, 1.0, 4.0, 2.0, 3.0], [0.0, 0.0, math.nan, 1.0, 1.0]])
    found = quantiles(values, torch.zeros_like(values, dtype=torch.bool), (0.0, 0.5, 1.0))
    assert found[:, 0].tolist() == [1.0, 3.0, 5.0]
    assert found[:, 1].isnan().all()


def test_magnitudes_by_a_loop():
    rng = np.random.default_rng(0)
    values = rng.choice([-1, 1], size=(2, 30)) * 10.0 ** rng.uniform(-14, 6, size=(2, 30))
    values[0, :6] = [0.0, -0.0, np.nan, np.inf, -np.inf, 0.0]
    layout = Layout({"a": (4, 5), "b": (10,)})
    found = magnitudes(torch.from_numpy(values), layout)
    assert found.shape == (2, 2, BINS)
    marks = edges().tolist()
    assert (marks[0], marks[-1]) == (1e-12, 1e4)
    expected = np.zeros((2, 2, BINS), int)
    for member in range(2):
        for k, value in enumerate(np.abs(values[member])):
            if value == 0:
                place = 0
            elif not np.isfinite(value):
                place = BINS - 1
            else:
                place = 1 + sum(value >= mark for mark in marks)
            expected[member, int(k >= 20), place] += 1
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("config", "reference", "state"),
    [
        (Adam(lr=0.1, eps=1e-3), torch.optim.Adam, "exp_avg_sq"),
        (AMSGrad(lr=0.1, eps=1e-3), torch.optim.Adam, "max_exp_avg_sq"),
        (RMSprop(lr=0.1, eps=1e-3, centered=True), torch.optim.RMSprop, "square_avg"),
        (Adagrad(lr=0.1, eps=1e-3), torch.optim.Adagrad, "sum"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_denominator_is_that_of_torch_s_state(config, reference, state):
    x = torch.randn(1, 6, dtype=torch.float64)
    twin = torch.nn.Parameter(x.clone())
    kwargs = {"lr": 0.1, "eps": 1e-3}
    if isinstance(config, AMSGrad):
        kwargs |= {"amsgrad": True, "betas": (config.beta1, config.beta2)}
    elif isinstance(config, Adam):
        kwargs |= {"betas": (config.beta1, config.beta2)}
    elif isinstance(config, RMSprop):
        kwargs |= {"alpha": config.alpha, "centered": True}
    theirs, ours = reference([twin], **kwargs), Optimizer(config, x)
    for _ in range(3):
        gradient = torch.randn(1, 6, dtype=torch.float64)
        twin.grad = gradient.clone()
        theirs.step()
        ours.step(gradient, x)
    root, eps = ours.denominator()
    kept = theirs.state[twin]
    expected = kept[state]
    if reference is torch.optim.Adam:
        expected = expected / (1 - config.beta2**3)
    elif isinstance(config, RMSprop):
        expected = expected - kept["grad_avg"] ** 2
    torch.testing.assert_close(root, expected.sqrt(), rtol=1e-12, atol=1e-14)
    assert eps == 1e-3
    assert Optimizer(SGD(lr=0.1), x).denominator() is None


def table(run):
    """{(iteration, quantity): [values of members]} of the step probe."""
    found = {}
    for r in run.measurements.to_pylist():
        if r["probe"] == "step" and not r["tensor"]:
            found.setdefault((r["iteration"], r["quantity"]), []).append(r["value"])
    return found


def test_descent_on_a_quadratic_promises_and_does_what_the_formulas_say(tmp_path):
    """L = 1/2 l x^2: promised -eta g^2, done that + 1/2 l eta^2 g^2, alpha = eta l - 1."""
    rate = 0.3
    run = quiet(["problem=landscape/quadratic", "problem.dimension=1", "optimizer=sgd",
                 f"optimizer.lr={rate}", "budget.iterations=5", "probes.step.every=2"],
                tmp_path / "run")  # fmt: skip
    found = table(run)
    assert {iteration for iteration, _ in found} == {1, 3, 5}
    slope = 1.0
    for iteration in range(1, 6):
        if iteration % 2:
            promised = -rate * slope**2
            assert found[iteration, "predicted_change"] == pytest.approx([promised])
            done = promised + 0.5 * rate**2 * slope**2
            assert found[iteration, "actual_change"] == pytest.approx([done])
            assert found[iteration, "change_ratio"] == pytest.approx([done / promised])
            assert found[iteration, "alpha"] == pytest.approx([rate - 1])
        slope *= 1 - rate
    assert not {q for _, q in found if q.startswith("effective_rate")}


def test_adam_s_first_rates_are_those_by_hand(tmp_path):
    run = quiet(["problem=landscape/quadratic", "problem.dimension=3", "problem.condition=100",
                 "optimizer=adam", "optimizer.lr=0.01", "optimizer.eps=0.1",
                 "budget.iterations=1", "probes=full"], tmp_path / "run")  # fmt: skip
    found = table(run)
    gradient = np.array([0.01, 0.1, 1.0])  # l x at x = 1; sqrt(v) = |g| after one update
    rates = 0.01 / (gradient + 0.1)
    assert found[1, "effective_rate/q50"] == pytest.approx([np.median(rates)])
    assert found[1, "effective_rate/q05"] == pytest.approx([rates.min()])
    assert found[1, "effective_rate/q95"] == pytest.approx([rates.max()])
    assert found[1, "epsilon_share"][0] in (1 / 3, 2 / 3)  # the middle one is eps, to rounding
    expected = np.linalg.norm(gradient / (gradient + 0.1))
    assert found[1, "preconditioned_norm"] == pytest.approx([expected])
    scaled = gradient / (gradient + 0.1)
    cosine = gradient @ scaled / np.linalg.norm(gradient) / np.linalg.norm(scaled)
    assert found[1, "preconditioned_cosine"] == pytest.approx([cosine])
    counts = run.arrays["magnitudes_preconditioned_x"][1][0, 0]
    assert (
        counts.tolist()
        == magnitudes(torch.tensor(scaled)[None], Layout({"x": (3,)}))[0, 0].tolist()
    )
    counts = run.arrays["magnitudes_gradient_x"][1]
    assert counts.shape == (1, 1, BINS)
    assert counts.sum() == 3
    assert counts[0, 0, :30].sum() == 0  # nothing below 10^-5


def test_a_preconditioned_gradient_is_told_by_tensor():
    layout = Layout({"w": (2,), "b": (1,), "unused": (1,)})
    gradient = torch.tensor([[3.0, 4.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    denominator = torch.tensor([[1.0, 0.5, 4.0, 1.0], [2.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    found = turned("m", gradient, gradient / denominator, layout)
    assert found["m", "w", "preconditioned_norm"][0] == pytest.approx(np.hypot(3, 8))
    assert found["m", "w", "preconditioned_cosine"][0] == pytest.approx(41 / 5 / np.hypot(3, 8))
    assert found["m", "b", "preconditioned_norm"].tolist() == [0.5, 0.5]
    assert found["m", "b", "preconditioned_cosine"].tolist() == [1.0, 1.0]
    assert found["m", "unused", "preconditioned_cosine"][0].isnan()
    assert found["m", "", "preconditioned_cosine"][1] == pytest.approx(1.0)  # a scale turns nothing


@pytest.mark.parametrize("rounds", ["simultaneous", "alternating"])
def test_both_players_of_a_game_are_measured_where_the_other_stood(rounds, tmp_path):
    """Promised -eta |g|^2 at the round's start; done, with curvature mu, (1 - eta mu / 2) of it."""
    given = ["problem=landscape/quadratic_game", f"problem.rounds={rounds}", "optimizer=sgd",
             "optimizer.lr=0.1", "budget.iterations=1", "probes.step.every=1"]  # fmt: skip
    run = quiet(given, tmp_path / "run")
    game = run.config["problem"]
    mu, sigma = game["curvature"], game["interaction"]
    rows = [r for r in run.measurements.to_pylist() if r["probe"] == "step"]
    found = {(r["player"], r["quantity"]): r["value"] for r in rows}
    x, y = np.ones(game["dimension"]), np.ones(game["dimension"])  # where it starts
    gx = mu * x + sigma * y
    assert found["x", "predicted_change"] == pytest.approx(-0.1 * gx @ gx)
    if rounds == "alternating":
        x = x - 0.1 * gx
    gy = mu * y - sigma * x
    assert found["y", "predicted_change"] == pytest.approx(-0.1 * gy @ gy)
    assert found["y", "actual_change"] == pytest.approx(-0.1 * gy @ gy * (1 - 0.05 * mu))


@pytest.mark.parametrize("given", PROBED.values(), ids=PROBED)
def test_a_run_is_the_same_with_it_and_resumes(given, tmp_path):
    _, whole = probed(given, "probes.step.every=1", tmp_path)
    rows = [r for r in whole.measurements.to_pylist() if r["probe"] == "step"]
    updates = {(r["iteration"], r["player"]): r["update"] for r in rows}
    steps = 1 if given is PROBED["gan"] else 4
    assert all(update == 1 + steps * (i - 1) for (i, _), update in updates.items())
    assert playground.load(whole.path).arrays


def test_entries_without_a_gradient_are_counted_and_left_out_of_the_rates(tmp_path):
    """Corner pixels of the digits are always 0: their weights never have a gradient."""
    run = quiet(["problem=supervised/digits", "optimizer=adam", "optimizer.lr=0.01",
                 "problem.widths=[8]", "budget.iterations=4", "probes.step.every=1"],
                tmp_path / "run")  # fmt: skip
    found = table(run)
    weight = final(run)["players"]["model"]
    root = next(s for s in weight["optimizer"]["links"] if s)
    moment = next(v for k, v in root.items() if k in ("second_moment", "exp_avg_sq"))[0].double()
    seen = moment[moment > 0]
    share = 1 - len(seen) / len(moment)
    assert share > 0.02
    assert found[4, "no_gradient_share"] == pytest.approx([share])
    rates = 0.01 / ((seen / (1 - 0.999**4)).sqrt() + run.config["optimizer"]["eps"])
    expected = np.quantile(rates.numpy(), 0.95, method="nearest")
    assert found[4, "effective_rate/q95"] == pytest.approx([expected], rel=1e-4)


def test_quantiles_without_some_entries():
    value = torch.tensor([[3.0, 1.0, 9.0, 2.0], [1.0, 2.0, 3.0, 4.0], [torch.nan, 1.0, 2.0, 3.0]])
    out = torch.tensor([[False, False, True, False], [True] * 4, [True, False, False, False]])
    found = quantiles(value, out, (0.0, 0.5, 1.0)).T
    assert found[0].tolist() == [1.0, 2.0, 3.0]
    assert found[1].isnan().all()
    assert found[2].tolist() == [1.0, 2.0, 3.0]
    assert quantiles(value, torch.zeros_like(out), (0.5,))[0, 2].isnan()
