"""Independent gradient estimates of every domain at fixed parameters, and a run left alone."""

import json

import numpy as np
import pytest
import torch
from harness import TINY, Planted, assert_same, final, quiet

import playground
from playground.config import compose
from playground.domains.rl.environments.mdp import garnet
from playground.domains.rl.exact.moments import estimate_moments
from playground.domains.rl.exact.values import Exact, softmax_policy
from playground.game import Problem
from playground.gradients import Differentiator
from playground.probes.probe import Probe
from playground.record.checkpoint import load_snapshot
from playground.record.directory import RecordError
from playground.schema import ConfigError
from playground.temporary import Temporary, context, find_point

pytestmark = pytest.mark.usefixtures("without_figures")

RANDOM_MDP = ["problem=rl/random_mdp", "algorithm=reinforce", "algorithm.gamma=0.9",
              "algorithm.baseline=none", "problem.num_envs=20", "dtype=float64",
              "problem.env_kwargs={states:4,actions:2,max_episode_steps:5}"]  # fmt: skip


@pytest.mark.parametrize("name", TINY)
def test_every_domain_gives_estimates_of_every_player(name):
    found = playground.gradient_estimates(TINY[name], estimates=5)
    assert set(found.values) == set(found.layouts)
    for player, values in found.values.items():
        assert values.shape == (5, found.layouts[player].size)
        assert torch.isfinite(values).all()
        differ = not torch.equal(values[0], values[1])
        assert differ == (name != "dirac")  # whose players see no data
        if differ:
            assert (found.noise(player)["variance"].value[0, 0] > 0).all()


def test_the_mean_is_the_exact_gradient_and_the_noise_the_exact_covariance():
    """REINFORCE on a random MDP, against the linear solve."""
    found = playground.gradient_estimates(RANDOM_MDP, estimates=400)
    model = garnet(states=4, actions=2)
    config = compose(RANDOM_MDP)
    policy = softmax_policy(config.problem.build(config).policy.network, found.layouts["policy"],
                            model.features)  # fmt: skip
    theta, exact = found.point.parameters["policy"], Exact(model, 0.9, 5)
    truth = -exact.gradient(policy, theta, discount_weight=False)
    _, covariance = estimate_moments(exact, policy, theta, torch.zeros(4), 1.0, 5, bootstrap=False)
    measured = found.noise("policy", truth)
    for name, value in (("variance", covariance.trace().item() / 20), ("bias_squared", 0.0)):
        own = measured[name]
        assert abs(own.value[0, 0].item() - value) < 4.5 * own.stderr[0, 0].item()
    wrong = found.noise("policy", 1.5 * truth)["bias_squared"]
    assert wrong.value[0, 0] > 4.5 * wrong.stderr[0, 0]
    assert measured["mean_cosine"].value[0, 0] > 0.9


def test_minibatches_estimate_the_whole_training_sets_gradient():
    """Without replacement the variance is (N - B) / (N - 1) / B of a sample's."""
    small = [*TINY["supervised"], "dtype=float64"]
    found = playground.gradient_estimates(small, estimates=300)
    whole = playground.gradient_estimates([*small, "problem.batch_size=100"], estimates=3)
    single = playground.gradient_estimates([*small, "problem.batch_size=1"], estimates=1000,
                                           at_once=1000)  # fmt: skip
    assert whole.noise("model")["variance"].value[0, 0] < 1e-25
    noise = found.noise("model", whole.values["model"][0])
    assert noise["bias_squared"].value[0, 0].abs() < 4.5 * noise["bias_squared"].stderr[0, 0]
    one = single.noise("model")["variance"]
    factor = (100 - 32) / 99 / 32
    gap = noise["variance"].value[0, 0] - factor * one.value[0, 0]
    error = torch.hypot(noise["variance"].stderr[0, 0], factor * one.stderr[0, 0])
    assert gap.abs() < 4.5 * error


def test_the_mean_over_an_iteration_is_ppos_whole_batch():
    keys = [*TINY["ppo"], "dtype=float64", "algorithm.normalize_advantage=false"]
    halves = playground.gradient_estimates(keys, estimates=4, moves="mean")
    whole = playground.gradient_estimates([*keys, "algorithm.batch_size=32"], estimates=4)
    first = playground.gradient_estimates(keys, estimates=4)
    for k in range(4):  # equal up to the weights of reset rows
        off = (halves.values["agent"][k] - whole.values["agent"][k]).norm()
        assert off < 0.05 * whole.values["agent"][k].norm()
        assert off < (first.values["agent"][k] - whole.values["agent"][k]).norm()


def test_draws_depend_on_the_seed_alone():
    one = playground.gradient_estimates(RANDOM_MDP, estimates=7)
    other = playground.gradient_estimates(RANDOM_MDP, estimates=9, at_once=4)
    assert torch.allclose(one.values["policy"], other.values["policy"][:7], atol=1e-12)
    fresh = playground.gradient_estimates(RANDOM_MDP, estimates=7, seed=1)
    assert not torch.allclose(one.values["policy"], fresh.values["policy"])


def test_burning_in_collects_and_drops_iterations():
    short, whole = (Temporary(find_point(TINY["ppo"]), [1, 2]) for _ in range(2))
    assert_same(short.problem.collector.capture(), whole.problem.collector.capture())
    short.burn_in(3)
    assert short.problem.collector.capture() != whole.problem.collector.capture()
    for _ in range(3):
        assert len(list(whole.moves())) == 4
    assert_same(short.problem.collector.capture(), whole.problem.collector.capture())


def test_points_of_a_run_are_its_snapshots(tmp_path):
    run = quiet([*TINY["supervised"], "members=2", "budget.iterations=8"], tmp_path / "run")
    for at, iteration in ((4, 4), ("final", 8), (0, 0)):
        point = find_point(run, at, member=1)
        assert point.iteration == iteration
        expected = load_snapshot(run.path, iteration)[1]["model"][1]
        assert torch.equal(point.parameters["model"], expected)
    assert find_point(str(run.path), "best").iteration in run.snapshots
    # the gradients there, by hand
    found = playground.gradient_estimates(run, at=4, member=1, estimates=3, seed=5)
    made = Temporary(find_point(run, 4, member=1), [9])
    players = made.players
    players["model"].parameters.values.copy_(load_snapshot(run.path, 4)[1]["model"][1:])
    (move,) = next(made.problem.iteration(0.0))
    by_hand = Differentiator(players)(move).value[0]
    assert by_hand.shape == found.values["model"][0].shape
    assert torch.nn.functional.cosine_similarity(by_hand, found.mean("model"), dim=0) > 0.1


class Estimating(Probe):
    """Takes estimates in the middle of training."""

    name = "estimating"
    every = 3

    def __init__(self, overrides):
        self.overrides = overrides

    def measure(self, seen):
        found = playground.gradient_estimates(self.overrides, estimates=2)
        value = next(iter(found.values.values())).norm().to(seen.norm)
        return {"norm": value.expand(len(seen.norm)).contiguous()}


@pytest.mark.parametrize("name", ["ppo", "gan"])
def test_estimates_leave_training_bit_for_bit_the_same(name, tmp_path):
    keys = [*TINY[name], "budget.iterations=4"]
    plain = quiet(keys, tmp_path / "plain")
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    probed = playground.run([*keys, f"run_dir={tmp_path / 'probed'}"], quiet=True,
                            probes=[Estimating(keys)])  # fmt: skip
    assert_same(final(plain)["players"], final(probed)["players"])
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])


def test_ones_own_problem_and_objective():
    found = playground.gradient_estimates([], estimates=3, problem=Planted)
    assert found.values

    def doubled(original):
        def objective(params, batch):
            terms, diagnostics = original(params, batch)
            return {name: 2 * term for name, term in terms.items()}, diagnostics

        return objective

    keys = TINY["supervised"]
    plain = playground.gradient_estimates(keys, estimates=3)
    twice = playground.gradient_estimates(keys, estimates=3, objectives={"model": doubled})
    assert torch.allclose(twice.values["model"], 2 * plain.values["model"])


def test_what_a_problem_learned_is_adopted_from_the_checkpoint(tmp_path, monkeypatch):
    run = quiet([*TINY["supervised"], "members=2", "budget.iterations=2"], tmp_path / "run")
    seen = []
    monkeypatch.setattr(Problem, "adopt", lambda _, state, member: seen.append((state, member)))
    Temporary(find_point(run, "final", member=1), [3])
    assert_same(seen, [(final(run)["problem"], 1)])
    Temporary(find_point(run, 2), [3])
    assert len(seen) == 1  # a snapshot holds parameters alone


def test_temporary_members_see_through_the_runs_normaliser(tmp_path):
    keys = [*TINY["ppo"], "members=2", "budget.iterations=3", "evaluate.every=3",
            "problem.normalize_observations=true", "problem.normalize_rewards=true"]  # fmt: skip
    run = quiet(keys, tmp_path / "run")
    saved = final(run)["problem"]["collector"]["normaliser"]
    made = Temporary(find_point(run, "final", member=1), [3, 4, 5])
    own = made.problem.collector.normaliser.state()
    assert own["gained"] == {key: [saved["gained"][key][1]] * 3 for key in saved["gained"]}
    raw = made.problem.collector.environments.seen.reshape(3, 2, 4)  # first observations
    count, mean = saved["seen"]["count"][1], np.array(saved["seen"]["mean"][1])
    assert own["seen"]["count"] == pytest.approx([count + 2] * 3)
    merged = (count * mean + raw.sum(1)) / (count + 2)
    assert np.array(own["seen"]["mean"]) == pytest.approx(merged)
    deviation = np.sqrt(np.array(own["seen"]["squares"]) / (count + 2))
    expected = (raw - merged[:, None]) / deviation[:, None]
    assert made.problem.collector.observation == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"estimates": 0}, "estimates=0: must be at least 1"),
        ({"moves": "all"}, "moves=all: allowed are first, mean"),
        ({"member": 3}, "member=3: the run has members 0 to 0"),
        ({"burn_in": -1}, "burn_in=-1"),
        ({"overrides": ["problem.batchsize=3"]}, "problem.batchsize=3"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        playground.gradient_estimates(TINY["supervised"], **options)


def test_values_of_another_layout_are_refused(tmp_path):
    """A version that lays tensors out in another order must not read them as each other."""
    run = quiet([*TINY["ppo"], "budget.iterations=1"], tmp_path / "run")
    path = run.path / "manifest.json"
    content = json.loads(path.read_text())
    content["tensors"]["agent"].reverse()
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"player agent: the run has the tensors value\..*policy"):
        playground.gradient_estimates(run)


def test_what_a_run_does_not_have_is_refused(tmp_path):
    run = quiet([*TINY["supervised"], "budget.iterations=3"], tmp_path / "run")
    with pytest.raises(RecordError, match="no such snapshot"):
        playground.gradient_estimates(run, at=3_000)
    with pytest.raises(ConfigError, match="at=last: allowed are final, best"):
        playground.gradient_estimates(run, at="last")
    for override in ("problem.colour=3", "problem=gan/ring", "seed.x=3"):
        with pytest.raises(ConfigError, match="the run has no such value"):
            playground.gradient_estimates(run, overrides=[override])
    changed = find_point(run, overrides=["problem.batch_size=8"])
    assert context(changed.config, [0]).members == 1
    assert changed.config.problem.batch_size == 8
