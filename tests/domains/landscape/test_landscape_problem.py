import numpy as np
import pytest
import torch

from playground.domains.landscape.config import GAMES, LandscapeConfig
from playground.domains.landscape.objectives import MINIMISERS, STARTS
from playground.game import Context
from playground.gradients import Differentiator
from playground.schema import ConfigError, check


def build(seeds=(0,), **keys):
    config = LandscapeConfig(**keys)
    check(config)
    config.validate()
    problem = config.build(None)
    return problem, problem.setup(Context(tuple(seeds), dtype=torch.float64))


def descend(problem, players, iterations, lr=0.01):
    differentiate = Differentiator(players)
    for _ in range(iterations):
        for moves in problem.iteration(0.0):
            steps = {move.player: differentiate(move).value for move in moves}
            for name, step in steps.items():
                players[name].parameters.values.sub_(lr * step)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"start": "nowhere"}, "problem.start=nowhere"),
        ({"start": [1.0]}, "must be a list of 2 numbers"),
        ({"start": [1.0, "a"]}, "must be a list of 2 numbers"),
        ({"start": [1.0, 2.0], "function": "bilinear", "dimension": 2}, "list of 4 numbers"),
        ({"start": "grid", "dimension": 3}, "problem.start=grid"),
        ({"matrix": [[1.0]]}, "only bilinear and quadratic_game"),
        ({"function": "bilinear", "matrix": [[1, 2], [3]]}, "matrix=[[1,2],[3]]: must be rows"),
        ({"function": "bilinear", "matrix": 3}, "matrix=3: must be rows"),
        ({"function": "bilinear", "matrix": [[1]], "dimension": 2}, "says the dimensions"),
        (
            {"start": [1], "function": "bilinear", "matrix": [[1, 2]], "dimension": 1},
            "of 3 numbers",
        ),
        ({"function": "parabola"}, "function=parabola"),
        ({"condition": 0.5}, "condition=0.5: must be at least 1"),
        ({"noise": -1.0}, "noise=-1.0"),
        ({"spread": 0.0}, "spread=0.0"),
    ],
)
def test_bad_values_are_refused(keys, message):
    with pytest.raises(ConfigError) as caught:
        build(**keys)
    assert message in str(caught.value)


def test_a_given_point_is_where_every_member_starts():
    _, players = build(range(3), function="beale", start=[0.25, -2])
    assert players["x"].parameters.values.tolist() == [[0.25, -2.0]] * 3


def test_a_given_point_is_shared_out_between_players():
    _, players = build(function="bilinear", dimension=2, start=[1, 2, 3, 4])
    assert players["x"].parameters.values.tolist() == [[1.0, 2.0]]
    assert players["y"].parameters.values.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize("name", [*STARTS, "quadratic", "rastrigin"])
def test_default_starts(name):
    _, players = build(function=name)
    assert players["x"].parameters.values.tolist() == [list(STARTS.get(name, (1.0, 1.0)))]


def test_a_grid_covers_the_square_around_the_start():
    _, players = build(range(9), function="rosenbrock", start="grid", spread=0.3)
    points = {tuple(point) for point in players["x"].parameters.values.tolist()}
    expected = {(-1.2 + i, 1.0 + j) for i in (-0.3, 0.0, 0.3) for j in (-0.3, 0.0, 0.3)}
    assert len(points) == 9
    assert np.array(sorted(points)) == pytest.approx(np.array(sorted(expected)), abs=1e-12)


def test_members_of_equal_seed_share_a_grid_point():
    """As under ``vary``, where every value gets the same replicas."""
    _, players = build([5, 6, 7, 8] * 3, start="grid")
    points = players["x"].parameters.values.view(3, 4, 2)
    assert torch.equal(points[0], points[1])
    assert torch.equal(points[0], points[2])
    assert len({tuple(point) for point in points[0].tolist()}) == 4


def test_random_starts_follow_the_seed_and_fill_the_cube():
    _, players = build(range(400), start="random", spread=2.0)
    values = players["x"].parameters.values - 1
    assert values.abs().max().item() <= 2.0
    assert values.mean(dim=0).abs().max().item() < 4 * 2.0 / np.sqrt(3 * 400)
    single = build([7], start="random", spread=2.0)[1]["x"].parameters.values
    assert torch.equal(players["x"].parameters.values[7:8], single)


def test_noise_has_its_variance_in_every_entry():
    problem, players = build(range(500), function="quadratic", noise=0.3)
    (moves,) = list(problem.iteration(0.0))
    clean = players["x"].parameters.values * torch.tensor([0.1, 1.0]).double()
    noise = Differentiator(players)(moves[0]).value - clean
    ratio = (noise / 0.3) ** 2
    assert abs(ratio.mean().item() - 1) < 4 * np.sqrt(2 / ratio.numel())
    products = noise[:, 0] * noise[:, 1] / 0.3**2
    assert abs(products.mean().item()) < 4 / np.sqrt(len(products))


def test_noise_of_a_member_is_that_of_its_single_run():
    together, players = build(range(4), noise=1.0, function="bilinear")
    alone, _ = build([2], noise=1.0, function="bilinear")
    for _ in range(3):
        (many,), (one,) = list(together.iteration(0.0)), list(alone.iteration(0.0))
        for left, right in zip(many, one, strict=True):
            assert torch.equal(left.batch["noise"][2:3], right.batch["noise"])
    assert set(players) == {"x", "y"}


def test_distance_is_to_the_nearest_minimiser():
    targets = np.array(MINIMISERS["himmelblau"])
    problem, _ = build(function="himmelblau", start=[3.0, 2.5])
    result = problem.evaluate()
    assert result.metrics["distance"] == pytest.approx([0.5])
    assert result.metrics["value"] == pytest.approx([(9 + 2.5 - 11) ** 2 + (3 + 6.25 - 7) ** 2])
    assert result.arrays["targets"][0] == pytest.approx(targets)


@pytest.mark.parametrize("name", ["saddle", "monkey_saddle"])
def test_problems_without_a_minimum_report_their_value(name):
    problem, _ = build(function=name)
    assert problem.main_metric == "value"


def test_the_trail_is_whole_across_evaluations():
    problem, players = build(range(2), function="rosenbrock", start="random")
    seen, pieces = [players["x"].parameters.values.clone()], [problem.evaluate()]
    for steps in (1, 3, 2):
        for _ in range(steps):
            descend(problem, players, 1, lr=1e-4)
            seen.append(players["x"].parameters.values.clone())
        pieces.append(problem.evaluate())
    trails = [piece.arrays["trajectory"] for piece in pieces]
    assert [trail.shape for trail in trails] == [(2, n, 2) for n in (1, 2, 4, 3)]
    joined = np.concatenate([trails[0], *(trail[:, 1:] for trail in trails[1:])], axis=1)
    assert np.array_equal(joined, torch.stack(seen, dim=1).numpy())


def test_the_contour_holds_trail_and_minimisers():
    problem, _ = build(function="beale", start=[-2.0, 3.0])
    arrays = problem.evaluate().arrays
    (x, y), values = arrays["contour_axes"][0], arrays["contour"][0]
    for point in ((-2.0, 3.0), (3.0, 0.5)):
        assert x[0] < point[0] < x[-1]
        assert y[0] < point[1] < y[-1]
    row, column = 17, 90
    p, q = x[column], y[row]
    expected = sum((c - p + p * q**k) ** 2 for k, c in ((1, 1.5), (2, 2.25), (3, 2.625)))
    assert values[row, column] == pytest.approx(expected)


@pytest.mark.parametrize("function", ["quadratic", *GAMES])
def test_state_resumes_exactly(function):
    keys = {"function": function, "noise": 0.5, "start": "random"}
    problem, players = build(range(3), **keys)
    descend(problem, players, 4)
    other, others = build(range(3), **keys)
    other.load_state(problem.state())
    for name, player in players.items():
        others[name].parameters.values.copy_(player.parameters.values)
    descend(problem, players, 4)
    descend(other, others, 4)
    left, right = problem.evaluate(), other.evaluate()
    assert np.array_equal(left.arrays["trajectory"], right.arrays["trajectory"])
    assert left.arrays["trajectory"].shape[1] == 9
