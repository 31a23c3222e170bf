"""Steppers that differentiate gradients: consensus, SGA, competitive descent, LOLA, unrolling.

All of them need every player's move in one round. Costs count gradient evaluations a move and
update; a pass through a gradient counts ``PASS`` = 2.

    consensus   F + gamma J^T F                                            1 + 2 = 3
    sga         F + lambda A^T F, A = (J - J^T) / 2                    1 + 2 + 2 = 5
    cgd         (I + J_off eta)^-1 F       1 + passes of the solver, 4 an iteration
    lola        d/dz_i of f_i(z_i, z_j - eta F_j(z))                   2 + 2 (n - 1)
    unrolled    d/dz_i of f_i(z_i, z_j after k steps); j descends      3 k + 1 a round

Shape legend: M members, N_i parameters of player i, n all of them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from playground.game import Gradient, Move
from playground.optim.steppers.first_order import Game, Stepper, rate, settled, whole
from playground.products import PASS, Blocks, Products

DENSE = 32
"""Parameters of both players together up to which competitive descent is solved directly."""


def leaves(moves: Sequence[Move], game: Game) -> dict[str, Tensor]:
    """{player: [M, N]}, the current point, ready to be differentiated by."""
    return {move.player: game.point(move.player).detach().requires_grad_() for move in moves}


class Consensus(Stepper):
    """Descent on every loss and on the squared length of the field.

        F + gamma grad 1/2 |F|^2 = F + gamma J^T F

    The gradient of 1/2 |F|^2 is exact. (On the Dirac-GAN, the notebook of Mescheder et al. 2018
    has half of one of its terms; eigenvalues at the equilibrium agree, the far field does not.)

    Source: Mescheder et al. (2017), equation 10.
    """

    name = "consensus"

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def __call__(self, moves: Sequence[Move], game: Game) -> list[Gradient]:
        """F + gamma J^T F."""
        whole(moves, game, self.name)
        at = leaves(moves, game)
        found = [game.gradient(move, at, create_graph=True) for move in moves]
        field = [gradient.value.detach() for gradient in found]
        pulled = Products([g.value for g in found], list(at.values())).transposed(field)
        game.count(PASS * len(moves))
        return [
            settled(gradient, value + self.gamma * extra)
            for gradient, value, extra in zip(found, field, pulled, strict=True)
        ]


class SymplecticAdjustment(Stepper):
    """Descent turned towards the equilibrium by the antisymmetric part of the Jacobian.

        F + lambda A^T F,  A = (J - J^T) / 2
        aligned:  lambda sign(<F, J^T F> <A^T F, J^T F> / d + 0.1) instead of lambda

    d is the number of parameters of all players, as in the paper; its authors' notebook divides
    by the number of tensors. The sign is each member's own.

    Source: Balduzzi et al. (2018), algorithm 1, and section 3.4 with epsilon = 1/10.
    """

    name = "sga"
    EPSILON = 0.1

    def __init__(self, strength: float, *, align: bool) -> None:
        self.strength, self.align = strength, align

    def __call__(self, moves: Sequence[Move], game: Game) -> list[Gradient]:
        """F + lambda A^T F."""
        whole(moves, game, self.name)
        at = leaves(moves, game)
        found = [game.gradient(move, at, create_graph=True) for move in moves]
        field = [gradient.value.detach() for gradient in found]
        pulled, pushed = Products([g.value for g in found], list(at.values())).both(field)
        game.count(2 * PASS * len(moves))
        turn = [0.5 * (left - right) for left, right in zip(pulled, pushed, strict=True)]
        factor: float | Tensor = self.strength
        if self.align:
            size = sum(value.shape[1] for value in field)
            agreement = dot(field, pulled) * dot(turn, pulled) / size + self.EPSILON
            factor = self.strength * torch.sign(agreement)
        return [
            settled(gradient, value + factor * extra)
            for gradient, value, extra in zip(found, field, turn, strict=True)
        ]


class CompetitiveDescent(Stepper):
    """Both players' answer to the game's bilinear approximation, each knowing the other's.

        step = -eta w,  (I + J_off eta) w = F,  J_off = ((0, J_xy), (J_yx, 0))

    which is x: -eta (I - eta^2 D_xy f D_yx g)^-1 (D_x f - eta D_xy f D_y g), and so for y, with
    each player's own eta. Up to 32 parameters the system is solved directly; beyond, by
    conjugate gradients on its normal equations, a pass each with J_off and its transpose an
    iteration, which in zero-sum games are the paper's two systems. On bilinear games it is the
    proximal point method.

    Args:
        tolerance: of the residual, relative to F.
        iterations: of the solver at most.

    Source: Schafer and Anandkumar (2019), equation 4 and section 2.
    """

    name = "cgd"

    def __init__(self, tolerance: float, iterations: int) -> None:
        self.tolerance, self.iterations = tolerance, iterations

    def __call__(self, moves: Sequence[Move], game: Game) -> list[Gradient]:
        """The solution w."""
        whole(moves, game, self.name, players=2)
        one, two = leaves(moves, game), leaves(moves, game)
        found = [
            game.gradient(move, at, create_graph=True)
            for move, at in zip(moves, (one, two), strict=True)
        ]
        # F_x is differentiated by y alone and F_y by x alone, so that J has no diagonal blocks.
        first, second = moves[0].player, moves[1].player
        across = Products([g.value for g in found], [two[first], one[second]])
        rates = [rate(None, game, move.player) for move in moves]
        roots = [r.sqrt() if isinstance(r, Tensor) else r**0.5 for r in rates]
        field = [gradient.value.detach() for gradient in found]
        small = sum(value.shape[1] for value in field) <= DENSE
        solution, passes = (self._direct if small else self._iterate)(across, roots, field)
        game.count(PASS * len(moves) * passes)
        return [settled(g, w) for g, w in zip(found, solution, strict=True)]

    def _direct(
        self, across: Products, roots: Sequence[float | Tensor], field: Blocks
    ) -> tuple[Blocks, int]:
        """By elimination: row k of J_off is J_off^T e_k."""
        sizes = [value.shape[1] for value in field]
        total = sum(sizes)
        identity = torch.eye(total, dtype=field[0].dtype, device=field[0].device)
        members = field[0].shape[0]
        rows = [
            torch.cat(across.transposed(_split(e.expand(members, -1), sizes)), dim=1)
            for e in identity
        ]
        rates = torch.cat(
            [torch.ones_like(v) * r * r for v, r in zip(field, roots, strict=True)], dim=1
        )
        system = identity + torch.stack(rows, dim=1) * rates.unsqueeze(1)
        bad = ~torch.isfinite(system).flatten(1).all(dim=1)
        system = torch.where(bad[:, None, None], identity, system)  # its F is not finite either
        solution = torch.linalg.solve(system, torch.cat(field, dim=1))
        solution = torch.where(bad[:, None], torch.nan, solution)
        return _split(solution, sizes), total

    def _iterate(
        self, across: Products, roots: Sequence[float | Tensor], field: Blocks
    ) -> tuple[Blocks, int]:
        """By conjugate gradients on the normal equations, in scaled unknowns sqrt(eta) w.

        A member that has converged stays as it is, so that it does what it would do alone.
        """

        def scaled(blocks: Sequence[Tensor]) -> Blocks:
            return [b * r for b, r in zip(blocks, roots, strict=True)]

        def times(v: Blocks) -> Blocks:
            return add(v, scaled(across.forward(scaled(v))))

        def transposed(v: Blocks) -> Blocks:
            return add(v, scaled(across.transposed(scaled(v))))

        residual = scaled(field)
        goal = self.tolerance**2 * dot(residual, residual)
        solution = [torch.zeros_like(block) for block in field]
        normal = transposed(residual)
        direction, norm = normal, dot(normal, normal)
        passes = 2  # the transpose above, and the graph of J_off v
        for _ in range(self.iterations):
            going = dot(residual, residual) > goal
            if not bool(going.any()):  # a look at the host saves two passes
                break
            image = times(direction)
            step = torch.where(going, norm / dot(image, image), 0.0)
            solution = add(solution, [step * d for d in direction])
            residual = add(residual, [-step * d for d in image])
            normal = transposed(residual)
            new = dot(normal, normal)
            share = torch.where(going, new / norm, 0.0)
            direction = add(normal, [share * d for d in direction])
            norm, passes = torch.where(going, new, norm), passes + 2
        broken = ~torch.isfinite(dot(residual, residual))  # as F or J is, and so is the answer
        return [
            torch.where(broken, torch.nan, s / r) for s, r in zip(solution, roots, strict=True)
        ], passes


class Lola(Stepper):
    """Every mover shapes the step that the others are about to take.

        d/dz_i of f_i(z_i, z_j - rate F_j(z)), the others' step differentiated

    The objective itself, not its first-order expansion, which is the paper's equation 5: they
    agree to first order in the rate, and entirely on bilinear games.

    Args:
        rate: of the others' step; None is their own learning rate.

    Source: Foerster et al. (2018), section 4.2.
    """

    name = "lola"

    def __init__(self, rate: float | None) -> None:
        self.rate = rate

    def __call__(self, moves: Sequence[Move], game: Game) -> list[Gradient]:
        """Total derivatives."""
        whole(moves, game, self.name)
        at = leaves(moves, game)
        found = {move.player: game.gradient(move, at, create_graph=True) for move in moves}
        ahead = {
            name: at[name] - rate(self.rate, game, name) * gradient.value
            for name, gradient in found.items()
        }
        game.count(PASS * len(moves) * (len(moves) - 1))
        result = []
        for move in moves:
            shaped = game.gradient(move, {**ahead, move.player: at[move.player]})
            result.append(settled(found[move.player], shaped.value))
        return result


class Unrolled(Stepper):
    """One player sees its opponents k gradient steps ahead, and differentiates through them.

        z_j^0 = z_j;  z_j^s+1 = z_j^s - rate F_j(z_i, z_j^s);  d/dz_i of f_i(z_i, z_j^k)

    The others descend F_j(z) as ever. All k steps see the same batch, as in the authors' code.

    Args:
        player: who looks ahead.
        k: steps; 0 is ``direct``.
        rate: of the steps; None is the opponents' own learning rate.

    Source: Metz et al. (2017), equations 5 to 8, with gradient steps.
    """

    name = "unrolled"

    def __init__(self, player: str, k: int, rate: float | None) -> None:
        self.player, self.k, self.rate = player, k, rate

    def __call__(self, moves: Sequence[Move], game: Game) -> list[Gradient]:
        """The total derivative for the player, plain gradients for the others."""
        whole(moves, game, self.name)
        if not self.k:
            return [game.gradient(move) for move in moves]
        at = leaves(moves, game)
        others = [move for move in moves if move.player != self.player]
        mine: dict[str, Gradient] = {}
        for step in range(self.k):
            found = {m.player: game.gradient(m, at, create_graph=True) for m in others}
            if step == 0:
                mine = {n: settled(g, g.value) for n, g in found.items()}
            at = at | {n: at[n] - rate(self.rate, game, n) * g.value for n, g in found.items()}
            game.count(PASS * len(others))
        (leader,) = (move for move in moves if move.player == self.player)
        mine[self.player] = game.gradient(leader, at)
        return [mine[move.player] for move in moves]


def dot(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Inner products of all blocks together [M, 1]."""
    parts = [(a * b).sum(dim=1, keepdim=True) for a, b in zip(left, right, strict=True)]
    return torch.stack(parts).sum(dim=0)


def add(left: Sequence[Tensor], right: Sequence[Tensor]) -> Blocks:
    """Block by block."""
    return [a + b for a, b in zip(left, right, strict=True)]


def _split(flat: Tensor, sizes: Sequence[int]) -> Blocks:
    return list(torch.split(flat, list(sizes), dim=1))
