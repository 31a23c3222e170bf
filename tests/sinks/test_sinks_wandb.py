"""The file that W&B keeps offline holds what the records hold."""

import json
import os
import struct
import sys
import time
import types

import pytest
from harness import quiet
from harness import resume as go_on

from playground.record.sinks import WandB
from playground.record.sinks.export import export

from .reading import SMALL_RUN, assert_curves, recorded

pytestmark = [
    pytest.mark.usefixtures("without_figures"),
    pytest.mark.filterwarnings("ignore"),
]


def records(content):
    """The records of a W&B file: LevelDB's log format after a header of 7 bytes."""
    assert content[:4] == b":W&B"
    place, parts = 7, []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # the rest of a block is padding
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        if place + 7 + length > len(content):
            return  # not written yet
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield b"".join(parts)
            parts = []


def written(file, seconds=20.0):
    """The records of a file once the last, ``exit``, is there: a process of W&B's writes it."""
    from wandb.proto.wandb_internal_pb2 import Record

    end = time.monotonic() + seconds
    while True:
        found = [Record.FromString(data) for data in records(file.read_bytes())]
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        assert time.monotonic() < end, f"{file} has no end"
        time.sleep(0.02)


def offline(path):
    """{name of the run: (configuration, {name: curve})} of a run directory's W&B files."""
    found = {}
    for file in sorted(path.glob("wandb/offline-run-*/run-*.wandb")):
        curves, config, name = {}, {}, ""
        for record in written(file):
            if record.WhichOneof("record_type") == "run":
                name = record.run.display_name
                config = {i.key: json.loads(i.value_json) for i in record.run.config.update}
            elif record.WhichOneof("record_type") == "history":
                row = {(i.key or "/".join(i.nested_key)): json.loads(i.value_json)
                       for i in record.history.item}  # fmt: skip
                step = record.history.step.num
                for key, value in row.items():
                    if not key.startswith("_"):
                        value = float(value) if isinstance(value, str) else value
                        curves.setdefault(key, []).append((step, value))
        found[name] = config, curves
    return found


@pytest.fixture
def wandb(monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    return pytest.importorskip("wandb")


def test_a_run_of_two_members(tmp_path, wandb):
    run = quiet([*SMALL_RUN["ppo"], "sinks=[wandb]", "sinks.wandb.project=p"], tmp_path / "run")
    assert "closed" not in run.manifest["sinks"]["wandb"], run.manifest["sinks"]
    found = offline(tmp_path / "run")
    assert sorted(found) == ["run/member-0", "run/member-1"]
    for member in (0, 1):
        config, curves = found[f"run/member-{member}"]
        assert_curves(curves, recorded(run, member, "env_steps"))
        assert config["track"]["seeds"] == [member]
        assert config["algorithm"]["num_steps"] == 32
        assert [value for _, value in curves["iteration"]] == list(range(13))
        assert "charts/SPS" in curves
    plain = quiet(SMALL_RUN["ppo"], tmp_path / "plain")
    assert run.metric("return")[1].tolist() == plain.metric("return")[1].tolist()


def test_a_resumed_run_is_a_whole_run_of_its_own(tmp_path, wandb):
    quiet([*SMALL_RUN["gan"], "sinks=[wandb]"], tmp_path / "run")
    run = go_on(tmp_path / "run", "budget.iterations=16")
    found = offline(tmp_path / "run")
    assert sorted(found) == ["run", "run-1"]
    assert_curves(found["run-1"][1], recorded(run, 0))


def test_an_export(tmp_path, wandb):
    run = quiet(SMALL_RUN["gan"], tmp_path / "run")
    assert not export(run, WandB("p")).trouble()
    ((_, curves),) = offline(tmp_path / "run").values()
    assert_curves(curves, recorded(run, 0))


class Fake(types.ModuleType):
    """A module with the calls of W&B that trackio has too."""

    def __init__(self):
        super().__init__("trackio")
        self.runs = []

    def init(self, project, name=None, group=None, config=None):
        self.runs.append(types.SimpleNamespace(project=project, name=name, group=group, rows=[]))
        run = self.runs[-1]
        run.log = lambda values, step: run.rows.append((step, values))
        run.finish = lambda: run.rows.append("finished")
        return run


def test_trackio_gets_the_calls_that_it_has(tmp_path, monkeypatch):
    fake = Fake()
    monkeypatch.setitem(sys.modules, "trackio", fake)
    monkeypatch.setattr("playground.record.sinks.config.find_spec", lambda name: name)
    before = dict(os.environ)
    run = quiet(
        [*SMALL_RUN["gan"], "sinks=[wandb]", "sinks.wandb.module=trackio"], tmp_path / "run"
    )
    assert dict(os.environ) == before
    (one,) = fake.runs
    assert (one.project, one.name, one.group) == ("playground", "run", "run")
    assert one.rows.pop() == "finished"
    curves = {}
    for step, values in one.rows:
        for name, value in values.items():
            curves.setdefault(name, []).append((step, value))
    assert_curves(curves, recorded(run, 0))
