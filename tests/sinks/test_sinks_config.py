"""What may be asked of sinks: one clear line for everything else, before any work."""

from importlib.util import find_spec

import pytest
from harness import quiet
from harness import resume as go_on

import playground
from playground.__main__ import command
from playground.config import compose, from_dict, to_dict
from playground.schema import ConfigError

from .reading import SMALL_RUN

WRONG = {
    "unknown": (["sinks=[tensorbord]"], "sinks=[tensorbord]: unknown; did you mean tensorboard?"),
    "null": (["sinks=null"], "sinks=null: must be a list, as in sinks=[tensorboard] or sinks=[]"),
    "key of another": (["sinks.wandb.project=a"], "choose the sink too, as in sinks=[wandb]"),
    "key": (["sinks=[tensorboard]", "sinks.tensorboard.dri=a"], "did you mean dir?"),
    "module": (["sinks=[wandb]", "sinks.wandb.module=os"], "allowed are wandb, trackio"),
    "members": (["sinks.members=all"], "sinks.members=all: allowed are each, mean"),
    "patience": (["sinks.patience=0"], "sinks.patience=0.0: must be greater than 0"),
    "counter": (["problem=gan/ring", "sinks.step=env_steps"], "does not count env_steps"),
    "step": (["sinks.step=iterations"], "(allowed are iteration, updates, "),
}


@pytest.mark.parametrize(("overrides", "message"), WRONG.values(), ids=WRONG)
def test_wrong_configurations(overrides, message, here, capsys):
    assert command(overrides) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(here.iterdir())


@pytest.mark.parametrize("given", ["sinks=[tensorboard]", "sinks=tensorboard"])
def test_a_configuration_is_data(given):
    config = compose([given, "sinks.tensorboard.dir=a", "sinks.tensors=['*.weight',b]"])
    assert list(config.sinks.chosen) == ["tensorboard"]
    assert config.sinks.tensors == ["*.weight", "b"]
    assert from_dict(to_dict(config)) == config
    assert not compose(["sinks=[]"]).sinks.chosen
    assert not from_dict({k: v for k, v in to_dict(config).items() if k != "sinks"}).sinks.chosen


@pytest.fixture
def nothing_installed(monkeypatch):
    """As where only the playground is installed."""
    optional = ("tensorboard", "mlflow", "sqlalchemy", "alembic", "wandb", "trackio")

    def found(name):
        return None if name in optional else find_spec(name)

    monkeypatch.setattr("playground.record.sinks.config.find_spec", found)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sinks=[tensorboard]"], "tensorboard is not installed; pip install "
                                  "'gradient-playground[tensorboard]'"),
        (["sinks=[mlflow]"], "mlflow is not installed; pip install 'gradient-playground[mlflow]'"),
        (["sinks=[wandb]"], "wandb is not installed; pip install 'gradient-playground[wandb]'"),
        (["sinks=[wandb]", "sinks.wandb.module=trackio"], "trackio is not installed; pip install"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("nothing_installed")
def test_a_library_that_is_not_installed(overrides, message, here, capsys):
    assert command([*overrides, "run_dir=run"]) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(ConfigError, match="is not installed"):
        playground.run([*overrides, "run_dir=run"], quiet=True)
    assert not list(here.iterdir())


def test_mlflow_alone_has_no_database(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(
        "playground.record.sinks.config.find_spec", lambda name: None if name == "alembic" else name
    )
    with pytest.raises(ConfigError, match=r"alembic is not installed; .*\[mlflow\]"):
        compose(["sinks=[mlflow]"])
    assert compose(["sinks=[mlflow]", "sinks.mlflow.uri='http://localhost:5000'"]).sinks.chosen
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    assert compose(["sinks=[mlflow]"]).sinks.chosen


def test_a_run_is_read_where_its_sink_is_not_installed(tmp_path, monkeypatch, without_figures):
    run = quiet([*SMALL_RUN["gan"], "sinks=[tensorboard]"], tmp_path / "run")
    monkeypatch.setattr("playground.record.sinks.config.find_spec", lambda name: None)
    assert run.player("generator") is not None
    with pytest.raises(ConfigError, match="tensorboard is not installed"):
        go_on(tmp_path / "run", "budget.iterations=20")
    go_on(tmp_path / "run", "budget.iterations=20", "sinks=[]")


def test_a_tensor_that_nobody_has(tmp_path):
    with pytest.raises(ConfigError, match=r"sinks.tensors=\[7.weight\]: no such tensor \(allowed"):
        quiet([*SMALL_RUN["gan"], "sinks=[tensorboard]", "sinks.tensors=[7.weight]"], tmp_path)


def test_a_resumed_run_may_not_change_more(tmp_path, without_figures):
    quiet(SMALL_RUN["gan"], tmp_path / "run")
    with pytest.raises(ConfigError, match="did you mean tensorboard"):
        go_on(tmp_path / "run", "budget.iterations=20", "sinks=[tensorbord]")
    with pytest.raises(ConfigError, match="the run is finished"):
        go_on(tmp_path / "run", "sinks=[tensorboard]")
