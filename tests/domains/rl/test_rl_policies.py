"""Distributions against torch.distributions, actors against densities and hand-written loops."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as td

from playground.config import compose
from playground.domains.rl.policies.categorical import Categorical
from playground.domains.rl.policies.gaussian import Gaussian, StateDependent
from playground.nets import MLP
from playground.randomness import generators
from playground.schema import ConfigError

D, CHOICES = 3, (2, 4, 3)
LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)


def net(outputs, activation="tanh"):
    return MLP((D, 5, 4, outputs), activation)


POLICIES = {
    "single": lambda: Categorical(net(4), [4], single=True),
    "multi": lambda: Categorical(net(9), CHOICES, single=False),
    "gaussian": lambda: Gaussian(net(2), -0.4),
    "squashed": lambda: Gaussian(net(2), -0.4, (LOW, HIGH)),
    "gsde": lambda: StateDependent(net(2), -0.4, 3),
}
NAMES = [*POLICIES]


def random(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def members(policy, count=1, dtype=torch.float32, scale=2.0):
    """Tensors [M, *shape], with a spread of its own for every component."""
    own = [policy.init(k, "policy") for k in range(count)]
    tensors = {n: scale * torch.stack([t[n] for t in own]) for n in own[0]}
    for name in tensors:
        if name.endswith("log_std"):
            tensors[name] = -0.5 + 0.5 * random(*tensors[name].shape, seed=9)
    return {n: t.to(dtype) for n, t in tensors.items()}


def first(tensors):
    return {n: t[0] for n, t in tensors.items()}


def pair(name, rows=50):
    """A policy, statistics of two members on the same observations, and torch's of the first."""
    policy, observation = POLICIES[name](), random(rows, D, seed=1)
    tensors = members(policy, 2, torch.float64)
    sides = [{n: t[k] for n, t in tensors.items()} for k in range(2)]
    statistics = [policy(side, observation) for side in sides]
    return policy, statistics, [torch_s(policy, side, observation) for side in sides]


def torch_s(policy, tensors, observation):
    """The distributions by the module: a list where there are components."""
    module = policy.network.module().double()
    module.load_state_dict({n: t for n, t in tensors.items() if n != "log_std"})
    output = module(observation).detach()
    if isinstance(policy, Categorical):
        return [td.Categorical(logits=z) for z in output.split(policy.choices, -1)]
    if isinstance(policy, Gaussian):
        return [td.Independent(td.Normal(output, tensors["log_std"].exp()), 1)]
    features = module[:-1](observation).detach()
    variance = (features.square()[:, :, None] * tensors["log_std"].exp().square()).sum(1)
    return [td.Independent(td.Normal(output, (variance + 1e-6).sqrt()), 1)]


def drawn(theirs):
    """Actions of torch's distributions."""
    torch.manual_seed(0)
    if isinstance(theirs[0], td.Categorical):
        return torch.stack([d.sample() for d in theirs], -1)
    return theirs[0].sample()


def total(name, theirs, action):
    """Their log-probability of stored actions."""
    if isinstance(theirs[0], td.Categorical):
        return sum(d.log_prob(a) for d, a in zip(theirs, action.unbind(-1), strict=True))
    if name == "squashed":
        base = theirs[0].base_dist
        tanh = td.TransformedDistribution(td.Independent(base, 1), [td.TanhTransform(cache_size=1)])
        return tanh.log_prob(torch.tanh(action))
    return theirs[0].log_prob(action)


@pytest.mark.parametrize("name", NAMES)
def test_log_probabilities_are_torch_s(name):
    policy, (statistics, _), (theirs, _) = pair(name)
    action = drawn(theirs)
    expected = total(name, theirs, action)
    own = policy.log_prob(statistics, action[:, 0] if name == "single" else action)
    assert own.shape == (50,)
    assert own.numpy() == pytest.approx(expected.numpy(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "squashed"])
def test_entropies_are_torch_s(name):
    policy, (statistics, _), (theirs, _) = pair(name)
    expected = sum(d.entropy() for d in theirs)
    nothing = torch.full_like(expected, float("nan"))  # the closed form does not look at it
    entropy = policy.entropy(statistics, nothing)
    assert entropy.numpy() == pytest.approx(expected.numpy(), rel=1e-10)
    assert expected.std() > 1e-3 or name == "gaussian"


def test_a_squashed_policy_s_entropy_is_estimated():
    """-log pi(a) of samples averages to the differential entropy of tanh u by quadrature."""
    policy = Gaussian(MLP((1, 1)), 0.0, (LOW[:1], HIGH[:1]))
    statistics = {
        "mean": torch.tensor([[0.4]]).double(),
        "log_std": torch.tensor([[-0.7]]).double(),
    }
    u = torch.linspace(-8, 8, 20001, dtype=torch.float64)[:, None]
    log_p = policy.log_prob({n: s.expand_as(u) for n, s in statistics.items()}, u)
    density = torch.exp(log_p + torch.log1p(-torch.tanh(u[:, 0]).square()))  # of u again
    exact = -torch.trapezoid(torch.where(density > 0, density * log_p, 0.0), u[:, 0])
    sample = 0.4 + math.exp(-0.7) * random(40000, 1)
    taken = policy.log_prob({n: s.expand_as(sample) for n, s in statistics.items()}, sample)
    estimate = policy.entropy({n: s.expand_as(sample) for n, s in statistics.items()}, taken)
    assert torch.equal(estimate, -taken)
    assert abs(estimate.mean() - exact) < 4.5 * estimate.std() / 200


@pytest.mark.parametrize("name", NAMES)
def test_divergences_are_torch_s(name):
    policy, (old, new), (theirs, others) = pair(name)
    expected = sum(td.kl_divergence(p, q) for p, q in zip(theirs, others, strict=True))
    assert (expected > 1e-3).any()
    divergence = policy.divergence(old, new)
    assert divergence.numpy() == pytest.approx(expected.numpy(), rel=1e-9, abs=1e-12)
    assert policy.divergence(old, old).abs().max() < 1e-14


def test_the_divergence_of_a_squashed_policy_is_that_before():
    """tanh is a bijection: KL of the squashed by quadrature is KL of the normals."""
    policy = Gaussian(MLP((1, 1)), 0.0, (LOW[:1], HIGH[:1]))
    u = torch.linspace(-9, 9, 40001, dtype=torch.float64)[:, None]
    old = {"mean": torch.full_like(u, 0.3), "log_std": torch.full_like(u, -0.5)}
    new = {"mean": torch.full_like(u, -0.2), "log_std": torch.full_like(u, 0.1)}
    p, q = policy.log_prob(old, u), policy.log_prob(new, u)
    y = torch.tanh(u[:, 0])
    inside = y.abs() < 1 - 1e-12
    integral = torch.trapezoid((p.exp() * (p - q))[inside], y[inside])
    assert integral.item() == pytest.approx(policy.divergence(old, new)[0].item(), rel=1e-4)


LOGITS = [
    [0.0, 0.0, 0.0], [100.0, 0.0, -100.0], [1e4, -1e4, 0.0], [80.0, 80.0, -90.0],
    [-3e5, 2e5, 1e5], [30.0, 29.9999, 0.0],
]  # fmt: skip


@pytest.mark.parametrize("logits", LOGITS)
def test_extreme_logits_in_float32(logits):
    """Within a few units in the last place of float64; never NaN, entropy never infinite."""
    policy, results = Categorical(MLP((1, 3)), [3], single=True), {}
    for dtype in (torch.float32, torch.float64):
        z = torch.tensor(logits, dtype=dtype)
        tensors = {"0.weight": torch.zeros(3, 1, dtype=dtype), "0.bias": z}
        s = policy(tensors, torch.zeros(3, 1, dtype=dtype))
        log_p = policy.log_prob(s, torch.arange(3))
        uniform = policy({n: 0 * t for n, t in tensors.items()}, torch.zeros(3, 1, dtype=dtype))
        kl = policy.divergence(uniform, s)
        results[dtype] = [v.double().numpy() for v in (log_p, policy.entropy(s, log_p), kl)]
    for own, exact in zip(results[torch.float32], results[torch.float64], strict=True):
        assert np.isfinite(own).all()
        scale = max(1.0, np.abs(logits).max())
        assert own == pytest.approx(exact, rel=1e-6, abs=4e-7 * scale)
    assert (results[torch.float32][1] >= 0).all()


@pytest.mark.parametrize("u", [0.0, 1.0, -5.0, 12.0, -30.0, 80.0])
def test_a_saturated_tanh_has_a_finite_density(u):
    """log(1 - tanh^2 u) = -2 log cosh u, which float64's logaddexp gives far out."""
    policy = Gaussian(MLP((1, 1)), 0.0, (LOW[:1], HIGH[:1]))
    statistics = {"mean": torch.tensor([u]), "log_std": torch.tensor([0.0])}
    log_prob = policy.log_prob(statistics, torch.tensor([u]))
    cosh = np.logaddexp(np.float64(u), np.float64(-u)) - math.log(2)
    expected = -0.5 * math.log(2 * math.pi) + 2 * cosh
    assert log_prob.item() == pytest.approx(expected, rel=1e-6, abs=1e-6)


def observe(count, num_envs, seed=3):
    """The same observation in every environment of a member."""
    rows = np.random.default_rng(seed).normal(size=(count, 1, D)).astype(np.float32)
    return np.repeat(rows, num_envs, axis=1)


@pytest.mark.parametrize("name", ["single", "multi"])
def test_choices_are_drawn_with_their_probabilities(name):
    policy, num_envs = POLICIES[name](), 20000
    tensors, seen = members(policy, 2, scale=1.5), observe(2, num_envs)
    noise = policy.noise(generators([0, 1], "action"), 1, num_envs)[0]
    action = policy.actor(tensors)(seen, noise).reshape(2, num_envs, -1)
    for k in range(2):
        own = {n: t[k].double() for n, t in tensors.items()}
        theirs = torch_s(policy, own, torch.tensor(seen[k, :1]).double())
        for j, distribution in enumerate(theirs):
            chance = distribution.probs[0].numpy()
            counts = np.bincount(action[k, :, j], minlength=len(chance))
            assert stats.chisquare(counts, chance * num_envs).pvalue > 1e-4
    if name == "multi":  # components are independent given the state
        table = np.histogram2d(action[0, :, 1], action[0, :, 2], bins=(4, 3))[0]
        table = table[table.sum(1) > 50][:, table.sum(0) > 50]
        assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize("name", ["gaussian", "squashed", "gsde"])
def test_numbers_are_drawn_with_their_density(name):
    """Kolmogorov-Smirnov with the normal whose log-density the policy gives."""
    policy, num_envs = POLICIES[name](), 20000
    tensors, seen = members(policy, 2), observe(2, num_envs)
    noise = policy.noise(generators([0, 1], "action"), 1, num_envs)[0]
    action = policy.actor(tensors)(seen, noise)
    assert action.shape == (2, num_envs, 2)
    for k in range(2):
        own = {n: t[k].double() for n, t in tensors.items()}
        normal = torch_s(policy, own, torch.tensor(seen[k, :1]).double())[0].base_dist
        for j in range(2):
            mean, scale = normal.loc[0, j].item(), normal.scale[0, j].item()
            assert stats.kstest(action[k, :, j], "norm", (mean, scale)).pvalue > 1e-4
        assert stats.pearsonr(action[k, :, 0], action[k, :, 1]).pvalue > 1e-4


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
@pytest.mark.parametrize("name", NAMES)
def test_without_noise_the_mode_of_the_module(name, activation, count):
    """By NumPy where it can, by torch elsewhere; parameters are read anew at every call."""
    policy = POLICIES[name]()
    policy.network = net(policy.network.sizes[-1], activation)
    tensors = members(policy, count)
    seen = np.random.default_rng(0).normal(size=(count, 6, D)).astype(np.float32)
    act = policy.actor(tensors)
    for _ in range(2):
        action = act(seen, None)
        for k in range(count):
            own = {n: t[k].double() for n, t in tensors.items()}
            theirs = torch_s(policy, own, torch.tensor(seen[k]).double())
            mode = torch.stack([d.mode for d in theirs], -1).numpy()
            if isinstance(policy, Categorical):
                assert np.array_equal(action[k].reshape(mode.shape), mode)
            else:
                assert action[k] == pytest.approx(mode[..., 0], abs=1e-5)
        for tensor in tensors.values():
            tensor.mul_(-1.3)


@pytest.mark.parametrize("name", NAMES)
def test_noise_belongs_to_the_member(name):
    policy = POLICIES[name]()
    together, alone = (policy.noise(generators(s, "action"), 7, 2) for s in ([4, 5], [5]))
    for several, single in zip(together, alone, strict=True):
        assert np.array_equal(several[1], single[0])
        assert not np.array_equal(several[0], several[1])


@pytest.mark.parametrize("hold", [1, 3, 20, None])
def test_state_dependent_noise_is_held(hold):
    policy = StateDependent(net(2), -0.4, hold)
    noise = policy.noise(generators([0, 1], "action"), 8, 3)
    assert len(noise) == 8
    for t in range(1, 8):
        held = np.array_equal(noise[t], noise[t - 1])
        assert held == (hold is None or t % hold != 0)
    assert noise[0].shape == (2, 3, 4, 2)
    assert len({row.tobytes() for row in noise[0].reshape(6, -1)}) == 6


def test_state_dependent_actions_are_the_formula_of_the_paper():
    """a_k = mu_k + sum_l theta_lk phi_l with theta_lk = sigma_lk eps_lk, by a loop."""
    policy = StateDependent(net(2), -0.4, None)
    tensors = members(policy, 2)
    noise = policy.noise(generators([0, 1], "action"), 2, 3)
    seen = np.random.default_rng(0).normal(size=(2, 3, D)).astype(np.float32)
    action = policy.actor(tensors)(seen, noise[0])
    for k in range(2):
        module = policy.module()
        module.load_state_dict({n: t[k] for n, t in tensors.items()})
        sigma = tensors["log_std"][k].exp()
        for e in range(3):
            phi = module[:-1](torch.tensor(seen[k, e])).detach()
            mean = module[-1](phi).detach()
            for j in range(2):
                shift = sum(sigma[i, j] * noise[0][k, e, i, j] * phi[i] for i in range(4))
                assert action[k, e, j] == pytest.approx(float(mean[j] + shift), abs=1e-5)
    again = policy.actor(tensors)(seen, noise[1])
    assert np.array_equal(action, again)  # a function of the state while theta is held


def test_state_dependent_spread_gives_the_features_no_gradient():
    """d log_std / d trunk is 0, d log_std / d log sigma is not (Raffin et al. 2022)."""
    policy = StateDependent(net(2), -0.4, None)
    tensors = {
        n: t.requires_grad_() for n, t in first(members(policy, dtype=torch.float64)).items()
    }
    statistics = policy(tensors, random(5, D))
    names = [*tensors]
    slopes = torch.autograd.grad(statistics["log_std"].sum(), [tensors[n] for n in names],
                                 allow_unused=True)  # fmt: skip
    for name, slope in zip(names, slopes, strict=True):
        assert (slope is not None and bool(slope.any())) == (name == "log_std")


def test_squashed_actions_fill_their_bounds():
    policy = POLICIES["squashed"]()
    u = np.random.default_rng(0).normal(0, 3, (1000, 2)).astype(np.float32)
    action = policy.environment(u)
    assert (action >= LOW).all()
    assert (action <= HIGH).all()
    unit = (action - LOW) / (HIGH - LOW)
    assert 2 * unit - 1 == pytest.approx(np.tanh(u), abs=1e-6)
    ends = policy.environment(np.array([[-50, -50], [0, 0], [50, 50]], np.float32))
    assert ends == pytest.approx(np.stack([LOW, (LOW + HIGH) / 2, HIGH]))
    for name in ("gaussian", "gsde", "single", "multi"):
        assert POLICIES[name]().environment(u) is u


@pytest.mark.parametrize("name", NAMES)
def test_modules_have_the_tensors_of_their_policies(name):
    policy = POLICIES[name]()
    tensors = policy.init(0, "policy")
    module = policy.module().double()
    module.load_state_dict(tensors)  # strict: names and shapes
    assert [*module.state_dict()] == sorted(tensors, key=[*module.state_dict()].index)
    x = random(6, D)
    output = module(x)
    statistics = policy(tensors, x)
    if isinstance(policy, Categorical):
        blocks = [torch.log_softmax(z, -1) for z in output.split(policy.choices, -1)]
        assert torch.allclose(statistics["log_p"], torch.cat(blocks, -1))
    else:
        assert torch.equal(statistics["mean"], output)
        assert (tensors["log_std"] == -0.4).all()


@pytest.mark.parametrize("algorithm", ["a2c", "ppo", "ppo_kl"])
def test_a_shared_trunk_is_one(game, algorithm):
    made = game(f"algorithm={algorithm}", "problem.shared_trunk=true", "problem.widths=[6,5]",
                "members=2", "problem.num_envs=8", *SHORT[algorithm])  # fmt: skip
    player = made.players["agent"]
    layers = [f"trunk.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")]
    heads = [f"{head}.4.{kind}" for head in ("policy", "value") for kind in ("weight", "bias")]
    assert {*player.parameters.layout.names} == {*layers, *heads}
    for k in range(2):
        policy = made.problem.policy.init(made.problem.context.seeds[k], "agent")
        value = made.problem.value.init(made.problem.context.seeds[k], "agent")
        for name, tensor in player.parameters.member(k).items():
            expected = value[name] if name.startswith("value") else policy[name]
            assert torch.equal(tensor, expected.float())
    made.iterate(2)
    module = player.module()
    module.load_state_dict(player.parameters.member(1))
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    hidden = module["trunk"](x)
    logits = module["policy"]["4"](hidden)
    value = module["value"]["4"](hidden)[:, 0]
    assert made.problem.statistics(x.expand(2, 7, 4))["log_p"][1].numpy() == pytest.approx(
        logits.log_softmax(-1).detach().numpy(), abs=1e-6
    )
    rows = np.broadcast_to(x.numpy()[:, None, None], (7, 2, 1, 4))
    assert made.problem.values(rows)[:, 1, 0] == pytest.approx(value.detach().numpy(), abs=1e-6)


SHORT = {
    "a2c": [],
    "ppo": ["algorithm.num_steps=16", "algorithm.batch_size=32"],
    "ppo_kl": ["algorithm.num_steps=16", "algorithm.batch_size=32"],
}

REFUSED = {
    "two players share no trunk": (
        ["algorithm=ppo", "algorithm.separate=true", "problem.shared_trunk=true"],
        "problem.shared_trunk=true: ppo has two players",
    ),
    "reinforce has two players": (
        ["algorithm=reinforce", "problem.shared_trunk=true"], "problem.shared_trunk=true"
    ),
    "trpo has two players": (
        ["algorithm=trpo", "problem.shared_trunk=true"], "problem.shared_trunk=true"
    ),
    "squashed choices": (["problem.squash=true"], "problem.squash=true: needs continuous"),
    "gsde of choices": (["problem.gsde=true"], "problem.gsde=true: needs continuous"),
    "both": (
        ["problem.env=Pendulum-v1", "problem.squash=true", "problem.gsde=true"], "only one of them"
    ),
    "unbounded": (
        ["problem.env=toys/Unbounded-v0", "problem.squash=true"], "squash=true: .* no bounds"
    ),
    "steps of nothing": (["problem.gsde_steps=4"], "problem.gsde_steps=4: needs problem.gsde"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(game, case):
    overrides, words = REFUSED[case]
    with pytest.raises(ConfigError, match=words) as caught:
        game(*overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["squash", "gsde"])
def test_the_options_of_continuous_actions_reach_the_policy(game, option):
    made = game("problem.env=Pendulum-v1", f"problem.{option}=true", "problem.log_std=-0.7")
    policy = made.problem.policy
    assert isinstance(policy, StateDependent if option == "gsde" else Gaussian)
    tensors = made.players["agent"].parameters.only
    assert (tensors["policy.log_std"] == np.float32(-0.7)).all()
    if option == "squash":
        assert [b.tolist() for b in policy.bounds] == [[-2.0], [2.0]]
    assert compose(["problem=rl/cartpole"]).problem.log_std == 0.0
