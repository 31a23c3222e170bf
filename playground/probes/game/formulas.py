"""The game's vector field: Jacobian, spectrum, rotation, stable step, path-angle.

F(z) is every player's gradient by its own parameters, in a row; players descend, so the flow is
z' = -F(z), and J = dF/dz. (The literature on GANs often writes v = -F, whose Jacobian is -J.)
At an equilibrium:

    attracting              all eigenvalues of J have a positive real part
    rotating                they have imaginary parts; those come from the antisymmetric part
    largest stable rate     of z - eta F(z): min over eigenvalues of 2 Re / |.|^2
    shares                  |S|^2 / |J|^2 and |A|^2 / |J|^2 (Frobenius), J = S + A, S symmetric;
                            they add up to 1: a potential game has A = 0, a bilinear one S = 0

Functions of a field, for anyone's loop; ``game_probe`` measures them in a run.

    field = lambda z: {"x": gradient of f by x, "y": gradient of g by y}    # {player: [M, N]}
    spectrum(jacobian(field, {"x": x, "y": y}))                             # [M, n] complex

Members are independent; for one, M = 1. The field must be differentiable in its argument.

Shape legend: M members, N parameters of a player, n of all players, K vectors.

Sources: Balduzzi et al. (2018), lemma 1; Mescheder et al. (2017), section 3; Berard et al.
(2020), section 4.2.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from playground.products import Products

Point = Mapping[str, Tensor]
"""{player: [M, N]}."""

Field = Callable[[Point], Point]
"""F: every player's gradient at a point, differentiable in it."""

ROWS = 64
"""Rows of a Jacobian that one batched reverse pass gives (ours)."""


def linearise(field: Field, at: Point) -> tuple[Tensor, Products]:
    """F [M, n] at a point, and products with its Jacobian there."""
    leaves = {name: value.detach().requires_grad_() for name, value in at.items()}
    values = field(leaves)
    rows = [values[name] for name in leaves]
    return torch.cat(rows, dim=1).detach(), Products(rows, list(leaves.values()))


def jacobian(field: Field, at: Point) -> Tensor:
    """J [M, n, n], row i the gradient of F_i; n reverse passes, ``ROWS`` at a time."""
    return dense(linearise(field, at)[1])


def forward(field: Field, at: Point, vector: Tensor) -> Tensor:
    """J v [M, n], without J."""
    return _joined(linearise(field, at)[1].forward, vector, at)


def transposed(field: Field, at: Point, vector: Tensor) -> Tensor:
    """J^T u [M, n], without J."""
    return _joined(linearise(field, at)[1].transposed, vector, at)


def spectrum(matrix: Tensor) -> Tensor:
    """Eigenvalues [M, n] complex of J [M, n, n], by rising real, then imaginary part.

    A member whose J is not finite has NaN.
    """
    good = torch.isfinite(matrix).flatten(1).all(dim=1)
    safe = torch.where(good[:, None, None], matrix, 0.0)
    values = torch.linalg.eigvals(safe)
    order = torch.argsort(values.imag, dim=1, stable=True)
    values = values.gather(1, order)
    values = values.gather(1, torch.argsort(values.real, dim=1, stable=True))
    return torch.where(good[:, None], values, torch.nan)


def stable_rate(eigenvalues: Tensor) -> Tensor:
    """Largest eta [M] below which every |1 - eta lambda| < 1: min 2 Re / |lambda|^2.

    0 where a real part is not positive: no rate is stable.
    """
    square = eigenvalues.abs().square()
    rates = torch.where(square > 0, 2 * eigenvalues.real / square, 0.0)
    return rates.amin(dim=1).clamp_min(0.0)


def shares(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric and antisymmetric share [M] of |J|^2; NaN for J = 0."""
    turned = matrix.transpose(1, 2)
    even, odd = (
        (0.5 * part).square().sum(dim=(1, 2)) for part in (matrix + turned, matrix - turned)
    )
    return even / (even + odd), odd / (even + odd)


def estimated_share(products: Products, vectors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Antisymmetric share [M] from random signs, with its standard error; 2 passes a vector.

    E |A v|^2 = |A|^2 for v of independent signs (Hutchinson 1990). The ratio of means, and the
    jackknife over vectors.

    Args:
        products: of the field.
        vectors: K times [M, n], entries +-1; K >= 2.
    """
    sizes = [leaf.shape[1] for leaf in products.leaves]
    even, odd = [], []
    for vector in vectors:
        pulled, pushed = products.both(list(torch.split(vector, sizes, dim=1)))
        left, right = torch.cat(pulled, dim=1), torch.cat(pushed, dim=1)
        even.append((0.5 * (right + left)).square().sum(dim=1))
        odd.append((0.5 * (right - left)).square().sum(dim=1))
    a, b = torch.stack(odd), torch.stack(even)
    count = len(vectors)
    without = (a.sum(0) - a) / (a.sum(0) - a + b.sum(0) - b)  # one vector left out [K, M]
    spread = (without - without.mean(0)).square().sum(0) * (count - 1) / count
    return a.sum(0) / (a + b).sum(0), spread.sqrt()


def along(products: Products, value: Tensor) -> tuple[Tensor, Tensor]:
    """(<F, J F> / |F|^2, |J F - that F| / |F|): how F stretches and turns along itself [M]."""
    sizes = [leaf.shape[1] for leaf in products.leaves]
    image = torch.cat(products.forward(list(torch.split(value, sizes, dim=1))), dim=1)
    square = value.square().sum(dim=1)
    stretch = (value * image).sum(dim=1) / square
    turn = (image - stretch[:, None] * value).norm(dim=1) / square.sqrt()
    return stretch, turn


def ritz(products: Products, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Ritz values [M, steps] complex of J by Arnoldi, and the residual of each.

    The outer eigenvalues come first; a residual is |J v - lambda v| of the unit Ritz vector.

    Args:
        products: of the field.
        start: [M, n], not 0.
        steps: products with J, at most n.

    Source: Saad (2011), algorithm 6.2 with reorthogonalisation, and proposition 6.8.
    """
    sizes = [leaf.shape[1] for leaf in products.leaves]
    basis = [start / start.norm(dim=1, keepdim=True)]
    matrix = start.new_zeros(len(start), steps + 1, steps)
    for k in range(steps):
        image = torch.cat(products.forward(list(torch.split(basis[k], sizes, dim=1))), dim=1)
        known = torch.stack(basis, dim=1)  # [M, k + 1, n]
        for _ in range(2):
            parts = torch.einsum("mkn,mn->mk", known, image)
            image = image - torch.einsum("mk,mkn->mn", parts, known)
            matrix[:, : k + 1, k] += parts
        size = image.norm(dim=1)
        matrix[:, k + 1, k] = size
        basis.append(image / size.clamp_min(torch.finfo(size.dtype).tiny)[:, None])
    good = torch.isfinite(matrix).flatten(1).all(dim=1)
    safe = torch.where(good[:, None, None], matrix, 0.0)
    values, vectors = torch.linalg.eig(safe[:, :steps])
    residual = safe[:, steps, steps - 1, None] * vectors[:, -1].abs()
    bad = ~good[:, None]
    return values.masked_fill(bad, torch.nan), residual.masked_fill(bad, torch.nan)


def path_angle(
    field: Field, start: Point, end: Point, shares: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Cosine [T, M] of the descent direction with a segment, and |F| [T, M], along it.

    cos(-F(z_a), end - start) at z_a = start + a (end - start). A plain change of sign at a = 1 is
    attraction; a bump there is rotation.

    Source: Berard et al. (2020), equation 8.
    """
    way = torch.cat([end[name] - start[name] for name in start], dim=1)
    cosines, norms = [], []
    for share in shares:
        at = {name: start[name] + share * (end[name] - start[name]) for name in start}
        values = field(at)
        flat = torch.cat([values[name].detach() for name in start], dim=1)
        cosines.append(torch.cosine_similarity(-flat, way, dim=1))
        norms.append(flat.norm(dim=1))
    return torch.stack(cosines), torch.stack(norms)


def dense(products: Products) -> Tensor:
    """J [M, n, n] from batched reverse passes."""
    values, leaves = products.values, products.leaves
    sizes = [value.shape[1] for value in values]
    members, total = values[0].shape[0], sum(sizes)
    flat = torch.cat(values, dim=1)
    if not flat.requires_grad:
        return flat.new_zeros(members, total, sum(leaf.shape[1] for leaf in leaves))
    identity = torch.eye(total, dtype=flat.dtype, device=flat.device)
    rows = []
    for chunk in torch.split(identity, ROWS):
        weights = chunk.unsqueeze(1).expand(-1, members, -1)
        blocks = torch.autograd.grad(
            flat, leaves, weights, retain_graph=True, is_grads_batched=True, materialize_grads=True
        )
        rows.append(torch.cat(blocks, dim=2))
    return torch.cat(rows).transpose(0, 1)


def _joined(
    product: Callable[[Sequence[Tensor]], list[Tensor]], vector: Tensor, at: Point
) -> Tensor:
    sizes = [value.shape[1] for value in at.values()]
    return torch.cat(product(list(torch.split(vector, sizes, dim=1))), dim=1)
