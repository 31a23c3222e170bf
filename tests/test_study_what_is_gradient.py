"""The article's study: its verdicts, what it reads, and one part from the command to the page."""

import json
import re
from importlib import import_module

import numpy as np
import pytest
import torch

import playground
from playground import study
from playground.config import compose

FOLDER = study.find("what_is_gradient")
analysis = study.load_analysis(FOLDER)


def part(name):
    """A file of the study."""
    return import_module(f"study_what_is_gradient.{name}")


def check(role, value, name="a"):
    return part("common").Check(name, "1", [value], 0.5, 1.5, role=role).of("steepest_ascent")


@pytest.mark.parametrize(
    ("checks", "verdict"),
    [
        ([("holds", 1.0), ("holds", 1.2)], "HOLDS"),
        ([("holds", 1.0), ("breaks", 1.0)], "HOLDS UNDER A CONDITION"),
        ([("breaks", 1.0)], "DOES NOT HOLD"),
        ([("holds", 1.0), ("breaks", 2.0)], "OPEN"),  # the case against was not made
        ([("holds", 2.0), ("breaks", 1.0)], "OPEN"),
        ([("holds", np.nan)], "OPEN"),
    ],
)
def test_a_verdict_needs_every_check(checks, verdict):
    made = [check(*one) for one in checks]
    assert analysis.verdict(made) == verdict
    words = analysis.conclusions(made)["steepest_ascent"]
    condition = analysis.CONFIG["steepest_ascent"]["condition"]
    assert words == (f"{verdict}: {condition}" if "CONDITION" in verdict else verdict)


def test_conditions_are_named_where_the_study_found_that_they_matter():
    found = json.loads((FOLDER / "claims.json").read_text())["conclusions"]
    assert list(found) == list(analysis.PARTS)
    for name, words in found.items():
        condition = analysis.CONFIG[name].get("condition")
        assert words == (f"HOLDS UNDER A CONDITION: {condition}" if condition else "HOLDS")


def test_the_readme_has_every_part_with_its_words_its_command_and_its_picture():
    text = (FOLDER / "README.md").read_text()
    for name in analysis.PARTS:
        assert f"> ... {analysis.CONFIG[name]['quote']} ..." in text
        assert f"\nscripts/reproduce.py what_is_gradient --only {name}\n" in text
        assert f"]({name}.png)" in text
        assert (FOLDER / f"{name}.png").stat().st_size > 20_000


def test_commands_to_play_with_are_commands():
    lines = re.findall(r"^playground (.+)$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert len(lines) >= len(analysis.PARTS)
    for line in lines:
        if not line.startswith("-m "):
            compose(line.split())


def quadratic(**changes):
    given = {"problem": "landscape/quadratic", "problem.start": "[3,-2]", **changes}
    return [f"{key}={value}" for key, value in given.items()]


def test_a_loss_is_the_runs_objective_with_its_gradient_and_slopes():
    """1/2 (x^2 / 10 + y^2) at (3, -2)."""
    loss = part("common").Loss(quadratic())
    assert loss.gradient.tolist() == pytest.approx([0.3, -2.0])
    where = torch.tensor([[3.0, -2.0], [0.0, 1.0], [10.0, 0.0]], dtype=torch.float64)
    assert loss(where).tolist() == pytest.approx([2.45, 0.5, 5.0])
    ways = torch.eye(2, dtype=torch.float64)
    assert loss.slopes(ways, 1e-3).tolist() == pytest.approx([0.3, -2.0])
    assert loss.evaluations == 3 + 4


def test_the_finite_difference_check_finds_a_wrong_entry(tmp_path, without_figures):
    """One entry in 1,210 that is off by a millionth of the largest is more than the tolerance."""
    partial = part("partial_derivatives")
    run = playground.run(
        [*analysis.runs(True)["partial_derivatives/supervised"], f"run_dir={tmp_path / 'run'}",
         "members=1", "budget.iterations=1"], quiet=True,
    )  # fmt: skip
    numeric, gradient = partial.differences(run, "model", 0)
    assert numeric.shape == gradient.shape == (64 * 16 + 16 + 16 * 10 + 10,)
    assert partial.error(numeric, gradient) < 1e-8
    wrong = gradient.copy()
    wrong[np.abs(gradient).argmin()] += 1e-6 * np.abs(gradient).max()
    assert partial.error(numeric, wrong) == pytest.approx(1e-6, rel=0.05)


def test_random_directions_have_length_one():
    drawn = part("common").directions(50, torch.zeros(7, dtype=torch.float64), seed=0)
    assert drawn.norm(dim=1).tolist() == pytest.approx([1.0] * 50)
    assert drawn.mean(dim=0).norm() < 0.5


def test_pairs_in_the_wrong_order_are_counted_one_by_one():
    generator = np.random.default_rng(0)
    distance, norm = generator.random(12), generator.random(12)
    counted = [
        sum((distance[i] - distance[j]) * (norm[i] - norm[j]) < 0 for j in range(12)) / 11
        for i in range(12)
    ]
    wrong = part("large_gradient").wrong
    assert wrong(distance, norm) == pytest.approx(counted)
    assert wrong(distance, 3 * distance).max() == 0
    assert wrong(distance, -distance).min() == 1


def test_the_lowest_loss_is_where_the_gradient_of_all_examples_is_zero(tmp_path, without_figures):
    """Least squares against many steps of descent on all data, by another solver's path."""
    speed = part("batch_speed")
    keys = analysis.runs(True)["batch_speed/full"]
    run = playground.run(
        [*keys, f"run_dir={tmp_path / 'run'}", "members=1", "budget.samples=400000",
         "evaluate.every=400"], quiet=True,
    )  # fmt: skip
    assert run.metric("train_loss")[1][-1, 0] == pytest.approx(speed.lowest(run), rel=1e-12)
    seen, values = speed.excess(run)
    assert seen.tolist() == [0, 400_000]
    assert values[0, 0] > 0.1


def test_two_gradients_tell_the_curvature_along_the_step(tmp_path, without_figures):
    """Along the soft axis alone the limit is 2 / 0.1, along the steep one 2 / 1."""
    rate = part("learning_rate")
    for number, (start, limit) in enumerate((("[1,0]", 20.0), ("[0,1]", 2.0))):
        run = playground.run(
            [*quadratic(**{"problem.start": start}), "optimizer=sgd", "vary.optimizer.lr=[0.3,0.7]",
             "budget.iterations=5", "probes.step.every=1", f"run_dir={tmp_path / str(number)}"],
            quiet=True,
        )  # fmt: skip
        assert rate.limits(run) == pytest.approx([limit, limit], rel=1e-6)
        growth = np.log(1 - np.array([0.3, 0.7]) * 2 / limit)
        assert rate.growth(run) == pytest.approx(growth, rel=1e-6)


def test_escape_times_are_those_of_the_iteration(tmp_path, without_figures):
    """y -> (1 + 2 rate) y, by hand."""
    saddle = part("saddle_points")
    run = playground.run(
        ["problem=landscape/saddle", "problem.start=random", "problem.spread=1e-3", "members=20",
         "optimizer=sgd", "optimizer.lr=0.05", "budget.iterations=200", "probes=none",
         f"run_dir={tmp_path / 'run'}"], quiet=True,
    )  # fmt: skip
    start, updates = saddle.escapes(run)
    for y, count in zip(start, updates, strict=True):
        steps = 0
        while y <= 1:
            y, steps = y * 1.1, steps + 1
        assert count == steps


def test_random_search_never_climbs(tmp_path, without_figures):
    run = playground.run(
        [*analysis.runs(True)["backbone/digits"], f"run_dir={tmp_path / 'run'}", "members=1",
         "budget.iterations=2"], quiet=True,
    )  # fmt: skip
    losses, accuracy = part("backbone").search(run, 0, 25)
    assert len(losses) == 26
    assert (np.diff(losses) <= 0).all()
    assert losses[-1] < losses[0]
    assert losses[0] == pytest.approx(run.metric("train_loss")[1][0, 0])  # the same start
    assert 0 <= accuracy <= 1


def test_one_part_from_the_command_to_its_page(tmp_path, without_figures, capsys):
    out = tmp_path / "out"
    assert study.reproduce("what_is_gradient", quick=True, only="large_gradient", out=out) == 0
    content = json.loads((out / "claims.json").read_text())
    kinds = [claim["claim"].partition(":")[0] for claim in content["claims"]]
    assert kinds == ["large_gradient", *["large_gradient, counterexample"] * 2]
    assert content["conclusions"]["large_gradient"].startswith("HOLDS UNDER A CONDITION: the curv")
    assert (out / "large_gradient.png").stat().st_size > 20_000
    assert "large_gradient: HOLDS UNDER" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", analysis.PARTS)
def test_every_part_says_smoke(name, tmp_path, without_figures):
    out = tmp_path / "out"
    assert study.reproduce("what_is_gradient", quick=True, only=name, out=out) == 0
    assert (out / f"{name}.png").stat().st_size > 20_000
