"""The callbacks against the real libraries on small real tasks."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import playground

from .loops import Hand, check, data, net, rows, same


def spied(optimizer, hand):
    """Let a hand look at every step, by hooks registered before the watcher's."""
    optimizer.register_step_pre_hook(lambda *_: hand.look())
    optimizer.register_step_post_hook(lambda *_: hand.looked())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["PPO", "DQN", "SAC"])
def test_stable_baselines3(tmp_path, name):
    library = pytest.importorskip("stable_baselines3")
    from playground.callbacks import StableBaselines3

    options = {
        "PPO": {"n_steps": 64, "batch_size": 32, "n_epochs": 2, "max_grad_norm": 0.05},
        "DQN": {"learning_starts": 50, "train_freq": 8, "batch_size": 16},
        "SAC": {"learning_starts": 150, "batch_size": 16},
    }[name]

    def build():
        env = "Pendulum-v1" if name == "SAC" else "CartPole-v1"
        return getattr(library, name)("MlpPolicy", env, seed=3, device="cpu", **options)

    alone = build()
    alone.learn(256, log_interval=None)
    model, hands = build(), {}  # which seeds everything again
    from playground.watching.stable_baselines3 import players

    for player, (_, optimizer) in players(model).items():
        hands[player] = Hand(p for group in optimizer.param_groups for p in group["params"])
        spied(optimizer, hands[player])
    callback = StableBaselines3(tmp_path / "run", every=1)
    model.learn(256, callback=callback, log_interval=None)
    same(alone.policy, model.policy)
    assert list(hands) == (["actor", "critic", "entropy"] if name == "SAC" else ["agent"])
    for player, hand in hands.items():
        tap = "gradient" if name == "SAC" else "clipped"  # the others clip
        check_whole(tmp_path / "run", hand, player, tap)
    run = playground.load(tmp_path / "run")
    assert run.manifest["status"] == "finished"
    assert run.manifest["main_metric"] == "train/return" or name == "SAC"
    assert run.figure("overview").exists()


def check_whole(path, hand, player, tap):
    """The whole player's rows: networks of other libraries are wide, so not every tensor."""
    found = rows(path)
    assert len(hand.gradients) > 10
    for update in range(1, len(hand.gradients) + 1):
        own = hand.value("gradients", update - 1, -1)
        moved = hand.value("update", update - 1, -1)
        row = found[player, update, tap, ""]
        assert row["norm"] == pytest.approx(np.linalg.norm(own), rel=1e-4)
        assert row["max_abs"] == pytest.approx(np.abs(own).max(), rel=1e-5)
        row = found[player, update, "update", ""]
        assert row["norm"] == pytest.approx(np.linalg.norm(moved), rel=1e-3)
    assert (player, len(hand.gradients) + 1, tap, "") not in found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("clip", [None, 0.05])
def test_lightning(here, clip):
    lightning = pytest.importorskip("lightning.pytorch")
    from playground.callbacks import Lightning

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net()

        def training_step(self, batch, index):
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    x, y = next(data(size=64))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8)

    def fit(module, *callbacks):
        trainer = lightning.Trainer(
            max_epochs=4, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, gradient_clip_val=clip,
            accumulate_grad_batches=2, callbacks=list(callbacks),
        )  # fmt: skip
        trainer.fit(module, loader)

    alone, module = Classifier(), Classifier()
    fit(alone)
    hand = Hand(module.parameters())

    class Look(torch.optim.Adam):
        """Reads ``.grad`` after the closure, which is where Lightning's gradient comes to be."""

        def step(self, closure=None):
            def seen():
                loss = closure()
                hand.look()
                return loss

            super().step(seen)
            hand.looked()

    module.configure_optimizers = lambda: Look(module.parameters(), lr=1e-2)
    callback = Lightning("run", every=1)
    fit(module, callback)
    same(alone, module)
    names = [f"net.{name}" for name in ("0.weight", "0.bias", "2.weight", "2.bias")]
    assert len(hand.gradients) == 16  # 4 epochs of 8 batches, two an update
    check("run", hand, names, tap="gradient" if clip is None else "clipped")
    run = playground.load("run")
    assert run.manifest["status"] == "finished"
    assert run.metric("loss")[1].size >= 16
    assert math.isfinite(run.metric("train_loss")[1][-1, 0])


def test_what_is_not_installed_is_named(monkeypatch):
    import playground.callbacks

    monkeypatch.setitem(__import__("sys").modules, "lightning.pytorch", None)
    monkeypatch.delitem(__import__("sys").modules, "playground.watching.lightning", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'gradient-playground\[lightning\]'"):
        playground.callbacks.Lightning  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'Keras'"):
        playground.callbacks.Keras  # noqa: B018
