"""A finished run, or one so far, into a tracker: the same rows through the same interface."""

from pathlib import Path

from playground.record.columns import TABLES
from playground.record.reader import Run
from playground.record.sinks.config import SinksConfig, check_tensors
from playground.record.sinks.mirror import Report, deliver, scalars_of
from playground.record.sinks.sink import Sink
from playground.record.sinks.tensorboard import TensorBoard
from playground.record.sinks.tracks import opening
from playground.schema import ConfigError


def export(run: Run, sink: Sink, settings: SinksConfig | None = None) -> Report:
    """Give a sink everything that a run recorded.

    Args:
        run: as ``playground.load`` gives it.
        sink: not opened yet.
        settings: as the keys ``sinks.*``.

    Raises:
        ConfigError: no tensor of that name, or TensorBoard's folder has events already.
    """
    settings = settings or SinksConfig()
    manifest = run.manifest
    check_tensors(settings.tensors, manifest.get("tensors", {}))
    about = opening(run.path, run.config, manifest, settings.members)
    if isinstance(sink, TensorBoard):
        folder = run.path / "tensorboard" if sink.dir is None else Path(sink.dir) / about.name
        if any(folder.rglob("events.out.tfevents.*")):
            raise ConfigError(f"{folder}: has events already; give another folder, as --out DIR")
    report, scalars = Report(), scalars_of(about, settings)
    sink.open(about)
    report.where = str(sink.where)
    scalars.add({name: run.table(name) for name in TABLES})
    deliver(sink, list(scalars.take()), report)
    sink.close(str(manifest.get("status")))
    report.closed = True
    return report
