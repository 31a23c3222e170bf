"""Policy-gradient agents as problems: what all algorithms share."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from playground.domains.rl.batches import explained_variance, minibatches, moments
from playground.domains.rl.collector import Collector, Rollout, advantages, segments
from playground.domains.rl.config import MinibatchConfig, RLConfig
from playground.domains.rl.environments.factory import Factory
from playground.domains.rl.evaluation import Evaluator, evaluation
from playground.domains.rl.held_out import HeldOut, value_error
from playground.domains.rl.networks import as_module, make_network, make_policy
from playground.domains.rl.normalisation import Normaliser
from playground.domains.rl.objectives import OLD
from playground.domains.rl.policies.categorical import Statistics
from playground.domains.rl.recurrent import Recurrent, pack
from playground.game import Batch, Context, Evaluation, Move, Objective, Player, Problem, Round
from playground.parameters import Parameters
from playground.randomness import Streams, generator_states, generators, load_generator_states


class PolicyGradient(Problem):
    """A policy and a value network, environments, episodes and evaluation.

    Subclasses add ``iteration``; the algorithm's config says which player owns which network.

    Attributes:
        owners: the players that hold the policy and the value network, one or two.
        objectives: {player: objective}, set by subclasses that move all players at once.
        length: rows of a batch that stay together: the steps of a sequence where policy and
            value have memories, else 1.
    """

    main_metric = "return"
    higher_is_better = True
    objectives: Mapping[str, Objective]

    def __init__(self, config: RLConfig, algorithm: Any) -> None:
        self.config, self.algorithm, self.name = config, algorithm, config.name
        self.factory = Factory(config.env, config.env_kwargs, config.vectorization)
        players = algorithm.players
        self.owners: tuple[str, str] = (players[0], players[-1])
        joint = len(players) == 1
        space = self.factory.actions
        outputs = sum(space.choices) or space.shape[0]
        prefixes = ("policy.", "value.") if joint else ("", "")
        inputs = self.factory.observation_size
        network = make_network(config, (inputs, outputs), 0.01, prefixes[0], 0)
        self.policy = make_policy(network, space, config)
        self.value = make_network(config, (inputs, 1), 1.0, prefixes[1], 1)
        self.length = algorithm.num_steps if config.memory is not None else 1

    @property
    def epochs(self) -> tuple[int, int]:  # type: ignore[override]
        """Rounds of an epoch and epochs of an iteration, where all players pass together."""
        config = self.algorithm
        if not isinstance(config, MinibatchConfig):
            return (0, 0)
        return (self.config.num_envs * config.num_steps // config.batch_size, config.epochs)

    @property
    def resume(self) -> str:
        """``exact``, or ``statistical`` where episodes cannot be saved in their middle."""
        return "exact" if self.factory.exact else "statistical"

    def setup(self, context: Context) -> dict[str, Player]:
        """Networks, environments and random streams of every member."""
        self.context = context
        seeds, members = context.seeds, context.members
        self.players = self._players(context)
        self.act = self.policy.actor(self.tensors(0))
        streams = [
            stream
            for seed in seeds
            for stream in (
                generators([seed], f"environment/{j}")[0] for j in range(self.config.num_envs)
            )
        ]
        self.noise = generators(seeds, "action")
        self.shuffle = Streams(seeds, "shuffle", context.device)
        self.collector = Collector(
            self.factory.vector(streams), members, self.config.num_envs, self.factory.actions,
            self.policy.environment, self._normaliser(), self.blank(self.config.num_envs),
        )  # fmt: skip
        self.memory = self.blank(self.config.num_envs)  # the value's, which trails the policy's
        self.counters = {name: np.zeros(members, np.int64) for name in ("samples", "env_steps")}
        self._evaluator: Evaluator | None = None
        return self.players

    def evaluate(self) -> Evaluation:
        """Raw returns in environments of their own, of the greedy and of the sampling policy."""
        if self._evaluator is None:
            episodes = self.config.evaluation_episodes
            self._evaluator = Evaluator(self.factory, self.context.seeds, episodes)
        held_out = HeldOut() if self.critic else None
        returns, lengths = self._evaluator.play(
            self.policy, self.act, self.collector.normaliser,
            self.blank(2 * self._evaluator.lanes), held_out,
        )  # fmt: skip
        result = evaluation(returns, lengths, self.factory.threshold)
        if held_out is not None:
            rollout = held_out.rollout()
            values = self.values(rollout.observation)
            result.metrics.update(value_error(rollout, values, self.algorithm.gamma))
        return result

    @property
    def critic(self) -> bool:
        """Whether a value network without a memory is trained."""
        learned = getattr(self.algorithm, "baseline", "learned") == "learned"
        return learned and self.config.memory is None

    def state(self) -> dict[str, Any]:
        """Environments, streams and recent episodes."""
        return {
            "collector": self.collector.capture(),
            "noise": generator_states(self.noise),
            "shuffle": self.shuffle.state(),
            "memory": None if self.memory is None else torch.from_numpy(self.memory.copy()),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self.collector.restore(state["collector"])
        load_generator_states(self.noise, state["noise"])
        self.shuffle.load_state(state["shuffle"])
        if self.memory is not None:
            self.memory[:] = state["memory"].numpy() * self.factory.exact  # or episodes begin anew

    def adopt(self, state: dict[str, Any], member: int) -> None:
        """The statistics of the normaliser, under which all environments begin anew."""
        if self.collector.normaliser is not None:
            self.collector.normaliser.adopt(state["collector"]["normaliser"], member)
            self.collector.begin()

    def tensors(self, index: int) -> dict[str, Tensor]:
        """{tensor: [M, *shape]} of the player that holds the policy (0) or the value (1)."""
        return self.players[self.owners[index]].parameters.views

    def collect(self, steps: int, *, until_done: bool = False) -> Rollout:
        """A rollout of T steps with noise from the members' action streams."""
        noise = self.policy.noise(self.noise, steps, self.config.num_envs)
        return self.collector.collect(self.act, noise, until_done=until_done)

    def values(self, observation: np.ndarray) -> np.ndarray:
        """V of observations [T, M, E, D] in one batched forward; [T, M, E]."""
        x = self.tensor(np.moveaxis(observation, 1, 0))
        value = self._forward(self.value, self.tensors(1), x)
        return np.moveaxis(value.squeeze(-1).cpu().numpy(), 0, 1)

    def remember(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        """As ``values``, with a memory, which moves on; and the batch's observations.

        The memory at the start of the next rollout is what this forward leaves, as the actor's
        is what acting leaves, each with the parameters of then.

        Returns:
            V [T + 1, M, E], and the rollout's sequences [M, E, P].
        """
        value = self.value
        assert isinstance(value, Recurrent)
        assert rollout.memory is not None
        assert self.memory is not None
        start, last = [rollout.memory, self.memory], rollout.valid[-1][..., None]
        rows = pack(rollout.observation, np.concatenate([rollout.valid, last[None, ..., 0]]), start)
        states = self._forward(value.memories, self.tensors(1), self.tensor(rows))
        values = self._forward(value.head, self.tensors(1), states)
        self.memory = states[:, :, -2].cpu().numpy() * last
        result = np.moveaxis(values.squeeze(-1).cpu().numpy(), 2, 0)
        return result, pack(rollout.observation[:-1], rollout.valid, start)

    def statistics(self, observation: Tensor) -> Statistics:
        """The policy's statistics of a batch's observations, each [M, B, ...].

        Copies: a spread that no observation changes is else a view of the parameters, which
        would follow them.
        """
        result: Statistics = self._forward(self.policy, self.tensors(0), observation)
        return {name: value.clone() for name, value in result.items()}

    def batch(self, rollout: Rollout, *, old: bool = False) -> Batch:
        """All rows of a rollout [M, T E, ...] with generalised advantages and value targets.

        ``log_prob`` comes from one forward after the rollout, so that the first ratio is 1;
        ``old`` adds the acting policy's statistics.
        """
        if self.memory is None:
            values, seen = self.values(rollout.observation), self.rows(rollout.observation[:-1])
        else:
            values, sequences = self.remember(rollout)
            seen = self.tensor(sequences)
        advantage = advantages(rollout, values, self.algorithm.gamma, self.algorithm.gae_lambda)
        arrays = {
            "action": rollout.action,
            "advantage": advantage,
            "target": advantage + values[:-1],
            "value": values[:-1],
            "weight": rollout.valid.astype(np.float32),
            "cluster": segments(rollout),
        }
        batch = {"observation": seen} | {name: self.rows(a) for name, a in arrays.items()}
        statistics = self.statistics(seen)
        batch["log_prob"] = self.policy.log_prob(statistics, batch["action"])
        if old:
            batch |= {OLD + name: value for name, value in statistics.items()}
        return batch

    def rows(self, array: np.ndarray) -> Tensor:
        """[T, M, E, ...] as one row a step [M, T E, ...], or [M, E T, ...] with a memory."""
        by_member = np.moveaxis(array, 1, 0) if self.memory is None else np.moveaxis(array, 0, 2)
        return self.tensor(by_member).flatten(1, 2)

    def moves(self, batch: Batch, active: Tensor | None = None) -> Round:
        """Every player's move on one batch, all gradients at the same point."""
        return tuple(Move(name, f, batch, active) for name, f in self.objectives.items())

    def minibatches(self, batch: Batch) -> Iterator[Batch]:
        """One epoch of a rollout's rows, as the algorithm's config has it."""
        config = self.algorithm
        return minibatches(batch, self.shuffle, config.batch_size, length=self.length,
                           normalized=config.normalize_advantage)  # fmt: skip

    def tensor(self, array: np.ndarray) -> Tensor:
        """An array on the run's device; floats in the run's dtype."""
        result = torch.from_numpy(np.ascontiguousarray(array)).to(self.context.device)
        return result.to(self.context.dtype) if result.is_floating_point() else result

    def blank(self, num_envs: int) -> np.ndarray | None:
        """What a recurrent network remembers of nothing [M, E, H]; None without one."""
        if self.config.memory is None:
            return None
        shape = (self.context.members, num_envs, self.config.memory)
        return torch.zeros(shape, dtype=self.context.dtype).numpy()

    def full(self, value: float) -> Tensor:
        """[M] of one value, for numbers that a batch carries."""
        shape = (self.context.members,)
        return torch.full(shape, value, dtype=self.context.dtype, device=self.context.device)

    def count(self, rollout: Rollout) -> None:
        """Add a rollout's steps to the counters."""
        self.counters["env_steps"] += rollout.valid[:, 0].size
        self.counters["samples"] += rollout.valid.sum(axis=(0, 2))

    def training_returns(self) -> dict[str, np.ndarray]:
        """Of training episodes [M]: the mean of the last 100; the rollout's last, or NaN."""
        return {
            "train/return": self.collector.train_return(),
            "train/episode_return": self.collector.latest,
        }

    def report(self, batch: Batch) -> dict[str, np.ndarray]:
        """Training metrics [M] that every algorithm with rollouts has."""
        mean, deviation = moments(batch["advantage"], batch["weight"])
        return {
            **self.training_returns(),
            "explained_variance": explained_variance(batch),
            "advantage/mean": mean,
            "advantage/std": deviation,
        }

    def _normaliser(self) -> Normaliser | None:
        """As the config has it; None where nothing is normalised."""
        config = self.config
        if not (config.normalize_observations or config.normalize_rewards):
            return None
        return Normaliser(
            self.context.members, config.num_envs, self.factory.observation_size,
            self.algorithm.gamma, config.normalize_observations, config.normalize_rewards,
            config.clip_observations, config.clip_rewards,
        )  # fmt: skip

    def _forward(self, network: Any, tensors: dict[str, Tensor], x: Tensor) -> Any:
        """A network over all members without a graph; a plain call where there is one."""
        with torch.no_grad():
            if len(x) > 1:
                return torch.func.vmap(network)(tensors, x)
            out = network({name: view[0] for name, view in tensors.items()}, x[0])
            if isinstance(out, dict):
                return {name: value.unsqueeze(0) for name, value in out.items()}
            return out.unsqueeze(0)

    def _players(self, context: Context) -> dict[str, Player]:
        """One player with both networks, or one each."""
        made = {}
        for name in dict.fromkeys(self.owners):
            pair = zip((self.policy, self.value), self.owners, strict=True)
            own = [network for network, owner in pair if owner == name]

            def initialise(k: int, own: Any = own, name: str = name) -> dict[str, Tensor]:
                tensors: dict[str, Tensor] = {}
                for network in own:  # a shared trunk is the policy's
                    fresh = network.init(context.seeds[k], name)
                    tensors |= {key: fresh[key] for key in fresh if key not in tensors}
                return tensors

            parameters = Parameters.build(
                initialise, context.members, context.device, context.dtype
            )
            made[name] = Player(name, parameters, partial(as_module, own))
        return made


def build(config: RLConfig, algorithm: Any) -> Problem:
    """The problem of an algorithm.

    Raises:
        ConfigError: sizes that do not fit, or an environment that is not supported.
    """
    from playground.domains.rl.algorithms import a2c, ppo, ppo_kl, reinforce, trpo

    algorithm.validate(config)
    kinds: dict[str, type[PolicyGradient]] = {
        "reinforce": reinforce.Reinforce, "a2c": a2c.A2C, "ppo": ppo.PPO, "ppo_kl": ppo_kl.PPOKL,
        "npg": trpo.TRPO, "trpo": trpo.TRPO,
    }  # fmt: skip
    return kinds[algorithm.name](config, algorithm)
