import numpy as np
import pytest
import torch

from playground.domains.supervised.data import linear_regression, variances
from playground.domains.supervised.objectives import (
    classify,
    excess_risk,
    gradient_covariance,
    population_gradient,
    regress,
)
from playground.game import Move, Player
from playground.gradients import Differentiator
from playground.nets import MLP
from playground.parameters import Parameters


def differentiator(net, members=2):
    parameters = Parameters.build(
        lambda k: net.init(k, "model"), members, torch.device("cpu"), torch.float64
    )
    return Differentiator({"model": Player("model", parameters)}), parameters


def batch(members, size, inputs, classes, seed=0):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(members, size, inputs, generator=source, dtype=torch.float64)
    if classes:
        return {"input": x, "target": torch.randint(classes, (members, size), generator=source)}
    return {"input": x, "target": torch.randn(members, size, generator=source).double()}


@pytest.mark.parametrize("activation", ["tanh", "gelu", "silu", "elu", "sigmoid"])
@pytest.mark.parametrize("members", [1, 3])
def test_network_gradient_is_the_difference_quotient(activation, members):
    net = MLP((4, 6, 5, 3), activation, "glorot")
    differentiate, parameters = differentiator(net, members)
    data = batch(members, 7, 4, 3)
    gradient = differentiate(Move("model", classify(net), data)).value

    def losses(values):  # an independent forward pass, in NumPy's float64
        tensors = parameters.layout.views(values)
        result = []
        for k in range(members):
            module = net.module().double()
            module.load_state_dict({name: tensor[k] for name, tensor in tensors.items()})
            logits = module(data["input"][k]).detach().numpy()
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            chosen = (shifted / shifted.sum(axis=1, keepdims=True))[
                np.arange(7), data["target"][k].numpy()
            ]
            result.append(-np.log(chosen).mean())
        return np.array(result)

    for index in range(0, parameters.layout.size, 5):
        step = torch.zeros_like(parameters.values)
        step[:, index] = 1e-6
        slope = (losses(parameters.values + step) - losses(parameters.values - step)) / 2e-6
        assert gradient[:, index].numpy() == pytest.approx(slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("members", [1, 3])
def test_softmax_gradient_is_p_minus_y(members):
    """Linear classifier: dL/dW = mean (p - y) x^T, dL/db = mean (p - y)."""
    net = MLP((4, 3))
    differentiate, parameters = differentiator(net, members)
    data = batch(members, 9, 4, 3)
    result = differentiate(Move("model", classify(net), data))
    slopes = parameters.layout.views(result.value)
    for k in range(members):
        tensors = {name: tensor.numpy() for name, tensor in parameters.member(k).items()}
        x, y = data["input"][k].numpy(), np.eye(3)[data["target"][k].numpy()]
        logits = np.exp(x @ tensors["0.weight"].T + tensors["0.bias"])
        error = logits / logits.sum(axis=1, keepdims=True) - y
        assert slopes["0.weight"][k].numpy() == pytest.approx(error.T @ x / 9)
        assert slopes["0.bias"][k].numpy() == pytest.approx(error.mean(axis=0))
        right = (logits.argmax(axis=1) == data["target"][k].numpy()).mean()
        assert result.diagnostics["train/accuracy"][k].item() == pytest.approx(right)


def test_full_batch_gradient_of_regression_is_that_of_its_normal_equations():
    """S_hat (w - w_ls) with S_hat = X^T X / N, for every member at its own w."""
    data = linear_regression((200, 2), variances(5, 20.0), 0.3, seed=4)
    x, y = data.train
    net = MLP((5, 1), bias=False)
    differentiate, parameters = differentiator(net, 3)
    full = {"input": torch.tensor(x).expand(3, -1, -1), "target": torch.tensor(y).expand(3, -1)}
    result = differentiate(Move("model", regress(net), full))
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    weights = parameters.values.numpy()
    expected = (weights - best) @ (x.T @ x / len(x))
    assert result.value.numpy() == pytest.approx(expected, rel=1e-9)
    losses = 0.5 * ((weights @ x.T - y) ** 2).mean(axis=1)
    assert result.terms["squared_error"].numpy() == pytest.approx(losses)


def test_population_closed_forms_against_fresh_samples():
    """Mean and covariance of single-sample gradients, entry by entry within 4.5 sigma."""
    spectrum, noise, size = variances(4, 8.0), 0.7, 200_000
    x, y = linear_regression((size, 2), spectrum, noise, seed=9).train
    weight = np.array([0.2, 1.5, 1.0, -0.4])
    samples = (x @ weight - y)[:, None] * x
    w, optimum, s = (torch.tensor(a) for a in (weight, np.ones(4), spectrum))
    expected = population_gradient(w, optimum, s).numpy()
    covariance = gradient_covariance(w, optimum, s, noise).numpy()
    deviation = samples.mean(axis=0) - expected
    assert (np.abs(deviation) < 4.5 * np.sqrt(np.diag(covariance) / size)).all()
    centred = samples - expected
    products = centred[:, :, None] * centred[:, None, :]
    stderr = products.std(axis=0) / np.sqrt(size)
    assert (np.abs(products.mean(axis=0) - covariance) < 4.5 * stderr).all()
    losses = 0.5 * ((x @ weight - y) ** 2 - noise**2)
    bound = 4.5 * losses.std() / np.sqrt(size)
    assert abs(losses.mean() - excess_risk(w, optimum, s).item()) < bound


def test_population_gradient_is_the_slope_of_the_excess_risk():
    s, optimum = torch.tensor([0.1, 0.4, 1.0]).double(), torch.ones(3).double()
    w = torch.tensor([[0.0, 2.0, 1.5], [1.0, 1.0, 1.0]]).double()
    steps = 1e-5 * torch.eye(3).double()
    slopes = torch.stack(
        [(excess_risk(w + h, optimum, s) - excess_risk(w - h, optimum, s)) / 2e-5 for h in steps],
        dim=1,
    )
    assert torch.allclose(slopes, population_gradient(w, optimum, s), atol=1e-9)
