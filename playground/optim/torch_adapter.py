"""Any elementwise class of torch.optim as a transform.

torch steps a copy of the parameters, and the update is what the copy moved by. Because every
entry of [M, N] is on its own in these classes, one tensor serves all members; only torch's
scalar state (step counters and the like) and the learning rate are shared by a tensor, so
members that differ in them are stepped in groups that agree.
"""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from playground.optim.config import TORCH_CLASSES
from playground.optim.transforms import At, State


class TorchOptimizer:
    """``update = step(copy of the parameters) - parameters`` of a class of torch.optim.

    State has torch's names: tensors as [M, N], scalars as [M]. It is empty before the first
    update, because torch makes it then. The update contains the learning rate.

    Args:
        class_name: one of ``TORCH_CLASSES``.
        kwargs: keyword arguments of the class, without ``lr``.

    Raises:
        ValueError: the class is not elementwise, or refuses its arguments.
    """

    def __init__(self, class_name: str, kwargs: dict[str, Any]) -> None:
        if class_name not in TORCH_CLASSES:
            raise ValueError(f"class_name={class_name}: allowed are {', '.join(TORCH_CLASSES)}")
        self._class: type[torch.optim.Optimizer] = getattr(torch.optim, class_name)
        self._kwargs = dict(kwargs)
        self.kind = " ".join([class_name, *sorted(k for k, value in kwargs.items() if value)])
        try:
            self._optimizer = self._make(torch.zeros(1), 1.0)
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise ValueError(f"torch.optim.{class_name}: {error}") from error

    def init(self, like: Tensor) -> State:
        """No state before the first update."""
        return {}

    def __call__(self, value: Tensor, state: State, at: At) -> Tensor:
        """The update [M, N], a fresh tensor."""
        members = value.shape[0]
        rate = at.learning_rate
        if not isinstance(rate, Tensor) and not isinstance(at.count, Tensor):
            shared = {
                name: tensor[0].clone() if tensor.ndim == 1 else tensor
                for name, tensor in state.items()
            }
            after, new = self._advance(value, at.parameters, shared, rate, at.count == 1)
            for name, tensor in new.items():
                state[name] = tensor.expand(members).clone() if tensor.ndim == 0 else tensor
            return after.sub_(at.parameters)
        update = torch.empty_like(value)
        for rows, group_rate, fresh in self._groups(state, at, members):
            part = {
                name: tensor[rows[0]].clone() if tensor.ndim == 1 else tensor[rows]
                for name, tensor in state.items()
            }
            before = at.parameters[rows]
            after, new = self._advance(value[rows], before, part, group_rate, fresh)
            update[rows] = after.sub_(before)
            _write(state, new, rows, members)
        return update

    def _groups(self, state: State, at: At, members: int) -> list[tuple[Tensor, float, bool]]:
        """Rows, learning rate and whether this is the first update, of members that agree."""
        device = at.parameters.device
        columns = [
            torch.as_tensor(column, dtype=torch.float64, device=device).expand(members, 1)
            for column in (at.learning_rate, at.count)
        ]
        columns += [
            tensor.to(columns[0]).unsqueeze(1) for tensor in state.values() if tensor.ndim == 1
        ]
        keys, inverse = torch.unique(torch.cat(columns, dim=1), dim=0, return_inverse=True)
        return [
            (torch.nonzero(inverse == index).flatten(), float(key[0]), int(key[1]) == 1)
            for index, key in enumerate(keys)
        ]

    def _advance(
        self, gradient: Tensor, parameters: Tensor, state: State, rate: float, fresh: bool
    ) -> tuple[Tensor, State]:
        """Step a copy of ``parameters``; return it and torch's state."""
        parameter = parameters.detach().clone()
        if fresh:
            optimizer = self._make(parameter, rate)
        else:
            optimizer = self._optimizer
            optimizer.param_groups[0].update(params=[parameter], lr=rate)
            optimizer.state = defaultdict(dict, {parameter: state})
        parameter.grad = gradient
        optimizer.step()
        parameter.grad = None  # the copy becomes the update, which must not hold the gradient
        return parameter, optimizer.state[parameter]

    def _make(self, parameter: Tensor, rate: float) -> torch.optim.Optimizer:
        """An optimizer of one tensor, whose state torch starts."""
        arguments: dict[str, Any] = {**self._kwargs, "lr": rate}
        return self._class([parameter], **arguments)


def _write(state: State, new: State, rows: Tensor, members: int) -> None:
    """Put one group's state into the rows of all members' state."""
    for name, tensor in new.items():
        if name not in state:
            shape = (members,) if tensor.ndim == 0 else (members, *tensor.shape[1:])
            state[name] = torch.zeros(shape, dtype=tensor.dtype, device=tensor.device)
        state[name][rows] = tensor.to(state[name])
