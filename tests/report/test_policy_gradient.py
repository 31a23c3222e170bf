"""The picture of the policy gradient: every curve is what the probes recorded."""

import numpy as np
import pytest

import playground
from playground.record.view import View
from playground.report import draw, names
from playground.report.figures import policy_gradient

SMALL = ["problem=rl/cartpole", "members=2", "budget.iterations=9", "evaluate.every=4",
         "problem.evaluation_episodes=2", "problem.num_envs=4",
         "algorithm.batch_size=64"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy_gradient") / "run"
    return playground.run([*SMALL, "algorithm.epochs=3", f"run_dir={folder}"])


def test_curves_are_the_recorded_measurements(run):
    figure = policy_gradient.figure(View(run))
    panels = {ax.get_title(loc="left"): ax for ax in figure.axes}
    rows = [
        row
        for row in run.measurements.to_pylist()
        if row["probe"] == "epochs" and row["quantity"] == "cosine_first/epoch_3"
    ]
    by_iteration = {}
    for row in rows:
        by_iteration.setdefault(row["iteration"], []).append(row["value"])
    (line,) = (
        line
        for line in panels["cosine with the first epoch's gradient"].lines
        if line.get_label() == "epoch 3"
    )
    np.testing.assert_array_equal(line.get_xdata(), sorted(by_iteration))
    wanted = [np.mean(by_iteration[k]) for k in sorted(by_iteration)]
    np.testing.assert_allclose(line.get_ydata(), wanted)
    labels = [line.get_label() for line in panels["KL after each epoch (k3), nats"].lines]
    assert labels == ["epoch 1", "epoch 2", "epoch 3"]


def test_a_run_draws_it_by_default_and_another_domain_has_none(run, tmp_path):
    assert "policy_gradient" in names(run)
    assert (run.path / "figures" / "policy_gradient.png").exists()
    other = playground.run(["problem=landscape/saddle", "budget.iterations=2",
                            f"run_dir={tmp_path / 'other'}"])  # fmt: skip
    with pytest.raises(ValueError, match="figure policy_gradient: this run has overview"):
        draw(other, "policy_gradient")


def test_nothing_to_show_without_probes(tmp_path):
    bare = playground.run([*SMALL, "probes=none", f"run_dir={tmp_path / 'bare'}"])
    assert policy_gradient.figure(View(bare)) is None
