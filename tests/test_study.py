"""Studies: intervals, verdicts, exit codes, and the first study's theory against its runs."""

import json
import os
import subprocess
import sys
from math import log
from pathlib import Path

import numpy as np
import pytest

import playground
from playground import study
from playground.schema import ConfigError
from playground.study import FAIL, INCONCLUSIVE, PASS, SMOKE, Claim, interval, worst

ROOT = Path(playground.__file__).resolve().parent.parent


@pytest.mark.parametrize("size", [2, 3, 10, 31, 40, 200])
def test_the_interval_is_students(size):
    """SciPy's t quantile; beyond 30 degrees of freedom an approximation to 0.2 %."""
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(size).normal(3, 2, size)
    mean, low, high = interval(values)
    half = stats.t.ppf(0.975, size - 1) * values.std(ddof=1) / np.sqrt(size)
    assert mean == pytest.approx(values.mean())
    assert high - mean == pytest.approx(half, rel=2e-3)
    assert mean - low == pytest.approx(half, rel=2e-3)


def test_the_interval_covers_the_mean_in_95_of_100():
    generator = np.random.default_rng(0)
    drawn = generator.normal(1, 1, (4000, 5))
    covered = [low <= 1 <= high for _, low, high in map(interval, drawn)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


@pytest.mark.parametrize(
    ("values", "low", "high", "verdict"),
    [
        ([1.0, 1.001, 0.999], 0.9, 1.1, PASS),
        ([2.0, 2.001, 1.999], 0.9, 1.1, FAIL),
        ([0.0, 0.001, -0.001], 0.9, 1.1, FAIL),
        ([0.5, 1.5, 1.0], 0.9, 1.1, INCONCLUSIVE),  # the interval is wider than the tolerance
        ([0.9, 0.901, 0.899], 0.9, 1.1, INCONCLUSIVE),  # across its edge
        ([1.0], 0.9, 1.1, PASS),
        ([1.2], 0.9, 1.1, FAIL),
        ([-1.0, -0.1], -np.inf, 0.0, INCONCLUSIVE),  # two replicas: t is 12.7
        ([-1.0, -1.1, -1.05], -np.inf, 0.0, PASS),
        ([1.0, np.nan], 0.9, 1.1, FAIL),
        ([np.inf, np.inf], 0.0, np.inf, FAIL),
    ],
)
def test_verdicts(values, low, high, verdict):
    assert Claim("a", "1", values, low, high).verdict == verdict


def test_a_studys_verdict_is_the_worst_of_its_claims():
    assert worst([PASS, PASS]) == PASS
    assert worst([PASS, INCONCLUSIVE, PASS]) == INCONCLUSIVE
    assert worst([INCONCLUSIVE, FAIL, PASS]) == FAIL


ANALYSIS = """
from playground.study import Claim

def runs(quick):
    iterations = 2 if quick else 4
    return {"a": ["problem=landscape/beale", f"budget.iterations={iterations}", "probes=none"]}

def claims(runs, folder):
    distance = runs["a"].metric("distance")[1][-1]
    assert folder.is_dir() and distance.shape == (1,)
    return [Claim("sure", "1", [1, 1, 1], 0.5, 1.5), Claim("open", "1", VALUES, 0.9, 1.1)]
"""


@pytest.fixture
def studies(tmp_path, monkeypatch, without_figures):
    """A folder of studies; ``write(values)`` puts the study ``synthetic`` into it."""
    root = tmp_path / "experiments"
    (root / "synthetic").mkdir(parents=True)
    monkeypatch.setattr(study, "experiments_dir", lambda: root)

    def write(values):
        text = ANALYSIS.replace("VALUES", repr(values))
        (root / "synthetic" / "analysis.py").write_text(text)

    return write


PASSING, FAILING, OPEN = [1.0, 1.001, 0.999], [2.0, 2.001, 1.999], [0.5, 1.5, 1.0]


@pytest.mark.parametrize(
    ("values", "quick", "code", "verdict"),
    [
        (PASSING, False, 0, PASS),
        (FAILING, False, 1, FAIL),
        (OPEN, False, 3, INCONCLUSIVE),
        (PASSING, True, 0, SMOKE),
        (OPEN, True, 0, SMOKE),
        (FAILING, True, 1, FAIL),
    ],
)
def test_exit_codes(values, quick, code, verdict, studies, tmp_path, capsys):
    studies(values)
    out = tmp_path / "out"
    assert study.reproduce("synthetic", quick=quick, out=out) == code
    content = json.loads((out / "claims.json").read_text())
    assert content["verdict"] == verdict
    assert [claim["claim"] for claim in content["claims"]] == ["sure", "open"]
    text = capsys.readouterr().out
    assert f"synthetic: {verdict}" in text
    assert not quick or PASS not in text
    assert playground.load(out).children[0].config["budget"]["iterations"] == (2 if quick else 4)


def test_the_same_folder_goes_on_and_another_studys_is_refused(studies, tmp_path):
    studies(PASSING)
    out = tmp_path / "o u't"
    assert study.reproduce("synthetic", out=out) == 0
    before = playground.load(out / "0").manifest
    assert study.reproduce("synthetic", out=out) == 0
    assert playground.load(out / "0").manifest == before
    with pytest.raises(ConfigError, match="quick=false"):
        study.reproduce("synthetic", quick=True, out=out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="not empty"):
        study.reproduce("synthetic", out=tmp_path / "full")


CHAIN = """
def runs(quick):
    common = ["problem=landscape/beale", "optimizer=sgd", "budget.iterations=2", "probes=none"]
    return {"first": common, "second": [*common, "snapshot.run=first"]}

def claims(runs, folder):
    return []
"""


def test_a_run_may_start_from_an_earlier_one_of_its_study(studies, tmp_path):
    studies(PASSING)
    (tmp_path / "experiments" / "synthetic" / "analysis.py").write_text(CHAIN)
    out = tmp_path / "o u't"
    assert study.reproduce("synthetic", out=out) == 0
    first, second = (playground.load(out / name).metric("distance")[1] for name in "01")
    assert first[0] != first[-1]
    assert second[0] == first[-1]


PARTS = """
from .words import CLAIM
from playground.study import Claim

def runs(quick):
    common = ["problem=landscape/beale", "optimizer=sgd", "probes=none"]
    return {f"{part}/{n}": [*common, f"budget.iterations={n}"] for part in "ab" for n in (1, 2)}

def claims(runs, folder):
    return [Claim(f"{name}: {CLAIM}", "1", [1.0], 0.5, 1.5) for name in runs]

def conclusions(claims):
    return {claim.name: "so be it" for claim in claims}
"""


@pytest.fixture
def in_parts(studies, tmp_path):
    """The synthetic study in two parts of two runs, with a neighbour that it imports."""
    studies(PASSING)
    folder = tmp_path / "experiments" / "synthetic"
    (folder / "analysis.py").write_text(PARTS)
    (folder / "words.py").write_text("CLAIM = 'is one'\n")


def test_a_part_is_run_and_judged_alone(in_parts, tmp_path, capsys):
    out = tmp_path / "out"
    assert study.reproduce("synthetic", only="b", out=out) == 0
    assert [run.config["budget"]["iterations"] for run in playground.load(out).children] == [1, 2]
    content = json.loads((out / "claims.json").read_text())
    assert [claim["claim"] for claim in content["claims"]] == ["b/1: is one", "b/2: is one"]
    assert content["only"] == "b"
    assert content["conclusions"] == dict.fromkeys(["b/1: is one", "b/2: is one"], "so be it")
    assert "b/2: is one: so be it" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="only=b"):
        study.reproduce("synthetic", out=out)
    _, _, planned = study.plan("synthetic", quick=False, out=tmp_path / "all")
    assert list(planned) == ["a/1", "a/2", "b/1", "b/2"]


def test_an_unknown_part_is_named_before_any_work(in_parts, tmp_path):
    with pytest.raises(ConfigError, match=r"only=c: no such part .*allowed are a, b"):
        study.reproduce("synthetic", only="c", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="plain has no parts"):
        study.part("plain", {"a": []}, "a")


def reproduce(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "scripts" / "reproduce.py"), *arguments],
        cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_an_unknown_study_is_exit_2(here):
    result = reproduce("quadratic_rate", cwd=here)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "did you mean quadratic_rates" in result.stderr
    assert list(here.iterdir()) == []


@pytest.fixture(scope="module")
def rates():
    return study.load_analysis(study.find("quadratic_rates"))


def radius(rates, method, lr, momentum, kappa):
    """Spectral radius by simulating the method's definition on two modes, without its roots."""
    point, velocity = np.ones(2), np.zeros(2)
    spectrum = np.array([1 / kappa, 1.0])
    log_size, last = 0.0, 0.0
    for step in range(6000):
        gradient = spectrum * point
        velocity = momentum * velocity + gradient
        point = point - lr * (gradient + momentum * velocity if method == "nesterov" else velocity)
        size = np.hypot(np.abs(point).max(), np.abs(velocity).max())
        point, velocity = point / size, velocity / size
        log_size += log(size)
        last = log_size if step == 2999 else last
    return (log_size - last) / 3000


@pytest.mark.parametrize("method", ["sgd", "momentum", "nesterov"])
@pytest.mark.parametrize("kappa", [10, 100])
def test_the_published_tuning_is_a_minimum_of_the_spectral_radius(method, kappa, rates):
    lr, momentum, rate = rates.optimal(method, kappa)
    best = rates.growth(method, lr, momentum, kappa)
    assert best == pytest.approx(log(rate), rel=1e-6)
    for factor in (0.98, 1.02):
        assert rates.growth(method, lr * factor, momentum, kappa) > best
        if momentum:
            assert rates.growth(method, lr, momentum * factor, kappa) > best


@pytest.mark.parametrize("method", ["sgd", "momentum", "nesterov"])
def test_growth_and_line_are_those_of_the_iteration(method, rates):
    momentum = 0.0 if method == "sgd" else 0.9
    edge = rates.line(method, momentum)
    assert rates.growth(method, edge, momentum, 10) == pytest.approx(0, abs=1e-7)
    for factor in (0.97, 1.03):
        exact = rates.growth(method, factor * edge, momentum, 10)
        assert exact == pytest.approx(radius(rates, method, factor * edge, momentum, 10), abs=1e-3)
        assert (exact > 0) == (factor > 1)


def test_the_fit_divides_the_double_roots_factor_out(rates):
    t = np.arange(2000)[:, None]
    plain, double = 3.0 * 0.99**t, (5.0 * t + 1.0) * 0.99**t
    assert rates.exponent(plain, double_root=False) == pytest.approx(-log(0.99), rel=1e-9)
    assert rates.exponent(double, double_root=True) == pytest.approx(-log(0.99), rel=1e-3)
    assert rates.exponent(double, double_root=False) != pytest.approx(-log(0.99), rel=1e-2)
    assert rates.exponent(0.5 ** t.astype(float), double_root=False) == pytest.approx(log(2))


@pytest.mark.parametrize(
    "key", sorted(p.parent.name for p in (ROOT / "experiments").glob("*/claims.json"))
)
def test_the_readme_states_what_was_measured(key):
    folder = study.find(key)
    content = json.loads((folder / "claims.json").read_text())
    text = (folder / "README.md").read_text()
    assert content["verdict"] in (PASS, INCONCLUSIVE, FAIL)
    assert f"**{content['verdict']}**" in text
    for claim in content["claims"]:
        row = next(line for line in text.splitlines() if line.startswith(f"| {claim['claim']} |"))
        assert f"{claim['mean']:.6g}" in row
        assert claim["published"] in row
        assert f"| {claim['verdict']} |" in row


def test_the_dirac_gans_exponents_are_the_derived_ones():
    """R1 underdamped: |lambda|^2 = 1 - h gamma + h^2 f'^2 simultaneous, 1 - h gamma alternating."""
    dirac = study.load_analysis(study.find("mescheder2018"))
    r1 = dirac.METHODS["r1"]["linear"]
    assert dirac.exponent(r1, "simultaneous") == pytest.approx(-log(0.974679), abs=1e-6)
    assert dirac.exponent(r1, "alternating") == pytest.approx(-log(0.969536), abs=1e-6)
    assert dirac.exponent(r1, "alternating") == pytest.approx(-0.5 * log(1 - 0.06))
    assert dirac.exponent([0.5, 0, 0], "simultaneous") == pytest.approx(-0.5 * log(1.01))
    assert dirac.exponent([0.5, 0, 0], "alternating") == pytest.approx(0, abs=1e-12)
    t = np.arange(501)
    points = np.stack([0.97**t * np.cos(t / 9), 0.97**t * np.sin(t / 9)], axis=1)
    assert dirac.fitted(points) == pytest.approx(-log(0.97))
    powers = np.stack([(1.0 + t) ** -0.5, 0 * t], axis=1)
    assert dirac.fitted(powers, power=True) == pytest.approx(0.5, rel=0.01)


@pytest.mark.slow
def test_the_quick_study_says_smoke(here):
    result = reproduce("quadratic_rates", "--quick", "--out", "out", cwd=here)
    assert result.returncode == 0, result.stderr
    assert "quadratic_rates: SMOKE" in result.stdout
    assert "PASS" not in result.stdout
    content = json.loads((here / "out" / "claims.json").read_text())
    assert len(content["claims"]) == 15
    for claim in content["claims"][:9]:
        assert claim["mean"] == pytest.approx(float(claim["published"]), rel=0.05)
    assert (here / "out" / "quadratic_rates.png").stat().st_size > 20_000
    assert len(playground.load(here / "out").children) == 12


@pytest.mark.slow
def test_the_quick_study_of_gae_holds_exactly(here):
    """A minute on an idle core; the exact claims hold in a quick run as in a full one."""
    result = reproduce("schulman2016", "--quick", "--out", "out", cwd=here)
    assert result.returncode == 0, result.stderr
    assert "schulman2016: SMOKE" in result.stdout
    claims = json.loads((here / "out" / "claims.json").read_text())["claims"]
    assert len(claims) == 16
    for claim in claims:
        low, high = np.array(claim["tolerance"], dtype=float)
        if claim["claim"].startswith("exact"):
            assert low <= claim["mean"] <= high
    assert (here / "out" / "schulman2016.png").stat().st_size > 20_000
