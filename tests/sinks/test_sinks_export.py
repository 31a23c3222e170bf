"""A run that is exported afterwards gives what a sink had while it trained."""

import subprocess
import sys
from pathlib import Path

import pytest
from harness import quiet

import playground
from playground.record.sinks import TensorBoard
from playground.record.sinks.export import export
from playground.schema import ConfigError

from .reading import SMALL_RUN, events

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "export.py"
pytestmark = pytest.mark.usefixtures("without_figures")


def content(folder):
    """{file's folder: every event but the header, with its wall time}."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found = {}
    for file in sorted(folder.rglob("events.out.tfevents.*")):
        every = [e for e in LegacyEventFileLoader(str(file)).Load() if e.HasField("summary")]
        found[file.parent.name] = [
            (e.step, e.wall_time, sorted((v.tag, repr(v.simple_value)) for v in e.summary.value))
            for e in every
            if all(v.tag != "config" for v in e.summary.value)
        ]
    return found


@pytest.mark.parametrize("kind", SMALL_RUN)
def test_an_export_equals_what_was_mirrored(tmp_path, kind):
    run = quiet([*SMALL_RUN[kind], "sinks=[tensorboard]", "probes=standard"], tmp_path / "run")
    report = export(run, TensorBoard(tmp_path / "out"))
    assert not report.trouble()
    assert report.scalars == run.manifest["sinks"]["tensorboard"]["scalars"]
    live = content(tmp_path / "run" / "tensorboard")
    after = content(tmp_path / "out")
    assert list(live.values()) == list(after.values())
    assert sum(map(len, live.values())) > 10


def test_events_that_are_there_are_not_added_to(tmp_path):
    run = quiet([*SMALL_RUN["gan"], "sinks=[tensorboard]"], tmp_path / "run")
    before = events(tmp_path / "run" / "tensorboard")
    with pytest.raises(ConfigError, match="has events already; give another folder"):
        export(run, TensorBoard())
    assert events(tmp_path / "run" / "tensorboard") == before


def script(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False
    )


def test_the_command(tmp_path):
    quiet([*SMALL_RUN["ppo"], "members=3"], tmp_path / "run")
    out = tmp_path / "out"
    path = str(tmp_path / "run")
    done = script(path, "--to", "tensorboard", "--out", str(out), "members=mean")
    assert done.returncode == 0, done.stderr
    assert f"{out / 'run'}" in done.stdout
    run = playground.load(tmp_path / "run")
    _, values = run.metric("return")
    curve = events(out / "run")["return"]
    assert [value for _, value in curve] == pytest.approx(values.mean(axis=1).tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "comet"], "sinks=[comet]: unknown"),
        (["--to", "tensorboard", "tensors=[7.weight]"], "no such tensor"),
        (["--to", "tensorboard", "member=mean"], "did you mean members"),
    ],
)
def test_wrong_commands(tmp_path, arguments, message):
    quiet(SMALL_RUN["gan"], tmp_path / "run")
    done = script(str(tmp_path / "run"), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "run" / "tensorboard").exists()
