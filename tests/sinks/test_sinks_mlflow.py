"""MLflow's own client reads back what the records hold."""

import pytest
from harness import quiet
from harness import resume as go_on

from playground.record.reader import Run
from playground.record.sinks import MLflow
from playground.record.sinks.export import export
from playground.session import Session

from .reading import SMALL_RUN, assert_curves, gradients, recorded

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")
pytest.importorskip("alembic")
pytestmark = [
    pytest.mark.slow,  # making a database takes MLflow several seconds
    pytest.mark.usefixtures("without_figures"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


def tracks(uri, experiment):
    """MLflow's runs of an experiment, by name."""
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return client, {r.info.run_name: r for r in client.search_runs([found.experiment_id])}


def curves(client, run):
    """All histories of an MLflow run, as they are stored."""
    return {
        name: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


def overrides(uri, experiment, kind="ppo"):
    return [*SMALL_RUN[kind], "sinks=[mlflow]", f"sinks.mlflow.uri='{uri}'", "sinks.patience=60",
            f"sinks.mlflow.experiment={experiment}"]  # fmt: skip


def assert_whole(uri, experiment, run, names, step):
    client, found = tracks(uri, experiment)
    assert sorted(found) == names
    for member, name in enumerate(names):
        stored = curves(client, found[name])
        assert_curves(stored, {
            name: curve for name, curve in recorded(run, member, step).items()
            if not any(value != value for _, value in curve)
        })  # fmt: skip
        wanted = {name for _, name in gradients(run, member)}
        assert wanted <= set(stored)
    return found


def test_a_run_of_two_members(tmp_path, uri):
    plain = quiet(SMALL_RUN["ppo"], tmp_path / "plain")
    run = quiet(overrides(uri, "two"), tmp_path / "run")
    assert run.metric("return")[1].tolist() == plain.metric("return")[1].tolist()
    found = assert_whole(uri, "two", run, ["run/member-0", "run/member-1"], "env_steps")
    one = found["run/member-1"]
    assert one.info.status == "FINISHED"
    assert one.data.params["algorithm.num_steps"] == "32"
    assert one.data.params["seeds"] == "(1,)"
    again = export(Run(tmp_path / "run"), MLflow(uri, "two"))
    assert not again.trouble()
    assert_whole(uri, "two", run, ["run/member-0", "run/member-1"], "env_steps")


def test_an_export_fills_a_gap(tmp_path, uri, monkeypatch):
    scalars = MLflow.scalars

    def forgetful(sink, track, point, values):
        if point.iteration in (4, 5):
            raise OSError("planted")
        scalars(sink, track, point, values)

    with monkeypatch.context() as patch:
        patch.setattr(MLflow, "scalars", forgetful)
        run = quiet(overrides(uri, "gap", "gan"), tmp_path / "run")
    assert run.manifest["sinks"]["mlflow"]["failures"] == 2
    client, found = tracks(uri, "gap")
    assert len(curves(client, found["run"])["generator/loss"]) == 10
    assert not export(run, MLflow(uri, "gap")).trouble()
    assert_whole(uri, "gap", run, ["run"], "iteration")


def test_a_run_that_fails_and_goes_on_has_every_step_once(tmp_path, uri, monkeypatch):
    real = Session.iterate

    def iterate(session):
        if session.iteration == 7:
            raise RuntimeError("planted")
        real(session)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "iterate", iterate)
        with pytest.raises(RuntimeError, match="planted"):
            quiet(overrides(uri, "stopped", "gan"), tmp_path / "run")
    _, found = tracks(uri, "stopped")
    assert found["run"].info.status == "FAILED"
    assert found["run"].data.tags["playground.iteration"] == "7"
    run = go_on(tmp_path / "run")
    assert "closed" not in run.manifest["sinks"]["mlflow"], run.manifest["sinks"]
    found = assert_whole(uri, "stopped", run, ["run"], "iteration")
    assert found["run"].info.status == "FINISHED"


def test_a_store_that_is_not_there(tmp_path):
    (tmp_path / "file").write_text("")
    uri = f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}"
    run = quiet(overrides(uri, "none", "gan"), tmp_path / "run")
    told = run.manifest["sinks"]["mlflow"]
    assert told["failures"] >= 1
    assert told["error"]
    assert run.manifest["status"] == "finished"
