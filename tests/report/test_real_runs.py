"""Figures of real runs: what the problems record is what the figures read."""

import shutil

import numpy as np
import pytest
from matplotlib.image import imread

import playground
from playground.report import draw_all
from playground.report.comparison.report import report

LANDSCAPE = ["problem=landscape/rosenbrock", "budget.iterations=60", "problem.start=random"]


def run(path, *overrides):
    return playground.run([*overrides, f"run_dir={path}"], quiet=True)


def test_a_landscape_drawn_by_the_run_and_again_elsewhere(tmp_path):
    result = run(tmp_path / "a", *LANDSCAPE, "optimizer=adam", "members=3")
    first = {path.name: path.read_bytes() for path in (result.path / "figures").iterdir()}
    assert sorted(first) == ["gradient_norms.png", "landscape.png", "overview.png"]
    moved = shutil.move(result.path, tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "figures")
    again = {path.name: path.read_bytes() for path in draw_all(playground.load(moved))}
    assert again == first


@pytest.mark.slow
def test_the_race_of_two_optimizers(tmp_path, without_figures):
    paths = [run(tmp_path / name, *LANDSCAPE, f"optimizer={name}").path for name in ("sgd", "adam")]
    written, text = report(paths, tmp_path / "out")
    assert "race-landscape-rosenbrock.png" in {path.name for path in written}
    assert {line.split("  ")[0] for line in text.splitlines()[2:]} == {"sgd", "adam"}


@pytest.mark.slow
def test_learning_rates_along_the_member_axis(tmp_path, without_figures):
    result = run(tmp_path / "a", "problem=landscape/quadratic", "optimizer=sgd", "members=2",
                 "vary.optimizer.lr=[0.1,1,3]", "budget.iterations=400")  # fmt: skip
    written, text = report([result.path], tmp_path / "out")
    assert "learning_rate.png" in {path.name for path in written}
    assert text.splitlines()[2].split("  ")[0].endswith("lr 1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("domain", "overrides"),
    [
        ("landscape", ["problem=landscape/bilinear", "budget.iterations=50"]),
        ("landscape", ["problem=landscape/quadratic", "problem.dimension=5"]),
        ("landscape", ["problem=landscape/monkey_saddle", "optimizer=sgd", "members=12"]),
        ("supervised", ["problem=supervised/digits", "budget.iterations=20"]),
        ("supervised", ["problem=supervised/two_moons", "budget.iterations=20", "members=2"]),
        ("supervised", ["problem=supervised/linear_regression", "budget.iterations=20"]),
        ("supervised", ["problem=supervised/chebyshev", "budget.iterations=20", "members=2"]),
        ("supervised", ["problem=supervised/adding", "budget.iterations=20", "members=2"]),
        ("supervised", ["problem=supervised/digits_cnn", "budget.iterations=20"]),
        ("gan", ["problem=gan/ring", "budget.iterations=20", "members=2"]),
        ("gan", ["problem=gan/dirac", "budget.iterations=50"]),
        ("rl", ["problem=rl/cartpole", "budget.env_steps=1000",
                "problem.evaluation_episodes=2"]),
        ("rl", ["problem=rl/cartpole", "algorithm=reinforce", "budget.env_steps=500",
                "problem.evaluation_episodes=2"]),
    ],
)  # fmt: skip
def test_every_problem_has_its_picture(tmp_path, domain, overrides):
    result = run(tmp_path / "run", *overrides)
    drawn = {path.stem: imread(path) for path in (result.path / "figures").iterdir()}
    game = {"game", "instruments"} if "spectrum" in result.arrays else set()
    epochs = any(probe == "epochs" for probe in result.measurements["probe"].to_pylist())
    policy = {"policy_gradient"} if epochs else set()
    assert set(drawn) == {"overview", "gradient_norms", domain} | game | policy
    assert all(np.isfinite(pixels).all() and pixels.std() > 0.02 for pixels in drawn.values())


@pytest.mark.slow
def test_without_probes_the_rest_is_drawn(tmp_path):
    result = run(tmp_path / "run", *LANDSCAPE, "probes=none")
    names = {path.stem for path in (result.path / "figures").iterdir()}
    assert names == {"overview", "landscape"}
