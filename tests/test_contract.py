"""The contract of every problem, optimizer, stepper and probe set: a newcomer inherits it all."""

import io

import numpy as np
import pytest
import torch
from harness import SMALL_GAN, SMALL_PPO, SMALL_RL, assert_same, loop

from playground.composition import conf_dir
from playground.domains.rl.config import ALGORITHMS
from playground.game import Evaluation
from playground.optim.config import OPTIMIZERS, NaturalGradient
from playground.optim.steppers.config import STEPPERS

SMALL = {
    "landscape": ["problem.noise=0.1"],
    "supervised": ["problem.batch_size=16"],
    "gan": ["problem.batch_size=16", "problem.evaluation_samples=100"],
    "rl": [*SMALL_RL[1:], *SMALL_PPO, "+problem.env_kwargs.max_episode_steps=40"],
}
"""What makes a domain's problems small."""


def options(group: str) -> list[str]:
    """Every option of a group of configurations."""
    folder = conf_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


PACKAGES = {
    "Box2D": ("rl/lunar_lander", "rl/lunar_lander_continuous", "rl/bipedal_walker"),
    "mujoco": ("rl/half_cheetah", "rl/hopper", "rl/walker2d", "rl/ant", "rl/swimmer"),
}
"""What some problems need."""

PROBLEMS = [name for name in options("problem") if name != "custom"]
GAN = ["problem=gan/ring", *SMALL_GAN]

GAN_OPTIONS = ("spectral_norm=true", "instance_noise=0.5", "pack=4")


def algorithms() -> list[list[str]]:
    """Every algorithm but the default; both ways to share out the networks where there are two."""
    long = ["algorithm.num_steps=16", "algorithm.batch_size=16"]
    steps = {"ppo_kl": SMALL_PPO, "npg": long, "trpo": long}
    result = [[f"algorithm={n}", *steps.get(n, [])] for n in options("algorithm") if n != "ppo"]
    result += [[*a, "algorithm.separate=true"] for a in result if a[0][10:] in ("a2c", "ppo_kl")]
    return [*result, ["algorithm=ppo", *SMALL_PPO, "algorithm.separate=true"]]


def cases() -> list[list[str]]:
    result = [[f"problem={name}", *SMALL[name.partition("/")[0]]] for name in PROBLEMS]
    result += [["problem=rl/cartpole", *SMALL_RL[1:], *a] for a in algorithms()]
    for name in OPTIMIZERS:
        if issubclass(OPTIMIZERS[name], NaturalGradient):
            continue  # wants moves with a divergence: algorithm=npg and trpo
        extra = ["optimizer.class_name=RAdam"] if name == "torch" else []
        result.append([*GAN, f"optimizer={name}", *extra])
    result += [
        [
            *GAN,
            "problem.rounds=simultaneous",
            "optimizer=sgd",
            "optimizer.lr=0.01",
            f"stepper={name}",
        ]
        for name in STEPPERS
    ]
    result += [[*GAN, "stepper=lookahead_minimax", "stepper.k=1"], [*GAN, "frozen=[generator]"]]
    result += [[*GAN, f"probes={name}"] for name in options("probes")]
    result += [[*GAN, f"loss={name}"] for name in options("loss")]
    result += [[*GAN, f"penalty.{name}=1"] for name in ("r1", "r2", "gradient", "dragan")]
    result += [[*GAN, "optimizer.project=0.1"]]
    result += [[*GAN, f"problem.{key}"] for key in GAN_OPTIONS]
    for name in ("digits", "stacked_digits"):
        result.append([f"problem=gan/{name}", *SMALL["gan"], "problem.channels=2",
                       "problem.network=conv"])  # fmt: skip
    deep = ["problem=supervised/digits_residual", *SMALL["supervised"], "problem.depth=6"]
    result += [[*deep, f"problem.branch={name}"] for name in ("plain", "zero", "fixup", "rezero")]
    irnn = ["problem.activation=relu", "problem.recurrent_initialisation=identity"]
    result += [["problem=supervised/adding", *SMALL["supervised"], "problem.length=5", *irnn]]
    result += [[f"experiment={name}"] for name in options("experiment")]
    return result


def test_every_name_has_a_configuration():
    assert {*ALGORITHMS} == {*options("algorithm")}
    assert {*OPTIMIZERS} == {*options("optimizer")}
    assert {*STEPPERS} == {*options("stepper")}


@pytest.mark.parametrize("overrides", cases(), ids=lambda c: " ".join(c[:1] + c[-1:]))
def test_contract(overrides):
    """Two iterations, finite; a state that went through a file goes on bit for bit."""
    for package, problems in PACKAGES.items():
        if overrides[0].removeprefix("problem=") in problems:
            pytest.importorskip(package)
    made = loop(*overrides, "members=2", "seed=3").iterate()
    buffer = io.BytesIO()
    torch.save(made.state(), buffer)
    before = made.state()
    evaluation = made.problem.evaluate()
    check_evaluation(made, evaluation)
    for key in ("values", "engine", "counters"):
        assert_same(before[key], made.state()[key], key)  # an evaluation changes nothing
    made.iterate()
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    other = loop(*overrides, "members=2", "seed=3").load_state(saved).iterate()
    assert_same(made.values(), other.values())
    assert_same(made.state()["engine"], other.state()["engine"])
    assert_same(made.state()["counters"], other.state()["counters"])
    for name, player in made.players.items():
        assert name == player.name
        assert player.parameters.values.shape[0] == 2
        assert torch.isfinite(player.parameters.values).all()
        trains = name not in made.parts.config.frozen
        assert ((made.engine.updates[name] > 0) == trains).all()
        if player.module is not None:
            assert {*player.module().state_dict()} == {*player.parameters.layout.names}
    assert {*made.problem.counters} == {*made.parts.config.problem.counts}
    assert all(c.dtype == np.int64 for c in made.problem.counters.values())


def check_evaluation(made, evaluation):
    """The main metric is there; everything is [M], or has the leading axis M or 1."""
    assert isinstance(evaluation, Evaluation)
    assert made.problem.main_metric in evaluation.metrics
    for name, value in evaluation.metrics.items():
        assert value.shape == (2,), name
        assert np.isfinite(value).all(), name
    for name, value in evaluation.stderr.items():
        assert name in evaluation.metrics
        assert value.shape == (2,)
    for name, array in evaluation.arrays.items():
        assert array.shape[0] in (1, 2), name
    again = made.problem.evaluate()
    for name, value in evaluation.metrics.items():
        assert np.array_equal(value, again.metrics[name]), name
