"""Curvature against closed forms, finite differences, torch.func, numpy and ARPACK."""

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh

from playground.probes.curvature import critical, lanczos
from playground.probes.curvature import formulas as curvature

F64 = torch.float64


def rotated(spectra, seed=0, dtype=F64):
    """Symmetric matrices [M, N, N] with given eigenvalues, and their products."""
    draw, matrices = np.random.default_rng(seed), []
    for values in spectra:
        turn, _ = np.linalg.qr(draw.normal(size=(len(values), len(values))))
        matrices.append(turn @ np.diag(values) @ turn.T)
    matrix = torch.as_tensor(np.stack(matrices), dtype=dtype)
    return matrix, lambda v: torch.bmm(matrix, v.unsqueeze(2)).squeeze(2)


def noise(*shape, seed=1, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def signs(count, *shape, seed=2):
    source = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 2, shape, generator=source).double() * 2 - 1 for _ in range(count)]


def random_matrix(size, seed=0):
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    return (matrix + matrix.T) / 2


def test_both_ends_with_their_residuals_against_numpy():
    """Two members with spectra of their own, the second with more negative weight."""
    spectra = [np.r_[-3, np.linspace(-1, 1, 58), 10], np.r_[-9, np.linspace(-1, 1, 58), 4]]
    matrix, product = rotated(spectra)
    ends = curvature.extremes(product, noise(2, 60), 40, 1e-3)
    exact = torch.as_tensor([[-3.0, 10], [-9, 4]], dtype=F64)
    assert ends.products < 40
    assert (ends.residuals <= 1e-3 * torch.tensor([[10.0], [9.0]])).all()
    assert ((ends.values - exact).abs() <= ends.residuals).all()  # theorem 4.5.1
    assert (ends.values[:, 0] >= exact[:, 0]).all()
    assert (ends.values[:, 1] <= exact[:, 1]).all()
    images = torch.einsum("mij,mej->mei", matrix, ends.vectors)
    residual = (images - ends.values[:, :, None] * ends.vectors).norm(dim=2)
    torch.testing.assert_close(residual, ends.residuals, atol=1e-12, rtol=1e-6)
    assert ends.trusted.all()


@pytest.mark.parametrize("relative", ["largest", "each"])
def test_against_arpack_and_the_rule_for_stopping(relative):
    matrix = random_matrix(300) + np.diag(np.linspace(-1, 30, 300))
    whole = torch.as_tensor(matrix)[None]
    ends = curvature.extremes(
        lambda v: v @ whole[0], noise(1, 300), 300, 1e-4, relative=relative
    )  # fmt: skip
    low, high = (eigsh(matrix, k=1, which=which)[0][0] for which in ("SA", "LA"))
    scale = np.abs([low, high]) if relative == "each" else max(abs(low), abs(high))
    assert (ends.residuals[0].numpy() <= 1e-4 * scale).all()
    np.testing.assert_allclose(ends.values[0], [low, high], atol=1e-4 * abs(high))
    before = lanczos.krylov(lambda v: v @ whole[0], noise(1, 300), ends.products - 1)
    _, least = before.refined(before.ritz()[0][:, [0, -1]])
    assert (least[0] > 1e-4 * scale).any()  # it could not have stopped sooner


def test_refined_vectors_have_the_least_residuals_of_the_space():
    """The oracle: singular values of (H - theta) V, N numbers high, in NumPy."""
    whole = np.stack([random_matrix(30, seed) for seed in (1, 2)])
    space = lanczos.krylov(lambda v: torch.einsum("mij,mj->mi", torch.as_tensor(whole), v),
                           noise(2, 30), 7)  # fmt: skip
    ritz, _, residuals = space.ritz()
    values = ritz[:, [0, 3, -1]]
    inside, least = space.refined(values)
    for m, (matrix, basis) in enumerate(zip(whole, space.basis.numpy(), strict=True)):
        for e, value in enumerate(values[m]):
            shifted = (matrix - value * np.eye(30)) @ basis.T
            smallest = np.linalg.svd(shifted, compute_uv=False)[-1]
            assert least[m, e] == pytest.approx(smallest, rel=1e-9)
            assert np.linalg.norm(shifted @ inside[m, e]) == pytest.approx(smallest, rel=1e-9)
    assert (least < 0.95 * residuals[:, [0, 3, -1]]).all()
    space.matrix[1, 0, 0] = np.nan
    inside, least = space.refined(values)
    assert np.isnan(least[1]).all()
    assert np.isfinite(least[0]).all()


def test_lanczos_is_exact_after_as_many_steps_as_there_are_eigenvalues():
    spectra = [np.repeat([-2.0, 1, 5], [4, 5, 3]), np.linspace(1, 12, 12), np.full(12, 3.0)]
    _, product = rotated(spectra)
    space = lanczos.krylov(product, noise(3, 12), 12)
    values, _, residuals = space.ritz()
    found = [np.unique(row.round(8)) for row in values]
    np.testing.assert_allclose(found[1], spectra[1], atol=1e-8)
    assert residuals.max() < 1e-8
    assert set(found[0]) >= {-2, 1, 5}
    assert found[0].min() == -2  # and nothing outside: no spurious 0 of spent spaces
    assert found[0].max() == 5
    np.testing.assert_allclose(found[2], 3)


@pytest.mark.parametrize("value", [0.0, 2.5])
def test_a_multiple_of_the_identity_of_any_size(value):
    for size in (1, 2, 9):
        ends = curvature.extremes(lambda v: value * v, noise(2, size), 15, 1e-2)
        assert ends.values.tolist() == [[pytest.approx(value)] * 2] * 2
        assert ends.residuals.max() < 1e-12


def test_a_broken_member_is_undefined_and_harms_nobody():
    _, product = rotated([np.linspace(-1, 5, 20)] * 2)

    def broken(vector):
        image = product(vector).clone()
        image[1] = torch.nan
        return image

    ends = curvature.extremes(broken, noise(2, 20), 20, 1e-6)
    assert ends.values[0].tolist() == pytest.approx([-1, 5])
    assert torch.isnan(ends.values[1]).all()
    assert not ends.vectors[1].any()
    start = curvature.warm(ends.vectors, noise(2, 20, seed=5))
    again = curvature.extremes(product, start, 20, 1e-6)
    assert again.values[1].tolist() == pytest.approx([-1, 5])  # it recovers


def test_products_in_float32_are_precise_enough():
    """500 orthogonal directions, condition 1e4: residuals as stated, to float32's rounding."""
    matrix, product = rotated([np.r_[-40, np.geomspace(0.02, 200, 499)]], dtype=torch.float32)
    ends = curvature.extremes(product, noise(1, 500, dtype=torch.float32), 40, 1e-4)
    unit = ends.vectors.double()
    images = torch.einsum("mij,mej->mei", matrix.double(), unit)
    residual = (images - ends.values[:, :, None] * unit).norm(dim=2)
    torch.testing.assert_close(residual, ends.residuals, atol=200 * 2e-6, rtol=0)
    assert ends.values[0].tolist() == pytest.approx([-40, 200], abs=1e-2)
    gram = ends.space.basis[0].double()
    torch.testing.assert_close(gram @ gram.T, torch.eye(len(gram)).double(), atol=1e-5, rtol=0)


def test_a_warm_start_is_shorter_and_finds_what_is_new():
    """5000 parameters; then an eigenvector that the last ones do not contain overtakes them."""
    diagonal = torch.linspace(-0.01, 0.01, 5000, dtype=F64)
    diagonal[:3] = torch.tensor([-4.0, 10.0, 3.0])
    cold = curvature.extremes(lambda v: v * diagonal, noise(1, 5000), 30, 1e-6)
    start = curvature.warm(cold.vectors, noise(1, 5000, seed=7))
    again = curvature.extremes(lambda v: v * diagonal, start, 30, 1e-2)
    assert again.products == curvature.LEAST
    diagonal[4000] = 15.0
    found = curvature.extremes(lambda v: v * diagonal, start, 15, 1e-2)
    assert found.values[0].tolist() == pytest.approx([-4, 15], rel=1e-3)


def test_the_top_alone_takes_no_more_products_than_both():
    _, product = rotated([np.r_[np.linspace(-1, 1, 199), 10]])
    both = curvature.extremes(product, noise(1, 200), 100, 1e-4)
    top = curvature.extremes(product, noise(1, 200), 100, 1e-4, top=True)
    assert top.products < both.products
    assert top.values[0, 1].item() == pytest.approx(10, rel=1e-6)


def test_preconditioned_spectrum_against_numpy():
    matrix = random_matrix(30, 3)
    scale = np.random.default_rng(1).uniform(0.1, 10, 30)
    product = curvature.preconditioned(
        lambda v: v @ torch.as_tensor(matrix), torch.as_tensor(scale)[None], torch.tensor([0.7])
    )
    found = curvature.extremes(product, noise(1, 30), 30, 1e-12)
    expected = np.linalg.eigvals((matrix + 0.7 * np.eye(30)) / scale[:, None]).real
    np.testing.assert_allclose(found.values[0], [expected.min(), expected.max()], rtol=1e-7)


X = noise(40, 3, seed=11)
W = noise(2, 3, seed=12)


def linear(w):  # [M, 3]
    return 0.5 * (w @ X.T - 1.0).square().mean(dim=1)


def logistic(w):
    return torch.nn.functional.softplus(w @ X.T).mean(dim=1)


def softmax(w):  # [M, 12], four classes
    logits = torch.einsum("nd,mdk->mnk", X, w.view(-1, 3, 4))
    return -logits.log_softmax(dim=2)[:, :, 0].mean(dim=1)


def closed_logistic(w):
    p = torch.sigmoid(X @ w)
    return X.T @ ((p * (1 - p))[:, None] * X) / len(X)


def closed_softmax(w):
    p = (X @ w.view(3, 4)).softmax(dim=1)
    blocks = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("nkl,ni,nj->ikjl", blocks, X, X).reshape(12, 12) / len(X)


CASES = {
    "linear": (linear, W, lambda w: X.T @ X / len(X)),
    "logistic": (logistic, W, closed_logistic),
    "softmax": (softmax, noise(2, 12, seed=13), closed_softmax),
}


def slope(function):
    def gradient(at):
        (value,) = torch.autograd.grad(function(at).sum(), at, create_graph=True)
        return value

    return gradient


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch.func's own
@pytest.mark.parametrize("name", CASES)
def test_hessians_of_regressions(name):
    """Products against the closed form, torch.func.hessian and differences; the ends against it."""
    function, at, closed = CASES[name]
    exact = torch.stack([closed(w) for w in at])
    value, product = curvature.linearise(slope(function), at)
    vector = noise(*at.shape, seed=14)
    expected = torch.einsum("mij,mj->mi", exact, vector)
    torch.testing.assert_close(product(vector), expected, atol=1e-12, rtol=1e-10)
    func = torch.func.vmap(torch.func.hessian(lambda w: function(w[None])[0]))(at)
    torch.testing.assert_close(func, exact, atol=1e-12, rtol=1e-10)
    eps, sides = 1e-6, []
    for side in (1, -1):
        sides.append(slope(function)((at + side * eps * vector).requires_grad_()).detach())
    torch.testing.assert_close((sides[0] - sides[1]) / (2 * eps), expected, atol=1e-8, rtol=1e-6)
    found = curvature.extremes(product, noise(*at.shape, seed=15), at.shape[1], 1e-12)
    whole = torch.linalg.eigvalsh(exact)
    torch.testing.assert_close(found.values, whole[:, [0, -1]], atol=1e-10, rtol=1e-8)
    assert value.shape == at.shape


def test_a_two_layer_linear_network_at_the_origin():
    """1/2 |B A - S|^2 with 3 hidden units: eigenvalues +-s_i, 3 times each, and zeros."""
    target = noise(5, 4, seed=21)

    def function(z):
        a, b = z[:, :12].view(-1, 3, 4), z[:, 12:].view(-1, 5, 3)
        return 0.5 * (b @ a - target).square().sum(dim=(1, 2))

    at = torch.zeros(1, 27, dtype=F64)
    value, product = curvature.linearise(slope(function), at)
    singular = torch.linalg.svdvals(target)
    found = curvature.extremes(product, noise(1, 27), 27, 1e-10)
    torch.testing.assert_close(found.values[0], torch.stack([-singular[0], singular[0]]))
    assert not value.any()
    total, error = curvature.trace(product, signs(4, 1, 27), found.space)
    assert abs(total.item()) <= 5 * error.item() + 1e-9  # the trace is 0
    code = critical.kind(
        value.norm(dim=1), at.norm(dim=1), function(at), found.values, found.residuals,
        torch.tensor([1e-8]), 1e-4,
    )  # fmt: skip
    assert critical.KINDS[int(code)] == "saddle"


def test_trace_is_unbiased_with_the_variance_of_the_closed_form():
    """20000 members share H: Var z'Hz = 2 (|H|_F^2 - sum h_ii^2)."""
    matrix = torch.as_tensor(random_matrix(8, 5))
    product = lambda v: v @ matrix  # noqa: E731
    total, error = curvature.trace(product, signs(4, 20000, 8))
    variance = 2 * (matrix.square().sum() - matrix.diagonal().square().sum()).item() / 4
    assert total.mean().item() == pytest.approx(matrix.trace().item(), abs=4 * variance**0.5 / 141)
    assert total.var().item() == pytest.approx(variance, rel=0.05)
    assert error.square().mean().item() == pytest.approx(variance, rel=0.05)
    space = lanczos.krylov(product, noise(20000, 8), 4)
    less, _ = curvature.trace(product, signs(4, 20000, 8), space)
    deviation = less.std().item()
    assert deviation < 0.5 * variance**0.5  # what the space holds is exact
    assert less.mean().item() == pytest.approx(matrix.trace().item(), abs=4 * deviation / 141)


def test_trace_of_a_diagonal_matrix_and_of_a_spent_space_is_exact():
    diagonal = noise(1, 9)
    total, error = curvature.trace(lambda v: v * diagonal, signs(2, 1, 9))
    assert total.item() == pytest.approx(diagonal.sum().item())
    assert error.item() == pytest.approx(0, abs=1e-12)
    _, product = rotated([np.repeat([2.0, 0.0], [1, 8])])  # the space ends after two steps
    space = lanczos.krylov(product, noise(1, 9), 9)
    total, error = curvature.trace(product, signs(2, 1, 9), space)
    assert total.item() == pytest.approx(2)
    assert error.item() == pytest.approx(0, abs=1e-9)


def test_quadrature_has_the_moments_of_its_starts():
    """sum w theta^p = v'H^p v / |v|^2 up to p = 2 K - 1; over all unit vectors, tr H^p / N."""
    matrix, product = rotated([np.linspace(-1, 2, 12), np.repeat([0.0, 3.0], [9, 3])], seed=4)
    start = noise(2, 12)
    nodes, weights = curvature.quadrature(product, [start], 5)
    unit = start / start.norm(dim=1, keepdim=True)
    for p in range(10):
        power = torch.linalg.matrix_power(matrix, p)
        expected = torch.einsum("mi,mij,mj->m", unit, power, unit)
        torch.testing.assert_close((weights * nodes**p).sum(1), expected)
    basis = [row.expand(2, -1) for row in torch.eye(12, dtype=F64)]
    nodes, weights = curvature.quadrature(product, basis, 5)
    square = torch.einsum("mij,mji->m", matrix, matrix) / 12
    torch.testing.assert_close((weights * nodes**2).sum(1), square)
    grid = torch.linspace(-3, 6, 2001, dtype=F64)
    drawn = curvature.density(nodes, weights, grid, 0.1)
    torch.testing.assert_close(torch.trapezoid(drawn, grid), torch.ones(2, dtype=F64))
    mass = torch.trapezoid(drawn[1, grid > 1.5], grid[grid > 1.5])
    assert mass.item() == pytest.approx(3 / 12, abs=1e-3)


def judged(low, high, gradient=0.0, length=2.0, value=1.0, error=0.0, zero=1e-3):
    column = lambda x: torch.tensor([x], dtype=F64)  # noqa: E731
    code = critical.kind(
        column(gradient), column(length), column(value), torch.tensor([[low, high]], dtype=F64),
        torch.full((1, 2), error, dtype=F64), column(zero), 1e-4,
    )  # fmt: skip
    return "" if torch.isnan(code) else critical.KINDS[int(code)]


def test_kinds_of_points():
    assert judged(0.5, 5) == "minimum"
    assert judged(0.5, 5, gradient=0.9e-4 * 5 * 2) == "minimum"
    assert judged(0.5, 5, gradient=1.1e-4 * 5 * 2) == "not critical"
    assert judged(0.5, 5, gradient=1.1e-4 * 5, length=0.0) == "not critical"
    assert judged(1e-4, 5) == judged(-1e-4, 5) == "degenerate minimum"
    assert judged(-0.5, 5) == judged(-0.5, 5, error=1.0) == "saddle"
    assert judged(-5, -0.5) == "maximum"
    assert judged(0.5, 5, error=0.1) == judged(-5, -0.5, error=0.1) == "undecided"
    assert judged(0.0, 0.0, value=0.0) == "plateau"  # x^3 - 3 x y^2 at 0
    assert judged(-1e-6, 1e-5, gradient=1e-6) == "plateau"
    assert judged(-1e-6, 1e-5, gradient=1e-6, value=1e-6) == "not critical"
    assert judged(float("nan"), 1.0) == judged(0.5, 5, gradient=float("nan")) == ""


def test_kinds_do_not_depend_on_units():
    for scale in (1e-6, 1e6):  # of the objective
        for gradient in (0.0, 0.9e-3, 1.1e-3):
            plain = judged(-0.5, 5, gradient)
            assert judged(*(scale * x for x in (-0.5, 5, gradient)), value=scale,
                          zero=scale * 1e-3) == plain  # fmt: skip
