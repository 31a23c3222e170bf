"""``playground.Game``: closed forms of games with one, two and three players, and its errors."""

import numpy as np
import pytest
import torch
from harness import assert_same, final, quiet, resume, stop

import playground
from playground.game import Context
from playground.schema import ConfigError

COSTS = (1.0, 2.0, 4.0)


def cournot():
    def loss(i):
        return lambda *x: -x[i] * (10 - sum(x) - COSTS[i])

    names = ("a", "b", "c")
    return playground.Game(
        {name: loss(i) for i, name in enumerate(names)}, dict.fromkeys(names, 1.0), spread=0.5
    )


def play(game, *overrides, **options):
    return playground.run([*overrides, "optimizer=sgd"], problem=game, quiet=True, **options)


def test_three_players_take_the_steps_of_their_best_reply_field(tmp_path):
    """x <- x - lr F, F_i = 2 x_i + sum of the others - (10 - c_i), in NumPy."""
    run = play(cournot(), "optimizer.lr=0.1", "members=3", "budget.iterations=20",
               f"run_dir={tmp_path / 'run'}")  # fmt: skip
    trail = run.arrays["trajectory"]
    points = [trail[0][:, 0]]
    matrix = np.ones((3, 3)) + np.eye(3)
    for _ in range(20):
        points.append(points[-1] - 0.1 * (points[-1] @ matrix - (10 - np.array(COSTS))))
    found = np.concatenate([trail[0], *(trail[k][:, 1:] for k in sorted(trail)[1:])], axis=1)
    np.testing.assert_allclose(found, np.stack(points, axis=1), atol=1e-12)
    assert len({tuple(p) for p in found[:, 0].round(6)}) == 3  # starts are drawn per member
    field = np.linalg.norm(points[-1] @ matrix - (10 - np.array(COSTS)), axis=1)
    np.testing.assert_allclose(run.metric("field")[1][-1], field, atol=1e-10)


def test_vectors_and_alternating_rounds(tmp_path):
    """Alternating descent on x.y keeps x^2 + y^2 - lr x.y."""
    game = playground.Game(
        {"x": lambda x, y: x @ y, "y": lambda x, y: -(x @ y)},
        {"x": [1.0, 2.0], "y": [0.5, -1.0]}, rounds="alternating", equilibrium=[0] * 4,
    )  # fmt: skip
    run = play(game, "optimizer.lr=0.3", "budget.iterations=30", f"run_dir={tmp_path / 'run'}")
    trail = np.concatenate(list(run.arrays["trajectory"].values()), axis=1)[0]
    x, y = trail[:, :2], trail[:, 2:]
    kept = (x**2 + y**2 - 0.3 * x * y).sum(axis=1)
    np.testing.assert_allclose(kept, kept[0], atol=1e-12)


def test_one_player_is_minimisation():
    game = playground.Game({"w": lambda w: (w - 3).square().sum()}, {"w": [0.0, 1.0]})
    game.setup(Context((0, 1), dtype=torch.float64))
    assert game.evaluate().metrics["field"] == pytest.approx([np.hypot(6, 4)] * 2)


def test_a_game_resumes_bit_for_bit(tmp_path):
    given = ["optimizer=sgd", "stepper=past_extragradient", "members=2", "optimizer.lr=0.05",
             "budget.iterations=12", "checkpoint.every=4", "evaluate.every=3"]  # fmt: skip
    whole = quiet(given, tmp_path / "whole", cournot())
    stop(given, tmp_path / "parts", 6, problem=cournot())
    assert_same(final(whole), final(resume(tmp_path / "parts", problem=cournot())))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"x": abs}, {"y": 1.0}), "must name the players"),
        (({}, {}), "must name the players"),
        (({"x": abs}, {"x": "a"}), "x=a: must be a number"),
        (({"x": abs}, {"x": []}), "must be finite and not empty"),
        (({"x": abs}, {"x": float("nan")}), "must be finite and not empty"),
    ],
)
def test_bad_games_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        playground.Game(*arguments)


def test_bad_options_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="rounds=both"):
        playground.Game({"x": abs}, {"x": 1.0}, rounds="both")
    with pytest.raises(ConfigError, match="list of 1 numbers"):
        playground.Game({"x": abs}, {"x": 1.0}, equilibrium=[0, 0])
    turns = playground.Game(
        {"x": torch.mul, "y": torch.mul}, {"x": 1.0, "y": 1.0}, rounds="alternating"
    )
    with pytest.raises(ConfigError, match="simultaneous, not alternating"):
        play(turns, "stepper=consensus", f"run_dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match="2 players that train, not 3"):
        play(cournot(), "stepper=cgd", f"run_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()
