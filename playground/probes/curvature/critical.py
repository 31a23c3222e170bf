"""What kind of point it is: minimum, saddle, plateau, or none of them.

Scale-free: multiplying the objective or stretching all parameters alike changes no answer, as long
as the parameters are longer than 1.

Shape legend: M members.
"""

import torch
from torch import Tensor

KINDS = ("not critical", "minimum", "degenerate minimum", "saddle", "maximum", "plateau",
         "undecided")  # fmt: skip
"""What the codes of ``kind`` mean."""

NOT_CRITICAL, MINIMUM, DEGENERATE, SADDLE, MAXIMUM, PLATEAU, UNDECIDED = range(len(KINDS))


def kind(
    gradient: Tensor,
    length: Tensor,
    value: Tensor,
    ends: Tensor,
    errors: Tensor,
    zero: Tensor,
    tolerance: float,
) -> Tensor:
    """Code [M] of what the point is; see ``KINDS``.

    With |H| the larger of the ends' |.| and x = max(|theta|, 1):

        plateau        |g| x and |H| x^2 / 2 are both at most tolerance |f|: to second order, going
                       as far as the parameters are long changes the objective by no more
        not critical   |g| > tolerance |H| x. Below, no perturbation of theta and H smaller than
                       tolerance, relative, is ruled out that makes g = 0 (a backward error)
        saddle         lambda_min < -zero, lambda_max > zero: certain, as Ritz values lie inside
        maximum        lambda_min < -zero, lambda_max <= zero
        minimum        lambda_min > zero; degenerate where |lambda_min| <= zero
        undecided      where the residual of the end that it depends on exceeds ``zero``

    Args:
        gradient: [M], |g|.
        length: [M], |theta|.
        value: [M], f.
        ends: [M, 2], smallest and largest eigenvalue.
        errors: [M, 2], their residuals.
        zero: [M], below which an eigenvalue counts as 0.
        tolerance: relative; (tolerance, tolerance^1/2) is the pair of second-order points.

    Sources: backward error: Rigal and Gaches (1967), Higham (2002), theorem 7.1; typical length 1:
    Dennis and Schnabel (1983), section 7.2; pairs: Nesterov and Polyak (2006), Jin et al. (2017);
    that minima of networks are degenerate: Sagun et al. (2016).
    """
    low, high = ends.unbind(1)
    norm, reach = ends.abs().amax(dim=1), length.double().clamp_min(1.0)
    slope, scale = gradient.double(), tolerance * value.double().abs()
    flat = (slope * reach <= scale) & (norm * reach.square() / 2 <= scale)
    critical = slope <= tolerance * norm * reach
    down, up = low < -zero, high > zero
    deciding = torch.where(down, errors[:, 1], errors[:, 0])
    code = torch.where(low > zero, MINIMUM, DEGENERATE)
    code = torch.where(down, MAXIMUM, code)
    code = torch.where(deciding > zero, UNDECIDED, code)
    code = torch.where(down & up, SADDLE, code)
    code = torch.where(critical, code, NOT_CRITICAL)
    code = torch.where(flat, PLATEAU, code).double()
    known = torch.isfinite(ends).all(dim=1) & torch.isfinite(slope)
    return torch.where(known, code, torch.nan)
