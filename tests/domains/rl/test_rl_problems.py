"""Ready problems: every algorithm's defaults compose, fit, and are those that they cite."""

import functools

import gymnasium
import pytest

from playground.composition import conf_dir
from playground.config import compose as composed
from playground.domains.rl.config import ALGORITHMS

compose = functools.cache(lambda *keys: composed(keys))
NAMES = sorted(path.stem for path in (conf_dir() / "problem" / "rl").glob("*.yaml"))

PPO = {
    # rl-baselines3-zoo, hyperparams/ppo.yml at 22e3ff2; what it leaves out is SB3's default.
    # environments x steps, minibatch, epochs, gamma, lambda, learning rate, clip, entropy,
    # value coefficient, gradient clip, normalised, gSDE, total steps
    "acrobot": (16, 256, 64, 4, 0.99, 0.94, 3e-4, 0.2, 0, 0.5, 0.5, True, False, 1e6),
    "mountain_car": (16, 16, 64, 4, 0.99, 0.98, 3e-4, 0.2, 0, 0.5, 0.5, True, False, 1e6),
    "mountain_car_continuous": (
        1, 8, 8, 10, 0.9999, 0.9, 7.77e-5, 0.1, 0.00429, 0.19, 5, True, True, 2e4),
    "pendulum": (4, 1024, 64, 10, 0.9, 0.95, 1e-3, 0.2, 0, 0.5, 0.5, False, True, 1e5),
    "lunar_lander": (16, 1024, 64, 4, 0.999, 0.98, 3e-4, 0.2, 0.01, 0.5, 0.5, False, False, 1e6),
    "lunar_lander_continuous": (
        16, 1024, 64, 4, 0.999, 0.98, 3e-4, 0.2, 0.01, 0.5, 0.5, False, False, 1e6),
    "bipedal_walker": (32, 2048, 64, 10, 0.999, 0.95, 3e-4, 0.18, 0, 0.5, 0.5, True, False, 5e6),
    "half_cheetah": (
        1, 512, 64, 20, 0.98, 0.92, 2.0633e-5, 0.1, 0.000401762, 0.58096, 0.8, True, False, 1e6),
    "hopper": (
        1, 512, 32, 5, 0.999, 0.99, 9.80828e-5, 0.2, 0.00229519, 0.835671, 0.7, True, False, 1e6),
    "walker2d": (
        1, 512, 32, 20, 0.99, 0.95, 5.05041e-5, 0.1, 0.000585045, 0.871923, 1, True, False, 1e6),
    "ant": (1, 2048, 64, 10, 0.99, 0.95, 3e-4, 0.2, 0, 0.5, 0.5, True, False, 1e6),
    "swimmer": (4, 1024, 256, 10, 0.9999, 0.98, 6e-4, 0.2, 0, 0.5, 0.5, True, False, 1e6),
}  # fmt: skip

A2C = {  # hyperparams/a2c.yml: environments x steps, gamma, lambda, learning rate, total steps
    "acrobot": (16, 5, 0.99, 1, 7e-4, 5e5),
    "mountain_car": (16, 5, 0.99, 1, 7e-4, 1e6),
    "mountain_car_continuous": (4, 100, 0.99, 1, 7e-4, 1e5),
    "pendulum": (8, 8, 0.9, 0.9, 7e-4, 1e6),
    "lunar_lander": (8, 5, 0.995, 1, 8.3e-4, 2e5),
    "lunar_lander_continuous": (4, 8, 0.99, 0.9, 7e-4, 5e6),
    "bipedal_walker": (16, 8, 0.99, 0.9, 9.6e-4, 5e6),
    "hopper": (1, 5, 0.99, 1, 7e-4, 1e6),
    "swimmer": (1, 5, 0.9999, 1, 7e-4, 1e6),
}

TRPO = {  # hyperparams/trpo.yml: steps (2 environments), gamma, critic updates, KL, damping, steps
    "acrobot": (1024, 0.99, 10, 0.01, 0.1, 1e5),
    "mountain_car": (1024, 0.99, 20, 0.01, 0.1, 1e5),
    "mountain_car_continuous": (2048, 0.99, 10, 0.01, 0.1, 5e4),
    "pendulum": (1024, 0.9, 15, 0.01, 0.1, 1e5),
    "lunar_lander": (512, 0.99, 15, 0.01, 0.01, 2e5),
    "lunar_lander_continuous": (1024, 0.99, 20, 0.01, 0.1, 1e5),
    "bipedal_walker": (1024, 0.99, 20, 0.01, 0.1, 1e6),
    "half_cheetah": (1024, 0.99, 20, 0.04, 0.1, 1e6),
    "swimmer": (1024, 0.9999, 20, 0.01, 0.1, 1e6),
}


CASES = [
    (name, algorithm)
    for name in NAMES
    for algorithm in ALGORITHMS
    if (name, algorithm) != ("cartpole_no_velocity", "reinforce")  # which has no memory
]


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [pytest.param(*case, marks=pytest.mark.slow if i % 7 else ()) for i, case in enumerate(CASES)],
)
def test_every_algorithm_has_defaults_that_fit(name, algorithm):
    config = compose(f"problem=rl/{name}", f"algorithm={algorithm}")
    config.algorithm.validate(config.problem)
    config.problem.validate()
    assert config.problem.name == f"rl/{name}"
    assert config.problem.default_budget["env_steps"] > 0
    assert gymnasium.spec(config.problem.env).id == config.problem.env


@pytest.mark.parametrize("name", PPO)
def test_ppo_has_the_zoos_settings(name):
    config = compose(f"problem=rl/{name}", "algorithm=ppo")
    problem, ours, step = config.problem, config.algorithm, config.player_optimizer("agent")
    assert (
        problem.num_envs, ours.num_steps, ours.batch_size, ours.epochs, ours.gamma,
        ours.gae_lambda, step.lr, ours.clip, ours.entropy_coefficient, ours.value_coefficient,
        step.clip_norm, problem.normalize_observations and problem.normalize_rewards,
        problem.gsde, problem.default_budget["env_steps"],
    ) == PPO[name]  # fmt: skip
    assert (step.name, step.eps, step.schedule) == ("adam", 1e-5, "constant")


@pytest.mark.parametrize("name", A2C)
def test_a2c_has_the_zoos_settings(name):
    config = compose(f"problem=rl/{name}", "algorithm=a2c")
    problem, ours, step = config.problem, config.algorithm, config.player_optimizer("agent")
    assert (
        problem.num_envs, ours.num_steps, ours.gamma, ours.gae_lambda, step.lr,
        problem.default_budget["env_steps"],
    ) == A2C[name]  # fmt: skip
    assert (step.name, step.clip_norm) == ("rmsprop", 0.5)
    annealed = {"pendulum", "lunar_lander", "lunar_lander_continuous", "bipedal_walker"}
    assert step.schedule == ("linear" if name in annealed else "constant")


@pytest.mark.parametrize("name", TRPO)
def test_trpo_has_the_zoos_settings(name):
    config = compose(f"problem=rl/{name}", "algorithm=trpo")
    problem, ours, step = config.problem, config.algorithm, config.player_optimizer("policy")
    assert (
        ours.num_steps, ours.gamma, ours.value_epochs, step.radius, step.damping,
        problem.default_budget["env_steps"],
    ) == TRPO[name]  # fmt: skip
    assert (problem.num_envs, config.player_optimizer("value").lr) == (2, 1e-3)
