"""The engine's branch for devices that the host does not wait for, forced on the CPU."""

import pytest
from harness import SMALL_GAN, SMALL_RL, assert_same, final, quiet, rows

from playground.engine import Engine

RUNS = {
    "ppo that stops epochs": [
        "problem=rl/cartpole", "algorithm.target_kl=0.003", "members=3", "budget.iterations=3",
        "problem.evaluation_episodes=2", "problem.num_envs=4", "algorithm.num_steps=32",
        "algorithm.batch_size=32",
    ],
    "a2c, two players": ["problem=rl/cartpole", *SMALL_RL, "algorithm=a2c", "members=2",
                         "budget.iterations=20"],
    "a GAN": ["problem=gan/ring", *SMALL_GAN, "members=2", "budget.iterations=6"],
    "digits, one member of which freezes": [
        "problem=supervised/digits", "optimizer=sgd", "vary.optimizer.lr=[0.1,1e6]",
        "on_nonfinite=freeze", "budget.iterations=60", "probes=standard",
    ],
    "a landscape that freezes": [
        "problem=landscape/rosenbrock", "optimizer=sgd", "vary.optimizer.lr=[1e-4,1e3]",
        "on_nonfinite=freeze", "budget.updates=60",
    ],
    "a game": ["problem=landscape/bilinear", "stepper=extragradient", "budget.iterations=20"],
}  # fmt: skip


STOP = ("ppo that stops epochs", "digits, one member of which freezes", "a landscape that freezes")
"""Runs whose members have had different numbers of updates at the end."""


def stamps(run, table):
    """Which update of whom every row is of."""
    names = ("iteration", "update", "member", "player", "tensor")
    return sorted(zip(*(run.table(table)[name].to_pylist() for name in names), strict=True))


@pytest.mark.parametrize("name", RUNS)
def test_a_far_device_counts_as_the_host_does(name, tmp_path, monkeypatch):
    given = RUNS[name]
    near = quiet(given, tmp_path / "near")

    class Far(Engine):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            self._remote = True

    monkeypatch.setattr("playground.assembly.Engine", Far)
    far = quiet(given, tmp_path / "far")
    for table in ("metrics", "events"):
        assert rows(near, table) == rows(far, table), table
    for table in ("gradients", "measurements"):  # values after a member froze may differ
        assert stamps(near, table) == stamps(far, table), table
    left, right = final(near), final(far)
    for player, values in left["players"].items():
        assert_same(values["parameters"], right["players"][player]["parameters"])
    for key in ("updates", "gradient_evaluations", "frozen", "played"):
        assert left["engine"][key] == right["engine"][key]
    if name in STOP:
        updates = next(iter(left["engine"]["updates"].values()))
        assert len(set(updates)) > 1, "else this could not fail"
