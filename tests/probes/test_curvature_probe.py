"""The curvature probe in runs: closed forms, dense against Lanczos, every domain, resuming."""

import numpy as np
import pytest
import torch
from harness import (
    SMALL_GAN,
    SPREAD,
    TINY,
    assert_same,
    assert_same_records,
    final,
    loop,
    quiet,
    resume,
    stop,
)
from scipy.sparse.linalg import eigsh

import playground
from playground.probes.config import CurvatureConfig
from playground.probes.curvature.critical import KINDS
from playground.probes.curvature.probe import CurvatureProbe
from playground.probes.game import formulas as game
from playground.probes.game.probe import of_turn
from playground.probes.passes import Turn
from playground.schema import ConfigError

pytestmark = pytest.mark.usefixtures("without_figures")


def turn(made, iterations=0):
    """What a pass sees before the next round of everybody, and optimizers that have stepped."""
    made.iterate(iterations)
    moves = {m.player: m for m in next(made.problem.iteration(0.0))}
    line = lambda name: made.engine.optimizers[name].stability(0.0)  # noqa: E731
    return Turn(moves, made.engine.differentiate, made.players, line)


def measured(seen, members, density=0, **settings):
    probe = CurvatureProbe(CurvatureConfig(every=1, **settings), density)
    probe.begin(range(members), torch.device("cpu"))
    return probe.measure(seen)


def of_run(run, iteration=1, member=0):
    """{(player, quantity): value} at an iteration."""
    return {
        (r["player"], r["quantity"]): r["value"]
        for r in run.measurements.to_pylist()
        if (r["probe"], r["iteration"], r["member"]) == ("curvature", iteration, member)
    }


LANDSCAPES = {
    "quadratic": (["problem.dimension=4", "problem.condition=8"], None, [0.125, 1.0], 0),
    "rosenbrock": (["problem.start=[1,1]"], "minimum", [0.39936077, 1001.60063923], 0),
    "saddle": (["problem.start=[0,0]"], "saddle", [-2.0, 2.0], 1),
    "monkey_saddle": (["problem.start=[0,0]"], "plateau", [0.0, 0.0], 0),
}
"""Options, kind of the start, extreme eigenvalues, negative ones."""


@pytest.mark.parametrize("dense", [0, 300])
@pytest.mark.parametrize("name", LANDSCAPES)
def test_landscapes_in_closed_form(name, dense, tmp_path):
    extra, kind, ends, index = LANDSCAPES[name]
    run = quiet(
        [f"problem=landscape/{name}", *extra, "optimizer=momentum", "optimizer.lr=1e-3",
         "budget.iterations=1", "probes.curvature.every=1", f"probes.curvature.dense={dense}"],
        tmp_path / "run",
    )  # fmt: skip
    found = {quantity: value for (_, quantity), value in of_run(run).items()}
    assert [found["lambda_min"], found["lambda_max"]] == pytest.approx(ends, abs=1e-7)
    assert found["sharpness_limit"] == pytest.approx(3800)
    assert found["sharpness_ratio"] == pytest.approx(ends[1] / 3800)
    if dense:
        assert found["index"] == index
        assert found["products"] == 0
        assert kind is None or KINDS[int(found["kind"])] == kind
    else:
        assert "index" not in found
        assert found["products"] <= 4
        if name == "rosenbrock":  # 4e-4 of the largest: 0 by the rule for Ritz values
            kind = "degenerate minimum"
        assert kind is None or KINDS[int(found["kind"])] == kind


MOONS = ["problem=supervised/two_moons", "problem.widths=[8]", "members=2", "dtype=float64"]


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adamw", "rmsprop"])
def test_lanczos_agrees_with_the_matrix(optimizer):
    decay = ["optimizer.weight_decay=0.1"] if optimizer != "adamw" else []
    seen = turn(loop(*MOONS, f"optimizer={optimizer}", *decay), 20)
    exact = measured(seen, 2)
    free = measured(seen, 2, density=16, dense=0, products=60, tolerance=1e-10, vectors=200)
    at = seen.players["model"].parameters.values
    matrix = game.jacobian(of_turn(seen), {"model": at})
    whole = np.linalg.eigvalsh(matrix.numpy())
    np.testing.assert_allclose(exact.arrays["hessian-model"], whole, atol=1e-12)
    key = lambda name: ("model", name)  # noqa: E731
    for name in ("lambda_min", "lambda_max", "sharpness", "sharpness_ratio", "sharpness_limit"):
        left, right = exact.values[key(name)], free.values[key(name)]
        torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-9)
    assert (exact.values[key("index")] == torch.as_tensor((whole < -1e-12).sum(1))).all()
    miss = exact.values[key("trace")] - free.values[key("trace")]
    assert (miss.abs() <= 4 * free.stderr[key("trace")] + 1e-9).all()
    nodes, weights = free.arrays["density-model"].unbind(2)
    assert nodes.shape == (2, 16 * 30)
    assert nodes.amax(1).tolist() == pytest.approx(whole[:, -1].tolist())
    mean = (nodes * weights).sum(1)  # of 16 normal starts: tr H / N, within their spread
    spread = np.sqrt(2 * (whole**2).mean(1) / 16 / whole.shape[1])
    assert (np.abs(mean.numpy() - whole.mean(1)) < 4 * spread).all()


def test_preconditioned_sharpness_from_adams_own_moments():
    """Largest eigenvalue of P^-1 (H + decay) with P from the second moment, by numpy."""
    made = loop(*MOONS, "optimizer=adam", "optimizer.lr=0.01", "optimizer.weight_decay=0.1")
    seen = turn(made, 5)
    state = made.engine.optimizers["model"].state()
    second = state["links"][-1]["second_moment"].numpy()
    scale = (1 - 0.9**5) * (np.sqrt(second / (1 - 0.999**5)) + 1e-8)
    at = seen.players["model"].parameters.values
    matrix = game.jacobian(of_turn(seen), {"model": at}).numpy()
    shifted = matrix + 0.1 * np.eye(matrix.shape[1])
    expected = np.linalg.eigvals(shifted / scale[:, :, None]).real.max(axis=1)
    for dense in (0, 300):
        found = measured(seen, 2, dense=dense, products=60, tolerance=1e-10).values
        assert found["model", "sharpness"].tolist() == pytest.approx(expected.tolist(), rel=1e-6)
        assert found["model", "sharpness_limit"].tolist() == pytest.approx([3800, 3800])


def test_players_of_a_game_have_hessians_of_their_own():
    """Diagonal blocks of the game's Jacobian, with R1's third derivatives in it."""
    made = loop("problem=gan/ring", *SMALL_GAN, "penalty.r1=0.5", "problem.rounds=simultaneous",
                "problem.latent=2", "dtype=float64", "members=2", "optimizer=sgd")  # fmt: skip
    seen = turn(made, 3)
    found = measured(seen, 2, dense=0, products=60, tolerance=1e-9).values
    at = {name: player.parameters.values for name, player in seen.players.items()}
    matrix, start = game.jacobian(of_turn(seen), at).numpy(), 0
    for name, value in at.items():
        stop_ = start + value.shape[1]
        own = np.linalg.eigvalsh(matrix[:, start:stop_, start:stop_])
        np.testing.assert_allclose(found[name, "lambda_min"], own[:, 0], atol=1e-7)
        np.testing.assert_allclose(found[name, "lambda_max"], own[:, -1], atol=1e-7)
        start = stop_


def test_a_poor_end_is_marked():
    """Few products: the residual says so, and the true eigenvalues lie outside the Ritz values."""
    seen = turn(loop("problem=supervised/digits", "problem.widths=[16]", "dtype=float64"), 20)
    exact, poor = measured(seen, 1, dense=10**6), measured(seen, 1, dense=0, products=3)
    for side, sign in (("min", 1), ("max", -1)):
        name = ("model", f"lambda_{side}")
        value, error = poor.values[name], poor.stderr[name]
        assert sign * (value - exact.values[name]) >= 0
        marked = poor.values["model", f"lambda_{side}_converged"]
        assert (marked == (error <= 0.1 * value.abs())).all()
    assert poor.values["model", "lambda_min_converged"] == 0
    assert poor.values["model", "products"] == 3
    assert exact.values["model", "lambda_min_converged"] == 1


def test_lines_only_where_the_optimizer_alone_moves_the_player(tmp_path):
    base = ["problem=landscape/quadratic_game", "problem.rounds=simultaneous", "optimizer=sgd",
            "optimizer.lr=0.1", "budget.iterations=1", "probes.curvature.every=1"]  # fmt: skip
    cases = {
        (): {"x", "y"}, ("frozen=[y]",): {"x"}, ("stepper=extragradient",): set(),
        ("optimizer=torch", "optimizer.class_name=SGD"): set(),
    }  # fmt: skip
    for index, (more, expected) in enumerate(cases.items()):
        rows = of_run(quiet([*base, *more], tmp_path / str(index)))
        assert {p for p, quantity in rows if quantity == "sharpness_limit"} == expected, more
        assert rows["x", "lambda_max"] == pytest.approx(0.1)


@pytest.mark.parametrize("domain", SPREAD)
def test_every_domain_trains_the_same_and_resumes_bit_for_bit(domain, tmp_path):
    base = [*TINY[domain], "budget.iterations=6", "members=2", "checkpoint.every=3"]
    extra = ["probes.curvature.every=2", "probes.curvature.dense=0", "probes.curvature.density=1",
             "probes.curvature.vectors=2", "probes.curvature.density_steps=3"]  # fmt: skip
    plain = quiet([*base, "probes=none"], tmp_path / "plain")
    whole = quiet([*base, *extra], tmp_path / "whole")
    for key in ("players", "engine", "problem", "counters"):
        assert_same(final(plain)[key], final(whole)[key], key)
    stop([*base, *extra], tmp_path / "parts", 4)
    parts = resume(tmp_path / "parts")
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)
    rows = [r for r in whole.measurements.to_pylist() if r["probe"] == "curvature"]
    assert {r["iteration"] for r in rows} == {1, 3, 5}
    assert {r["player"] for r in rows} == {*whole.manifest["players"]}


def test_a_broken_member_is_undefined_and_harms_nobody():
    for dense in (0, 300):
        made = loop(*MOONS, "optimizer=adam")
        seen = turn(made, 2)
        made.values()["model"][1] = float("inf")
        found = measured(seen, 2, density=1, dense=dense).values
        whole = torch.stack([value[0] for value in found.values()])
        assert torch.isfinite(whole).all()
        for name in ("lambda_min", "lambda_max", "lambda_max_converged", "kind", "sharpness"):
            assert torch.isnan(found["model", name][1]), name


def test_what_is_measured_unasked(tmp_path):
    wanted = CurvatureConfig().wanted
    assert [wanted(name) for name in ("none", "light", "standard", "full")] == [0, 0, 0, 1]
    assert CurvatureConfig(every=3).wanted("none")
    assert not CurvatureConfig(every=0).wanted("full")
    assert CurvatureConfig().densities("full") == 4
    assert CurvatureConfig().densities("light") == CurvatureConfig(density=0).densities("full") == 0
    run = quiet(["problem=landscape/rosenbrock", "budget.iterations=20", "evaluate.every=5",
                 "probes=full"], tmp_path / "run")  # fmt: skip
    rows = [r for r in run.measurements.to_pylist() if r["probe"] == "curvature"]
    assert {r["iteration"] for r in rows} == {1, 6, 11, 16}
    assert "hessian-x" in run.arrays


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # its packages' own
def test_against_curvlinops():
    """The same network and batch in another library, with ARPACK, in float64."""
    curvlinops = pytest.importorskip("curvlinops")
    made = loop("problem=supervised/digits", "problem.widths=[16]", "dtype=float64",
                "optimizer=sgd", "optimizer.lr=0.1")  # fmt: skip
    seen = turn(made, 20)
    player, batch = seen.players["model"], seen.moves["model"].batch
    module = player.module().double()
    module.load_state_dict(player.parameters.only)
    operator = curvlinops.HessianLinearOperator(
        module, torch.nn.CrossEntropyLoss(), list(module.parameters()),
        [(batch["input"][0], batch["target"][0])],
    ).to_scipy()  # fmt: skip
    low, high = (
        eigsh(operator, k=1, which=which, return_eigenvectors=False)[0] for which in ("SA", "LA")
    )
    found = measured(seen, 1, dense=0, products=400, tolerance=1e-8).values
    assert found["model", "lambda_min"].item() == pytest.approx(low, rel=1e-6)
    assert found["model", "lambda_max"].item() == pytest.approx(high, rel=1e-9)


def test_of_all_data_whatever_the_batch(tmp_path):
    """The Hessian of least squares on every sample is X^T X / n, at every update."""
    given = ["problem=supervised/linear_regression", "problem.batch_size=8", "dtype=float64",
             "optimizer=sgd", "optimizer.lr=0.01", "budget.iterations=3",
             "probes.curvature.every=1"]  # fmt: skip
    made = loop(*given)
    x = made.problem.train[0].double()
    expected = torch.linalg.eigvalsh(x.T @ x / len(x))[[0, -1]].tolist()
    found = {}
    for data in ("all", "batch"):
        run = quiet([*given, f"probes.curvature.data={data}"], tmp_path / data)
        for row in run.measurements.to_pylist():
            key = (data, row["quantity"])
            found.setdefault(key, []).append(row["value"])
    assert found["all", "lambda_min"] == pytest.approx(3 * [expected[0]])
    assert found["all", "lambda_max"] == pytest.approx(3 * [expected[1]])
    assert len(set(found["batch", "lambda_max"])) == 3
    with pytest.raises(ConfigError, match="data=all: problem gan/ring draws without end"):
        quiet(["problem=gan/ring", "probes.curvature.data=all"], tmp_path / "gan")
    assert not (tmp_path / "gan").exists()


def test_all_data_under_another_objective(tmp_path):
    """Twice the loss has twice the Hessian, of all data too."""
    given = ["problem=supervised/linear_regression", "dtype=float64", "budget.iterations=1",
             "probes.curvature.every=1", "probes.curvature.data=all"]  # fmt: skip

    def twice(objective):
        def double(params, batch):
            terms, diagnostics = objective(params, batch)
            return {name: 2 * term for name, term in terms.items()}, diagnostics

        return double

    ends = []
    for name, wraps in (("plain", None), ("twice", {"model": twice})):
        run = playground.run([*given, f"run_dir={tmp_path / name}"], objectives=wraps, quiet=True)
        ends.append({r["quantity"]: r["value"] for r in run.measurements.to_pylist()})
    assert ends[1]["lambda_max"] == pytest.approx(2 * ends[0]["lambda_max"])
