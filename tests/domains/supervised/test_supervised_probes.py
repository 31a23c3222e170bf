"""Every probe on the deep, residual, convolutional and recurrent networks."""

import numpy as np
import pytest
from harness import loop, quiet

from playground.probes.noise.probe import METHODS

pytestmark = pytest.mark.usefixtures("without_figures")

SMALL = {
    "digits_deep": ["problem.depth=10", "problem.widths=[12]"],
    "digits_residual": ["problem.depth=6", "problem.widths=[12]"],
    "digits_residual rezero": ["problem.depth=6", "problem.widths=[12]", "problem.branch=rezero"],
    "digits_cnn": ["problem.channels=4"],
    "adding": ["problem.length=6", "problem.widths=[8]", "problem.samples=200",
               "problem.test_samples=50"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_every_probe_measures_and_noise_is_exact(name, tmp_path):
    own = [f"problem=supervised/{name.split()[0]}", *SMALL[name], "problem.batch_size=16"]
    every = [f"probes.{probe}.every=3" for probe in ("noise", "curvature", "flow", "step")]
    run = quiet([*own, *every, "probes.direction.every=3", "members=2", "dtype=float64",
                 "budget.iterations=7"], tmp_path / "run")  # fmt: skip
    rows = run.measurements.to_pylist()
    found = {probe: [r for r in rows if r["probe"] == probe] for probe in {*run.measurements[
        "probe"].to_pylist()}}  # fmt: skip
    assert {"noise", "curvature", "flow", "step", "direction"} <= {*found}
    assert {r["value"] for r in rows if r["quantity"] == "method"} == {METHODS.index("taps")}
    assert not [e for e in run.events.to_pylist() if e["kind"].startswith("probe/")]
    for quantity in ("lambda_max", "noise_scale", "forward_slope", "alpha"):
        values = [r["value"] for r in rows if r["quantity"] == quantity and r["tensor"] in (
            "", *(f"{k}.weight" for k in range(40)), "head.weight")]  # fmt: skip
        assert np.isfinite(values).any(), quantity
    weights = {r["tensor"] for r in found["flow"] if r["quantity"] == "forward"}
    made = loop(*own)
    layers = [n for n in made.players["model"].parameters.layout.names if "weight" in n]
    assert weights == {*layers}
    assert ("gradient_by_step-model" in run.arrays) == (name == "adding")
