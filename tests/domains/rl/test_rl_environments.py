import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import rl_toys
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from harness import assert_same as assert_same_content
from harness import final

import playground
from playground.domains.rl.collector import Collector
from playground.domains.rl.environments.factory import CartPoles, Episodes, Factory, next_seed
from playground.randomness import generators
from playground.schema import ConfigError

ENVS = {"CartPole-v1": 2, "Acrobot-v1": 3, "MountainCar-v0": 3}
V = 6


def streams():
    return generators(range(V), "environment")


def factory(env, limit, vectorization=None):
    return Factory(env, {"max_episode_steps": limit}, vectorization)


def generic(env, limit):
    """Episodes, also where a native vector exists."""
    return factory(env, limit, "sync").vector(streams())


def actions(env, steps):
    return np.random.default_rng(7).integers(ENVS[env], size=(steps, V))


def play(vector, chosen):
    """First observation, then the rows of every step."""
    first = vector.begin()
    return [first, *(vector.advance(row) for row in chosen)]


def by_hand(env, limit, chosen):
    """The same by a loop over single environments."""
    rows = [[] for _ in range(V)]
    for i, stream in enumerate(streams()):
        single = gymnasium.make(env, max_episode_steps=limit)
        seen, _ = single.reset(seed=int(stream.integers(2**31 - 1)))
        rows[i].append(seen)
        done = False
        for action in chosen[:, i]:
            if done:
                seen, _ = single.reset(seed=int(stream.integers(2**31 - 1)))
                rows[i].append((seen, 0.0, False, False))
                done = False
                continue
            seen, reward, terminated, truncated, _ = single.step(action)
            rows[i].append((seen, reward, terminated, truncated))
            done = terminated or truncated
    steps = [[np.stack(column) for column in zip(*row, strict=True)]
             for row in zip(*(r[1:] for r in rows), strict=True)]  # fmt: skip
    return [np.stack([r[0] for r in rows]), *steps]


class Seeded(gymnasium.Wrapper):
    """Every episode from the next seed of a stream."""

    def __init__(self, env, stream):
        super().__init__(env)
        self.stream = stream

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=next_seed(self.stream))


def by_gymnasium(env, limit, chosen):
    """The same by Gymnasium's vector."""
    makers = [
        lambda s=stream: Seeded(gymnasium.make(env, max_episode_steps=limit), s)
        for stream in streams()
    ]
    vector = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
    return [vector.reset()[0].copy(), *(
        [np.copy(column) for column in vector.step(row)[:4]] for row in chosen)]  # fmt: skip


def assert_same(left, right):
    assert np.array_equal(left[0], right[0])
    for one, other in zip(left[1:], right[1:], strict=True):
        # math.cos and numpy.cos may differ in the last digit of float64, hence of float32
        assert one[0] == pytest.approx(np.asarray(other[0]), rel=1e-5, abs=1e-6)
        for a, b in zip(one[1:], other[1:], strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("oracle", [by_hand, by_gymnasium])
@pytest.mark.parametrize(
    ("env", "limit"),
    [("CartPole-v1", 500), ("CartPole-v1", 10), ("Acrobot-v1", 9), ("MountainCar-v0", 200)],
)
def test_transitions_are_those_of_single_environments(env, limit, oracle):
    chosen = actions(env, 250)
    expected = oracle(env, limit, chosen)
    assert_same(play(generic(env, limit), chosen), expected)
    if env == "CartPole-v1":
        native = factory(env, limit).vector(streams())
        assert isinstance(native, CartPoles)
        assert_same(play(native, chosen), expected)
    terminated = np.array([row[2] for row in expected[1:]])
    truncated = np.array([row[3] for row in expected[1:]])
    assert truncated.any() == (limit != 500)
    assert (terminated & truncated).any() == (env == "CartPole-v1" and limit == 10)


@pytest.mark.parametrize("kind", ["native", "sync"])
def test_reset_rows_are_not_valid_and_give_nothing(kind):
    made = factory("CartPole-v1", 10, kind)
    source = Collector(made.vector(streams()), 2, 3, made.actions, lambda actions: actions)
    rollout = source.collect(lambda seen, row: row, actions("CartPole-v1", 100).reshape(100, 2, 3))
    after = np.zeros_like(rollout.done)
    after[1:] = rollout.done[:-1]
    assert np.array_equal(rollout.valid, ~after)
    assert np.array_equal(rollout.reward, rollout.valid.astype(np.float32))
    assert not rollout.done[after].any()
    fresh = np.abs(rollout.observation[1:][after])
    assert fresh.max() <= 0.05
    # the observation at an end is the true last one: out of bounds where terminated
    last = np.abs(rollout.observation[1:][rollout.terminated])
    assert ((last[:, 0] > 2.4) | (last[:, 2] > 12 * np.pi / 180)).all()


@pytest.mark.parametrize("kind", ["native", "sync"])
def test_environments_rest_after_their_episodes(kind):
    made = factory("CartPole-v1", 15, kind)
    chosen = actions("CartPole-v1", 120)
    free, counted = made.vector(streams()), made.vector(streams())
    quota = np.array([1, 2, 3, 1, 2, 3])
    rows = free.begin(), counted.begin(quota)
    assert np.array_equal(*rows)
    played, ended = np.zeros(V, int), np.zeros(V, bool)
    for row in chosen:
        resting = ended & (played == quota)
        one, other = free.advance(row), counted.advance(row)
        active = played < quota
        for a, b in zip(one, other, strict=True):
            assert np.array_equal(a[active], b[active])
        for column in other:
            assert not column[~active].any()
        ended = ~active | resting
        played += active & (other[2] | other[3])
    assert np.array_equal(played, quota)
    for stream, fresh, count in zip(counted.streams, streams(), quota, strict=True):
        for _ in range(count):
            next_seed(fresh)
        assert next_seed(stream) == next_seed(fresh)  # no seed was drawn while resting


CASES = [
    *((env, kind) for env in ("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0",
                              "MountainCarContinuous-v0") for kind in ("native", "sync")),
    ("Acrobot-v1", "async"), ("Pendulum-v1", "async"), ("FrozenLake-v1", "sync"),
    ("LunarLander-v3", "sync"), ("BipedalWalker-v3", "sync"), ("BipedalWalker-v3", "async"),
    ("Hopper-v5", "sync"), ("Ant-v5", "sync"),
]  # fmt: skip
PACKAGES = {"LunarLander": "Box2D", "BipedalWalker": "Box2D", "Hopper": "mujoco", "Ant": "mujoco"}


@pytest.mark.parametrize("quota", [None, np.array([1, 2, 3, 4, 5, 99])])
@pytest.mark.parametrize(("env", "kind"), CASES)
def test_state_is_exact_in_the_middle_of_episodes(env, kind, quota, tmp_path):
    """Through a file, into new environments; the old ones have played other episodes before."""
    if package := PACKAGES.get(env.partition("-")[0]):
        pytest.importorskip(package)
    made = factory(env, 30, kind)
    space, rng = made.actions, np.random.default_rng(7)

    def draw():
        if space.choices:
            return rng.integers(space.choices[0], size=V)
        return 1.5 * rng.normal(size=(V, *space.shape)).astype(np.float32)

    vector = made.vector(streams())
    vector.begin(quota)
    for _ in range(75):
        current = vector.advance(draw())[0]
    torch.save(vector.capture(), tmp_path / "state.pt")
    other = made.vector(streams())
    other.begin()
    restored = other.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert np.array_equal(current, restored)
    for _ in range(85):
        chosen = draw()
        for a, b in zip(vector.advance(chosen), other.advance(chosen), strict=True):
            assert np.array_equal(a, b)


def test_replay_keeps_no_more_actions_than_it_needs():
    vector = factory("Acrobot-v1", 30, "sync").vector(streams())
    vector.begin(np.array([1, 1, 1, 1, 1, 50]))
    for row in actions("Acrobot-v1", 200):
        vector.advance(row)
        assert len(vector.history) <= 30
    assert [len(episode) for episode in vector._episodes()[:5]] == [0] * 5


def test_the_factory_knows_its_environment():
    made = Factory("Acrobot-v1", {})
    assert (made.observation_size, made.num_actions, made.limit) == (6, 3, 500)
    assert made.threshold == gymnasium.spec("Acrobot-v1").reward_threshold == -100
    assert made.native
    assert isinstance(Factory("Acrobot-v1", {}, "sync").vector(streams()), Episodes)
    cartpole = Factory("CartPole-v1", {})
    assert cartpole.native
    assert (cartpole.limit, cartpole.threshold) == (500, 475)
    assert Factory("CartPole-v1", {"max_episode_steps": -1}).limit is None
    assert not Factory("CartPole-v1", {"sutton_barto_reward": True}).native


def test_actions_are_counted_from_the_first():
    rl_toys.register()
    chosen = np.random.default_rng(0).integers(2, size=(20, V))
    one, other = (play(Factory(f"toys/{n}-v0", {}).vector(streams()), chosen)
                  for n in ("Tree", "Shifted"))  # fmt: skip
    assert_same(one, other)


@pytest.mark.parametrize(
    ("env", "kwargs", "words"),
    [
        ("CartPol-v1", {}, "CartPol"),
        ("CartPole-v99", {}, "v99"),
        ("no such", {}, "no such"),
        ("missing_package:Env-v0", {}, "missing_package"),
        ("CartPole-v1", {"colour": 1}, "colour"),
        ("toys/Mapped-v0", {}, "observations must be an array .* or one integer"),
        ("Blackjack-v1", {}, "observations must be an array .* or one integer"),
    ],
)
def test_environments_that_do_not_fit(env, kwargs, words):
    rl_toys.register()
    with pytest.raises(ConfigError, match=words) as caught:
        Factory(env, kwargs)
    assert str(caught.value).startswith(f"problem.env={env}: ")
    assert "\n" not in str(caught.value)


def test_continuous_actions_are_clipped_and_stored_as_they_were():
    made = Factory("Pendulum-v1", {})
    assert (made.actions.kind, made.actions.shape, made.observation_size) == ("box", (1,), 3)
    wild = np.random.default_rng(0).normal(0, 5, (50, V, 1)).astype(np.float32)
    for kind in ("native", "sync"):
        one, other = (Factory("Pendulum-v1", {}, kind).vector(streams()) for _ in range(2))
        for a, b in zip(play(one, wild)[1:], play(other, wild.clip(-2, 2))[1:], strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert np.array_equal(one.history, wild)


def test_an_integer_observation_is_one_hot():
    made = Factory("FrozenLake-v1", {"is_slippery": False})
    assert (made.observation_size, made.vectorization) == (16, "sync")
    vector = made.vector(streams())
    right, down = np.full(V, 2), np.full(V, 1)
    seen = [vector.begin(), *(vector.advance(a)[0] for a in (right, right, down))]
    assert [s.argmax(axis=1).tolist() for s in seen] == [[n] * V for n in (0, 1, 2, 6)]
    assert all((s.sum(axis=1) == 1).all() for s in seen)


def test_layers_that_only_check_are_taken_off():
    vector = factory("Acrobot-v1", 30, "sync").vector(streams())
    assert all(env is env.unwrapped for env in vector.crew.envs)
    assert vector.limit == 30


def test_a_time_limit_below_another_layer_stays():
    name = "toys/Scaled-v0"
    if name not in gymnasium.registry:
        scale = gymnasium.wrappers.TransformReward.wrapper_spec(func=lambda r: 2 * r)
        gymnasium.register(name, rl_toys.Endless, max_episode_steps=8, additional_wrappers=(scale,))
    vector = Factory(name, {}).vector(streams())
    rows = play(vector, np.zeros((30, V), int))[1:]
    assert vector.limit is None
    assert [t for t, row in enumerate(rows) if row[3].all()] == [7, 16, 25]
    assert {float(r) for row in rows for r in row[1]} == {0.0, 2.0}


WALKS = """
import gymnasium
import numpy as np
from steps import LENGTH


class Walk(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.np_random.random(2, np.float32), {}

    def step(self, action):
        return self.np_random.random(2, np.float32), float(action), False, False, {}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)


gymnasium.register("Walk-v0", entry_point=Walk, max_episode_steps=LENGTH)
gymnasium.register("Stroll-v0", entry_point="walks:Walk", max_episode_steps=LENGTH)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Walk-v0", "Stroll-v0"])
def test_an_environment_in_a_file_beside_the_command(tmp_path, name):
    """``module:Env-v0`` by the console script, whose path lacks the working directory."""
    (tmp_path / "walks.py").write_text(WALKS)
    (tmp_path / "steps.py").write_text("LENGTH = 5")
    console = Path(sys.executable).parent / "playground"
    scripts = Path(__file__).resolve().parents[3] / "scripts"
    given = ["problem=rl/cartpole", f"problem.env=walks:{name}", "budget.env_steps=4096",
             "problem.evaluation_episodes=2", "algorithm=a2c",
             "optimizer.schedule=constant"]  # fmt: skip

    def players(run):
        return final(run)["players"]

    def run(*arguments):
        done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run(console, *given, "run_dir=here")
    run(console, *given, "run_dir=workers", "problem.vectorization=async")
    run(console, "-m", *given, "seed=0,1", "run_dir=sweep")
    left, right = (playground.load(tmp_path / name) for name in ("here", "workers"))
    assert_same_content(players(left), players(right))
    assert left.metric("episode_length")[1][-1, 0] == 5
    run(console, "resume=here", "budget.env_steps=8192")
    run(console, "replay=here", "at=4", "run_dir=replay")
    run(console, "fork=here", "at=4", "optimizer.lr=1e-3", "run_dir=fork")
    run(sys.executable, scripts / "noise.py", "here")
    run(sys.executable, scripts / "video.py", "here")
    assert list((tmp_path / "here").rglob("*.gif"))


@pytest.mark.parametrize(("env", "words"), [
    ("nosuchmodule:Walk-v0", "No module named 'nosuchmodule'"),
    ("broken:Walk-v0", "no luck"),
    ("empty:Walk-v0", "Walk"),
    (":CartPole-v1", "Empty module name"),
    ("a:b:Walk-v0", "a:b"),
])  # fmt: skip
def test_a_module_that_cannot_give_the_environment_is_named(tmp_path, monkeypatch, env, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "broken.py").write_text("raise RuntimeError('no luck')")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match=re.escape(f"problem.env={env}: ")) as raised:
        Factory(env, {})
    assert words in str(raised.value)
    sys.modules.pop("empty", None)
