"""Slices through runs: objectives and metrics against what is known of them."""

import numpy as np
import pytest
import torch
from harness import TINY, final, quiet

import playground
from playground.config import compose
from playground.domains.rl.environments.mdp import garnet
from playground.domains.rl.exact.values import Exact, softmax_policy
from playground.schema import ConfigError
from playground.temporary import Temporary, find_point

pytestmark = pytest.mark.usefixtures("without_figures")


def test_a_landscapes_value_is_its_formula():
    keys = ["problem=landscape/quadratic", "problem.condition=10"]
    found = playground.landscape(keys, [torch.tensor([1.0, 0]), torch.tensor([0, 1.0])],
                                 [[-1, 0, 2], [0, 0.5]], batches=2, metrics=["value"])  # fmt: skip
    x = found.center + torch.cartesian_prod(*found.offsets) @ found.directions
    expected = 0.5 * (x**2 * torch.tensor([0.1, 1.0])).sum(1).view(3, 2)
    for name in ("objective", "value"):
        assert torch.allclose(found.values[name], expected)
    assert found.stderr["objective"].abs().max() < 1e-12
    assert found.stderr["value"].isnan().all()


def test_a_surrogates_slope_is_minus_the_gradient_that_trains():
    keys = [*TINY["ppo"], "dtype=float64"]
    made = Temporary(find_point(keys), [3, 4, 5])
    direction = next(made.moves())[1].value.mean(0)
    h = 1e-4
    found = playground.landscape(keys, [direction], [[-h, 0, h]], metrics=[], batches=5, seed=1)
    value = found.values["objective"]
    slope = (value[2] - value[0]) / (2 * h)
    estimates = [
        next(Temporary(find_point(keys), [seed]).moves())[1].value[0]
        for seed in landscape_seeds(5, 1)
    ]
    exact = torch.stack(estimates).mean(0) @ direction
    assert slope.item() == pytest.approx(exact.item(), rel=1e-5)
    parts = sum(v for name, v in found.values.items() if name.startswith("objective/"))
    assert torch.allclose(parts, value)


def landscape_seeds(count, seed):
    from playground.randomness import stream_seed

    return [stream_seed(seed, f"landscape/{k}") for k in range(count)]


def test_returns_on_a_line_are_the_exact_ones():
    """The sampling policy's, on a random MDP, with the error that the evaluation states."""
    keys = ["problem=rl/random_mdp", "algorithm=reinforce", "dtype=float64",
            "problem.env_kwargs={states:4,actions:2,max_episode_steps:6}",
            "problem.evaluation_episodes=2000"]  # fmt: skip
    config = compose(keys)
    built = config.problem.build(config)
    point = find_point(keys)
    direction = torch.randn(len(point.parameters["policy"]),
                            generator=torch.Generator().manual_seed(0)).double()  # fmt: skip
    found = playground.landscape(keys, [direction], [[-1, 0, 1, 2]], player="policy",
                                 metrics=["return/stochastic"], at_once=3)  # fmt: skip
    model = garnet(states=4, actions=2)
    layout = Temporary(point, [0]).players["policy"].parameters.layout
    policy = softmax_policy(built.policy.network, layout, model.features)
    exact = Exact(model, 1.0, 6)
    for i, a in enumerate((-1, 0, 1, 2)):
        truth = exact.objective(policy(point.parameters["policy"] + a * direction).exp())
        error = found.stderr["return/stochastic"][i]
        assert abs(found.values["return/stochastic"][i] - truth) < 4.5 * error


def test_equal_points_see_equal_data(tmp_path):
    run = quiet([*TINY["gan"], "budget.iterations=2"], tmp_path / "run")
    before = final(run)
    for player in ("generator", "discriminator"):
        size = before["players"][player]["parameters"].shape[1]
        found = playground.landscape(run, [torch.ones(size)], [[0, 0, 0.1, 0]], player=player,
                                     at_once=3)  # fmt: skip
        for values in found.values.values():
            assert values[0] == values[1] == values[3]
        assert found.values["objective"][2] != found.values["objective"][0]
    assert torch.equal(final(run)["players"]["generator"]["parameters"],
                       before["players"]["generator"]["parameters"])  # fmt: skip


def test_one_batch_has_no_error():
    found = playground.landscape(TINY["landscape"], [torch.ones(2)], [np.arange(3)], batches=1)
    assert found.stderr["objective"].isnan().all()
    assert "distance" in found.values


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"player": "agent"}, "player=agent: allowed are x"),
        ({"metrics": ["accuracy"]}, "metrics=accuracy: allowed are .*value"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        playground.landscape(TINY["landscape"], [torch.ones(2)], [[0]], **options)
