"""Recurrent networks against ``nn.GRU``, run episode by episode; and what they are for."""

from itertools import pairwise

import gymnasium
import numpy as np
import pytest
import torch
from harness import SMALL_RL, assert_same, assert_same_records, final, quiet, resume, stop

from playground.config import compose
from playground.domains.rl.environments.classic import CartPoles, HiddenVelocities
from playground.domains.rl.policies.categorical import host_forward
from playground.domains.rl.recurrent import Recurrent, pack
from playground.nets import MLP
from playground.randomness import generators
from playground.schema import ConfigError

SMALL = ["problem.memory=6", "problem.widths=[5]", "problem.num_envs=4"]
PPO = [*SMALL, "algorithm.num_steps=12", "algorithm.batch_size=24", "algorithm.epochs=2"]
TRPO = ["algorithm=trpo", "optimizer@players.policy=trust_region", "algorithm.num_steps=12",
        "algorithm.batch_size=24", "algorithm.value_epochs=1",
        "players.policy.iterations=3"]  # fmt: skip
STEPS = 4


class Cue(gymnasium.Env):
    """The first observation is 1 or -1, the others 0; the last of four actions must repeat it.

    What is seen at the last step does not depend on the cue: without a memory every policy is
    right with probability 1/2.
    """

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cue, self.time = int(self.np_random.integers(2)), 0
        return np.array([2 * self.cue - 1, 0], np.float32), {}

    def step(self, action):
        self.time += 1
        last = self.time == STEPS
        seen = np.array([0, self.time == STEPS - 1], np.float32)
        return seen, float(last and action == self.cue), last, False, {}


if "toys/Cue-v0" not in gymnasium.registry:
    gymnasium.register("toys/Cue-v0", Cue, max_episode_steps=STEPS)


def network(index=0, **options):
    """3 -> 5 units -> 4 -> 2, with random tensors in float64."""
    made = Recurrent(3, MLP((5, 4, 2), **options), index)
    tensors = made.init(0, "x")
    generator = torch.Generator().manual_seed(1)
    return made, {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in tensors.items()
    }


def as_module(made, tensors):
    module = made.module().double()
    module.load_state_dict(tensors)
    return module


@pytest.mark.parametrize("index", [0, 1])
def test_sequences_equal_a_gru_run_episode_by_episode(index):
    made, tensors = network(index)
    rng = np.random.default_rng(2)
    observation, keep = rng.normal(size=(20, 1, 7, 3)), rng.random((20, 1, 7)) < 0.8
    starts = rng.normal(size=(2, 1, 7, 5))
    rows = torch.from_numpy(pack(observation, keep, list(starts)))[0]
    result = made(tensors, rows).view(7, 20, 2)
    module, pieces = as_module(made, tensors), 0
    for s in range(7):
        ends = [*(np.flatnonzero(~keep[:, 0, s]) + 1), 20]
        first, memory = 0, torch.from_numpy(starts[index, 0, s])[None, None]
        for end in ends:
            if end > first:
                x = torch.from_numpy(observation[first:end, 0, s])[None]
                expected = module(x, memory)[0][0]
                assert torch.allclose(result[s, first:end], expected, rtol=0, atol=1e-12)
                pieces += 1
            first, memory = end, None
    assert pieces > 14


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("activation", ["tanh", "silu"])  # the MLP in NumPy, and in torch
def test_acting_equals_a_gru(members, activation):
    made, _ = network(activation=activation)
    each = [made.init(k, "x") for k in range(members)]
    tensors = {name: torch.stack([t[name] for t in each]) for name in each[0]}
    forward = host_forward(made, tensors)
    rng = np.random.default_rng(0)
    memory, seen, outputs = np.zeros((members, 2, 5)), rng.normal(size=(6, members, 2, 3)), []
    for x in seen:
        outputs.append(forward(x, memory)[1])
    for k in range(members):
        expected, last = as_module(made, each[k])(torch.from_numpy(seen[:, k]).swapaxes(0, 1))
        assert np.allclose(np.stack(outputs, 1)[k].swapaxes(0, 1), expected.detach(), atol=1e-12)
        assert np.allclose(memory[k], last[0].detach(), atol=1e-12)
        x, h = torch.from_numpy(seen[0, k]), torch.from_numpy(memory[k])
        own = {name: tensor[k : k + 1].numpy() for name, tensor in tensors.items()}
        stepped = made.numpy_step(own)(seen[0, k : k + 1], memory[k : k + 1])[0]
        assert np.allclose(made.step(each[k], x, h), stepped, atol=1e-12)


def test_the_numpy_step_does_not_overflow():
    made, tensors = network()
    step = made.numpy_step({n: t.float().numpy()[None] for n, t in tensors.items()})
    out = step(np.full((1, 1, 3), 1e4, np.float32), np.zeros((1, 1, 5), np.float32))
    assert np.isfinite(out).all()  # warnings are errors


def test_initial_tensors():
    orthogonal = Recurrent(3, MLP((5, 2), initialisation="orthogonal")).init(0, "x")
    for name in ("memory.weight_ih_l0", "memory.weight_hh_l0"):
        weight = orthogonal[name]
        eye = torch.eye(weight.shape[1], dtype=torch.float64)
        assert torch.allclose(weight.T @ weight, eye, atol=1e-12)
        assert not orthogonal[name.replace("weight", "bias")].any()
    uniform = Recurrent(30, MLP((50, 2))).init(0, "x")
    for name, value in uniform.items():
        if name.startswith("memory."):
            assert 0.95 / 50**0.5 < value.abs().max() <= 1 / 50**0.5


def recorded(made, steps, times):
    """Batches and rollouts of one policy over several rollouts, nothing being updated."""
    rollouts = [made.problem.collect(steps) for _ in range(times)]
    return rollouts, [made.problem.batch(rollout) for rollout in rollouts]


def whole_episodes(rollouts, member, env):
    """[(rows since the first rollout began, observations)] of complete episodes."""
    observation = np.concatenate([r.observation[:-1, member, env] for r in rollouts])
    valid = np.concatenate([r.valid[:, member, env] for r in rollouts])
    cuts = [-1, *np.flatnonzero(~valid), len(valid)]
    spans = [range(a + 1, b) for a, b in pairwise(cuts) if b > a + 1]
    return [(list(span), observation[span.start : span.stop]) for span in spans]


@pytest.mark.parametrize("members", [1, 2])
def test_memories_go_through_rollouts_and_end_with_episodes(game, members):
    """Statistics and values of every row are those of the module run on its whole episode."""
    made = game(*SMALL, f"members={members}", "dtype=float64", "problem.initialisation=torch",
                "algorithm.num_steps=16", "algorithm.batch_size=64")  # fmt: skip
    rollouts, batches = recorded(made, 16, 5)
    rows = 0
    for k in range(members):
        module = made.players["agent"].module().double()
        module.load_state_dict(made.players["agent"].parameters.member(k))
        log_p = torch.cat([torch.stack([
            made.problem.policy.log_prob(made.problem.statistics(b["observation"]),
                                         torch.full_like(b["action"], a))[k].view(4, 16)
            for a in (0, 1)], -1) for b in batches], dim=1)  # fmt: skip
        value = torch.cat([b["value"][k].view(4, 16) for b in batches], dim=1)
        weight = torch.cat([b["weight"][k].view(4, 16) for b in batches], dim=1)
        for e in range(4):
            for where, seen in whole_episodes(rollouts, k, e):
                x = torch.from_numpy(seen).double()[None]
                expected = torch.log_softmax(module["policy"](x)[0][0], dim=-1)
                assert torch.allclose(log_p[e, where], expected, rtol=0, atol=1e-12)
                v = module["value"](x)[0][0, :, 0]
                assert torch.allclose(value[e, where], v, rtol=0, atol=1e-12)
                rows += len(where)
        assert (weight == 0).sum() > 3
    assert rows == sum(int(b["weight"].sum()) for b in batches)


@pytest.mark.parametrize("members", [1, 3])
def test_the_first_ratio_is_one(game, members):
    made = game(*PPO, f"members={members}").iterate(6)
    (move,) = next(made.problem.iteration(0.0))
    diagnostics = made.engine.gradient(move).diagnostics
    assert (diagnostics["ratio_max"] - 1).abs().max() <= 2e-6
    assert (diagnostics["ratio_min"] - 1).abs().max() <= 2e-6
    starts = move.batch["observation"][..., -12:]
    assert (starts != 0).any()
    # what acting remembers is what a sequence from the same start does
    state = made.problem.collector.memory.copy()
    rollout = made.problem.collect(12)
    assert np.array_equal(rollout.memory, state)
    made.problem.memory[:] = 0
    rows = made.problem.tensor(pack(rollout.observation[:-1], rollout.valid, [state, state]))
    h = made.problem._forward(made.problem.policy.network.memories, made.problem.tensors(0), rows)
    kept = h[:, :, -1].numpy() * rollout.valid[-1][..., None]
    assert kept == pytest.approx(made.problem.collector.memory, abs=2e-6)


def test_minibatches_are_whole_sequences(game):
    made = game(*PPO, "members=2", "algorithm.normalize_advantage=false").iterate()
    batch = made.problem.batch(made.problem.collect(12))
    batch["number"] = torch.arange(2 * 48).view(2, 48)
    pieces = list(made.problem.minibatches(batch))
    assert len(pieces) == 2
    for piece in pieces:
        numbers = piece["number"].view(2, 2, 12)
        assert (numbers[..., 0] % 12 == 0).all()
        assert torch.equal(numbers, numbers[..., :1] + torch.arange(12))
        for k in range(2):
            local = numbers[k] - 48 * k
            for name in ("advantage", "action", "weight"):
                assert torch.equal(piece[name][k], batch[name][k][local.flatten()])
            assert torch.equal(piece["observation"][k], batch["observation"][k][local[:, 0] // 12])
    seen = torch.cat([p["number"] for p in pieces], dim=1).sort(dim=1).values
    assert torch.equal(seen, batch["number"])


@pytest.mark.parametrize("members", [1, 2])
def test_gradients_by_finite_differences(game, members):
    made = game(*PPO, f"members={members}", "dtype=float64", "problem.initialisation=torch",
                "algorithm.entropy_coefficient=0.1", "algorithm.clip_value=10",
                ).iterate(2)  # fmt: skip
    (move,) = next(made.problem.iteration(0.0))
    gradient, values = made.engine.gradient(move).value, made.values()
    names = made.players["agent"].parameters.layout.slices
    directions = torch.randn(12, *values.shape, dtype=torch.float64,
                             generator=torch.Generator().manual_seed(0))  # fmt: skip
    for i, name in enumerate(n for n in names if "memory" in n):  # eight, each on its own
        mask = torch.zeros_like(values)
        mask[:, names[name]] = 1
        directions[i] *= mask
    for direction in directions:
        ahead, behind = (
            made.engine.differentiate.value(move, {"agent": values + sign * 1e-5 * direction})
            for sign in (1, -1)
        )
        slope = (gradient * direction).sum(1)
        assert slope.abs().min() > 1e-7
        assert torch.allclose((ahead - behind) / 2e-5, slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("members", [1, 2])
def test_rows_of_a_reset_have_no_influence(game, members):
    made = game(*PPO, f"members={members}").iterate(3)
    (move,) = next(made.problem.iteration(0.0))
    gradient = made.engine.gradient(move).value
    steps = move.batch["observation"][..., :-12].view(members, 2, 12, 5)
    masked = move.batch["weight"].view(members, 2, 12) == 0
    assert masked.any(dim=(1, 2)).all()
    assert torch.equal(steps[..., 4] == 0, masked)
    steps[..., :4][masked] = 7.0
    assert torch.equal(made.engine.gradient(move).value, gradient)
    assert (gradient.norm(dim=1) > 0).all()


@pytest.mark.parametrize("algorithm", [PPO, [*SMALL, "algorithm=a2c"], [*SMALL, *TRPO]],
                         ids=["ppo", "a2c", "trpo"])  # fmt: skip
def test_a_member_starts_and_draws_as_its_single_run(game, algorithm):
    together, alone = game("seed=3", "members=3", *algorithm), game("seed=5", *algorithm)
    name = together.problem.owners[0]
    assert torch.equal(together.values(name)[2:], alone.values(name))
    for _ in range(2):
        several, single = (
            made.problem.batch(made.problem.collect(made.problem.algorithm.num_steps))
            for made in (together, alone)
        )
        for key, value in single.items():
            assert several[key][2:].numpy() == pytest.approx(value.numpy(), abs=1e-4)
        assert torch.equal(several["action"][2:], single["action"])


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("algorithm", [PPO, [*SMALL, "algorithm=a2c"], [*SMALL, *TRPO]],
                         ids=["ppo", "a2c", "trpo"])  # fmt: skip
def test_stopped_and_resumed_equals_uninterrupted(algorithm, tmp_path):
    overrides = [*SMALL_RL, *algorithm, "checkpoint.every=100", "evaluate.every=3", "members=2",
                 "budget.iterations=4"]  # fmt: skip
    whole = quiet(overrides, tmp_path / "whole")
    stop(overrides, tmp_path / "parts", 3)
    parts = resume(tmp_path / "parts")
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)
    assert final(whole)["problem"]["memory"].any()
    assert final(whole)["problem"]["collector"]["memory"].any()


@pytest.mark.parametrize("vectorization", ["native", "sync"])
def test_evaluation_remembers_within_an_episode_only(game, vectorization):
    """The greedy returns are those of a hand-written loop with the module."""
    made = game(*PPO, "problem.evaluation_episodes=25", f"problem.vectorization={vectorization}",
                "problem.initialisation=torch").iterate(3)  # fmt: skip
    module = made.players["agent"].module()
    module.load_state_dict(made.players["agent"].parameters.member(0))
    stream, env, returns = generators([0], "evaluation")[0], gymnasium.make("CartPole-v1"), []
    for _ in range(25):
        seen, _ = env.reset(seed=int(stream.integers(2**31 - 1)))
        memory, total, over = None, 0.0, False
        while not over:
            with torch.no_grad():
                logits, memory = module["policy"](torch.from_numpy(seen)[None, None], memory)
            seen, reward, terminated, truncated, _ = env.step(int(logits.argmax()))
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    evaluation = made.problem.evaluate()
    assert sorted(evaluation.arrays["returns"][0].tolist()) == sorted(returns)
    assert made.problem.evaluate().metrics["return"] == evaluation.metrics["return"]


def test_velocities_are_hidden():
    """The native vector, the Python environment, and a cart-pole of which half is left out."""
    streams = [generators([0], "environment/0") for _ in range(2)]
    hidden, full = HiddenVelocities(streams[0], 500), CartPoles(streams[1], 500)
    seed = int(generators([0], "environment/0")[0].integers(2**31 - 1))
    env = gymnasium.make("playground/CartPoleNoVelocity-v0")
    assert env.spec.max_episode_steps == 500
    assert env.observation_space.shape == (2,)
    seen, _ = env.reset(seed=seed)
    one, all_ = hidden.begin(), full.begin()
    for t in range(8):
        assert np.array_equal(one[0], all_[0, ::2])
        assert np.array_equal(one[0], seen)
        action = np.array([t % 2])
        one, all_ = hidden.advance(action)[0], full.advance(action)[0]
        seen = env.step(int(action[0]))[0]


def test_a_cue_is_remembered(game):
    """Return 1 with a memory; without one 1/2 whatever the policy, by symmetry."""
    settings = ["problem.env=toys/Cue-v0", "problem.widths=[8]", "problem.num_envs=8", "members=2",
                "algorithm.num_steps=15", "algorithm.batch_size=120", "algorithm.epochs=4",
                "algorithm.gamma=1", "algorithm.gae_lambda=0.95", "optimizer.lr=0.02",
                "optimizer.schedule=constant", "algorithm.clip_schedule=constant"]  # fmt: skip
    with_memory = game(*settings, "problem.memory=8").iterate(25)
    assert with_memory.problem.evaluate().metrics["return"].tolist() == [1.0, 1.0]
    without = game(*settings).iterate(25).problem.evaluate()
    for name in ("return", "return/stochastic"):
        assert without.metrics[name] == pytest.approx([0.5, 0.5], abs=4 * 0.05)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["problem.memory=0"], "problem.memory=0: must be at least 1"),
        (["problem.memory=8", "problem.shared_trunk=true"], "a memory each"),
        (["problem.memory=8", "algorithm=reinforce"], "reinforce has no recurrent policy"),
        (["problem.memory=8", "algorithm.num_steps=32", "algorithm.batch_size=16"],
         "must be a multiple of num_steps = 32"),
        (["problem.memory=8", "algorithm=trpo", "optimizer@players.policy=trust_region",
          "problem.num_envs=8", "algorithm.num_steps=64", "algorithm.batch_size=32"],
         "must be a multiple of num_steps = 64"),
    ],
)  # fmt: skip
def test_what_is_refused(overrides, message):
    def build():
        config = compose(["problem=rl/cartpole", *overrides])
        config.problem.build(config)

    with pytest.raises(ConfigError, match=message):
        build()
