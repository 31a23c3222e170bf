"""Stability lines against the optimizers themselves, run on quadratics just inside and outside."""

import pytest
import torch

from playground.optim.config import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    AMSGrad,
    Momentum,
    Nesterov,
    RMSprop,
    Torch,
)
from playground.optim.optimizer import Optimizer
from playground.optim.transforms import Optimism

HELD = {"beta2": 1 - 1e-13}
"""A second moment that stays where it is put."""

LATE = 10**7
"""Updates so far, by which the first moment's bias is gone; 1 - beta2^t is 1e-6."""

CASES = {
    "sgd": (SGD(lr=0.1), {}, 20.0),
    "sgd, decay": (SGD(lr=0.1, weight_decay=0.5), {}, 20.0),
    "momentum": (Momentum(lr=0.1), {}, 38.0),
    "momentum, decay": (Momentum(lr=0.1, momentum=0.5, weight_decay=3.0), {}, 30.0),
    "momentum below 0": (Momentum(lr=0.1, momentum=-0.5), {}, 10.0),
    "nesterov": (Nesterov(lr=0.1), {}, 38 / 2.8),
    "nesterov, decay": (Nesterov(lr=0.1, weight_decay=1.0), {}, 38 / 2.8),
    "adam": (Adam(lr=0.1, **HELD), {"second_moment": 4e-6}, 380.0),
    "adam, decay": (Adam(lr=0.1, beta1=0.5, weight_decay=3.0, **HELD), {"second_moment": 4e-6},
                    60.0),
    "amsgrad": (AMSGrad(lr=0.1, **HELD), {"largest_second_moment": 4e-6}, 380.0),
    "adamw": (AdamW(lr=0.1, weight_decay=2.0, **HELD), {"second_moment": 4e-6}, 380 * 0.9),
    "rmsprop": (RMSprop(lr=0.1, alpha=1 - 1e-13), {"square": 4.0}, 20.0),
    "rmsprop, momentum": (RMSprop(lr=0.1, alpha=1 - 1e-13, momentum=0.9, centered=True),
                          {"square": 5.0, "mean": 1.0}, 38.0),
    "adagrad": (Adagrad(lr=0.1), {"sum": 4e12}, 20.0),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_just_inside_it_converges_and_just_outside_it_diverges(name):
    """Member 0 at 0.99 of the line, member 1 at 1.01 of it."""
    config, held, expected = CASES[name]
    x = torch.full((2, 1), 1e-60, dtype=torch.float64)  # its gradients leave P where it is
    optimizer = Optimizer(config, x)
    state = optimizer.state()
    state["count"] = LATE
    for key, value in held.items():
        state["links"][-2 if name == "adamw" else -1][key].fill_(value)
    optimizer.load_state(state)
    line = optimizer.stability(0.0)
    assert line.limit.tolist() == pytest.approx([expected] * 2, rel=1e-6)
    scale = torch.ones_like(x) if line.scale is None else line.scale
    assert (line.scale is None) == (not held)
    share = torch.tensor([[0.99], [1.01]], dtype=torch.float64)
    curvature = share * line.limit[:, None] * scale - line.decay[:, None]
    sizes = []
    for _ in range(2):
        for _ in range(600):
            x = x + optimizer.step(curvature * x, x).update
        sizes.append(x.abs().flatten())
    assert sizes[1][0] < sizes[0][0]
    assert sizes[1][1] > sizes[0][1]


def test_early_bias_corrections_are_part_of_the_preconditioner():
    """After t updates with gradient g, P = (1 - beta1^t) (|g| + eps)."""
    x = torch.zeros(1, 3, dtype=torch.float64)
    gradient = torch.tensor([[0.5, -2.0, 0.0]], dtype=torch.float64)
    optimizer = Optimizer(Adam(lr=0.1), x)
    assert torch.isnan(optimizer.stability(0.0).scale).all()
    for _ in range(3):
        optimizer.step(gradient, x)
    expected = (1 - 0.9**3) * (gradient.abs() + 1e-8)
    torch.testing.assert_close(optimizer.stability(0.0).scale, expected)


def test_members_with_rates_of_their_own_and_schedules():
    x = torch.zeros(2, 3, dtype=torch.float64)
    rates = torch.tensor([0.1, 0.5], dtype=torch.float64)
    line = Optimizer(Momentum(momentum=0.5), x, {"lr": rates}).stability(0.0)
    assert line.limit.tolist() == pytest.approx([30, 6])
    line = Optimizer(SGD(lr=0.1, schedule="linear"), x).stability(0.5)
    assert line.limit.tolist() == pytest.approx([40, 40])


def test_clipping_has_no_part_and_others_have_no_line():
    x = torch.zeros(2, 3, dtype=torch.float64)
    clipped = Optimizer(SGD(lr=0.1, clip_norm=1.0, clip_value=1.0), x).stability(0.0)
    assert clipped.limit.tolist() == pytest.approx([20, 20])
    assert Optimizer(Torch(class_name="SGD"), x).stability(0.0) is None
    assert Optimizer(Adam(), x, links=[Optimism()]).stability(0.0) is None
