import numpy as np
import pytest
import torch
from torch.distributions import Categorical

from playground.domains.rl.batches import normalize
from playground.domains.rl.objectives import clipped_surrogate, joined, reinforce, value_error
from playground.domains.rl.policies import categorical as policies
from playground.gradients import reduced
from playground.nets import MLP

POLICY = MLP((3, 4, 3), "tanh", "torch", prefix="policy.")
VALUE = MLP((3, 4, 1), "tanh", "torch", prefix="value.")
CLIP = 0.2


def agent(seed=0, scale=2.0):
    tensors = POLICY.init(seed, "policy") | VALUE.init(seed, "value")
    return {"agent": {name: scale * tensor for name, tensor in tensors.items()}}


def categorical(network):
    return policies.Categorical(network, [network.sizes[-1]], single=True)


def ppo(policy, value, *, value_coefficient=0.0, entropy_coefficient=0.0, clip_value=None):
    return joined(
        clipped_surrogate(categorical(policy), "agent", entropy_coefficient=entropy_coefficient),
        value_error(value, "agent", coefficient=value_coefficient, clip_value=clip_value),
    )


def objective(**kwargs):
    return ppo(POLICY, VALUE, **kwargs)


def rows(count, seed=0):
    """A batch whose ratios lie on both sides of both clips."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    observation, action = normal(count, 3), torch.randint(3, (count,), generator=rng)
    logits = POLICY(agent()["agent"], observation)
    return {
        "observation": observation,
        "action": action,
        "log_prob": Categorical(logits=logits).log_prob(action) + 0.3 * normal(count),
        "advantage": normal(count),
        "target": normal(count),
        "value": normal(count),
        "weight": (torch.rand(count, generator=rng) < 0.8).double(),
        "clip": torch.tensor(CLIP, dtype=torch.float64),
    }


def gradient(function, params, batch):
    """{tensor: gradient} of the reduced objective by autograd."""
    leaves = {p: {n: t.clone().requires_grad_() for n, t in own.items()}
              for p, own in params.items()}  # fmt: skip
    total, _ = reduced(function, leaves, batch)
    tensors = [t for own in leaves.values() for t in own.values()]
    grads = torch.autograd.grad(total, tensors, allow_unused=True)
    names = [n for own in leaves.values() for n in own]
    return {n: torch.zeros_like(t) if g is None else g
            for n, t, g in zip(names, tensors, grads, strict=True)}  # fmt: skip


def numerical(function, params, batch, h=1e-6):
    """The same by central differences."""
    result = {}
    for own in params.values():
        for name, tensor in own.items():
            result[name] = torch.zeros_like(tensor)
            for i in range(tensor.numel()):
                sides = []
                for sign in (1, -1):
                    before = tensor.view(-1)[i].item()
                    tensor.view(-1)[i] = before + sign * h
                    sides.append(reduced(function, params, batch)[0].item())
                    tensor.view(-1)[i] = before
                result[name].view(-1)[i] = (sides[0] - sides[1]) / (2 * h)
    return result


def assert_matches_differences(function, params, batch):
    exact, approximate = gradient(function, params, batch), numerical(function, params, batch)
    assert any(g.abs().max() > 1e-3 for g in exact.values())
    for name, value in exact.items():
        assert value.numpy() == pytest.approx(approximate[name].numpy(), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("clip_value", [None, 0.3])
def test_ppo_gradient_is_that_of_its_loss(clip_value):
    function = objective(value_coefficient=0.7, entropy_coefficient=0.4, clip_value=clip_value)
    assert_matches_differences(function, agent(), rows(40))


def test_value_error_gradient_is_that_of_its_loss():
    network = MLP((3, 4, 1), "tanh", "torch")
    params = {"value": network.init(0, "value")}
    batch = {k: v for k, v in rows(20).items() if k in ("observation", "target", "weight")}
    assert_matches_differences(value_error(network, "value", coefficient=0.5), params, batch)


def test_reinforce_gradient_is_that_of_its_loss():
    network = MLP((3, 4, 3), "tanh", "torch")
    params = {"policy": network.init(0, "policy")}
    batch = {k: v.view(4, 5, *v.shape[1:]) for k, v in rows(20).items() if v.ndim}
    batch = {k: batch[k] for k in ("observation", "action", "advantage")}
    batch["mask"] = torch.ones(4, 5, dtype=torch.float64)
    assert_matches_differences(reinforce(categorical(network)), params, batch)


def test_terms_are_those_of_the_paper():
    batch, params = rows(60), agent()
    terms, diagnostics = objective(value_coefficient=0.7, entropy_coefficient=0.4)(params, batch)
    choice = Categorical(logits=POLICY(params["agent"], batch["observation"]))
    value = VALUE(params["agent"], batch["observation"])[:, 0]
    ratio = (choice.log_prob(batch["action"]) - batch["log_prob"]).exp().numpy()
    advantage = batch["advantage"].numpy()
    surrogate = np.where(
        advantage > 0,
        np.minimum(ratio, 1 + CLIP) * advantage,
        np.maximum(ratio, 1 - CLIP) * advantage,
    )
    assert terms["policy"].numpy() == pytest.approx(-surrogate)
    assert terms["value"].numpy() == pytest.approx(0.7 * (value - batch["target"]).numpy() ** 2)
    assert terms["entropy"].numpy() == pytest.approx(-0.4 * choice.entropy().numpy())
    assert diagnostics["entropy"].numpy() == pytest.approx(choice.entropy().numpy())
    assert diagnostics["approx_kl"].numpy() == pytest.approx(ratio - 1 - np.log(ratio))
    outside = (ratio > 1 + CLIP) | (ratio < 1 - CLIP)
    assert np.array_equal(diagnostics["clip_fraction"].numpy(), outside)
    assert 0 < outside.sum() < 60
    lost = ((advantage > 0) & (ratio > 1 + CLIP)) | ((advantage < 0) & (ratio < 1 - CLIP))
    assert np.array_equal(diagnostics["zero_gradient"].numpy(), lost)
    assert 0 < lost.sum() < outside.sum()
    assert diagnostics["approx_kl_k1"].numpy() == pytest.approx(-np.log(ratio))


def test_extreme_ratios_are_those_of_rows_that_count():
    batch, params = rows(60), agent()
    choice = Categorical(logits=POLICY(params["agent"], batch["observation"]))
    ratio = (choice.log_prob(batch["action"]) - batch["log_prob"]).exp().numpy()
    for ranked in (ratio.argsort(), ratio.argsort()[::-1]):
        batch["weight"] = torch.ones(60, dtype=torch.float64)
        batch["weight"][ranked[:7].copy()] = 0
        _, diagnostics = objective()(params, batch)
        used = np.delete(ratio, ranked[:7])
        assert diagnostics["ratio_max"].item() == pytest.approx(used.max(), rel=1e-12)
        assert diagnostics["ratio_min"].item() == pytest.approx(used.min(), rel=1e-12)


def single(log_ratio, advantage):
    """A batch of one sample with a given ratio."""
    batch = {k: v[:1] if v.ndim else v for k, v in rows(1).items()}
    batch["weight"] = torch.ones(1, dtype=torch.float64)
    choice = Categorical(logits=POLICY(agent()["agent"], batch["observation"]))
    batch["log_prob"] = choice.log_prob(batch["action"]) - log_ratio
    batch["advantage"] = torch.tensor([advantage], dtype=torch.float64)
    return batch


@pytest.mark.parametrize(
    ("ratio", "advantage", "clipped"),
    [
        (1 + 1.01 * CLIP, 1.0, True),
        (1 - 1.01 * CLIP, -1.0, True),
        (1 + 1.01 * CLIP, -1.0, False),
        (1 - 1.01 * CLIP, 1.0, False),
        (1 + 0.99 * CLIP, 1.0, False),
        (1 - 0.99 * CLIP, -1.0, False),
    ],
)
def test_clipped_samples_have_no_gradient_at_all(ratio, advantage, clipped):
    batch = single(np.log(ratio), advantage)
    result = gradient(objective(), agent(), batch)
    assert objective()(agent(), batch)[1]["zero_gradient"].tolist() == [clipped]
    assert all(bool((g == 0).all()) for g in result.values()) == clipped


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kl_estimate_is_never_negative(dtype):
    change = torch.cat([torch.logspace(-9, 0.5, 400), -torch.logspace(-9, 0.5, 400)]).to(dtype)
    network = {"policy.0.weight": torch.zeros(2, 1, dtype=dtype)}
    policy = MLP((1, 2), prefix="policy.", bias=False)
    value = MLP((1, 1), prefix="value.", bias=False)
    tensors = {"agent": network | {"value.0.weight": torch.zeros(1, 1, dtype=dtype)}}
    zeros = torch.zeros_like(change)
    batch = {
        "observation": zeros[:, None], "action": zeros.long(), "log_prob": zeros - np.log(2)
        - change, "advantage": zeros, "target": zeros, "clip": torch.tensor(CLIP, dtype=dtype),
        "weight": torch.ones_like(change),
    }  # fmt: skip
    function = ppo(policy, value, value_coefficient=0.5)
    estimate = function(tensors, batch)[1]["approx_kl"]
    assert (estimate >= 0).all()
    x = torch.log_softmax(torch.zeros(2, dtype=dtype), 0)[0] - batch["log_prob"]  # as rounded
    exact = np.expm1(x.double().numpy()) - x.double().numpy()
    assert estimate.numpy() == pytest.approx(exact, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize(
    ("value", "old", "target", "expected"),
    [
        (1.0, 0.0, 3.0, (0.3 - 3) ** 2),  # moved towards the target further than allowed
        (1.0, 0.0, -3.0, (1.0 + 3) ** 2),  # moved away: the larger error counts
        (0.2, 0.0, 3.0, (0.2 - 3) ** 2),  # inside
        (-1.0, 0.0, -3.0, (-0.3 + 3) ** 2),
    ],
)
def test_value_clipping_takes_the_larger_error(value, old, target, expected):
    params = agent()
    params["agent"]["value.2.weight"] *= 0
    params["agent"]["value.2.bias"] = torch.tensor([value], dtype=torch.float64)
    batch = single(0.0, 0.0) | {
        "value": torch.tensor([old], dtype=torch.float64),
        "target": torch.tensor([target], dtype=torch.float64),
    }
    function = objective(value_coefficient=0.5, clip_value=0.3)
    assert function(params, batch)[0]["value"].item() == pytest.approx(0.5 * expected)
    moves = gradient(function, params, batch)["value.2.bias"].abs().item() > 0
    assert moves == (expected == (value - target) ** 2)  # no gradient through a clipped value


def test_descent_on_the_entropy_term_raises_the_entropy():
    params, batch = agent(), rows(30) | {"advantage": torch.zeros(30, dtype=torch.float64)}
    slope = gradient(objective(entropy_coefficient=0.1), params, batch)
    before = Categorical(logits=POLICY(params["agent"], batch["observation"])).entropy()
    moved = {name: t - 0.01 * slope[name] for name, t in params["agent"].items()}
    after = Categorical(logits=POLICY(moved, batch["observation"])).entropy()
    assert (batch["weight"] * (after - before)).sum() > 0


@pytest.mark.parametrize("rows_with_weight", [0, 1, 2, 7, 20])
def test_normalised_advantages(rows_with_weight):
    value = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight = torch.zeros(3, 20, dtype=torch.float64)
    weight[:, torch.randperm(20, generator=torch.Generator().manual_seed(1))[
        :rows_with_weight]] = 1  # fmt: skip
    result = normalize(5 * value + 3, weight).numpy()
    assert not result[weight.numpy() == 0].any()
    for got, x, w in zip(result, (5 * value + 3).numpy(), weight.numpy(), strict=True):
        x, got = x[w > 0], got[w > 0]
        if rows_with_weight < 2:
            assert not got.any()
        else:
            assert got == pytest.approx((x - x.mean()) / (x.std(ddof=1) + 1e-8))
