import dataclasses

import pytest
import torch

from playground.optim.config import RMSprop
from playground.optim.optimizer import Optimizer

from .twins import TWINS, error, follow, follow_torch, stream

TOLERANCES = [(torch.float64, 1e-12), (torch.float32, 2e-6)]


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize("members", [1, 4])
@pytest.mark.parametrize("name", TWINS)
def test_every_update_equals_torch(name, members, dtype, tolerance):
    config, cls, keys = TWINS[name]
    start, gradients = stream(200, members, 11, dtype)
    ours = follow(Optimizer(config, start), start, gradients)
    # The twin runs in float64 on the same stream: in float32 torch's AdamW rounds 1 - lr wd at
    # every update and drifts ten times further from it than ours.
    theirs = follow_torch(cls, start.double(), gradients.double(), lr=config.lr, **keys)
    assert ours.dtype == dtype
    assert error(ours, theirs) < tolerance


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_clipping_by_norm_equals_torch_per_member(name, known):
    config, cls, keys = TWINS[name]
    config = dataclasses.replace(config, clip_norm=0.5)
    start, gradients = stream(200, 4, 11)
    optimizer = Optimizer(config, start)
    assert optimizer.uses_norm
    ours, parameters = [], start.clone()
    for gradient in gradients:
        norm = gradient.norm(dim=1) if known else None
        step = optimizer.step(gradient, parameters, norm=norm)
        torch.testing.assert_close(step.clipped, gradient * step.clip_coefficient[:, None])
        parameters += step.update
        ours.append(parameters.clone())
    theirs = follow_torch(
        cls,
        start,
        gradients,
        lambda row, update: torch.nn.utils.clip_grad_norm_([row], 0.5),
        lr=config.lr,
        **keys,
    )
    assert error(torch.stack(ours), theirs) < 1e-12


def test_clipping_by_value_comes_before_clipping_by_norm():
    config, cls, keys = TWINS["sgd"]
    config = dataclasses.replace(config, clip_value=0.2, clip_norm=0.4)
    start, gradients = stream(200, 4, 11)
    optimizer = Optimizer(config, start)
    assert not optimizer.uses_norm

    def prepare(row, update):
        torch.nn.utils.clip_grad_value_([row], 0.2)
        torch.nn.utils.clip_grad_norm_([row], 0.4)

    # A norm that is given belongs to the raw gradient and must not be used after clip_value.
    ours = follow(optimizer, start, gradients, norm=torch.full((4,), 1e9))
    theirs = follow_torch(cls, start, gradients, prepare, lr=config.lr, **keys)
    assert error(ours, theirs) < 1e-12


def test_centered_rmsprop_stays_finite_on_a_constant_gradient():
    # The variance is 0 there and rounds below it, most often with a short memory.
    start = torch.zeros(1, 500)
    gradients = torch.linspace(0.1, 3.0, 500).expand(100, 1, 500)
    optimizer = Optimizer(RMSprop(alpha=0.5, centered=True), start)
    assert follow(optimizer, start, gradients).isfinite().all()
