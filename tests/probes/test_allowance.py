"""The share of wall time that passes may take: by a clock of ours, and in runs."""

import pytest
import torch
from harness import assert_same, final

import playground
from playground.probes.time_budget import Allowance
from playground.schema import ConfigError

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.mark.parametrize("cost", [0.5, 3.0, 40.0])
def test_a_probe_takes_its_part_of_the_time_and_no_more(cost):
    """Due every second, of 1000: s t / K seconds are worth s t / (K cost) measurements."""
    now = [0.0]
    allowance = Allowance(0.1, ["dear", "free"], clock=lambda: now[0])
    for second in range(1000):
        now[0] = float(second)
        for name, takes in (("dear", cost), ("free", 0.0)):
            if allowance.grants(name):
                allowance.spend(name, takes)
    assert allowance.measured["free"] == 1000
    assert allowance.spent["dear"] == allowance.measured["dear"] * cost
    assert allowance.measured["dear"] == pytest.approx(0.05 * 1000 / cost, abs=1)
    assert allowance.spent["dear"] <= max(0.05 * 1000, cost)
    text = allowance.summary()
    assert f"dear {allowance.measured['dear']} of 1000 times" in text
    assert "free 1000 of 1000 times, 0.0 %" in text


class Slow(playground.Pass):
    """Says one."""

    name, every = "slow", 1

    def measure(self, seen):
        one = torch.ones(seen.players["x"].parameters.values.shape[0])
        return playground.Reading({"one": one})


RUN = ["problem=landscape/rosenbrock", "members=2", "budget.iterations=40", "evaluate.every=10"]


def test_a_budget_stretches_cadences_says_so_and_changes_nothing_of_training(tmp_path, monkeypatch):
    free = playground.run([*RUN, f"run_dir={tmp_path / 'a'}"], probes=[Slow()], quiet=True)
    monkeypatch.setattr("playground.probes.time_budget.Allowance.spend", spend_a_day)
    tight = playground.run(
        [*RUN, f"run_dir={tmp_path / 'b'}", "probes.budget=0.05"], probes=[Slow()], quiet=True
    )
    rows = [
        {r["iteration"] for r in run.measurements.to_pylist() if r["probe"] == "slow"}
        for run in (free, tight)
    ]
    assert rows == [set(range(1, 41)), {1}]
    said = [e["message"] for e in tight.events.to_pylist() if e["kind"] == "probes"]
    assert len(said) == 1
    assert "slow 1 of 40 times" in said[0]
    assert not [e for e in free.events.to_pylist() if e["kind"] == "probes"]
    assert_same(final(free), final(tight))


def spend_a_day(self, name, seconds):
    self.spent[name] += 86400.0
    self._last[name] = 86400.0


@pytest.mark.parametrize("value", ["0", "-0.1", "1.5", "much"])
def test_a_budget_is_a_share(value, tmp_path):
    with pytest.raises(ConfigError, match="budget"):
        playground.run([*RUN, f"run_dir={tmp_path}", f"probes.budget={value}"], quiet=True)
