"""Passes in somebody's loop: what an objective makes of modules that someone else trains.

The user's objective is ``objective(*models, batch)``: a loss [B] or scalar, or {term: loss}, of the
players' modules in their order. For a pass it becomes a function of parameters: the modules are
called with other tensors in the places of their own (``torch.func.functional_call``), each place
exchanged once, however many paths lead to its module. Buffers are copies, every evaluation begins
at the same state of torch's random generator, which is put back, so that dropout draws the same
mask each time and the loop goes on as if nothing had happened.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from playground.game import Batch, Gradient, Move, Objective, Params, Player, Terms
from playground.gradients import Differentiator
from playground.parameters import Parameters
from playground.probes.passes import Keep, Pass, Passing
from playground.probes.probe import Sink
from playground.probes.time_budget import Allowance
from playground.schema import ConfigError
from playground.watching.player import Watched

Loss = Callable[..., Tensor | Mapping[str, Tensor]]


class Objectives:
    """The players' objectives, and the passes that are made of them.

    Raises:
        ConfigError: names that do not match, or parameters that no module holds.
    """

    def __init__(
        self, watched: Mapping[str, Watched], functions: Mapping[str, Loss], passes: Sequence[Pass],
        updates: Callable[[str], int], sink: Sink, keep: Keep,
        note: Callable[[str, int, str], None], cadence: int, seed: int,
    ) -> None:  # fmt: skip
        if set(functions) != set(watched):
            raise ConfigError(f"objective={sorted(functions)}: must name the players "
                              f"{sorted(watched)}")  # fmt: skip
        for name, player in watched.items():
            if player.model is None or player.outside:
                outside = ", ".join(player.outside[:4])
                raise ConfigError(f"objective: player {name} has parameters outside its model "
                                  f"({outside}): passes cannot exchange them")  # fmt: skip
        self.watched, self.functions = watched, functions
        self._together = _Together([bare(w.model) for w in watched.values() if w.model is not None])
        known = places(self._together)
        self._places = {
            name: {n: (known[id(p)], p.dtype) for n, p in zip(w.names, w.parameters, strict=True)}
            for name, w in watched.items()
        }
        self.players = {
            name: Player(name, Parameters(w.layout, torch.zeros(1, w.layout.size, dtype=w.dtype,
                                                                device=w.device)))
            for name, w in watched.items()
        }  # fmt: skip
        differentiate = Differentiator(self.players)

        def gradient(
            move: Move, at: Mapping[str, Tensor] | None = None, *, create_graph: bool = False
        ) -> Gradient:
            return differentiate(move, at, create_graph=create_graph)

        self.objectives = {name: self._objective(name, f) for name, f in functions.items()}
        self.passing = [
            Passing(probe, self.players, gradient, updates, sink, keep, partial(note, probe.name))
            for probe in passes
        ]
        for passing in self.passing:
            passing.cadence = cadence
            passing.probe.begin((seed,), next(iter(watched.values())).device)
        self._batches: dict[str, Any] = {}

    def give(self, batch: Any, player: str | None = None) -> None:
        """The batch of the moves to come, of one player or all.

        Raises:
            ConfigError: no such player.
        """
        if player is not None and player not in self.watched:
            raise ConfigError(f"player {player}: watched are {', '.join(self.watched)}")
        for name in self.watched if player is None else (player,):
            self._batches[name] = batch

    def due(self, iteration: int) -> list[Passing]:
        """Passes that are due in an iteration."""
        for passing in self.passing:
            passing.iteration = iteration
        return [passing for passing in self.passing if passing.due()]

    def allow(self, share: float) -> None:
        """Let all passes together take a share of wall time."""
        allowance = Allowance(share, [passing.probe.name for passing in self.passing])
        for passing in self.passing:
            passing.allowance = allowance

    def spent(self) -> str:
        """What an allowance made of the cadences, if anything."""
        kept = [p.allowance for p in self.passing if p.allowance is not None]
        return kept[0].summary() if kept else ""

    def has_batch(self, player: str) -> bool:
        """Whether a batch was given."""
        return player in self._batches

    def look(self, passing: Passing, player: str) -> None:
        """Show a pass the move that a player is about to make."""
        batch = {name: t.detach()[None] for name, t in tensors(self._batches[player])}
        for name, watched in self.watched.items():
            self.players[name].parameters.values.copy_(watched.flat(watched.parameters))
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # has second derivatives
            passing((Move(player, self.objectives[player], batch),))

    def _objective(self, player: str, function: Loss) -> Objective:
        def objective(params: Params, batch: Batch) -> tuple[Terms, Terms]:
            values: dict[str, Tensor] = {}
            for name, mine in self._places.items():
                for tensor, (where, dtype) in mine.items():
                    values |= dict.fromkeys(where, params[name][tensor].to(dtype))
            known = places(self._together)  # buffers are replaced in a loop, parameters are not
            for buffer in self._together.buffers():
                values |= dict.fromkeys(known[id(buffer)], buffer.clone())
            given = rebuilt(self._batches[player], batch)
            with same_draws(self.watched[player].device):
                loss = torch.func.functional_call(
                    self._together, values, (function, given), tie_weights=False
                )
            terms = dict(loss) if isinstance(loss, Mapping) else {"loss": loss}
            if not all(isinstance(term, Tensor) and term.ndim < 2 for term in terms.values()):
                raise TypeError(
                    f"objective of {player}: must return a loss, scalar or one a sample"
                )
            return terms, {}

        return objective


class _Together(nn.Module):
    """All modules as one, so that parameters of all can be exchanged at once."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, function: Loss, batch: Any) -> Any:
        return function(*self.models, batch)


def places(module: nn.Module) -> dict[int, list[str]]:
    """{id: names} of parameters and buffers: a name for every place where a tensor is held.

    A module that is reachable on several paths has its places once: ``functional_call`` would
    exchange them once a path, and put back what the first exchange had put there.
    """
    found: dict[int, list[str]] = defaultdict(list)
    for path, part in module.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                found[id(tensor)].append(f"{path}.{name}")
    return dict(found)  # a tensor that no module holds is an error


def bare(model: nn.Module) -> nn.Module:
    """The module that was compiled or wrapped: compiled graphs have no second derivatives."""
    inside = getattr(model, "_orig_mod", None)
    if inside is None and type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
        inside = model.module
    return bare(inside) if isinstance(inside, nn.Module) else model


@contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """Put torch's random generators back where they were."""
    state = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)


def tensors(batch: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a batch made of tensors, tuples, lists and mappings."""
    if isinstance(batch, Tensor):
        yield path or "batch", batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from tensors(value, f"{path}.{key}" if path else str(key))
    elif isinstance(batch, tuple | list):
        for place, value in enumerate(batch):
            yield from tensors(value, f"{path}.{place}" if path else str(place))


def rebuilt(batch: Any, values: Mapping[str, Tensor], path: str = "") -> Any:
    """A batch of the same form with other tensors."""
    if isinstance(batch, Tensor):
        return values[path or "batch"]
    if isinstance(batch, Mapping):
        return {k: rebuilt(v, values, f"{path}.{k}" if path else str(k)) for k, v in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [rebuilt(v, values, f"{path}.{i}" if path else str(i)) for i, v in enumerate(batch)]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch
