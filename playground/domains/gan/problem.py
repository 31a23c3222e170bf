"""GANs on mixtures of Gaussians, and the Dirac-GAN through the very same code.

One iteration, when alternating, is ``discriminator_updates`` rounds of the discriminator and
``generator_updates`` of the generator, in the order of ``first``; when simultaneous, one round
of both. Every move has fresh latents, and every discriminator's move fresh real samples, as
have the generator's moves where the loss is paired. Noise of penalties travels in the batch.

The Dirac-GAN (Mescheder et al. 2018, section 2): data at 0, the generator is one number
theta, D(x) = psi x without bias. The paper's D is high on fakes, ours on real samples, so our
psi is minus the paper's: its start (1, 1) is [1, -1] here.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.domains.gan.averages import Averages
from playground.domains.gan.config import GENERATORS, GanConfig
from playground.domains.gan.data import Ahead, Mixture, grid, ring
from playground.domains.gan.metrics import Scores, count, score
from playground.domains.gan.objectives import (
    LOSSES,
    Point,
    ascent,
    discriminate,
    generate,
)
from playground.domains.gan.penalties import Network, weights_of
from playground.game import Context, Evaluation, Move, Outcomes, Player, Problem, Round
from playground.nets import MLP
from playground.parameters import Parameters
from playground.randomness import Streams

SHOWN, ARROWS, GRID, PICTURED = 1000, 200, 48, 4
"""For pictures (ours): samples and arrows a member, points a side of the field, members."""

MARGIN = 0.4
"""How far the field reaches beyond the modes, as a share of their extent (ours)."""


class GanProblem(Problem):
    """A generator and a discriminator play.

    Args:
        config: the problem's.
        loss: key of ``LOSSES``.
        penalties: {name: weight}.
        generator: whose metrics have no suffix; None is the config's.
    """

    main_metric = "reverse_kl/off_mode"  # modes saturates, reverse_kl is blind to bad samples

    def __init__(
        self,
        config: GanConfig,
        *,
        loss: str,
        penalties: Mapping[str, float],
        generator: str | None = None,
    ) -> None:
        self.config = config
        self.name = config.name
        self.dirac = config.data == "dirac"
        self.evaluated = generator or config.evaluated
        if self.dirac:
            self.main_metric = "distance"
        self.loss = LOSSES[loss]
        self.networks = _networks(config)
        game = (self.networks["generator"], self.networks["discriminator"], self.loss)
        self.objectives = {
            "generator": generate(*game),
            "discriminator": discriminate(*game, penalties),
        }
        order = {
            "discriminator": config.discriminator_updates,
            "generator": config.generator_updates,
        }
        self.penalties = weights_of(penalties)[0]
        turns = [name for name, updates in order.items() for _ in range(updates)]
        self.turns = turns[::-1] if config.first == "generator" else turns

    def setup(self, context: Context) -> dict[str, Player]:
        """Initial parameters, the data, and one stream per member for each kind of batch."""
        self.context = context
        config, device, dtype = self.config, context.device, context.dtype
        self.players = {name: self._player(name) for name in config.players()}
        centres = {"ring": ring(config.modes, config.radius), "dirac": torch.zeros(1, 1)}
        if config.data == "grid":
            centres["grid"] = grid(config.modes, config.spacing)
        self.mixture = Mixture(centres[config.data].to(device, dtype), config.sigma)
        self.batches = self._batches()
        self.counters = {"samples": np.zeros(context.members, np.int64)}
        self.averages = Averages(self.players["generator"].parameters.values, config.ema_decay)
        self.trail = [self._position()] if self.dirac else []
        self._perfect: Scores | None = None
        return self.players

    def iteration(self, progress: float) -> Generator[Round, Outcomes, None]:
        """The discriminator's rounds and the generator's, or one round of both."""
        config = self.config
        if config.rounds == "simultaneous":
            yield (self._move("discriminator"), self._move("generator"))
            self.averages.add(self.players["generator"].parameters.values)
        else:
            for player in self.turns:
                yield (self._move(player),)
                if player == "generator":
                    self.averages.add(self.players["generator"].parameters.values)
        self.counters["samples"] += config.batch_size * config.discriminator_updates
        if self.dirac:
            self.trail.append(self._position())

    def evaluate(self) -> Evaluation:
        """Scores of every generator on fixed latents; the Dirac-GAN's distance from (0, 0)."""
        if self.dirac:
            return self._evaluate_point()
        config, context = self.config, self.context
        streams = Streams(context.seeds, "evaluation/latent", context.device)
        latent = streams.normal(config.evaluation_samples, config.latent, dtype=context.dtype)
        metrics, errors = dict(self._perfect_scores()), Scores()
        arrays: dict[str, np.ndarray] = {}
        for name in GENERATORS:
            samples = self._samples(name, latent)
            counts = count(samples, self.mixture.centres, self.mixture.sigma).cpu().numpy()
            scores, stderr = score(counts, config.evaluation_samples)
            suffix = "" if name == self.evaluated else f"/{name}"
            metrics |= {f"{key}{suffix}": value for key, value in scores.items()}
            errors |= {f"{key}{suffix}": value for key, value in stderr.items()}
            if name == self.evaluated:
                arrays = self._picture(samples)
        return Evaluation(metrics, errors, arrays)

    def state(self) -> dict[str, Any]:
        """Streams, averages of the generator, and the trail that no evaluation has written."""
        return {
            "batches": {name: ahead.state() for name, ahead in self.batches.items()},
            "averages": self.averages.state(),
            "trail": list(self.trail),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        for name, ahead in self.batches.items():
            ahead.load_state(state["batches"][name])
        self.averages.load_state(state["averages"])
        self.trail = list(state["trail"])

    def _batches(self) -> dict[str, Ahead]:
        """{name: batches}, each from a stream of its own: what the moves of this game need."""
        config, dtype = self.config, self.context.dtype
        size, dimension = config.batch_size, self.mixture.centres.shape[1]

        def ahead(name: str, numbers: int, draw: Callable[[Streams, int], Tensor]) -> Ahead:
            streams = Streams(self.context.seeds, f"data/{name}", self.context.device)
            return Ahead(streams, lambda count: draw(streams, count), numbers)

        def normal(name: str, width: int) -> Ahead:
            return ahead(name, size * width, lambda s, n: s.normal(n, size, width, dtype=dtype))

        found = {
            "real": ahead("real", size * dimension, lambda s, n: self.mixture.draw(s, n, size)),
            "latent": normal("latent", config.latent),
        }
        if "gradient" in self.penalties:
            found["mix"] = ahead("mix", size, lambda s, n: s.uniform(n, size, 1, dtype=dtype))
        if "dragan" in self.penalties:
            found["perturbation"] = normal("perturbation", dimension)
        return found

    def _move(self, player: str) -> Move:
        """A player's move on fresh batches."""
        wanted = {"latent"} if player == "generator" else set(self.batches)
        if self.loss.paired:
            wanted.add("real")
        batch = {name: a.next() for name, a in self.batches.items() if name in wanted}
        return Move(player, self.objectives[player], batch)

    def _player(self, name: str) -> Player:
        """A player at its start."""
        network, context = self.networks[name], self.context

        def initialise(member: int) -> Mapping[str, Tensor]:
            if self.dirac:
                key = "theta" if name == "generator" else "0.weight"
                value = self.config.start[0 if name == "generator" else 1]
                shape = (1,) if name == "generator" else (1, 1)
                return {key: torch.full(shape, float(value), dtype=torch.float64)}
            assert isinstance(network, MLP)
            return network.init(context.seeds[member], name)

        parameters = Parameters.build(initialise, context.members, context.device, context.dtype)
        return Player(name, parameters, network.module if isinstance(network, MLP) else None)

    def _position(self) -> Tensor:
        """(theta, psi) of every member [M, 2]."""
        return torch.cat([p.parameters.values for p in self.players.values()], dim=1)

    def _evaluate_point(self) -> Evaluation:
        position = self._position()
        metrics = {
            "distance": position.norm(dim=1).cpu().numpy(),
            "theta": position[:, 0].cpu().numpy(),
            "psi": position[:, 1].cpu().numpy(),
        }
        trail = torch.stack(self.trail, dim=1).cpu().numpy()
        self.trail = self.trail[-1:]
        return Evaluation(metrics, arrays={"trajectory": trail, "targets": np.zeros((1, 1, 2))})

    def _perfect_scores(self) -> Scores:
        """{metric/perfect: [M]}: what real samples score, as many as are taken of a generator."""
        if self._perfect is None:
            size = self.config.evaluation_samples
            streams = Streams(self.context.seeds, "evaluation/real", self.context.device)
            samples = self.mixture.draw(streams, size)
            counts = count(samples, self.mixture.centres, self.mixture.sigma).cpu().numpy()
            scores, _ = score(counts, size)
            self._perfect = {f"{key}/perfect": value for key, value in scores.items()}
            self._shown, self._real = samples[:1, :SHOWN].cpu().numpy(), samples[0, :ARROWS]
        return self._perfect

    def _samples(self, name: str, latent: Tensor) -> Tensor:
        """Samples [M, N, 2] of the raw or an averaged generator, a member at a time."""
        parameters = self.players["generator"].parameters
        flat = parameters.values if name == "raw" else self.averages.values[name]
        views = parameters.layout.views(flat)
        network = self.networks["generator"]
        return torch.stack(
            [network({key: v[k] for key, v in views.items()}, z) for k, z in enumerate(latent)]
        )

    def _picture(self, samples: Tensor) -> dict[str, np.ndarray]:
        """Samples over data, the discriminator's logits on a grid, arrows at the samples."""
        low, high = self.mixture.centres.amin(0), self.mixture.centres.amax(0)
        margin = MARGIN * (high - low).amax().clamp_min(1.0) / 2
        axes = torch.stack(
            [
                torch.linspace(float(a), float(b), GRID, dtype=low.dtype, device=low.device)
                for a, b in zip(low - margin, high + margin, strict=True)
            ]
        )
        points = torch.stack(torch.meshgrid(*axes, indexing="xy"), dim=-1).view(-1, 2)
        discriminator, players = self.networks["discriminator"], self.players
        fields, arrows = [], []
        for k in range(min(PICTURED, self.context.members)):
            tensors = players["discriminator"].parameters.member(k)
            fields.append(discriminator(tensors, points).view(GRID, GRID))
            ends = samples[k, :ARROWS]
            arrows.append(ascent(discriminator, tensors, self.loss, ends, self._real[: len(ends)]))
        found = {
            "samples": samples[:, :SHOWN],
            "centres": self.mixture.centres[None],
            "field": torch.stack(fields),
            "field_axes": axes[None],
            "arrows": torch.stack(arrows),
            "arrow_points": samples[: len(arrows), :ARROWS],
        }
        return {"data": self._shown, **{k: v.cpu().numpy() for k, v in found.items()}}


def _networks(config: GanConfig) -> dict[str, Network]:
    if config.data == "dirac":
        return {"generator": Point(), "discriminator": MLP((1, 1), bias=False)}
    return {
        "generator": MLP(
            (config.latent, *config.generator_widths, 2),
            config.generator_activation,
            config.initialisation,
        ),
        "discriminator": MLP(
            (2, *config.discriminator_widths, 1),
            config.discriminator_activation,
            config.initialisation,
        ),
    }
