import dataclasses

import pytest
import torch

from playground.optim.config import OPTIMIZERS, Torch, variable_fields
from playground.optim.optimizer import Optimizer

from .metrics import bowls, positive
from .twins import EVERY, follow, stream

VALUES = {
    "lr": [1e-3, 1e-2, 3e-2],
    "final": [0.0, 0.5, 1.0],
    "clip_norm": [0.1, 1.0, 1e3],
    "clip_value": [0.01, 0.1, 10.0],
    "weight_decay": [0.0, 0.01, 0.3],
    "project": [0.1, 0.5, 10.0],
    "momentum": [0.0, 0.5, 0.95],
    "beta1": [0.0, 0.5, 0.9],
    "beta2": [0.9, 0.99, 0.999],
    "alpha": [0.5, 0.9, 0.99],
    "eps": [1e-8, 1e-3, 1.0],
    "initial_accumulator": [0.0, 0.1, 2.0],
    "radius": [1e-3, 1e-2, 0.1],
    "damping": [0.0, 0.1, 1.0],
    "shrink": [0.5, 0.8, 0.95],
}


def cases():
    for name, cls in OPTIMIZERS.items():
        keys = {"class_name": "ASGD"} if cls is Torch else {}
        config = cls(schedule="cosine", **keys)
        for field in variable_fields(config):
            yield pytest.param(config, field, id=f"{name}-{field}")


@pytest.mark.parametrize(("config", "field"), list(cases()))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_values_along_members_equal_separate_runs(config, field, dtype, tolerance):
    start, gradients = stream(40, 3, 7, dtype)
    values = torch.tensor(VALUES[field], dtype=torch.float64)
    together = Optimizer(config, start, {field: values})
    matrix = positive(3, 7, dtype)
    ours = follow(together, start, gradients, bowls(matrix), progress=0.4)
    for member in range(3):
        alone = dataclasses.replace(config, **{field: VALUES[field][member]})
        row, one = start[member : member + 1], bowls(matrix[member : member + 1])
        own = gradients[:, member : member + 1]
        theirs = follow(Optimizer(alone, row), row, own, one, progress=0.4)
        torch.testing.assert_close(
            ours[:, member : member + 1], theirs, rtol=tolerance, atol=tolerance
        )


def test_all_fields_can_vary_at_once():
    config = OPTIMIZERS["adam"](schedule="linear")
    start, gradients = stream(40, 3, 7)
    fields = variable_fields(config)
    together = Optimizer(config, start, {name: torch.tensor(VALUES[name]) for name in fields})
    ours = follow(together, start, gradients, progress=0.4)
    values = {name: torch.tensor(VALUES[name]).tolist() for name in fields}
    alone = dataclasses.replace(config, **{name: values[name][1] for name in fields})
    theirs = follow(Optimizer(alone, start[1:2]), start[1:2], gradients[:, 1:2], progress=0.4)
    torch.testing.assert_close(ours[:, 1:2], theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("field", ["final", "warmup", "name"])
def test_a_field_that_cannot_vary_is_refused(field):
    with pytest.raises(ValueError, match=f"{field} cannot vary"):
        Optimizer(OPTIMIZERS["adam"](), torch.zeros(2, 3), {field: torch.ones(2)})


def test_values_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"lr has shape \(3,\), expected \(2,\)"):
        Optimizer(OPTIMIZERS["adam"](), torch.zeros(2, 3), {"lr": torch.ones(3)})


def masks(updates, members):
    generator = torch.Generator().manual_seed(7)
    result = torch.rand(updates, members, generator=generator) < 0.6
    result[0] = torch.tensor([True, False, True])
    return result


@pytest.mark.parametrize("name", EVERY)
def test_a_member_sees_only_the_updates_it_was_active_in(name):
    config = dataclasses.replace(EVERY[name], clip_norm=5.0)
    if name != "torch-Rprop":
        config = dataclasses.replace(config, warmup=10)
    start, gradients = stream(40, 3, 7)
    active, parameters = masks(40, 3), start.clone()
    optimizer = Optimizer(config, start)
    for gradient, mask in zip(gradients, active, strict=True):
        poisoned = gradient.masked_fill(~mask[:, None], float("nan"))
        update = optimizer.step(poisoned, parameters, active=mask).update
        assert torch.equal(update[~mask], torch.zeros_like(update[~mask]))
        parameters += update
    for member in range(3):
        row = start[member : member + 1]
        seen = gradients[active[:, member], member : member + 1]
        alone = follow(Optimizer(config, row), row, seen)[-1]
        torch.testing.assert_close(parameters[member : member + 1], alone, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["adam", "torch-NAdam", "rmsprop-centered-momentum"])
def test_state_of_inactive_members_stays_bit_for_bit(name):
    start, gradients = stream(6, 3, 7)
    optimizer = Optimizer(EVERY[name], start)
    follow(optimizer, start, gradients[:5])
    before = optimizer.state()["links"]
    optimizer.step(gradients[5], start, active=torch.tensor([True, False, True]))
    after = optimizer.state()["links"]
    for old, new in zip(before, after, strict=True):
        for key in old:
            assert torch.equal(old[key][1], new[key][1])
            assert not torch.equal(old[key][0], new[key][0])
    assert optimizer.state()["count"].flatten().tolist() == [6.0, 5.0, 6.0]


@pytest.mark.parametrize("members", [1, 3])
def test_full_and_empty_masks_keep_the_shared_count(members):
    start, gradients = stream(3, members, 7)
    optimizer, plain = (Optimizer(EVERY["adam"], start) for _ in range(2))
    for gradient in gradients:
        everyone = torch.ones(members, dtype=torch.bool)
        nobody = optimizer.step(gradient * float("inf"), start, active=~everyone)
        assert torch.equal(nobody.update, torch.zeros_like(start))
        masked = optimizer.step(gradient, start, active=everyone).update
        assert torch.equal(masked, plain.step(gradient, start).update)
    assert optimizer.state()["count"] == 3
