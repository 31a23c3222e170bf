"""The GAN studies' own arithmetic and cells, without their runs."""

import numpy as np
import pytest

from playground import study
from playground.config import compose


@pytest.fixture(scope="module", params=["arjovsky2017", "mode_collapse"])
def analysis(request):
    return study.load_analysis(study.find(request.param))


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_run_is_a_valid_command(analysis, quick):
    for overrides in analysis.runs(quick).values():
        compose(overrides)


@pytest.mark.slow
def test_cells_of_a_data_set_have_one_budget_and_say_what_they_are():
    collapse = study.load_analysis(study.find("mode_collapse"))
    budgets = {}
    for name, overrides in collapse.runs(False).items():
        data, cell = name.split(": ")
        config = compose(overrides)
        loss, penalty, schedule, method = collapse.parts(cell)
        assert config.members == 10
        assert (config.loss.name, config.problem.name) == (loss, f"gan/{data}")
        assert config.stepper.name == method
        assert config.problem.rounds == schedule.replace("5 critic", "alternating")
        assert config.problem.discriminator_updates == (5 if schedule == "5 critic" else 1)
        on = {key for key in ("r1", "r2", "gradient") if getattr(config.penalty, key) > 0}
        assert on == set(penalty.split(" + ")) & {"r1", "r2", "gradient"}
        assert config.problem.spectral_norm == (penalty == "spectral norm")
        assert config.problem.pack == (4 if penalty == "pack 4" else 1)
        assert (config.player_optimizer("discriminator").project is None) == (penalty != "clip")
        budgets.setdefault(data, set()).add(config.budget.gradient_evaluations)
    assert budgets == {"ring": {4000}, "grid": {12000}}
    assert collapse.overrides("hinge, r1") == collapse.overrides("hinge, r1, alternating, direct")


def test_claims_of_mode_collapse_are_about_its_runs():
    collapse = study.load_analysis(study.find("mode_collapse"))
    planned = collapse.runs(False)
    for data, what, *_ in collapse.CONFIG["claims"]:
        assert all(f"{data}: {collapse.named(part)}" in planned for part in what.split(" - "))


def test_decades_are_those_of_a_power_law():
    vanishing = study.load_analysis(study.find("arjovsky2017"))
    first, last = vanishing.CONFIG["first"], vanishing.CONFIG["last"]
    t = np.arange(1, 1001.0)[:, None]
    exact = -2 * (np.log10(t[-last:]).mean() - np.log10(t[:first]).mean())
    assert vanishing.decades(7 * t**-2) == pytest.approx([exact])
    ends = np.where(t <= 500, 1.0, 1e-5) * np.ones(3)
    assert vanishing.decades(ends) == pytest.approx([-5, -5, -5])
