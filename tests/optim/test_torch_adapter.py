import pytest
import torch

from playground.optim.config import TORCH_CLASSES, Torch
from playground.optim.optimizer import Optimizer
from playground.optim.torch_adapter import TorchOptimizer

from .twins import ADAPTED, adapted, error, follow, follow_torch, stream


def test_every_allowed_class_is_covered_and_exists():
    assert set(ADAPTED) == set(TORCH_CLASSES)
    for name in TORCH_CLASSES:
        assert issubclass(getattr(torch.optim, name), torch.optim.Optimizer)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("name", TORCH_CLASSES)
def test_adapter_equals_the_class_it_wraps(name, members):
    start, gradients = stream(60, members, 7)
    ours = follow(Optimizer(adapted(name), start), start, gradients)
    theirs = follow_torch(getattr(torch.optim, name), start, gradients, lr=0.01, **ADAPTED[name])
    assert error(ours, theirs) < 1e-12


@pytest.mark.parametrize("name", TORCH_CLASSES)
def test_every_allowed_class_is_elementwise(name):
    start, gradients = stream(30, 2, 7)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))[:4]
    whole = follow(Optimizer(adapted(name), start), start, gradients)
    part = start[:, order].contiguous()
    permuted = follow(Optimizer(adapted(name), part), part, gradients[:, :, order].contiguous())
    torch.testing.assert_close(whole[:, :, order], permuted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in TORCH_CLASSES if name != "Rprop"])
def test_scheduled_learning_rate_reaches_the_class(name):
    start, gradients = stream(20, 2, 7)
    optimizer = Optimizer(adapted(name, schedule="linear"), start)
    parameters = start.clone()
    for update, gradient in enumerate(gradients):
        parameters += optimizer.step(gradient, parameters, progress=update / 20).update
    row = torch.nn.Parameter(start.clone())
    twin = getattr(torch.optim, name)([row], lr=0.01, **ADAPTED[name])
    for update, gradient in enumerate(gradients):
        twin.param_groups[0]["lr"] = 0.01 * (1 - update / 20)
        row.grad = gradient.clone()
        twin.step()
    torch.testing.assert_close(parameters, row.detach(), rtol=1e-12, atol=1e-12)


def test_state_has_torchs_names_with_a_leading_member_axis():
    start, gradients = stream(1, 3, 7)
    optimizer = Optimizer(adapted("NAdam"), start)
    optimizer.step(gradients[0], start)
    (state,) = optimizer.state()["links"]
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes == {"step": (3,), "mu_product": (3,), "exp_avg": (3, 7), "exp_avg_sq": (3, 7)}


def test_bad_arguments_are_refused_at_construction():
    with pytest.raises(ValueError, match="LBFGS: allowed are ASGD"):
        TorchOptimizer("LBFGS", {})
    with pytest.raises(ValueError, match=r"torch.optim.Adam: .*beta3"):
        Optimizer(Torch(class_name="Adam", kwargs={"beta3": 1.0}), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"torch.optim.SGD: .*momentum"):
        Optimizer(Torch(class_name="SGD", kwargs={"momentum": -1.0}), torch.zeros(1, 2))
