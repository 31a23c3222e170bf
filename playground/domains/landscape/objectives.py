"""Analytic landscapes: formula, minimisers, source. Every function maps one point [n] to [].

    quadratic       1/2 sum_i l_i x_i^2, l log-spaced from 1/condition to 1; minimum 0 at 0
    rosenbrock      (1 - x)^2 + 100 (y - x^2)^2; minimum 0 at (1, 1)      Rosenbrock 1960
    beale           sum_k (c_k - x + x y^k)^2, c = 1.5, 2.25, 2.625; 0 at (3, 0.5)  Beale 1958
    himmelblau      (x^2 + y - 11)^2 + (x + y^2 - 7)^2; four minima of 0   Himmelblau 1972
    rastrigin       10 n + sum_i x_i^2 - 10 cos(2 pi x_i); minimum 0 at 0  Rastrigin 1974
    saddle          x^2 - y^2; strict saddle at 0, unbounded below
    monkey_saddle   x^3 - 3 x y^2; degenerate saddle at 0, unbounded below

Games (x minimises f, y minimises g), all with an equilibrium at 0:

    bilinear          f = sigma x'By, g = -f; B = I unless given
    quadratic_game    f = mu/2 |x|^2 + sigma x'By, g = mu/2 |y|^2 - sigma x'By
    matching_pennies  f = sigma (2p - 1)(2q - 1), g = -f, with p, q = sigmoid of x, y
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from playground.game import Batch, Objective, Params, Terms

Function = Callable[[Tensor], Tensor]

MINIMISERS: dict[str, tuple[tuple[float, float], ...]] = {
    "rosenbrock": ((1.0, 1.0),),
    "beale": ((3.0, 0.5),),
    "himmelblau": (
        (3.0, 2.0),
        (-2.805118086952745, 3.131312518250573),
        (-3.779310253377747, -3.283185991286170),
        (3.584428340330492, -1.848126526964404),
    ),
}
"""Minimisers of the functions whose minimum is not at 0."""

STARTS: dict[str, tuple[float, ...]] = {
    "rosenbrock": (-1.2, 1.0),  # Rosenbrock 1960
    "beale": (1.0, 1.0),  # More, Garbow & Hillstrom 1981, problem 5
    "himmelblau": (-0.5, -1.0),  # ours: near the maximum, all four minima in reach
    "saddle": (1.0, 1e-3),  # ours: just off the stable manifold y = 0
    "monkey_saddle": (1.0, 1e-3),  # ours: rolls past the saddle
}
"""Where a run starts unless told otherwise; elsewhere 1 in every coordinate."""


def eigenvalues(dimension: int, condition: float, *, like: Tensor) -> Tensor:
    """Spectrum of the quadratic [n]: log-spaced from 1/condition to 1."""
    if dimension == 1:
        return torch.ones(1, dtype=like.dtype, device=like.device)
    exponents = torch.linspace(-1, 0, dimension, dtype=like.dtype, device=like.device)
    return condition**exponents


def function(name: str, condition: float = 10.0) -> Function:
    """The function of that name; ``condition`` is the quadratic's."""

    def quadratic(x: Tensor) -> Tensor:
        return 0.5 * (eigenvalues(x.shape[-1], condition, like=x) * x**2).sum(-1)

    functions: dict[str, Function] = {
        "quadratic": quadratic,
        "rosenbrock": lambda p: (1 - p[..., 0]) ** 2 + 100 * (p[..., 1] - p[..., 0] ** 2) ** 2,
        "beale": _beale,
        "himmelblau": lambda p: (
            (p[..., 0] ** 2 + p[..., 1] - 11) ** 2 + (p[..., 0] + p[..., 1] ** 2 - 7) ** 2
        ),
        "rastrigin": lambda p: 10 * p.shape[-1] + (p**2 - 10 * torch.cos(2 * math.pi * p)).sum(-1),
        "saddle": lambda p: p[..., 0] ** 2 - p[..., 1] ** 2,
        "monkey_saddle": lambda p: p[..., 0] ** 3 - 3 * p[..., 0] * p[..., 1] ** 2,
    }
    return functions[name]


def _beale(point: Tensor) -> Tensor:
    x, y = point[..., 0], point[..., 1]
    return sum(((c - x + x * y**k) ** 2 for k, c in ((1, 1.5), (2, 2.25), (3, 2.625))), x * 0)


def minimise(f: Function) -> Objective:
    """Player x minimises f; gradient noise n of the batch enters as the linear term <n, x>."""

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        x = params["x"]["x"]
        terms = {"value": f(x)}
        if "noise" in batch:
            terms["noise"] = batch["noise"] @ x
        return terms, {}

    return objective


Coupling = Callable[[Tensor, Tensor], Tensor]


def coupling(name: str, matrix: Sequence[Sequence[float]] | None = None) -> Coupling:
    """The zero-sum term of a game without its sigma, from x [..., m] and y [..., n] to [...]."""
    if name == "matching_pennies":  # 2 sigmoid(z) - 1 = tanh(z/2)
        return lambda x, y: (torch.tanh(x / 2) * torch.tanh(y / 2)).sum(-1)
    if matrix is None:
        return lambda x, y: (x * y).sum(-1)
    made = torch.tensor(matrix, dtype=torch.float64)
    return lambda x, y: (x @ made.to(x) * y).sum(-1)


def play(
    player: str, interaction: float, curvature: float, term: Coupling | None = None
) -> Objective:
    """One player of a zero-sum game with a curvature of its own; no term is x.y."""
    sign = 1.0 if player == "x" else -1.0
    term = term or coupling("bilinear")

    def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
        x, y = params["x"]["x"], params["y"]["y"]
        own = params[player][player]
        terms = {"interaction": sign * interaction * term(x, y)}
        if curvature:
            terms["curvature"] = 0.5 * curvature * (own @ own)
        if "noise" in batch:
            terms["noise"] = batch["noise"] @ own
        return terms, {}

    return objective
