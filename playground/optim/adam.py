"""Adam and AMSGrad as a transform: a plain formula, and torch's fused kernel where it applies.

The fused kernel steps a zero buffer with learning rate -1, so that the buffer becomes the
direction. It is the faster of the two by far at small sizes and takes plain floats only; the
plain formula serves hyperparameters and counts that differ between members, and is the oracle
of the fused one.
"""

import torch
from torch import Tensor

from playground.optim.transforms import At, Hyper, State, cast

FUSED_DEVICES = ("cpu", "cuda")
FUSED_DTYPES = (torch.float32, torch.float64)


class Adam:
    """Adam, as ``torch.optim.Adam``; t is the number of this update, from 1.

        m <- beta1 m + (1 - beta1) g
        v <- beta2 v + (1 - beta2) g^2
        u <- v, or max(u, v) with amsgrad
        direction (m / (1 - beta1^t)) / (sqrt(u / (1 - beta2^t)) + eps)

    Args:
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root.
        amsgrad: keep the largest second moment.
        fused: use torch's kernel where it can be used; False is for tests.

    Source: Kingma and Ba (2015), algorithm 1; amsgrad: Reddi et al. (2018), algorithm 2, with
    the bias corrections that torch adds.
    """

    def __init__(
        self, beta1: Hyper, beta2: Hyper, eps: Hyper, *, amsgrad: bool = False, fused: bool = True
    ) -> None:
        self._beta1 = beta1
        self._beta2 = beta2
        self._eps = eps
        self._amsgrad = amsgrad
        self._fused = fused

    def init(self, like: Tensor) -> State:
        """The moments m, v and, with amsgrad, u, each [M, N], 0."""
        floats = all(isinstance(h, float) for h in (self._beta1, self._beta2, self._eps))
        known = like.device.type in FUSED_DEVICES and like.dtype in FUSED_DTYPES
        self._fused = self._fused and floats and known
        self._eps = cast(self._eps, like)
        self._weight1 = cast(1.0 - self._beta1, like)
        self._weight2 = cast(1.0 - self._beta2, like)
        self._scratch = torch.empty_like(like, memory_format=torch.contiguous_format)
        self._step = torch.zeros((), device=like.device)
        names = ["first_moment", "second_moment"]
        names += ["largest_second_moment"] if self._amsgrad else []
        return {
            name: torch.zeros_like(like, memory_format=torch.contiguous_format) for name in names
        }

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """The direction in scratch memory."""
        if self._fused and not isinstance(at.count, Tensor):
            return self._fused_direction(value, state, at.count)
        return self._plain_direction(value, state, at.count)

    def denominator(self, state: State, count: int | Tensor) -> tuple[Tensor, Hyper]:
        """sqrt(u / (1 - beta2^t)) [M, N] and eps, of the last update."""
        name = "largest_second_moment" if self._amsgrad else "second_moment"
        correction = cast((1.0 - self._beta2**count) ** 0.5, state[name])
        return state[name].sqrt() / correction, self._eps

    def stability(self, state: State, count: int | Tensor) -> tuple[Hyper, Tensor]:
        """See ``stability``: 2 (1 + beta1) / (1 - beta1), 38 at .9, bias corrections under P.

        P = (1 - beta1^t) (sqrt(u / (1 - beta2^t)) + eps); Cohen et al. (2022), section 2.
        """
        root, eps = self.denominator(state, count)
        scale = cast(1.0 - self._beta1**count, root) * (root + eps)
        return cast(2.0 * (1.0 + self._beta1) / (1.0 - self._beta1), root), scale

    def _fused_direction(self, value: Tensor, state: State, count: int) -> Tensor:
        """The formula by ``torch._fused_adam_``, which takes the count as it is given."""
        largest = [state["largest_second_moment"]] if self._amsgrad else []
        assert isinstance(self._beta1, float)
        assert isinstance(self._beta2, float)
        assert isinstance(self._eps, float)
        torch._fused_adam_(
            [self._scratch.zero_()],
            [value.contiguous()],  # the kernel walks raw memory
            [state["first_moment"]],
            [state["second_moment"]],
            largest,
            [self._step.fill_(count)],
            lr=-1.0,
            beta1=self._beta1,
            beta2=self._beta2,
            weight_decay=0.0,
            eps=self._eps,
            amsgrad=self._amsgrad,
            maximize=False,
        )
        return self._scratch

    def _plain_direction(self, value: Tensor, state: State, count: int | Tensor) -> Tensor:
        """The formula in place, operation by operation."""
        scratch = self._scratch
        correction1 = cast(1.0 - self._beta1**count, value)
        correction2 = cast((1.0 - self._beta2**count) ** 0.5, value)
        first = state["first_moment"].lerp_(value, self._weight1)
        second = state["second_moment"].lerp_(torch.mul(value, value, out=scratch), self._weight2)
        if self._amsgrad:
            largest = state["largest_second_moment"]
            second = torch.maximum(largest, second, out=largest)
        torch.sqrt(second, out=scratch).div_(correction2).add_(self._eps)
        return torch.div(first, scratch, out=scratch).div_(correction1)
