"""The command line: bad input, help, Hydra's flags, exit codes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import playground
from playground.__main__ import command, flags

ROOT = Path(playground.__file__).resolve().parent.parent

BAD: dict[str, tuple[list[str], list[str]]] = {
    # what: (arguments, what the line must say)
    "key of the root": (["sede=1"], ["sede=1", "did you mean seed"]),
    "key of problem": (
        ["problem=landscape/beale", "problem.fnction=beale"],
        ["problem.fnction=beale", "did you mean function"],
    ),
    "key of optimizer": (["optimizer.lrr=1"], ["optimizer.lrr=1", "did you mean lr"]),
    "key of another optimizer": (["optimizer=sgd", "optimizer.beta1=.5"], ["beta1", "no such key"]),
    "key of a player": (
        ["optimizer@players.agent=adam", "players.agent.lrr=1"],
        ["players.agent.lrr=1", "did you mean lr"],
    ),
    "key of algorithm": (["algorithm.epohcs=1"], ["algorithm.epohcs=1", "did you mean epochs"]),
    "key of budget": (["budget.iteration=9"], ["budget.iteration=9", "did you mean iterations"]),
    "key of evaluate": (["evaluate.evry=9"], ["evaluate.evry=9", "did you mean every"]),
    "key of checkpoint": (["checkpoint.evry=9"], ["checkpoint.evry=9", "did you mean every"]),
    "key of probes": (["probes.evry=9"], ["probes.evry=9", "did you mean every"]),
    "key of penalty": (
        ["problem=gan/ring", "penalty.r2x=9"], ["penalty.r2x=9", "no such key", "r1"],
    ),
    "key of vary": (
        ["vary.optimizer.lrr=[1]"], ["vary.optimizer.lrr=[1]", "did you mean lr"],
    ),
    "key that is new": (["+foo=1"], ["foo", "no such key"]),
    "problem": (
        ["problem=landscape/rosenbrok"],
        ["problem=landscape/rosenbrok", "did you mean landscape/rosenbrock", "gan/ring"],
    ),
    "problem without its domain": (["problem=cartpole"], ["problem=cartpole", "rl/cartpole"]),
    "problem by folder": (["problem/landscape=beale"], ["did you mean problem=landscape/beale"]),
    "problem from Python": (["problem=custom"], ["problem=custom", "playground.run"]),
    "algorithm": (["algorithm=pppo"], ["algorithm=pppo", "did you mean ppo", "reinforce"]),
    "loss": (["problem=gan/ring", "loss=wgann"], ["loss=wgann", "minimax, nonsaturating"]),
    "optimizer": (["optimizer=adm"], ["optimizer=adm", "did you mean adam", "rmsprop"]),
    "optimizer of a player": (
        ["optimizer@players.agent=adm"], ["optimizer@players.agent=adm", "did you mean adam"],
    ),
    "stepper": (["stepper=dirct"], ["stepper=dirct", "did you mean direct"]),
    "stepper of a round": (
        ["problem=gan/ring", "stepper=consensus"],
        ["stepper=consensus", "problem.rounds=simultaneous, not alternating"],
    ),
    "stepper over an optimizer": (
        ["problem=landscape/bilinear", "stepper=cgd", "optimizer@players.y=adam"],
        ["stepper=cgd", "players.y must be sgd, not adam"],
    ),
    "stepper of two players": (
        ["problem=landscape/beale", "optimizer=sgd", "stepper=cgd"],
        ["stepper=cgd", "2 players that train, not 1 (x)"],
    ),
    "stepper's player": (
        ["problem=landscape/bilinear", "stepper=unrolled"],
        ["stepper.player=generator", "allowed are x, y"],
    ),
    "stepper's key": (
        ["problem=landscape/bilinear", "stepper=sga", "stepper.gamma=1"],
        ["stepper.gamma", "strength"],
    ),
    "stepper's number": (
        ["problem=landscape/bilinear", "stepper=consensus", "stepper.gamma=-1"],
        ["stepper.gamma=-1", "at least 0"],
    ),
    "frozen player": (
        ["problem=gan/ring", "frozen=[discriminatr]"],
        ["frozen=[discriminatr]", "did you mean discriminator"],
    ),
    "everybody frozen": (
        ["problem=landscape/beale", "frozen=[x]"], ["frozen=[x]", "nobody is left to train"],
    ),
    "probes": (["probes=ligt"], ["probes=ligt", "did you mean light"]),
    "experiment": (["experiment=mescheder"], ["experiment=mescheder", "unknown"]),
    "group": (["optimiser=adam"], ["optimiser=adam", "did you mean optimizer"]),
    "text for a whole number": (["members=abc"], ["members=abc", "whole number", ">=1"]),
    "fraction for a whole number": (["threads=1.5"], ["threads=1.5", "whole number"]),
    "text for a number": (["optimizer.lr=fast"], ["optimizer.lr=fast", "must be a number", ">0"]),
    "boolean for a number": (["optimizer.lr=true"], ["optimizer.lr=true", "must be a number"]),
    "a compiled loop over time": (
        ["problem=rl/cartpole_no_velocity", "compile=true"], ["compile=true", "problem.memory="],
    ),
    "text for a boolean": (["compile=maybe"], ["compile=maybe", "true or false"]),
    "text for a list": (["problem.widths=abc"], ["problem.widths=abc", "must be a list"]),
    "null for a number": (["seed=null"], ["seed=null", "must not be null"]),
    "number for a group": (["budget=3"], ["budget=3", "group of keys"]),
    "list for a number": (["optimizer.lr=[1,2]"], ["optimizer.lr=[1,2]", "must be a number"]),
    "fraction of a budget": (["budget.updates=1.5"], ["budget.updates=1.5", "whole number"]),
    "zero members": (["members=0"], ["members=0", "at least 1"]),
    "negative members": (["members=-3"], ["members=-3", "at least 1"]),
    "negative seed": (["seed=-1"], ["seed=-1", "at least 0"]),
    "endless seed": (["seed=99999999999999999999"], ["seed=99999999999999999999", "at most"]),
    "NaN": (["optimizer.lr=nan"], ["optimizer.lr=nan", "finite"]),
    "infinity": (["optimizer.lr=inf"], ["optimizer.lr=inf", "finite"]),
    "negative lr": (["optimizer.lr=-1"], ["optimizer.lr=-1", "greater than 0"]),
    "range of beta": (["optimizer.beta1=1"], ["optimizer.beta1=1", "less than 1"]),
    "range of the discount": (["algorithm.gamma=1.5"], ["algorithm.gamma=1.5", "at most 1"]),
    "zero budget": (["budget.iterations=0"], ["budget.iterations=0", "at least 1"]),
    "choice": (["optimizer.schedule=linar"], ["optimizer.schedule=linar", "cosine"]),
    "dtype": (["dtype=float16"], ["dtype=float16", "float32, float64"]),
    "point of another dimension": (
        ["problem=landscape/beale", "problem.start=[1,2,3]"], ["problem.start=", "2 numbers"],
    ),
    "loss on a landscape": (
        ["problem=landscape/beale", "loss=minimax"],
        ["loss=minimax", "landscape/beale has no loss"],
    ),
    "algorithm on a gan": (
        ["problem=gan/ring", "algorithm=ppo"], ["algorithm=ppo", "gan/ring has no algorithm"],
    ),
    "algorithm's key on a gan": (
        ["problem=gan/ring", "algorithm.epochs=3"], ["algorithm.epochs=3", "has no algorithm"],
    ),
    "penalty on supervised": (
        ["problem=supervised/digits", "penalty.r1=1"], ["penalty.r1=1", "has no penalty"],
    ),
    "generator outside gan": (
        ["evaluate.generator=ema"], ["evaluate.generator=ema", "rl/cartpole has no generator"],
    ),
    "two budgets": (
        ["budget.iterations=1", "budget.updates=2"],
        ["budget.iterations=1", "budget.updates=2", "only one"],
    ),
    "a budget that is not counted": (
        ["problem=gan/ring", "budget.env_steps=5"],
        ["budget.env_steps=5", "does not count env_steps", "samples"],
    ),
    "unknown player": (
        ["optimizer@players.critic=adam"], ["players.critic", "has no player critic", "agent"],
    ),
    "key of an unknown player": (
        ["players.critic.lr=1"], ["players.critic.lr=1", "has no player critic", "agent"],
    ),
    "player of another algorithm": (
        ["optimizer@players.policy=adam"], ["has no player policy", "agent"],
    ),
    "player without an optimizer": (
        ["players.agent.lr=1"], ["players.agent.lr=1", "optimizer@players.agent=adam"],
    ),
    "vary of a name": (
        ["vary.optimizer.schedule=[linear]"], ["vary.optimizer.schedule", "cannot vary", "lr"],
    ),
    "vary of text": (["vary.optimizer.lr=[a,b]"], ["vary.optimizer.lr", "a is not a number"]),
    "vary of nothing": (["vary.optimizer.lr=[]"], ["vary.optimizer.lr=[]", "list of numbers"]),
    "vary of one number": (["vary.optimizer.lr=3"], ["vary.optimizer.lr=3", "list of numbers"]),
    "vary out of range": (["vary.optimizer.lr=[1,-1]"], ["vary.optimizer.lr=-1", "greater than 0"]),
    "vary of the seed": (["vary.seed=[1,2]"], ["vary.seed=[1,2]", "may vary"]),
    "vary of an unknown key": (["vary.foo=[1]"], ["vary.foo=[1]", "may vary"]),
    "vary of a player without an optimizer": (
        ["vary.players.agent.lr=[1]"], ["vary.players.agent.lr=[1]", "optimizer of its own"],
    ),
    "device": (["device=tpu"], ["device=tpu", "auto, cpu, cuda"]),
    "missing run": (["resume={here}/nowhere"], ["resume=", "nowhere", "no such run"]),
    "a folder that is no run": (["resume={here}"], ["resume=", "not a run"]),
    "finished run": (["resume={run}"], ["resume=", "is finished", "budget.iterations=8"]),
    "resume with another key": (["resume={run}", "seed=1"], ["seed=1", "budget.*"]),
    "resume with another budget": (
        ["resume={run}", "budget.updates=99"], ["budget.updates=99", "in iterations"],
    ),
    "smaller budget": (["resume={run}", "budget.iterations=3"], ["budget.iterations=3", "smaller"]),
    "resume twice": (["resume={run}", "resume={run}"], ["only one run"]),
    "name that climbs out": (["name=../x"], ["name=../x", "letters"]),
    "run_dir that climbs out": (["run_dir=../x"], ["run_dir=../x", "absolute"]),
    "run_dir in use": (["run_dir={run}"], ["run_dir=", "exists and is not empty"]),
    "run_dir that is a file": (["run_dir={run}/config.yaml"], ["run_dir=", "exists"]),
    "batch that does not divide": (
        ["algorithm.batch_size=100"], ["algorithm.batch_size=100", "must divide"],
    ),
    "option without effect": (
        ["problem=landscape/beale", "optimizer.final=0.5"],
        ["optimizer.final=0.5", "no effect", "schedule"],
    ),
    "torch without a class": (["optimizer=torch"], ["optimizer.class_name", "NAdam"]),
    "option written as a key": (["optimizer.name=sgd"], ["optimizer=sgd"]),
    "no equals sign": (["landscape"], ["landscape", "key=value"]),
    "no key": (["=3"], ["=3", "key=value"]),
    "no value": (["seed="], ["seed=", "value is missing"]),
    "key taken away": (["~seed"], ["~seed", "seed"]),
    "bracket not closed": (["problem.start=[1"], ["problem.start=[1", "do not match"]),
    "brace not closed": (["problem.env_kwargs={{a:1"], ["env_kwargs", "do not match"]),
    "quote not closed": (["name='a"], ["name='a", "quote"]),
    "reference to nothing": (["seed=${{nothing}}"], ["seed", "nothing"]),
    "several values without -m": (["seed=1,2"], ["seed=1,2", "-m"]),
    "Hydra's keys without -m": (["hydra.run.dir=/tmp/x"], ["hydra.run.dir", "-m"]),
    "flag": (["--frob"], ["--frob", "no such flag"]),
    "flag almost right": (["--halp"], ["--halp", "did you mean --help"]),
    "flag's value": (["--cfg", "jobs"], ["--cfg", "jobs", "job"]),
    "flag without effect": (["--resolve"], ["--resolve", "--cfg"]),
    "help of an unknown problem": (["--help", "problem=gan/rung"], ["did you mean gan/ring"]),
    "configuration of an unknown key": (["--cfg", "job", "sede=1"], ["did you mean seed"]),
    "sweep with a wrong job": (["-m", "optimizer=adam,adm"], ["optimizer=adm", "adam"]),
    "sweep with a wrong last job": (["-m", "members=1,2,0"], ["members=0", "at least 1"]),
    "sweep that resumes": (["-m", "resume={run}"], ["resume=", "run_dir="]),
    "sweep into a run": (["-m", "seed=0,1", "run_dir={run}"], ["run_dir=", "not empty"]),
    "sweep over an interval": (["-m", "optimizer.lr=interval(0,1)"], ["optimizer.lr", "list"]),
    "sweep into Hydra's folder": (["-m", "seed=0,1", "hydra.sweep.dir=x"], ["run_dir"]),
}  # fmt: skip

LOADING_TORCH = {
    "no accelerator": (["device=cuda:99"], ["device=cuda:99", "CUDA"]),
    "argument of a torch class": (
        [
            "problem=landscape/beale",
            "optimizer=torch",
            "optimizer.class_name=SGD",
            "optimizer.kwargs={lr_decay:1}",
        ],
        ["optimizer.kwargs={'lr_decay': 1}", "unexpected keyword"],
    ),
    "value for a torch class": (
        [
            "problem=landscape/beale",
            "optimizer@players.x=torch",
            "players.x.class_name=Adam",
            "players.x.kwargs={betas:[0.9]}",
        ],
        ["players.x.kwargs={'betas': [0.9]}"],
    ),
    "no accelerator in a sweep": (["-m", "seed=0,1", "device=cuda:99"], ["device=cuda:99"]),
    "unknown environment": (["problem.env=Foo-v1"], ["problem.env=Foo-v1"]),
    "discrete actions": (["problem.squash=true"], ["problem.squash=true", "continuous actions"]),
}
"""Decided only with torch or gymnasium."""

WORKER = """
import contextlib, io, json, os, sys
from playground.__main__ import command
rows = []
for arguments in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = command(arguments)
        except BaseException as error:
            code = repr(error)
    heavy = sorted({"torch", "gymnasium", "matplotlib"} & set(sys.modules))
    rows.append([code, out.getvalue(), err.getvalue(), os.listdir(), heavy])
json.dump(rows, sys.stdout)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run."""
    path = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("playground.report.draw_all", lambda run: [])
        playground.run(
            ["problem=landscape/beale", "budget.iterations=4", f"run_dir={path}"], quiet=True
        )
    return path


def fill(arguments, run, here):
    return [item.format(run=run, here=here) for item in arguments]


@pytest.fixture(scope="module")
def outcomes(finished, tmp_path_factory):
    """{what: (code, stdout, stderr, left behind, heavy modules)} in a process without torch."""
    here = tmp_path_factory.mktemp("here")
    commands = [fill(arguments, finished, here) for arguments, _ in BAD.values()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", WORKER], input=json.dumps(commands), text=True,
        capture_output=True, cwd=here, env=environment, check=True,
    )  # fmt: skip
    return dict(zip(BAD, json.loads(result.stdout), strict=True))


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_clear_line(what, outcomes):
    code, out, err, left, heavy = outcomes[what]
    assert_clear(code, out, err, BAD[what][1])
    assert left == []
    assert heavy == [], "an error that needs no torch must not wait for it"


def assert_clear(code, out, err, fragments):
    assert code == 2, (code, err)
    assert out == ""
    assert err.startswith("playground: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert "Traceback" not in err
    for fragment in fragments:
        assert fragment in err


@pytest.mark.parametrize("what", LOADING_TORCH)
def test_bad_input_that_needs_torch(what, here, capsys):
    arguments, fragments = LOADING_TORCH[what]
    code = command(arguments)
    out, err = capsys.readouterr()
    assert_clear(code, out, err, fragments)
    assert list(here.iterdir()) == []


def test_a_refused_resume_leaves_the_run_as_it_was(finished, outcomes):
    assert playground.load(finished).manifest["status"] == "finished"
    assert playground.load(finished).config["budget"]["iterations"] == 4


@pytest.mark.parametrize("what", ["key of the root", "flag", "sweep with a wrong job"])
def test_in_a_real_process(what, here):
    arguments, fragments = BAD[what]
    result = process(arguments, here)
    assert_clear(result.returncode, result.stdout, result.stderr, fragments)
    assert list(here.iterdir()) == []


def process(arguments, cwd):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "playground", *arguments], text=True, cwd=cwd,
        capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip


def test_version(capsys):
    assert command(["--version"]) == 0
    assert capsys.readouterr().out == f"gradient-playground {playground.__version__}\n"


def shown(capsys, *overrides):
    assert command(["--help", *overrides]) == 0
    return capsys.readouterr().out


def values(text):
    """{key: value} of the lines ``  key=value  what it is``."""
    return dict(re.findall(r"^  ([\w.]+)=(\S+)", text, re.M))


def test_help_lists_every_group_and_option(capsys):
    text = shown(capsys)
    conf = ROOT / "conf"
    for group in ("problem", "algorithm", "loss", "optimizer", "stepper", "probes"):
        assert re.search(rf"^  {group} ", text, re.M)
        for file in (conf / group).rglob("*.yaml"):
            option = file.relative_to(conf / group).with_suffix("").as_posix()
            assert (option in text) == (option != "custom"), option
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    "overrides",
    [[], ["problem=gan/ring"], ["problem=rl/cartpole", "algorithm=reinforce"],
     ["problem=supervised/digits", "optimizer=sgd"], ["problem=landscape/bilinear"],
     ["problem=gan/dirac", "optimizer@players.generator=adam", "players.generator.lr=0.3"]],
)  # fmt: skip
def test_help_shows_the_values_in_force(overrides, capsys):
    from playground.config import compose, to_dict
    from playground.crosschecks import budget

    text = shown(capsys, *overrides)
    config = compose(overrides)
    found = values(text)
    counter, amount = budget(config)
    assert found.pop(f"budget.{counter}") == str(amount)
    assert found.pop("vary.KEY") == "[...]"
    tree = to_dict(config)
    assert len(found) > 15
    for key, value in found.items():
        node = tree
        for part in key.split("."):
            node = node[part]
        if isinstance(node, float):
            assert float(value) == pytest.approx(node, rel=1e-5), key
        elif not isinstance(node, list | dict):
            typed = "null" if node is None else str(node)
            assert value == (typed.lower() if isinstance(node, bool) else typed), key


@pytest.mark.parametrize("problem", ["gan/ring", "landscape/beale", "rl/cartpole"])
def test_help_of_a_problem_shows_each_of_its_keys(problem, capsys):
    import dataclasses

    from playground.config import compose

    config = compose([f"problem={problem}"])
    found = values(shown(capsys, f"problem={problem}"))
    for group in ("problem", "algorithm", "penalty", "optimizer"):
        node = getattr(config, group)
        fields = dataclasses.fields(node) if node is not None else ()
        hidden = ("name", "tuned", "default_budget")
        for field in fields:
            assert field.name in hidden or f"{group}.{field.name}" in found


def test_help_of_another_problem_shows_nothing_of_gans(capsys):
    text = shown(capsys, "problem=landscape/beale")
    assert "evaluate.generator" not in text
    assert "penalty." not in text
    assert "env_steps" not in text


def test_hydras_flags(here):
    import yaml

    result = process(["--cfg", "job", "--resolve", "problem=gan/ring", "seed=3"], here)
    assert result.returncode == 0, result.stderr
    tree = yaml.safe_load(result.stdout)
    assert tree["seed"] == 3
    assert tree["problem"]["name"] == "gan/ring"
    assert tree["optimizer"]["name"] == "adam"
    part = process(["-c", "job", "-p", "stepper", "problem=gan/ring"], here)
    assert yaml.safe_load(part.stdout) == {"name": "direct"}
    searched = process(["--info", "searchpath"], here)
    assert str(ROOT / "conf") in searched.stdout
    assert list(here.iterdir()) == []


def test_flags_and_overrides_mix():
    given = flags(["seed=1", "-m", "optimizer=adam,sgd", "--info"])
    assert given.multirun
    assert given.info == "all"
    assert given.overrides == ["seed=1", "optimizer=adam,sgd"]


def test_exit_codes_of_a_run(here, capsys, without_figures):
    assert command(["problem=landscape/beale", "budget.iterations=3", "run_dir=a"]) == 0
    diverging = ["problem=landscape/rosenbrock", "optimizer=sgd", "optimizer.lr=1e3"]
    capsys.readouterr()
    assert command([*diverging, "budget.iterations=50", "probes=none", "run_dir=b"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "player x, member 0" in err
    assert playground.load("b").manifest["status"] == "failed"
