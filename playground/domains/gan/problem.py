"""GANs on points and small images, and the Dirac-GAN through the very same code.

One iteration, when alternating, is ``discriminator_updates`` rounds of the discriminator and
``generator_updates`` of the generator, in the order of ``first``; when simultaneous, one round
of both. Every move has fresh latents, and every discriminator's move fresh real samples, as
have the generator's moves where the loss is paired. What penalties draw, instance noise on real
and fake samples, and the vectors of spectral normalisation travel in the batch.

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
from playground.domains.gan.data import Ahead, Mixture, source
from playground.domains.gan.evaluation import Judge, judge
from playground.domains.gan.metrics import Scores
from playground.domains.gan.networks import advance, module_of, networks, singular_vectors
from playground.domains.gan.objectives import LOSSES, discriminate, generate
from playground.domains.gan.penalties import weights_of
from playground.domains.gan.pictures import PICTURED, Scene, image_grids
from playground.game import Context, Evaluation, Move, Outcomes, Player, Problem, Round
from playground.parameters import Parameters
from playground.randomness import Streams


class GanProblem(Problem):
    """A generator and a discriminator play.

    Args:
        config: the problem's.
        loss: key of ``LOSSES``.
        penalties: {name: weight}.
        generator: whose metrics have no suffix; None is the config's.
    """

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
        self.main_metric = config.main_metric
        self.loss = LOSSES[loss]
        generator_net, discriminator_net, self.plain = networks(config)
        self.networks = {"generator": generator_net, "discriminator": discriminator_net}
        game = (generator_net, discriminator_net, self.loss)
        self.objectives = {
            "generator": generate(*game),
            "discriminator": discriminate(*game, penalties),
        }
        order = {
            "discriminator": config.discriminator_updates,
            "generator": config.generator_updates,
        }
        self.penalties = weights_of(penalties)[0]
        self._noise_scale = config.instance_noise
        turns = [name for name, updates in order.items() for _ in range(updates)]
        self.turns = turns[::-1] if config.first == "generator" else turns

    def setup(self, context: Context) -> dict[str, Player]:
        """Initial parameters, the data, and one stream per member for each kind of batch."""
        self.context = context
        config = self.config
        self.players = {name: self._player(name) for name in config.players()}
        self.source = source(config, context.device, context.dtype)
        self.batches = self._batches()
        self.counters = {"samples": np.zeros(context.members, np.int64)}
        self.replaced()
        self.vectors: dict[str, Tensor] = {}
        if config.spectral_norm:
            views = self.players["discriminator"].parameters.views
            self.vectors = singular_vectors(views, context.seeds)
        self._judge: Judge | None = None
        return self.players

    def iteration(self, progress: float) -> Generator[Round, Outcomes, None]:
        """The discriminator's rounds and the generator's, or one round of both."""
        config = self.config
        self._noise_scale = config.instance_noise * (1 - progress)
        if config.rounds == "simultaneous":
            self._advance()
            yield (self._move("discriminator"), self._move("generator"))
            self.averages.add(self.players["generator"].parameters.values)
        else:
            for player in self.turns:
                self._advance()
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
        if self._judge is None:
            self._judge = judge(self.source, config, context)
        streams = Streams(context.seeds, "evaluation/latent", context.device)
        latent = streams.normal(config.evaluation_samples, config.latent, dtype=context.dtype)
        metrics, errors = dict(self._judge.perfect()), Scores()
        arrays: dict[str, np.ndarray] = {}
        for name in GENERATORS:
            samples, chosen = self._samples(name, latent), name == self.evaluated
            scores, stderr = self._judge.scores(samples, full=chosen)
            suffix = "" if chosen else f"/{name}"
            metrics |= {f"{key}{suffix}": value for key, value in scores.items()}
            errors |= {f"{key}{suffix}": value for key, value in stderr.items()}
            if chosen:
                arrays = self._picture(samples, self._judge.shown)
        return Evaluation(metrics, errors, arrays)

    def replaced(self) -> None:
        """Begin the generator's averages, and the Dirac-GAN's trail, at its parameters."""
        values = self.players["generator"].parameters.values
        self.averages = Averages(values, self.config.ema_decay)
        self.trail = [self._position()] if self.dirac else []

    def state(self) -> dict[str, Any]:
        """Streams, averages of the generator, and the trail that no evaluation has written."""
        return {
            "batches": {name: ahead.state() for name, ahead in self.batches.items()},
            "averages": self.averages.state(),
            "vectors": {name: vector.clone() for name, vector in self.vectors.items()},
            "trail": list(self.trail),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        for name, ahead in self.batches.items():
            ahead.load_state(state["batches"][name])
        self.averages.load_state(state["averages"])
        self.vectors = {k: v.to(self.context.device) for k, v in state["vectors"].items()}
        self.trail = list(state["trail"])

    def _batches(self) -> dict[str, Ahead]:
        """{name: batches}, each from a stream of its own: what the moves of this game need."""
        config, dtype = self.config, self.context.dtype
        size, dimension = config.batch_size, self.source.dimension

        def ahead(name: str, numbers: int, draw: Callable[[Streams, int], Tensor]) -> Ahead:
            streams = Streams(self.context.seeds, f"data/{name}", self.context.device)
            return Ahead(streams, lambda count: draw(streams, count), numbers)

        def normal(name: str, width: int) -> Ahead:
            return ahead(name, size * width, lambda s, n: s.normal(n, size, width, dtype=dtype))

        found = {
            "real": ahead("real", size * dimension, lambda s, n: self.source.draw(s, n, size)),
            "latent": normal("latent", config.latent),
        }
        if "gradient" in self.penalties:
            packs = size // config.pack
            found["mix"] = ahead("mix", packs, lambda s, n: s.uniform(n, packs, 1, dtype=dtype))
        if "dragan" in self.penalties:
            found["perturbation"] = normal("perturbation", dimension)
        if config.instance_noise:
            found |= {name: normal(name, dimension) for name in ("noise", "real_noise")}
        return found

    def _advance(self) -> None:
        """Bring the vectors of spectral normalisation to the weights of this round."""
        if self.vectors:
            views = self.players["discriminator"].parameters.views
            self.vectors = advance(views, self.vectors)

    def _move(self, player: str) -> Move:
        """A player's move on fresh batches."""
        wanted = set(self.batches) if player == "discriminator" else {"latent", "noise"}
        if self.loss.paired:
            wanted |= {"real", "real_noise"}
        batch = {name: a.next() for name, a in self.batches.items() if name in wanted}
        if "noise" in batch:
            batch["noise"] = self._noise_scale * batch["noise"]
        if "real_noise" in batch:
            batch["real"] = batch["real"] + self._noise_scale * batch.pop("real_noise")
        return Move(player, self.objectives[player], {**batch, **self.vectors})

    def _player(self, name: str) -> Player:
        """A player at its start."""
        context, plain = self.context, self.plain.get(name)

        def initialise(member: int) -> Mapping[str, Tensor]:
            if self.dirac:
                key = "theta" if name == "generator" else "0.weight"
                value = self.config.start[0 if name == "generator" else 1]
                shape = (1,) if name == "generator" else (1, 1)
                return {key: torch.full(shape, float(value), dtype=torch.float64)}
            assert plain is not None
            return plain.init(context.seeds[member], name)

        parameters = Parameters.build(initialise, context.members, context.device, context.dtype)
        module = None if plain is None else module_of(self.config, name, plain)
        return Player(name, parameters, module)

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

    def _samples(self, name: str, latent: Tensor) -> Tensor:
        """Samples [M, N, D] of the raw or an averaged generator, a member at a time."""
        parameters = self.players["generator"].parameters
        flat = parameters.values if name == "raw" else self.averages.values[name]
        views = parameters.layout.views(flat)
        network = self.networks["generator"]
        return torch.stack(
            [network({key: v[k] for key, v in views.items()}, z) for k, z in enumerate(latent)]
        )

    def _critic(self, member: int) -> Mapping[str, Tensor]:
        """The discriminator's tensors of a member, with its vectors of spectral normalisation."""
        own = self.players["discriminator"].parameters.member(member)
        return own | {name: vector[member] for name, vector in self.vectors.items()}

    def _picture(self, samples: Tensor, real: Tensor) -> dict[str, np.ndarray]:
        """Arrays of images, or of points with the discriminator's field and arrows."""
        if self.config.image_side:
            return image_grids(samples, real, self.config)
        scene = Scene(self.networks["discriminator"], self.loss, self.config.pack)
        critics = [self._critic(k) for k in range(min(PICTURED, self.context.members))]
        centres = self.source.centres if isinstance(self.source, Mixture) else None
        return scene.arrays(critics, samples, real, centres)
