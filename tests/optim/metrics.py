"""Neighbourhoods with a known metric, for optimizers that ask for one."""

import torch


class Bowl:
    """Divergence q + q^2 / 0.01, q = d^T A d / 2; objective g^T d + c |d|^2 / 2, d from a point.

    The quartic part is beyond the reach of a model of second order, so that steps are shrunk.
    """

    def __init__(self, point, gradient, matrix, curvature=0.0):
        self.point, self.gradient = point.clone(), gradient
        self.matrix, self.curvature = matrix, curvature
        self.products = 0

    def product(self, vector):
        self.products += 1
        return (self.matrix @ vector.unsqueeze(2)).squeeze(2)

    def evaluate(self, parameters):
        d = parameters - self.point
        q = 0.5 * (d * self.product(d)).sum(1)
        self.products -= 1
        objective = (self.gradient * d).sum(1) + 0.5 * self.curvature * d.square().sum(1)
        return objective, q + q.square() / 0.01


def positive(members, size, dtype=torch.float64, seed=5, floor=0.5):
    """Symmetric positive matrices [M, N, N], each of its own."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(members, size, size, generator=generator, dtype=torch.float64)
    return (root @ root.transpose(1, 2) / size + floor * torch.eye(size)).to(dtype)


def bowls(matrix):
    """A geometry for every step of ``twins.follow``."""
    return lambda point, gradient: Bowl(point, gradient, matrix)
