"""Sweeps: folders, failures, going on, records, and refusal before anything starts."""

import os
import signal
import subprocess
import sys

import pytest
import yaml
from harness import assert_same, final, rows

import playground
from playground.__main__ import command
from playground.composition import jobs
from playground.schema import ConfigError

pytestmark = pytest.mark.usefixtures("without_figures")

QUADRATIC = ["-m", "problem=landscape/quadratic", "budget.iterations=3"]
ROSENBROCK = [
    "-m", "problem=landscape/rosenbrock", "optimizer=sgd", "budget.iterations=30", "probes=none",
]  # fmt: skip


def only_sweep(here):
    (path,) = here.glob("runs/*/*")
    return path


def test_every_combination_in_a_folder_of_its_own(here, capsys):
    assert command([*QUADRATIC, "optimizer=adam,sgd", "seed=0,100"]) == 0
    path = only_sweep(here)
    assert path.name.split("-")[3:5] == ["landscape", "quadratic"]
    assert sorted(entry.name for entry in path.iterdir()) == ["0", "1", "2", "3", "sweep.yaml"]
    seen = [(run.config["optimizer"]["name"], run.config["seed"], run.manifest["status"])
            for run in playground.load(path).children]  # fmt: skip
    assert seen == [
        (name, seed, "finished") for name in ("adam", "sgd") for seed in (0, 100)
    ]  # fmt: skip
    allowed = {"config.yaml", "manifest.json", "records", "checkpoints", "snapshots", "arrays",
               "figures", "diagnosis.json", ".lock"}  # fmt: skip
    for number in range(4):
        assert {entry.name for entry in (path / str(number)).iterdir()} <= allowed
    assert [entry.name for entry in here.iterdir()] == ["runs"], "nothing of Hydra's is left"
    out, err = capsys.readouterr()
    assert "4 jobs finished" in out
    assert err == ""


def test_a_job_equals_its_single_run(here):
    assert command([*QUADRATIC, "problem.start=random", "seed=0,5", "run_dir=sweep"]) == 0
    single = [*QUADRATIC[1:], "problem.start=random", "seed=5", "run_dir=single"]
    assert command(single) == 0
    assert_same(final(playground.load("sweep/1")), final(playground.load("single")))


def test_load_has_a_run_column(here):
    assert command([*QUADRATIC, "optimizer=adam,sgd", "members=2", "run_dir=sweep"]) == 0
    sweep = playground.load("sweep")
    metrics = sweep.metrics
    assert metrics.column_names[0] == "run"
    assert set(metrics["run"].to_pylist()) == {0, 1}
    assert sweep.runs == [
        {"run": run, "status": "finished",
         "overrides": [*QUADRATIC[1:], f"optimizer={name}", "members=2"]}
        for run, name in enumerate(("adam", "sgd"))
    ]  # fmt: skip
    one = rows(playground.load("sweep/1"), "metrics")
    assert sum(row == 1 for row in metrics["run"].to_pylist()) == len(one)
    assert yaml.safe_load((here / "sweep" / "sweep.yaml").read_text())["overrides"] == [
        *QUADRATIC[1:], "optimizer=adam,sgd", "members=2",
    ]  # fmt: skip


def test_a_failing_job_stops_nobody_and_ends_in_a_table(here, capsys):
    arguments = [*ROSENBROCK, "optimizer.lr=1e-4,1e3,1e-3", "run_dir=sweep"]
    assert command(arguments) == 1
    statuses = [row["status"] for row in playground.load("sweep").runs]
    assert statuses == ["finished", "failed", "finished"]
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert lines[0] == "playground: 1 of 3 jobs did not finish, in sweep"
    assert lines[1].split() == ["job", "status", "overrides", "reason"]
    assert lines[2].split()[:2] == ["1", "failed"]
    assert "optimizer.lr=1000" in lines[2]
    assert "non-finite" in lines[2]
    assert len(lines) == 3, "no traceback, no noise"


def test_a_job_that_cannot_even_begin_is_in_the_table(here, capsys):
    envs = "problem.env=Nowhere-v0,Blackjack-v1"
    assert command(["-m", envs, "budget.env_steps=64", "run_dir=sweep"]) == 1
    err = capsys.readouterr().err
    assert "2 of 2 jobs" in err
    assert "problem.env=Nowhere-v0" in err
    assert "must be an array" in err
    assert "Traceback" not in err


def test_a_defect_is_one_line_with_its_place_kept(here, capsys, monkeypatch):
    from playground.domains.landscape.problem import LandscapeProblem

    def evaluate(problem):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(LandscapeProblem, "evaluate", evaluate)
    assert command([*QUADRATIC, "seed=0,1", "run_dir=sweep"]) == 1
    err = capsys.readouterr().err
    assert err.count("ZeroDivisionError: a defect") == 2
    assert "Traceback" not in err
    assert "Traceback" in (here / "sweep" / "0.error").read_text()


def test_the_same_command_skips_what_is_finished_and_goes_on_with_the_rest(here, capsys):
    from playground.session import Session

    sweep = [*QUADRATIC, "seed=0,1,2", "checkpoint.every=1", "budget.iterations=6"]
    assert command([*sweep, "run_dir=whole"]) == 0
    real = Session.iterate

    def iterate(session):
        if session.iteration == 3 and session.config.seed == 1:
            signal.raise_signal(signal.SIGINT)
        real(session)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "iterate", iterate)
        assert command([*sweep, "run_dir=parts"]) == 130
    assert [row["status"] for row in playground.load("parts").runs] == [
        "finished", "interrupted", "missing",
    ]  # fmt: skip
    err = capsys.readouterr().err
    assert "not run" in err
    before = playground.load("parts/0").manifest
    assert command([*sweep, "run_dir=parts"]) == 0
    out = capsys.readouterr().out
    assert "[0] finished before: skipped" in out
    assert playground.load("parts/0").manifest == before
    assert len(playground.load("parts/1").manifest["attempts"]) == 2
    for number in range(3):
        assert_same(
            final(playground.load(f"parts/{number}")), final(playground.load(f"whole/{number}"))
        )


def test_another_command_into_the_same_folder_is_refused(here, capsys):
    assert command([*QUADRATIC, "seed=0,1", "run_dir=sweep"]) == 0
    capsys.readouterr()
    assert command([*QUADRATIC, "seed=0,2", "run_dir=sweep"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "seed=0,1" in err


def test_vary_within_a_sweep(here):
    arguments = [*QUADRATIC, "optimizer=adam,sgd", "vary.optimizer.lr=[0.1,0.2]", "members=2"]
    assert command([*arguments, "run_dir=sweep"]) == 0
    for run in playground.load("sweep").children:
        assert [m["values"]["optimizer.lr"] for m in run.members] == [0.1, 0.1, 0.2, 0.2]
        assert [m["seed"] for m in run.members] == [0, 1, 0, 1]
    assert "vary.optimizer.lr=[0.1,0.2]" in playground.load("sweep").runs[0]["overrides"]


@pytest.mark.parametrize("folder", ["deep/er", "sp ace quo'te=100%"])
def test_folders_with_awkward_names(folder, here):
    quoted = "'" + folder.replace("'", "\\'") + "'"
    assert command([*QUADRATIC, "seed=0,1", f"run_dir={quoted}"]) == 0
    assert len(playground.load(here / folder).children) == 2


def test_jobs_are_listed_in_hydras_order():
    assert jobs(["optimizer=adam,sgd", "seed=range(0,2)", "vary.optimizer.lr=[1,2]"]) == [
        [f"optimizer={name}", f"seed={seed}", "vary.optimizer.lr=[1,2]"]
        for name in ("adam", "sgd")
        for seed in (0, 1)
    ]
    assert jobs(["optimizer=glob(adam*)"]) == [["optimizer=adam"], ["optimizer=adamw"]]
    with pytest.raises(ConfigError, match="matches nothing"):
        jobs(["optimizer=glob(nothing*)"])


def test_the_process_is_left_as_it_was(here):
    import sys

    before, environment = list(sys.argv), dict(os.environ)
    assert command([*QUADRATIC, "seed=0,1"]) == 0
    assert sys.argv == before
    assert dict(os.environ) == environment


PLUGIN = '''
from hydra.core.config_store import ConfigStore
from hydra.core.utils import run_job, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict
from pathlib import Path

class Backwards(Launcher):
    """Runs its jobs in the other order."""
    def __init__(self, mark): self.mark = mark
    def setup(self, *, hydra_context, task_function, config):
        self.config, self.context, self.task = config, hydra_context, task_function
    def launch(self, job_overrides, initial_job_idx):
        Path(self.mark).write_text(str(len(job_overrides)))
        returned = []
        for number, overrides in reversed(list(enumerate(job_overrides, initial_job_idx))):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(number), number
            returned.append(run_job(hydra_context=self.context, task_function=self.task,
                config=config, job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir"))
        return returned[::-1]

ConfigStore.instance().store(group="hydra/launcher", name="backwards",
    node={"_target_": "hydra_plugins.backwards.Backwards", "mark": "mark.txt"})
'''


@pytest.mark.parametrize(
    "chosen",
    [
        ["hydra/launcher=basic"],
        ["hydra/sweeper=basic", "hydra/job_logging=disabled"],
        ["hydra.job.chdir=true"],
    ],
)
def test_hydra_s_own_options_choose_how_jobs_are_launched(here, chosen):
    assert command([*QUADRATIC, *chosen, "seed=0,5", "run_dir=sweep"]) == 0
    assert command([*QUADRATIC[1:], "seed=5", "run_dir=single"]) == 0
    sweep = playground.load("sweep")
    assert [row["status"] for row in sweep.runs] == ["finished", "finished"]
    assert sweep.runs[1]["overrides"] == [*QUADRATIC[1:], "seed=5"]
    assert_same(final(playground.load("sweep/1")), final(playground.load("single")))


def test_a_launcher_that_somebody_brings(here):
    """A plugin as Hydra finds it, with a key of its own; in a process that has not looked yet."""
    plugins = here / "brought" / "hydra_plugins"
    plugins.mkdir(parents=True)
    (plugins / "backwards.py").write_text(PLUGIN)
    done = subprocess.run(
        [sys.executable, "-m", "playground", *QUADRATIC, "hydra/launcher=backwards", "seed=0,5",
         "hydra.launcher.mark=told.txt", "run_dir=sweep"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(plugins.parent), *sys.path])},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (here / "told.txt").read_text() == "2"
    assert done.stdout.index("[1] ") < done.stdout.index("[0] ")
    assert [row["status"] for row in playground.load("sweep").runs] == ["finished", "finished"]


@pytest.mark.parametrize(("wrong", "words"), [
    ("hydra/launcher=nosuch", "allowed are basic"),
    ("hydra/launcher=basic,basic", "one value in all jobs"),
    ("hydra.launcher.jobs=2", "hydra.launcher.jobs"),
    ("hydra/launchers=basic", "hydra/launchers"),
])  # fmt: skip
def test_a_wrong_option_of_hydra_s_is_refused_before_anything(here, capsys, wrong, words):
    assert command([*QUADRATIC, wrong, "seed=0,5"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"playground: {wrong}: ")
    assert words in err
    assert len(err.splitlines()) == 1
    assert not list(here.iterdir())
