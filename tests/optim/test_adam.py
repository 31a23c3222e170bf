import pytest
import torch

from playground.optim.adam import Adam
from playground.optim.config import Adam as AdamConfig
from playground.optim.config import AdamW, AMSGrad
from playground.optim.optimizer import Optimizer
from playground.optim.transforms import At

from .twins import stream


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)], ids=str
)
def test_fused_kernel_equals_plain_formula(amsgrad, dtype, tolerance):
    start, gradients = stream(200, 3, 17, dtype)
    fused = Adam(0.9, 0.99, 1e-8, amsgrad=amsgrad)
    plain = Adam(0.9, 0.99, 1e-8, amsgrad=amsgrad, fused=False)
    states = fused.init(start), plain.init(start)
    for count, gradient in enumerate(gradients, start=1):
        at = At(count, start, 1.0)
        ours, oracle = fused(gradient, states[0], at), plain(gradient, states[1], at)
        torch.testing.assert_close(ours, oracle, rtol=tolerance, atol=tolerance)
    assert states[0].keys() == states[1].keys()
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-5, atol=1e-9)


def test_fused_kernel_reads_values_that_are_not_contiguous():
    start, gradients = stream(5, 3, 17)
    transposed = gradients.transpose(1, 2).contiguous().transpose(1, 2)
    assert not transposed[0].is_contiguous()
    first, second = Optimizer(AdamConfig(), start), Optimizer(AdamConfig(), start)
    for a, b in zip(gradients, transposed, strict=True):
        assert torch.equal(first.step(a, start).update, second.step(b, start).update)


@pytest.mark.parametrize("config", [AdamConfig(), AMSGrad(), AdamW(weight_decay=0.0)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_first_update_is_lr_against_the_sign_of_the_gradient(config, scale):
    start, gradients = stream(1, 2, 9)
    gradient = gradients[0].sign() * scale
    update = Optimizer(config, start).step(gradient, start).update
    torch.testing.assert_close(update, -config.lr * gradient.sign(), rtol=1.1e-5, atol=0.0)
