"""An optimizer's own stability line: how curved the objective may be before it oscillates.

On a quadratic with Hessian H, with the preconditioner P held where it is, an optimizer is a linear
recursion and stable iff every eigenvalue of P^-1 H lies in (0, limit):

    gradient descent        2 / eta
    heavy ball              2 (1 + mu) / eta
    Nesterov                2 (1 + mu) / ((1 + 2 mu) eta)
    Adagrad                 2 / eta                                   P = sqrt(s) + eps
    RMSprop                 2 (1 + mu) / eta                          P = sqrt(s) + eps
    Adam, AMSGrad, AdamW    2 (1 + beta1) / ((1 - beta1) eta)         38 / eta at beta1 = .9

Weight decay before the direction adds to H; after it (AdamW) the limit shrinks by the factor
1 - eta lambda / 2. Clipping is taken not to act. Others (natural gradients, optimism, classes of
torch.optim, steppers that look elsewhere) are not of this form and have no line here.

Sources: heavy ball and Nesterov: Cohen et al. (2021); preconditioned methods: Cohen et al. (2022),
section 2. Decoupled decay: the recursion's characteristic polynomial is 0 at -1 (ours).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from playground.game import Stability
from playground.optim.transforms import (
    AddWeightDecay,
    ClipByGlobalNorm,
    ClipByValue,
    Hyper,
    State,
    Transform,
)


def stability(
    links: Sequence[Transform],
    states: Sequence[State],
    count: int | Tensor,
    rate: Hyper,
    members: int,
    device: torch.device,
) -> Stability | None:
    """The line of a chain after ``count`` updates; None where it has none.

    A link says its part by ``stability(state, count) -> (limit at rate 1, P or None)``. Before a
    member's first update an adaptive method has no P: NaN.

    Args:
        links: of the chain, up to the learning rate.
        states: of the links.
        count: updates so far.
        rate: of the next update; a float or [M, 1].
        members: M.
        device: where the result is wanted.
    """
    limit: Hyper = 2.0
    scale: Tensor | None = None
    coupled: Hyper = 0.0
    decoupled: Hyper = 0.0
    core = False
    for link, state in zip(links, states, strict=True):
        if isinstance(link, ClipByValue | ClipByGlobalNorm):
            continue
        if isinstance(link, AddWeightDecay):
            coupled, decoupled = (
                (coupled, link.weight_decay) if core else (link.weight_decay, decoupled)
            )
            continue
        known = getattr(link, "stability", None)
        if core or known is None:
            return None
        limit, scale = known(state, count)
        core = True
    if scale is not None:
        scale = torch.where(torch.as_tensor(count, device=device) > 0, scale, torch.nan)
    limit = limit / rate * (1.0 - rate * decoupled / 2.0)
    columns = [
        torch.as_tensor(value, dtype=torch.float64, device=device).flatten().expand(members)
        for value in (limit, coupled)
    ]
    return Stability(columns[0], columns[1], scale)
