"""Weight clipping as a transform of the update."""

import pytest
import torch

from playground.config import compose
from playground.optim.config import SGD, RMSprop, Torch
from playground.optim.optimizer import Optimizer
from playground.schema import ConfigError

C = 0.01


def follow(config, steps=30, values=None, members=2):
    """Parameters after gradient steps on 1/2 |x - 1|^2 from 0, each clipped."""
    x = torch.zeros(members, 3, dtype=torch.float64)
    optimizer = Optimizer(config, x, values or {})
    for _ in range(steps):
        x += optimizer.step(x - 1, x).update
    return x


def by_hand(algorithm, steps=30):
    """torch.optim's step, then ``clamp_``, as Arjovsky et al. 2017, algorithm 1."""
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    rule = algorithm([x])
    for _ in range(steps):
        x.grad = (x - 1).detach()
        rule.step()
        with torch.no_grad():
            x.clamp_(-C, C)
    return x.detach()


@pytest.mark.parametrize(
    ("config", "algorithm"),
    [
        (SGD(lr=3e-4, project=C), lambda p: torch.optim.SGD(p, lr=3e-4)),
        (RMSprop(lr=5e-5, project=C), lambda p: torch.optim.RMSprop(p, lr=5e-5)),
        (Torch(class_name="RAdam", lr=1e-3, project=C), lambda p: torch.optim.RAdam(p, lr=1e-3)),
    ],
)
def test_it_is_a_step_and_a_clamp(config, algorithm):
    expected = by_hand(algorithm)
    found = follow(config)
    assert torch.allclose(found, expected.expand(2, 3), rtol=1e-12, atol=1e-16)
    assert found.abs().max() <= C * (1 + 1e-14)


def test_parameters_outside_come_in_at_once():
    x = torch.tensor([[5.0, -3.0, 0.004]], dtype=torch.float64)
    step = Optimizer(SGD(lr=1e-9, project=C), x).step(torch.zeros_like(x), x)
    assert (x + step.update)[0].tolist() == pytest.approx([C, -C, 0.004], rel=1e-12)


def test_limits_may_differ_between_members():
    limits = {"project": torch.tensor([0.01, 0.5], dtype=torch.float64)}
    found = follow(SGD(lr=0.5), values=limits)
    assert found.numpy() == pytest.approx(limits["project"].numpy()[:, None].repeat(3, 1))


def test_the_command_clips_one_player():
    config = compose(["problem=gan/ring", "loss=wgan", "optimizer@players.discriminator=rmsprop",
                      "players.discriminator.project=0.01"])  # fmt: skip
    assert config.player_optimizer("discriminator").project == C
    assert config.player_optimizer("generator").project is None
    with pytest.raises(ConfigError, match=r"optimizer\.project=0\.0: must be greater than 0"):
        compose(["problem=gan/ring", "optimizer.project=0"])
