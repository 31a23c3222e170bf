"""Worker processes, packages that are missing, and what environments leave behind."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rl_trace
import torch

import playground
from playground.domains.rl.environments.factory import Factory
from playground.domains.rl.environments.pool import WorkerFailed
from playground.randomness import generators

V = 3


def streams():
    return generators(range(V), "environment")


def test_an_error_in_a_worker_is_shown(capfd):
    rl_trace.register()
    vector = Factory("toys/Broken-v0", {}, "async").vector(streams())
    vector.begin()
    with pytest.raises(WorkerFailed, match="out of paint"):
        vector.advance(np.zeros(V, int))
    processes = vector.crew.processes
    vector.crew.close()
    assert [process.returncode for process in processes] == [0] * len(processes)
    assert "may print" in capfd.readouterr().err


def test_a_worker_that_dies_is_named():
    vector = Factory("Acrobot-v1", {}, "async").vector(streams())
    vector.begin()
    vector.crew.processes[-1].kill()
    with pytest.raises(WorkerFailed, match="ended with code -9"):
        vector.advance(np.zeros(V, int))


PROBE = """
import sys
sys.modules[sys.argv[1]] = None
from playground.domains.rl.environments.factory import Factory
from playground.schema import ConfigError
try:
    Factory(sys.argv[2], {}, sys.argv[3] if len(sys.argv) > 3 else None)
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("package", "env", "vectorization", "extra"),
    [
        ("Box2D", "LunarLander-v3", [], "box2d"),
        ("mujoco", "Hopper-v5", [], "mujoco"),
        ("envpool", "CartPole-v1", ["envpool"], "envpool"),
    ],
)
def test_a_missing_package_is_one_line(package, env, vectorization, extra, tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", PROBE, package, env, *vectorization], capture_output=True,
        text=True, check=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(playground.__file__).parent.parent)},
    )  # fmt: skip
    assert f'pip install "gradient-playground[{extra}]"' in result.stdout
    assert len(result.stdout.splitlines()) == 1


def test_mujoco_leaves_no_log_behind(tmp_path, monkeypatch):
    pytest.importorskip("mujoco")
    monkeypatch.chdir(tmp_path)
    for kind in ("sync", "async"):
        Factory("HalfCheetah-v5", {}, kind).vector(streams()).begin()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("env", ["Pendulum-v1", "Acrobot-v1"])
def test_a_run_is_the_same_however_its_environments_step(game, env):
    """Parameters and evaluation, bit for bit; a task with a native vector included."""
    keys = [f"problem.env={env}", "+problem.env_kwargs.max_episode_steps=30", "members=2",
            "problem.num_envs=2", "problem.widths=[8]", "problem.evaluation_episodes=3",
            "algorithm.num_steps=32", "algorithm.batch_size=32", "algorithm.epochs=2"]  # fmt: skip
    made = [game(*keys, f"problem.vectorization={kind}") for kind in ("native", "sync", "async")]
    for one in made:
        one.iterate(3)
    for other in made[1:]:
        assert torch.equal(made[0].values(), other.values())
        pair = [one.problem.evaluate().arrays["returns"] for one in (made[0], other)]
        assert np.array_equal(*(np.sort(returns) for returns in pair))


def test_box2d_can_be_imported_where_warnings_are_errors():
    """By itself its import ends the process with a segmentation fault then."""
    pytest.importorskip("Box2D")
    code = (
        "from playground.domains.rl.environments.factory import Factory\n"
        "Factory('LunarLander-v3', {})"
    )
    root = str(Path(playground.__file__).parent.parent)
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True,
                   env={**os.environ, "PYTHONPATH": root})  # fmt: skip
