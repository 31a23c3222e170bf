"""The worked examples of docs/extending.md, run from outside the package, and their errors."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import Planted, assert_same, assert_same_records, final, resume, stop

import playground
from playground.__main__ import command
from playground.config import compose, from_dict
from playground.schema import ConfigError

ROOT = Path(playground.__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = {
    re.match(r"# (\S+)\n", body).group(1): body
    for body in re.findall(r"```(?:python|toml)\n(.*?)```", PAGE, re.S)
}

pytestmark = pytest.mark.usefixtures("without_figures")


@pytest.mark.parametrize(
    "name",
    ["cournot.py", "stream.py", "river.py", "spring.py", "lion.py", "predicted.py", "estimates.py"],
)
def test_the_worked_example_runs(name, here):
    (here / name).write_text(BLOCKS[name])
    runpy.run_path(str(here / name), run_name="__main__")
    assert len(list(here.glob("runs/*/*/manifest.json"))) == 1


def example(name, symbol):
    """Something that a worked example defines; its main part is not run."""
    space = {"__name__": name}
    exec(compile(BLOCKS[f"{name}.py"], name, "exec"), space)
    return space[symbol]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The examples as an installed package: modules and a dist-info folder on the path."""
    folder = tmp_path / "site"
    make_package(folder, dict(re.findall(r"^(\w+) = \"(\S+)\"$", BLOCKS["pyproject.toml"], re.M)))
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in ("stream", "stream_config", "lion"):
        sys.modules.pop(name, None)


def make_package(folder, entries):
    info = folder / "examples-1.0.dist-info"
    info.mkdir(parents=True)
    for name in ("stream.py", "stream_config.py", "lion.py"):
        (folder / name).write_text(BLOCKS[name])
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: examples\nVersion: 1.0\n")
    groups = {"playground.problems": "Config", "playground.optimizers": "lion"}
    lines = []
    for group, mark in groups.items():
        lines += [f"[{group}]", *(f"{k} = {v}" for k, v in entries.items() if mark in v)]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def test_entry_points_on_the_command_line(package, here, capsys):
    arguments = ["problem=stream", "problem.noise=0.5", "optimizer=lion", "optimizer.lr=0.01",
                 "vary.optimizer.beta1=[0.5,0.9]", "members=2", "budget.samples=1280",
                 "run_dir=run"]  # fmt: skip
    assert command(arguments) == 0, capsys.readouterr().err
    run = playground.load("run")
    assert run.config["problem"]["noise"] == 0.5
    assert run.config["optimizer"]["beta2"] == 0.99
    assert [m["values"]["optimizer.beta1"] for m in run.members] == [0.5, 0.5, 0.9, 0.9]
    assert run.manifest["counters"]["samples"] == 1280
    assert command(["resume=run", "budget.samples=2560"]) == 0
    longer = ["budget.samples=2560", "run_dir=whole", "evaluate.every=2", "checkpoint.every=4"]
    assert command([*arguments[:-2], *longer]) == 0
    whole = final(playground.load("whole"))
    assert_same(final(playground.load("run"))["players"], whole["players"])


def test_what_outside_problems_and_optimizers_default_to(package):
    config = compose(["problem=stream", "optimizer=sgd"])
    assert config.optimizer.lr == 0.1  # the problem's own
    assert compose(["problem=stream", "optimizer=lion"]).optimizer.lr == 1e-4
    own = compose(["problem=stream", "optimizer@players.model=lion", "players.model.lr=3"])
    assert own.players["model"].lr == 3
    assert own.players["model"].beta1 == 0.9
    assert from_dict(playground_dict(own)) == own


def playground_dict(config):
    from playground.config import to_dict

    return to_dict(config)


def test_outside_options_in_help_and_errors(package, capsys):
    assert command(["--help"]) == 0
    text = capsys.readouterr().out
    assert "stream" in text
    assert "lion" in text
    assert command(["--help", "problem=stream"]) == 0
    assert "problem.noise=0.1" in capsys.readouterr().out
    for arguments, fragments in {
        ("problem=straem",): ["did you mean stream"],
        ("problem=stream", "problem.nose=1"): ["problem.nose=1", "did you mean noise"],
        ("problem=stream", "problem.noise=-1"): ["problem.noise=-1", "at least 0"],
        ("problem=stream", "problem.noise=a"): ["problem.noise=a", "must be a number"],
        ("problem=stream", "loss=minimax"): ["problem stream has no loss"],
        ("problem=stream", "optimizer=lion", "optimizer.beta1=1"): ["beta1=1", "less than 1"],
        ("problem=stream", "budget.env_steps=1"): ["does not count env_steps"],
        ("problem=stream", "optimizer@players.agent=lion"): ["no player agent", "model"],
    }.items():
        assert command(list(arguments)) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert all(fragment in err for fragment in fragments), err


def test_a_broken_package_is_named_when_chosen_and_silent_otherwise(tmp_path, monkeypatch, capsys):
    entries = {"stream": "stream_config:StremConfig", "plain": "stream:squared_error.Config"}
    make_package(tmp_path / "site", entries)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert compose(["problem=landscape/beale"]).problem.function == "beale"
    assert command(["problem=stream"]) == 2
    err = capsys.readouterr().err
    assert "stream_config:StremConfig cannot be loaded" in err
    assert err.count("\n") == 1


def test_from_another_folder_in_a_process_of_its_own(package, here):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{package}"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "playground", "--help", "problem=stream"],
        cwd=here, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "Linear regression on fresh samples" in result.stdout
    assert "budget.iterations=200" in result.stdout


def test_lion_is_the_papers_formula_for_every_member():
    """Chen et al. 2023, algorithm 2, by NumPy, with beta1 along the member axis."""
    from playground.optim.optimizer import Optimizer

    config = example("lion", "Lion")(lr=0.1, clip_norm=5.0)
    beta1 = torch.tensor([0.5, 0.9])
    optimizer = Optimizer(config, torch.zeros(2, 3), {"beta1": beta1})
    generator = np.random.default_rng(0)
    momentum = np.zeros((2, 3))
    for _ in range(5):
        gradient = generator.normal(size=(2, 3)) * 10
        clipped = gradient * np.minimum(1, 5 / np.linalg.norm(gradient, axis=1, keepdims=True))
        b = beta1.numpy()[:, None]
        expected = -0.1 * np.sign(b * momentum + (1 - b) * clipped)
        momentum = 0.99 * momentum + 0.01 * clipped
        step = optimizer.step(torch.tensor(gradient, dtype=torch.float32), torch.zeros(2, 3))
        np.testing.assert_allclose(step.update.numpy(), expected, rtol=1e-6)


SHORT = ["optimizer=sgd", "optimizer.lr=0.01", "budget.iterations=8", "members=2",
         "checkpoint.every=3", "evaluate.every=4"]  # fmt: skip


def test_everything_of_ones_own_resumes_bit_for_bit(tmp_path, monkeypatch):
    kinds = example("stream", "Stream"), example("predicted", "Predicted")

    def given():
        return {"problem": kinds[0](), "objectives": {"model": shrink}, "probes": [kinds[1]()]}

    def shrink(original):
        def objective(params, batch):
            terms, diagnostics = original(params, batch)
            return {**terms, "decay": 0.1 * params["model"]["w"].square().sum()}, diagnostics

        return objective

    whole = playground.run([*SHORT, f"run_dir={tmp_path / 'whole'}"], quiet=True, **given())
    run = playground.run

    def with_extensions(overrides, problem=None, **options):
        return run(overrides, **{**given(), **options})

    with monkeypatch.context() as patch:
        patch.setattr("harness.playground.run", with_extensions)
        stop(SHORT, tmp_path / "parts", 5)
        parts = resume(tmp_path / "parts")
    assert_same(final(whole), final(parts))
    assert_same_records(whole, parts)
    mine = [row for row in parts.measurements.to_pylist() if row["probe"] == "predicted"]
    assert len(mine) == 2 * 2 * 2  # updates 1, 6; two members; two quantities
    extensions = parts.manifest["extensions"]
    assert extensions == {"objectives": ["model"], "probes": ["predicted"]}


def test_a_probe_changes_nothing(tmp_path):
    plain, seen = (
        playground.run(
            ["problem=landscape/rosenbrock", "budget.iterations=10",
             f"run_dir={tmp_path / str(len(probes))}"], probes=probes, quiet=True,
        )
        for probes in ([], [example_probe()])
    )  # fmt: skip
    assert_same(final(plain)["players"], final(seen)["players"])
    assert seen.measurements.num_rows == 10
    assert plain.measurements.num_rows == 0


def example_probe(**attributes):
    class Largest(playground.Probe):
        name = "largest"
        shape = ()

        def measure(self, seen):
            return {"gradient": seen.gradient.abs().amax(dim=1)}

    probe = Largest()
    for name, value in attributes.items():
        setattr(probe, name, value)
    return probe


def test_a_probe_of_the_wrong_shape_is_named(tmp_path):
    probe = example_probe(measure=lambda seen: {"sum": seen.gradient.sum()})
    with pytest.raises(ValueError, match=r"probe largest: sum has shape \(\), expected \(1,\)"):
        playground.run(
            ["problem=landscape/beale", "budget.iterations=2", f"run_dir={tmp_path / 'run'}"],
            probes=[probe], quiet=True,
        )  # fmt: skip


def test_a_players_own_optimizer_in_a_problem_object(tmp_path):
    run = playground.run(
        ["optimizer@players.x=momentum", "players.x.lr=0.05", "vary.players.x.lr=[0.05,0.1]",
         "budget.samples=4", f"run_dir={tmp_path / 'run'}"], Planted(), quiet=True,
    )  # fmt: skip
    assert run.config["players"]["x"]["name"] == "momentum"
    assert [m["values"]["players.x.lr"] for m in run.members] == [0.05, 0.1]
    assert run.manifest["counters"]["samples"] == 4
    assert run.config["problem"]["name"] == "custom/planted"
    assert run.manifest["problem"] == "custom/planted"


def wrong(tmp_path, overrides=(), **options):
    """The message of a refused run, which leaves nothing."""
    with pytest.raises(ConfigError) as caught:
        playground.run([*overrides, f"run_dir={tmp_path / 'run'}"], quiet=True, **options)
    assert not (tmp_path / "run").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "options", "fragments"),
    [
        (["problem=gan/ring"], {"problem": Planted()}, ["problem=gan/ring", "object is given"]),
        ([], {"problem": Planted}, ["must be a playground.Problem object"]),
        (["budget.env_steps=4"], {"problem": Planted()}, ["does not count env_steps", "samples"]),
        (["optimizer@players.y=sgd"], {"problem": Planted()}, ["has no player y", "x"]),
        (["optimizer=lion"], {}, ["optimizer=lion", "adam"]),
        (["problem=landscape/beale"], {"objectives": {"y": lambda f: f}}, ["no player y", "x"]),
        (["problem=landscape/beale"], {"objectives": {"x": 3}}, ["objectives['x']=3"]),
        ([], {"optimizers": [int]}, ["not a dataclass"]),
        ([], {"probes": [print]}, ["playground.Probe"]),
        ([], {"probes": [example_probe(), example_probe()]}, ["same name", "largest"]),
    ],
)
def test_what_is_refused(overrides, options, fragments, tmp_path):
    message = wrong(tmp_path, overrides, **options)
    for fragment in fragments:
        assert fragment in message


def test_an_optimizer_with_a_taken_name_is_refused(tmp_path):
    import dataclasses

    lion = example("lion", "Lion")
    sgd = dataclasses.make_dataclass("Sgd", [("name", str, "sgd")], bases=(lion,))
    assert "sgd is the playground's own" in wrong(tmp_path, optimizers=[sgd])


def test_overrides_must_be_a_list():
    with pytest.raises(ConfigError, match="must be a list"):
        playground.run("problem=gan/ring")


def test_resume_wants_the_same_objects(tmp_path):
    stop(SHORT, tmp_path / "own", 5, problem=Planted())
    stop(["problem=landscape/beale", *SHORT], tmp_path / "beale", 5)

    def refused(name, **options):
        with pytest.raises(ConfigError) as caught:
            playground.run([f"resume={tmp_path / name}"], quiet=True, **options)
        return str(caught.value)

    assert "give the object" in refused("own")
    assert "custom/stream" in refused("own", problem=example("stream", "Stream")())
    assert "run is of landscape/beale" in refused("beale", problem=Planted())
    given = {"objectives": {"x": lambda f: f}}
    assert "objectives: the run has none, given are x" in refused("beale", **given)
    assert "largest" in refused("beale", probes=[example_probe()])
    assert resume(tmp_path / "beale").manifest["status"] == "finished"
