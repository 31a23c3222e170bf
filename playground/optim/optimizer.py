"""``Optimizer``: the chain of transforms of one player, with counts, masks and checkpoints.

Two paths: all members step, which is the fast one, or some do. In the latter all members are
computed and the state of the others is put back, so that no transform knows about masks.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from playground.game import Stability
from playground.optim import transforms
from playground.optim.adam import Adam
from playground.optim.config import (
    SGD,
    Adagrad,
    AdamFamily,
    AdamW,
    AMSGrad,
    Momentum,
    NaturalGradient,
    Nesterov,
    OptimizerConfig,
    RMSprop,
    Torch,
    TrustRegion,
    variable_fields,
)
from playground.optim.schedules import factor
from playground.optim.stability import stability
from playground.optim.torch_adapter import TorchOptimizer
from playground.optim.transforms import At, Geometry, Hyper, State, Transform
from playground.optim.trust_region import NaturalGradient as NaturalStep

NOTHING_VARIES: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(slots=True)
class Step:
    """What one update would do.

    Attributes:
        update: [M, N], what is added to the parameters; a fresh tensor.
        clipped: [M, N], the gradient after clipping; None when the chain does not clip.
        clip_coefficient: [M], the factor of clipping by norm; None without it.
        learning_rate: scheduled; a float or [M, 1].
        report: {name: [M]}, what a trust region did.
    """

    update: Tensor
    clipped: Tensor | None
    clip_coefficient: Tensor | None
    learning_rate: float | Tensor
    report: dict[str, Tensor] = field(default_factory=dict)


class Optimizer:
    """One player's optimizer for all members.

    Args:
        config: what the user set.
        like: [M, N], the player's parameters.
        values: {field: [M]}, hyperparameters that differ between members, in place of the
            config's.
        links: transforms of the stepper's, between the direction and the learning rate.

    Attributes:
        uses_norm: whether ``step`` can use the L2 norm of the raw gradient.
        uses_geometry: whether ``step`` needs the move's geometry.
        chained: whether the chain multiplies by the learning rate; torch's classes do it inside.

    Raises:
        ValueError: a field of ``values`` cannot vary or is not [M].
    """

    uses_norm: bool

    def __init__(
        self,
        config: OptimizerConfig,
        like: Tensor,
        values: Mapping[str, Tensor] = NOTHING_VARIES,
        links: Sequence[Transform] = (),
    ) -> None:
        hyper = _reader(config, like, values)
        clips = _clips(config, hyper, values)
        self._links: list[Transform] = [*clips, *_directions(config, hyper), *links]
        self._states: list[State] = [link.init(like) for link in self._links]
        self._num_clips = len(clips)
        last = clips[-1] if clips else None
        self._norm_clip = last if isinstance(last, transforms.ClipByGlobalNorm) else None
        self.chained = not isinstance(config, Torch)
        self._project: Transform | None = None
        if config.project is not None or "project" in values:
            self._project = transforms.Project(hyper("project"))
            self._project.init(like)
        self._lr = hyper("lr")
        self._schedule = config.schedule
        self._final = hyper("final")
        self._warmup = config.warmup
        self._constant = config.schedule == "constant" and config.warmup == 0
        self._members = like.shape[0]
        self._device = like.device
        self._dtype = like.dtype
        self._count: int | Tensor = 0
        self._natural = next((k for k in self._links if isinstance(k, NaturalStep)), None)
        self.uses_geometry = self._natural is not None
        self.uses_norm = self._norm_clip is not None and len(clips) == 1

    def step(
        self,
        gradient: Tensor,
        parameters: Tensor,
        *,
        norm: Tensor | None = None,
        progress: float = 0.0,
        active: Tensor | None = None,
        frozen: Tensor | None = None,
        geometry: Geometry | None = None,
    ) -> Step:
        """Turn a gradient into an update and advance the state.

        Args:
            gradient: [M, N], not modified.
            parameters: [M, N], before the update, not modified.
            norm: [M], L2 norm of ``gradient`` where it is known; used if ``uses_norm``.
            progress: share of the budget used so far, in [0, 1].
            active: bool [M]; the state and count of other members stay, their update is 0.
            frozen: bool [M], members that never step again: their state stays and their update
                is 0, but the count goes on, so that the others do bitwise what they would alone.
            geometry: of the move, where ``uses_geometry``.

        Returns:
            The update and what probes want to know about it.
        """
        self._geometry = geometry
        with torch.no_grad():
            before = None if frozen is None else [_clone(state) for state in self._states]
            if active is None:
                step = self._step_all(gradient, parameters, norm, progress)
            else:
                step = self._step_some(gradient, parameters, norm, progress, active)
            if frozen is not None and before is not None:
                self._restore(before, frozen)
                step.update = step.update.masked_fill(frozen.unsqueeze(1), 0.0)
            return step

    def _restore(self, before: list[State], frozen: Tensor) -> None:
        """Put the state of frozen members back; counts [M] go on with everybody's."""
        for state, old in zip(self._states, before, strict=True):
            for name, tensor in state.items():
                if tensor.ndim > 1:
                    kept = old.get(name, torch.zeros_like(tensor))
                    tensor.copy_(torch.where(frozen.unsqueeze(1), kept, tensor))

    def _step_all(
        self, gradient: Tensor, parameters: Tensor, norm: Tensor | None, progress: float
    ) -> Step:
        """The chain on every member."""
        self._count = self._count + 1
        rate = self._lr if self._constant else self._scheduled(progress, self._count)
        at = At(self._count, parameters, rate, norm, self._geometry)
        value, clipped = gradient, None
        for index, (link, state) in enumerate(zip(self._links, self._states, strict=True)):
            value = link(value, state, at)
            if index < self._num_clips:
                clipped, at.norm = value, None
        if self.chained:
            value = value * -(rate.to(self._dtype) if isinstance(rate, Tensor) else rate)
        if self._project is not None:
            value = self._project(value, {}, at)
        coefficient = None if self._norm_clip is None else self._norm_clip.coefficient
        report = {} if self._natural is None else self._natural.report
        return Step(value, clipped, coefficient, rate, report)

    def _step_some(
        self,
        gradient: Tensor,
        parameters: Tensor,
        norm: Tensor | None,
        progress: float,
        active: Tensor,
    ) -> Step:
        """The chain on every member, then the others' state put back."""
        # Looking at the mask keeps the count an int, and with it the fused kernel; elsewhere
        # than on the CPU it would be a synchronisation.
        on_host = active.device.type == "cpu"
        if on_host and bool(active.all()):
            return self._step_all(gradient, parameters, norm, progress)
        nobody = on_host and not bool(active.any())
        mask = active.unsqueeze(1)
        count, states = self._count, [_clone(state) for state in self._states]
        if not isinstance(count, Tensor) and not nobody:
            count = torch.full_like(mask, count, dtype=torch.float64)
            self._count = count
        step = self._step_all(gradient, parameters, norm, progress)
        self._count = count + mask if isinstance(count, Tensor) else count
        for state, before in zip(self._states, states, strict=True):
            for name, tensor in state.items():
                kept = before.get(name, torch.zeros_like(tensor))
                tensor.copy_(torch.where(mask if tensor.ndim > 1 else active, tensor, kept))
        step.update = step.update.masked_fill(~mask, 0.0)
        return step

    def learning_rate(self, progress: float) -> float | Tensor:
        """The scheduled learning rate of the next update; a float or [M, 1]."""
        return self._lr if self._constant else self._scheduled(progress, self._count + 1)

    def _scheduled(self, progress: float, count: int | Tensor) -> float | Tensor:
        """The learning rate of an update."""
        return self._lr * factor(self._schedule, self._final, self._warmup, progress, count)

    def stability(self, progress: float) -> Stability | None:
        """How curved the objective may be before the next updates oscillate, where known."""
        if not self.chained:
            return None
        rate = self.learning_rate(progress)
        return stability(self._links, self._states, self._count, rate, self._members, self._device)

    def momentum(self) -> Tensor | None:
        """The running mean of gradients [M, N] that the chain keeps, None where it keeps none."""
        for state in self._states:
            for name in ("velocity", "first_moment", "momentum_buffer", "exp_avg"):
                if name in state:
                    return state[name]
        return None

    def denominator(self) -> tuple[Tensor, Hyper] | None:
        """What the last update was divided by: root [M, N] and epsilon; None where by nothing."""
        for link, state in zip(self._links, self._states, strict=True):
            if isinstance(link, Adam | transforms.Adagrad | transforms.RMSprop):
                return link.denominator(state, self._count)
        return None

    @property
    def kinds(self) -> tuple[str, ...]:
        """What each transform of the chain is: transforms of one kind can go on from a state."""
        return tuple(getattr(link, "kind", type(link).__name__) for link in self._links)

    def state(self) -> dict[str, Any]:
        """Copies of everything that changes, as tensors and plain containers."""
        count = self._count.clone() if isinstance(self._count, Tensor) else self._count
        return {"count": count, "links": [_clone(state) for state in self._states]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave, on this optimizer's device.

        Raises:
            ValueError: the state is of another optimizer or another number of members.
        """
        links: list[State] = state["links"]
        if len(links) != len(self._states):
            raise ValueError(f"the state has {len(links)} transforms, expected {len(self._states)}")
        for own, saved in zip(self._states, links, strict=True):
            if self.chained and own.keys() != saved.keys():
                raise ValueError(f"the state has {sorted(saved)}, expected {sorted(own)}")
            for name, tensor in saved.items():
                expected = own[name].shape if name in own else (self._members, *tensor.shape[1:])
                if tensor.shape != expected:
                    raise ValueError(
                        f"the state's {name} has shape {tuple(tensor.shape)},"
                        f" expected {tuple(expected)}"
                    )
        count = state["count"]
        self._count = count.to(self._device, copy=True) if isinstance(count, Tensor) else count
        for own, saved in zip(self._states, links, strict=True):
            own.clear()
            own.update((name, tensor.to(self._device, copy=True)) for name, tensor in saved.items())


def _clone(state: State) -> State:
    """A copy that later updates do not touch."""
    return {name: tensor.clone() for name, tensor in state.items()}


def _reader(
    config: OptimizerConfig, like: Tensor, values: Mapping[str, Tensor]
) -> Callable[[str], Hyper]:
    """A function from a field's name to its value, a float or [M, 1]."""
    allowed = variable_fields(config)
    for name, value in values.items():
        if name not in allowed:
            raise ValueError(f"{name} cannot vary between members: allowed are {allowed}")
        if value.shape != like.shape[:1]:
            raise ValueError(f"{name} has shape {tuple(value.shape)}, expected {(len(like),)}")

    def read(name: str) -> Hyper:
        if name in values:
            return values[name].to(like.device, torch.float64).unsqueeze(1)
        return float(getattr(config, name))

    return read


def _clips(
    config: OptimizerConfig, hyper: Callable[[str], Hyper], varied: Collection[str]
) -> list[Transform]:
    """Clipping by value, then by norm, where set."""
    result: list[Transform] = []
    if config.clip_value is not None or "clip_value" in varied:
        result.append(transforms.ClipByValue(hyper("clip_value")))
    if config.clip_norm is not None or "clip_norm" in varied:
        result.append(transforms.ClipByGlobalNorm(hyper("clip_norm")))
    return result


def _directions(config: OptimizerConfig, hyper: Callable[[str], Hyper]) -> list[Transform]:
    """Coupled weight decay, the core direction, decoupled weight decay, where set."""
    if isinstance(config, Torch):
        return [TorchOptimizer(config.class_name, config.kwargs)]
    core = _core(config, hyper)
    decay = hyper("weight_decay")
    decays: list[Transform] = []
    if isinstance(decay, Tensor) or decay != 0.0:
        decays.append(transforms.AddWeightDecay(decay))
    return [*core, *decays] if isinstance(config, AdamW) else [*decays, *core]


def _core(config: OptimizerConfig, hyper: Callable[[str], Hyper]) -> list[Transform]:
    """The transform that gives an optimizer its name; none for gradient descent."""
    match config:
        case SGD():
            return []
        case Momentum():
            return [transforms.Momentum(hyper("momentum"))]
        case Nesterov():
            return [transforms.Nesterov(hyper("momentum"))]
        case Adagrad():
            return [transforms.Adagrad(hyper("eps"), hyper("initial_accumulator"))]
        case RMSprop():
            alpha, eps, momentum = hyper("alpha"), hyper("eps"), hyper("momentum")
            return [transforms.RMSprop(alpha, eps, centered=config.centered, momentum=momentum)]
        case AdamFamily():
            beta1, beta2, eps = hyper("beta1"), hyper("beta2"), hyper("eps")
            return [Adam(beta1, beta2, eps, amsgrad=isinstance(config, AMSGrad))]
        case NaturalGradient():
            step = NaturalStep(hyper("radius"), hyper("damping"), config.iterations)
            if isinstance(config, TrustRegion):
                step.search(config.backtracks, hyper("shrink"))
            return [step]
    return list(config.direction(hyper))
