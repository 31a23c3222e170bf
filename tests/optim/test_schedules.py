import math

import pytest
import torch

from playground.optim.schedules import factor


def by_torch(scheduler, updates, **keys):
    """Factors of a scheduler of torch.optim on a learning rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, result = scheduler(optimizer, **keys), []
    for _ in range(updates):
        result.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return result


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_linear_equals_torch(final):
    theirs = by_torch(
        torch.optim.lr_scheduler.LinearLR,
        51,
        start_factor=1.0,
        end_factor=final,
        total_iters=50,
    )
    ours = [factor("linear", final, 0, update / 50, update + 1) for update in range(51)]
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_cosine_equals_torch(final):
    theirs = by_torch(torch.optim.lr_scheduler.CosineAnnealingLR, 51, T_max=50, eta_min=final)
    ours = [factor("cosine", final, 0, update / 50, update + 1) for update in range(51)]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_warmup_equals_torch():
    theirs = by_torch(torch.optim.lr_scheduler.LinearLR, 20, start_factor=1 / 10, total_iters=9)
    ours = [factor("constant", 0.0, 10, 0.0, update + 1) for update in range(20)]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_warmup_multiplies_the_anneal():
    expected = (0.2 + 0.8 * (1 + math.cos(0.3 * math.pi)) / 2) * 0.4
    assert factor("cosine", 0.2, 10, 0.3, 4) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_tensors_give_each_members_own_factor(schedule):
    final, count = torch.tensor([[0.0], [0.5]]).double(), torch.tensor([[3.0], [30.0]]).double()
    together = factor(schedule, final, 10, 0.3, count)
    alone = [
        factor(schedule, f, 10, 0.3, int(c))
        for f, c in zip(final.flatten().tolist(), count.flatten().tolist(), strict=True)
    ]
    assert together.flatten().tolist() == pytest.approx(alone, rel=1e-14)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="schedule=step: allowed are constant, linear, cosine"):
        factor("step", 0.0, 0, 0.0, 1)
