"""Sinks mirror a run's scalars into other trackers; our records stay the source of truth.

    playground.run(["problem=rl/cartpole", "sinks=[tensorboard]"])
    playground.watch(net, optimizer, sinks=["wandb"])

A sink reads the rows that were just written to the records, in a thread of its own, so that what
it does, or fails to do, never reaches training (``mirror.py``). ``Sink`` is the interface.
"""

from playground.record.sinks.mlflow import MLflow
from playground.record.sinks.sink import Opening, Point, Sink, Track
from playground.record.sinks.tensorboard import TensorBoard
from playground.record.sinks.wandb import WandB

__all__ = ["MLflow", "Opening", "Point", "Sink", "TensorBoard", "Track", "WandB"]
