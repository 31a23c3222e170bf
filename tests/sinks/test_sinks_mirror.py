"""A sink that fails never reaches training: whatever it does is caught, counted and told once."""

import threading
import time
from pathlib import Path

import pytest
import torch
from harness import Command, assert_same, final, load

import playground
from playground.record.sinks import Sink, TensorBoard
from playground.record.sinks.mirror import WAITING
from playground.schema import ConfigError
from playground.session import Session

from .reading import SMALL_RUN, assert_curves, events, recorded, single

pytestmark = pytest.mark.usefixtures("without_figures")


class Kept(Sink):
    """Keeps what it gets; raises where it is told to."""

    name = "kept"

    def __init__(self, *fails):
        self.fails, self.rows, self.texts, self.calls = fails, [], [], []

    def open(self, run):
        self.run, self.where = run, "memory"
        self._call("open")

    def scalars(self, track, point, values):
        self._call("scalars")
        self.rows.append((track, point.step, dict(values)))

    def text(self, track, point, kind, message):
        self.texts.append((track, kind, message))

    def flush(self):
        self._call("flush")

    def close(self, status):
        self.status = status
        self._call("close")

    def _call(self, what):
        self.calls.append((what, threading.current_thread() is threading.main_thread()))
        if what in self.fails:
            raise OSError(28, "No space left on device")


def small(path, *sinks, more=()):
    return playground.run([*SMALL_RUN["gan"], *more, f"run_dir={path}"], sinks=sinks, quiet=True)


@pytest.mark.parametrize("where", ["open", "scalars", "flush", "close"])
def test_a_sink_that_raises(tmp_path, where):
    plain = small(tmp_path / "plain")
    failing, good = Kept(where), Kept()
    run = small(tmp_path / "run", failing, good)
    assert_same(final(plain), final(run))
    assert run.manifest["status"] == "finished"
    told = run.manifest["sinks"]["kept"]
    assert "No space left" in told["error"]
    assert told["closed"] == (where not in ("open", "close"))
    assert told["failures"] == len([c for c, _ in failing.calls if c == where])
    assert (told["dropped_rows"] > 0) == (where == "open")
    other = run.manifest["sinks"]["kept-2"]
    assert other == {"where": "memory", "scalars": sum(len(row[2]) for row in good.rows)}
    assert not any(main for _, main in failing.calls + good.calls)
    assert good.status == "finished"


def test_the_first_error_is_an_event_and_one_line(tmp_path, capsys, monkeypatch):
    flush = Session.flush

    def slowly(session):
        flush(session)
        time.sleep(0.1)  # for the sink to fail before the run ends

    monkeypatch.setattr(Session, "flush", slowly)
    playground.run(
        [*SMALL_RUN["gan"], f"run_dir={tmp_path / 'run'}"], sinks=[Kept("scalars", "close")]
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if "sink kept" in line]
    assert len(lines) == 1
    assert "No space left" in lines[0]
    events = load(tmp_path / "run").events.to_pylist()
    assert [row["kind"] for row in events] == ["sink/kept"]


def test_a_sink_that_never_comes_back(tmp_path):
    release = threading.Event()

    class Hanging(Kept):
        def scalars(self, track, point, values):
            release.wait()

    before = time.monotonic()
    run = small(tmp_path / "run", Hanging(), Kept(), more=["sinks.patience=0.5"])
    assert time.monotonic() - before < 30
    release.set()
    told = run.manifest["sinks"]
    assert told["kept"]["error"] == "it did not come to its end in time"
    assert not told["kept"]["closed"]
    assert "closed" not in told["kept-2"]  # nobody waits for the other
    assert run.manifest["status"] == "finished"
    assert_same(final(small(tmp_path / "plain")), final(run))


@pytest.mark.slow
def test_a_sink_that_is_too_slow_loses_rows_and_says_so(tmp_path, monkeypatch):
    release = threading.Event()

    class Slow(Kept):
        def scalars(self, track, point, values):
            release.wait()
            super().scalars(track, point, values)

    monkeypatch.setattr("playground.record.writer.Recorder.due", lambda self: True)
    slow, iterations = Slow(), WAITING + 40
    real = Session.run

    def run_and_release(session):
        real(session)
        release.set()

    monkeypatch.setattr(Session, "run", run_and_release)
    run = small(tmp_path / "run", slow, more=[f"budget.iterations={iterations}"])
    told = run.manifest["sinks"]["kept"]
    assert told["closed"]
    assert told["dropped_rows"] > 0
    every = {r["iteration"] for r in run.metrics.to_pylist()}
    assert len({step for _, step, _ in slow.rows}) < len(every)


def test_a_full_disk_of_event_files(tmp_path):
    class Full(TensorBoard):
        def open(self, run):
            super().open(run)
            for place, file in enumerate(self._files):
                file.close()
                full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
                self._files[place] = type(file)(full)

    run = small(tmp_path / "run", Full())
    assert "No space left on device" in run.manifest["sinks"]["tensorboard"]["error"]
    assert_same(final(run), final(small(tmp_path / "plain")))


@pytest.mark.slow
def test_files_that_may_not_grow(tmp_path):
    """The kernel refuses every file beyond a size that the records never reach."""
    arguments = [*SMALL_RUN["gan"], "sinks=[tensorboard]", "budget.iterations=300",
                 "checkpoint.every=300", "evaluate.every=50", "probes=none"]  # fmt: skip
    command = Command([*arguments, f"run_dir={tmp_path / 'a'}"], tmp_path / "log", 40_000)
    assert command.wait() == 0, command.output()
    run = load(tmp_path / "a")
    assert "File too large" in run.manifest["sinks"]["tensorboard"]["error"]
    assert command.output().count("sink tensorboard") == 1


def test_a_run_that_fails_tells_its_sinks(tmp_path):
    kept = Kept()
    with pytest.raises(playground.run.RunFailed):
        playground.run(
            ["problem=landscape/rosenbrock", "optimizer=sgd", "optimizer.lr=1e10",
             "budget.iterations=20", f"run_dir={tmp_path / 'run'}"], sinks=[kept], quiet=True,
        )  # fmt: skip
    assert kept.status == "failed"
    assert any(kind == "nonfinite" for _, kind, _ in kept.texts)
    assert load(tmp_path / "run").manifest["sinks"]["kept"]["scalars"] > 0


def test_members_and_their_events_go_to_their_tracks(tmp_path):
    kept = Kept()
    run = playground.run(
        ["problem=landscape/rosenbrock", "optimizer=sgd", "vary.optimizer.lr=[1e-3,1e10]",
         "members=2", "budget.iterations=20", f"run_dir={tmp_path / 'run'}"],
        sinks=[kept], quiet=True,
    )  # fmt: skip
    assert [track.name for track in kept.run.tracks] == [f"member-{k}" for k in range(4)]
    assert [track.values["optimizer.lr"] for track in kept.run.tracks] == [1e-3, 1e-3, 1e10, 1e10]
    assert [track.seeds for track in kept.run.tracks] == [(0,), (1,), (0,), (1,)]
    broken = {track for track, kind, _ in kept.texts if kind == "nonfinite"}
    assert broken == {2, 3}
    for member in range(4):
        curves = {}
        for track, step, values in kept.rows:
            if track == member:
                for name, value in values.items():
                    curves.setdefault(name, []).append((step, value))
        assert_curves(curves, recorded(run, member))


def test_what_is_no_sink_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"must be a playground\.record\.sinks\.Sink object"):
        small(tmp_path / "run", "tensorboard")
    assert not (tmp_path / "run").exists()


def loop(path, **options):
    """A loop of two players whose losses are logged before and after their steps."""
    torch.manual_seed(0)
    nets = {name: torch.nn.Linear(3, 1) for name in ("a", "b")}
    pairs = {n: (net, torch.optim.SGD(net.parameters(), lr=0.1)) for n, net in nets.items()}
    with playground.watch(pairs, run_dir=path, **options) as watcher:
        for k in range(20):
            for name, (net, optimizer) in pairs.items():
                optimizer.zero_grad()
                loss = net(torch.ones(2, 3)).square().mean()
                loss.backward()
                optimizer.step()
                watcher.log(loss=loss, player=name)
                if k % 7 == 0:
                    watcher.flush()
            watcher.log(total=k)
    return nets, playground.load(path)


def test_a_watched_loop_is_mirrored(tmp_path):
    plain, _ = loop(tmp_path / "plain")
    kept = Kept()
    nets, run = loop(tmp_path / "run", sinks=["tensorboard", kept])
    for name, net in nets.items():
        assert torch.equal(net.weight, plain[name].weight)
    found = events(run.path / "tensorboard")
    for name in ("total", "a/loss", "b/loss"):
        player, _, metric = name.rpartition("/")
        iterations, values = run.metric(metric, player)
        assert [step for step, _ in found[name]] == iterations.tolist()
        assert_curves(found, single({name: list(zip(iterations, values[:, 0], strict=True))}))
    steps = [step for _, step, _ in kept.rows]
    assert steps == sorted(set(steps))  # logs that come an iteration late too
    assert set(run.manifest["sinks"]) == {"tensorboard", "kept"}


def test_a_watched_loop_whose_sink_fails(tmp_path):
    with pytest.warns(UserWarning, match="sink kept: OSError.*No space left") as warned:
        _, run = loop(tmp_path / "run", sinks=[Kept("scalars")])
    assert len([w for w in warned if "sink" in str(w.message)]) == 1
    assert run.manifest["status"] == "finished"
    assert "No space" in run.manifest["sinks"]["kept"]["error"]


@pytest.mark.parametrize("sinks", ["comet", ["tensorboard", "comet"], [3]])
def test_a_watched_loop_with_an_unknown_sink(tmp_path, sinks):
    with pytest.raises(ConfigError, match=r"sinks=(comet|3): allowed are tensorboard, mlflow"):
        loop(tmp_path / "run", sinks=sinks)
    assert not (tmp_path / "run").exists()
