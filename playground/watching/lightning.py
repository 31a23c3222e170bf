"""A callback of Lightning that watches the optimizers of a module."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from playground.watching.entry import watch
from playground.watching.watcher import Watcher


class Lightning(Callback):  # type: ignore[misc, unused-ignore]
    """Watches one fit.

    What is logged with ``self.log`` is recorded at the end of epochs under its own name, the
    loss of every batch as ``loss``.

    Args:
        run_dir: where to, as in ``playground.watch``, which also takes the options.
        players: names of the players, in the order of ``configure_optimizers``; else ``model``,
            or ``model_0``, ``model_1``, ... of several optimizers.

    Attributes:
        watcher: from the beginning of the fit on, in the process of rank 0.
    """

    watcher: Watcher | None = None

    def __init__(
        self, run_dir: Any = None, players: Sequence[str] | None = None, **options: Any
    ) -> None:
        super().__init__()
        self.run_dir, self.players, self.options = run_dir, players, options

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the watcher, once the optimizers are there."""
        if not trainer.is_global_zero:
            return
        several = len(trainer.optimizers) > 1
        names = self.players or [
            f"model_{place}" if several else "model" for place in range(len(trainer.optimizers))
        ]
        pairs = zip(names, trainer.optimizers, strict=True)
        found = {name: (pl_module, optimizer) for name, optimizer in pairs}
        self.options.setdefault("name", type(pl_module).__name__)
        self.watcher = watch(found, None, self.run_dir, **self.options)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the loss, where there is one."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if self.watcher is not None and loss is not None:
            self.watcher.log(loss=loss)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record what the module has logged."""
        if self.watcher is not None:
            values = {k: v for k, v in trainer.callback_metrics.items() if k != "loss"}
            self.watcher.log(values)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Finish the run."""
        if self.watcher is not None:
            self.watcher.close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Finish the run and say why."""
        if self.watcher is not None:
            stopped = isinstance(exception, KeyboardInterrupt)
            status = "interrupted" if stopped else "failed"
            self.watcher.close(status, f"{type(exception).__name__}: {exception}")
