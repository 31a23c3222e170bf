"""Planted NaN, infinities and spikes: all named here, and what two other tools make of them."""

import importlib.util
import sys
from pathlib import Path

import pytest

import playground
from playground.diagnosis import diagnose

SCRIPT = Path(__file__).parents[2] / "scripts" / "planted_comparison.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("planted_comparison", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # its dataclasses look themselves up
        spec.loader.exec_module(module)
        yield module


@pytest.mark.parametrize("seed", range(10))
def test_everything_planted_is_named_with_tensor_update_and_kind(script, tmp_path, seed):
    loop = script.Loop(seed, 200)
    found = script.ours(loop, tmp_path / "run", 8)
    assert sorted(loop.plants.values()) == sorted(3 * script.KINDS)
    assert found.said == loop.plants
    (told,) = (f for f in diagnose(playground.load(tmp_path / "run")) if f.rule == "non_finite")
    first = min(place for place, kind in loop.plants.items() if kind != "spike")
    assert f"of {first[1]} (" in told.evidence
    assert f"update {first[0]})" in told.evidence


@pytest.mark.parametrize("seed", range(3))
def test_healthy_loops_have_no_events(script, tmp_path, seed):
    loop = script.Loop(seed, 400, healthy=True)
    assert not loop.plants
    assert script.ours(loop, tmp_path / "run", 8).said == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_drops_what_is_not_finite_from_its_histograms(script, tmp_path):
    pytest.importorskip("wandb")
    loop = script.Loop(0, 200)
    found = script.wandbs(loop, tmp_path / "run", 1)
    assert found.said == {}
    assert found.held == {place: "spike" if kind == "spike" else "non-finite"
                          for place, kind in loop.plants.items()}  # fmt: skip
    assert script.wandbs(script.Loop(0, 200), tmp_path / "seldom", 1000).held == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_lightnings_norms_hold_what_they_do_not_say(script, tmp_path):
    pytest.importorskip("lightning.pytorch")
    loop = script.Loop(0, 200)
    found = script.lightnings(loop, tmp_path / "run", 1)
    assert found.said == {}
    assert found.held == loop.plants
    seldom = script.lightnings(script.Loop(0, 200), tmp_path / "seldom", 50).held
    assert seldom.items() <= {p: k for p, k in loop.plants.items() if p[0] % 50 == 0}.items()
