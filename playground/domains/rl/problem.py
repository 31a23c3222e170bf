"""Policy-gradient agents as problems: what PPO and REINFORCE share."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from playground.domains.rl.config import PPOConfig, ReinforceConfig, RLConfig
from playground.domains.rl.environments import Factory
from playground.domains.rl.evaluation import Evaluator
from playground.domains.rl.rollout import Actor, Collector, actor, gumbel
from playground.game import Context, Evaluation, Player, Problem
from playground.nets import MLP
from playground.parameters import Parameters
from playground.randomness import generator_states, generators, load_generator_states


class PolicyGradient(Problem):
    """A policy and a value network, environments, episodes and evaluation.

    Subclasses add ``iteration`` and say how the networks belong to players.
    """

    main_metric = "return"
    higher_is_better = True
    player_names: tuple[str, str] = ("agent", "agent")

    def __init__(self, config: RLConfig, algorithm: Any) -> None:
        self.config, self.algorithm, self.name = config, algorithm, config.name
        self.factory = Factory(config.env, config.env_kwargs)
        sizes = (self.factory.observation_size, *config.widths)
        make: dict[str, Any] = {
            "activation": config.activation, "initialisation": config.initialisation,
        }  # fmt: skip
        joint = self.player_names[0] == self.player_names[1]
        prefixes = ("policy.", "value.") if joint else ("", "")
        self.policy = MLP((*sizes, self.factory.num_actions), **make, output_gain=0.01,
                          prefix=prefixes[0])  # fmt: skip
        self.value = MLP((*sizes, 1), **make, output_gain=1.0, prefix=prefixes[1])

    def setup(self, context: Context) -> dict[str, Player]:
        """Networks, environments and action noise of every member."""
        self.context = context
        seeds, members = context.seeds, context.members
        self.players = self._players(context)
        self.act = self._actor()
        streams = [
            stream
            for seed in seeds
            for stream in (
                generators([seed], f"environment/{j}")[0] for j in range(self.config.num_envs)
            )
        ]
        self.noise = generators(seeds, "action")
        self.collector = Collector(self.factory.vector(streams), members, self.config.num_envs)
        self.counters = {name: np.zeros(members, np.int64) for name in ("samples", "env_steps")}
        self._evaluator: Evaluator | None = None
        return self.players

    def evaluate(self) -> Evaluation:
        """Raw returns in environments of their own, of the greedy and of the sampling policy."""
        if self._evaluator is None:
            episodes = self.config.evaluation_episodes
            self._evaluator = Evaluator(self.factory, self.context.seeds, episodes)
        returns, lengths = self._evaluator.play(self.act)
        metrics, stderr, arrays = {}, {}, {"returns": returns[:, 0]}
        for i, name in enumerate(("return", "return/stochastic")):
            metrics[name] = returns[:, i].mean(axis=1)
            if returns.shape[2] > 1:
                deviation = returns[:, i].std(axis=1, ddof=1)
                stderr[name] = deviation / np.sqrt(returns.shape[2])
        metrics["episode_length"] = lengths[:, 0].mean(axis=1)
        if self.factory.threshold is not None:
            arrays["threshold"] = np.array([self.factory.threshold])
        return Evaluation(metrics, stderr, arrays)

    def state(self) -> dict[str, Any]:
        """Environments, streams and recent episodes."""
        return {"collector": self.collector.capture(), "noise": generator_states(self.noise)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self.collector.restore(state["collector"])
        load_generator_states(self.noise, state["noise"])

    def tensors(self, index: int) -> dict[str, Tensor]:
        """{tensor: [M, *shape]} of the player that holds the policy (0) or the value (1)."""
        return self.players[self.player_names[index]].parameters.views

    def values(self, observation: np.ndarray) -> np.ndarray:
        """V of observations [T, M, E, D] in one batched forward; [T, M, E]."""
        x = self.tensor(np.moveaxis(observation, 1, 0))
        with torch.no_grad():
            if len(x) == 1:
                single = {name: view[0] for name, view in self.tensors(1).items()}
                value = self.value(single, x[0])[None]
            else:
                value = torch.func.vmap(self.value)(self.tensors(1), x)
        return np.moveaxis(value.squeeze(-1).cpu().numpy(), 0, 1)

    def tensor(self, array: np.ndarray) -> Tensor:
        """An array on the run's device; floats in the run's dtype."""
        result = torch.from_numpy(np.ascontiguousarray(array)).to(self.context.device)
        return result.to(self.context.dtype) if result.is_floating_point() else result

    def draw(self, steps: int) -> np.ndarray:
        """Gumbel noise of T steps, from the members' action streams."""
        return gumbel(self.noise, steps, self.config.num_envs, self.factory.num_actions)

    def _players(self, context: Context) -> dict[str, Player]:
        """One player with both networks, or one each."""
        networks = (self.policy, self.value)
        made = {}
        for name in dict.fromkeys(self.player_names):
            own = [n for n, owner in zip(networks, self.player_names, strict=True) if owner == name]

            def initialise(k: int, own: list[MLP] = own, name: str = name) -> dict[str, Tensor]:
                seed = context.seeds[k]
                return {n: t for net in own for n, t in net.init(seed, name).items()}

            def module(own: list[MLP] = own) -> nn.Module:
                if len(own) == 1:
                    return own[0].module()
                return nn.ModuleDict({net.prefix[:-1]: net.module() for net in own})

            parameters = Parameters.build(
                initialise, context.members, context.device, context.dtype
            )
            made[name] = Player(name, parameters, module)
        return made

    def _actor(self) -> Actor:
        return actor(self.policy, self.tensors(0))


def build(config: RLConfig, algorithm: Any) -> Problem:
    """The problem of an algorithm.

    Raises:
        ConfigError: sizes that do not fit, or an environment that is not supported.
    """
    from playground.domains.rl.ppo import PPO
    from playground.domains.rl.reinforce import Reinforce

    algorithm.validate(config)
    kinds: dict[type, type[PolicyGradient]] = {PPOConfig: PPO, ReinforceConfig: Reinforce}
    return kinds[type(algorithm)](config, algorithm)
