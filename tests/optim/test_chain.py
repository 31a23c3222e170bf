import dataclasses
import io

import pytest
import torch

from playground.optim.config import SGD, Adam, Momentum
from playground.optim.optimizer import Optimizer

from .twins import EVERY, stream


def saved(state):
    """A state after a trip through a checkpoint file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("at", [0, 1, 12])
@pytest.mark.parametrize("name", EVERY)
def test_resuming_from_a_checkpoint_is_exact(name, at, masked):
    config = dataclasses.replace(EVERY[name], clip_norm=5.0)
    start, gradients = stream(25, 3, 7, torch.float32)
    straight, interrupted = Optimizer(config, start), Optimizer(config, start)
    first, second = start.clone(), start.clone()
    for update, gradient in enumerate(gradients):
        if update == at:
            state = saved(interrupted.state())
            interrupted = Optimizer(config, start)
            interrupted.load_state(state)
        active = torch.tensor([True, update % 3 != 0, True]) if masked else None
        first += straight.step(gradient, first, active=active).update
        second += interrupted.step(gradient, second, active=active).update
        assert torch.equal(first, second)


def test_loading_replaces_what_an_optimizer_had():
    start, gradients = stream(8, 3, 7)
    fresh, used = Optimizer(EVERY["torch-Adam"], start), Optimizer(EVERY["torch-Adam"], start)
    for gradient in gradients[:4]:
        used.step(gradient, start)
    used.load_state(fresh.state())
    for gradient in gradients[4:]:
        expected = fresh.step(gradient, start).update
        assert torch.equal(used.step(gradient, start).update, expected)


def test_a_saved_state_is_a_copy():
    start, gradients = stream(2, 1, 7)
    optimizer = Optimizer(Momentum(), start)
    optimizer.step(gradients[0], start)
    state = optimizer.state()
    before = state["links"][0]["velocity"].clone()
    optimizer.step(gradients[1], start)
    assert torch.equal(state["links"][0]["velocity"], before)


def test_foreign_states_are_refused():
    start = torch.zeros(2, 3)
    optimizer = Optimizer(Adam(), start)
    with pytest.raises(ValueError, match="0 transforms, expected 1"):
        optimizer.load_state(Optimizer(SGD(), start).state())
    with pytest.raises(ValueError, match="velocity"):
        optimizer.load_state(Optimizer(Momentum(), start).state())
    with pytest.raises(ValueError, match=r"shape \(4, 3\)"):
        optimizer.load_state(Optimizer(Adam(), torch.zeros(4, 3)).state())


@pytest.mark.parametrize("clips", [{}, {"clip_norm": 0.1}, {"clip_value": 0.1}], ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_inputs_stay_and_earlier_steps_last(name, clips):
    start, gradients = stream(4, 2, 7)
    optimizer = Optimizer(dataclasses.replace(EVERY[name], **clips), start)
    parameters, steps, copies = start.clone(), [], []
    for gradient in gradients:
        before = gradient.clone()
        step = optimizer.step(gradient, parameters)
        assert torch.equal(gradient, before)
        assert torch.equal(parameters, start)
        assert step.update.data_ptr() != gradient.data_ptr()
        assert (step.clipped is None) == (not clips)
        steps.append(step)
        copies.append([None if t is None else t.clone() for t in (step.update, step.clipped)])
    for step, (update, clipped) in zip(steps, copies, strict=True):
        assert torch.equal(step.update, update)
        assert clipped is None or torch.equal(step.clipped, clipped)


def test_a_step_records_no_graph():
    parameters = torch.ones(1, 3, requires_grad=True)
    gradient = (parameters**2).clone()
    for config in (SGD(weight_decay=0.1), Adam(clip_norm=1.0)):
        assert not Optimizer(config, parameters).step(gradient, parameters).update.requires_grad


def test_learning_rate_is_reported_as_scheduled():
    start, gradients = stream(1, 2, 5)
    config = SGD(lr=0.4, schedule="linear", final=0.5, warmup=4)
    step = Optimizer(config, start).step(gradients[0], start, progress=0.5)
    assert step.learning_rate == pytest.approx(0.4 * 0.75 * 0.25)
    torch.testing.assert_close(step.update, -step.learning_rate * gradients[0])
    values = {"lr": torch.tensor([0.1, 0.2], dtype=torch.float64)}
    step = Optimizer(SGD(), start, values).step(gradients[0], start)
    assert step.learning_rate.tolist() == [[0.1], [0.2]]


def test_coupled_decay_is_not_clipped_and_decoupled_decay_is_not_scaled():
    parameters = torch.full((1, 2), 3.0, dtype=torch.float64)
    gradient = torch.zeros_like(parameters)
    coupled = Optimizer(SGD(lr=0.1, weight_decay=0.5, clip_norm=1e-3), parameters)
    step = coupled.step(gradient, parameters)
    torch.testing.assert_close(step.update, -0.1 * 0.5 * parameters)
    decoupled = Optimizer(EVERY["adamw-decay"], parameters).step(gradient, parameters)
    torch.testing.assert_close(decoupled.update, -1e-3 * 0.5 * parameters)
