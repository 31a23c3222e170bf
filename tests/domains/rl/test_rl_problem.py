import numpy as np
import pytest
import torch

from playground import run
from playground.record.checkpoint import load_checkpoint
from playground.record.directory import RunDirectory

SHORT = "+problem.env_kwargs.max_episode_steps=60"


BATCHES = ["algorithm.num_steps=16", "algorithm.batch_size=16"]
ALGORITHMS = {
    "reinforce": [],
    "a2c": ["algorithm.num_steps=25"],
    "ppo": [*BATCHES, "algorithm.epochs=2", "algorithm.target_kl=1e-3"],
    "ppo_kl": [*BATCHES, "algorithm.epochs=2"],
    "npg": [*BATCHES, "algorithm.value_epochs=2"],
    "trpo": [*BATCHES, "algorithm.value_epochs=2"],
}
TASKS = {
    "CartPole-v1": [],
    "Acrobot-v1": [],
    "Pendulum-v1": [],
    "squashed": ["problem.env=Pendulum-v1", "problem.squash=true"],
    "gsde": ["problem.env=Pendulum-v1", "problem.gsde=true", "problem.gsde_steps=5"],
}


CASES = [
    *[("CartPole-v1", algorithm, members) for algorithm in ALGORITHMS for members in (1, 2)],
    *[pytest.param("gsde", a, 2, marks=pytest.mark.slow) for a in ALGORITHMS if a != "ppo"],
    *[(task, "ppo", 2) for task in TASKS if task != "CartPole-v1"],
    ("Acrobot-v1", "reinforce", 2),
]


@pytest.mark.parametrize(("task", "algorithm", "members"), CASES)
def test_state_resumes_exactly(game, task, algorithm, members, tmp_path):
    keys = [*(TASKS[task] or [f"problem.env={task}"]), f"algorithm={algorithm}", SHORT,
            f"members={members}", "problem.num_envs=4", "problem.widths=[8]",
            *ALGORITHMS[algorithm]]  # fmt: skip
    first, second = game(*keys).iterate(3), game(*keys)
    torch.save(first.problem.state(), tmp_path / "state.pt")
    second.problem.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    for name in first.players:
        second.values(name).copy_(first.values(name))
    second.engine.load_state(first.engine.state())
    first.iterate(3)
    second.iterate(3)
    for name in first.players:
        assert torch.equal(first.values(name), second.values(name))
    assert first.metrics.keys() == second.metrics.keys()
    for name, value in first.metrics.items():
        assert np.array_equal(value, second.metrics[name], equal_nan=True)


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("algorithm", ["ppo", pytest.param("reinforce", marks=pytest.mark.slow)])
def test_a_run_on_acrobot_resumes_bit_for_bit(algorithm, tmp_path):
    keys = ["problem.env=Acrobot-v1", f"algorithm={algorithm}", SHORT, "members=2",
            "problem.evaluation_episodes=3", "optimizer.schedule=constant"]  # fmt: skip
    keys += ["algorithm.clip_schedule=constant"] if algorithm == "ppo" else []

    def contents(name):
        return load_checkpoint(RunDirectory.open(tmp_path / name))[1]

    def go(name, *overrides):
        return run([*overrides, f"run_dir={tmp_path / name}"], quiet=True)

    go("whole", *keys, "budget.iterations=3")
    go("parts", *keys, "budget.iterations=1")
    run([f"resume={tmp_path / 'parts'}", "budget.iterations=3"], quiet=True)
    whole, parts = contents("whole"), contents("parts")
    for name, saved in whole["players"].items():
        assert torch.equal(saved["parameters"], parts["players"][name]["parameters"])
    assert whole["counters"] == parts["counters"]
    assert repr(whole["problem"]) == repr(parts["problem"])


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce"])
def test_the_module_computes_what_the_player_computes(game, algorithm):
    made = game(f"algorithm={algorithm}", "members=2")
    observation = np.random.default_rng(0).normal(size=(5, 2, 3, 4)).astype(np.float32)
    x = torch.tensor(observation)
    values = made.problem.values(observation)
    for k in range(2):
        modules = {}
        for name, player in made.players.items():
            modules[name] = player.module()
            modules[name].load_state_dict(player.parameters.member(k))
        value = modules["agent"]["value"] if "agent" in modules else modules["value"]
        policy = modules["agent"]["policy"] if "agent" in modules else modules["policy"]
        assert values[:, k] == pytest.approx(value(x[:, k])[..., 0].detach().numpy(), abs=1e-5)
        logits = policy(x[:, k]).detach()
        greedy = np.stack([made.problem.act(o, None)[k] for o in observation])
        assert np.array_equal(greedy, logits.argmax(-1).numpy())
        log_p = made.problem.statistics(x.transpose(0, 1).flatten(1, 2))["log_p"][k]
        expected = logits.log_softmax(-1).numpy()
        assert log_p.view(5, 3, -1).numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce"])
def test_initial_networks_follow_the_37_details(game, algorithm):
    """Orthogonal with gain sqrt(2), heads 0.01 and 1, biases 0, policy and value separate."""
    made = game(f"algorithm={algorithm}")
    tensors = {f"{p}.{n}": t[0].double() for p, player in made.players.items()
               for n, t in player.parameters.views.items()}  # fmt: skip
    for name, tensor in tensors.items():
        if name.endswith("bias"):
            assert not tensor.any()
            continue
        head = tensor.shape[0] < 4
        gain = 2**0.5 if not head else 0.01 if "policy" in name else 1.0
        small = tensor @ tensor.T if tensor.shape[0] <= tensor.shape[1] else tensor.T @ tensor
        assert torch.allclose(small, gain**2 * torch.eye(len(small), dtype=torch.float64),
                              atol=1e-5 * gain**2)  # fmt: skip
    kinds = {name.split(".")[-3] for name in tensors}
    assert kinds == {"policy", "value"}
