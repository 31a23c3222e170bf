"""Evaluation episodes: the same for every evaluation, and unseen by training.

Each evaluation draws its episodes' seeds and its noise from fresh streams, so that it leaves
no trace and two evaluations of one policy are equal. A native vector plays one episode in
each environment. Others step their environments one after the other, so a member has at most
``LANES`` of them, each plays its even share of the episodes and then rests: as many steps as
the episodes are long, and short episodes do not count more.

Shape legend: M members, L lanes (environments of a member and policy), P policies (greedy,
sampling), N episodes.
"""

import numpy as np

from playground.domains.rl.environments.factory import Factory
from playground.domains.rl.held_out import HeldOut
from playground.domains.rl.normalisation import Normaliser
from playground.domains.rl.policies.categorical import Actor, Policy
from playground.game import Evaluation
from playground.randomness import generators

LANES = 20
"""Environments of a member and policy that are stepped one after the other (ours: more cost
memory and time to make, fewer cost calls of the policy)."""

LIMIT = 27_000
"""Steps after which an evaluation episode ends where the environment sets no limit: 30 minutes
of an Atari game, 108,000 frames by 4 (Machado et al. 2018, table 1)."""

AHEAD = 50
"""Steps of noise drawn at once (ours)."""


class Evaluator:
    """Plays the evaluation episodes of every member."""

    def __init__(self, factory: Factory, seeds: tuple[int, ...], episodes: int) -> None:
        self.factory, self.seeds, self.episodes = factory, seeds, episodes
        self.lanes = episodes if factory.native else min(episodes, LANES)
        share = np.array([(episodes + i) // self.lanes for i in range(self.lanes)])
        self.quota = np.tile(share, (len(seeds), 2))
        self.environments = factory.vector(
            self._streams(), limit=factory.limit or LIMIT, exact=True
        )

    def play(
        self,
        policy: Policy,
        act: Actor,
        normaliser: Normaliser | None = None,
        memory: np.ndarray | None = None,
        held_out: HeldOut | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns and lengths [M, P, episodes] of complete episodes, raw.

        Args:
            policy: draws noise and says what environments get.
            act: acts with it.
            normaliser: of observations; its statistics stay as they are.
            memory: 0 [M, P L, H] for a recurrent policy.
            held_out: keeps what the sampling policy saw and got.
        """
        shape, lanes, space = self.quota.shape, self.lanes, self.factory.actions
        self.environments.streams = self._streams()
        noise = generators(self.seeds, "evaluation/action")
        returns = np.zeros((*shape, self.quota.max() + 1))  # the last column is never played
        lengths = np.zeros_like(returns)
        played, (member, lane) = np.zeros(shape, np.int64), np.indices(shape)
        ended = np.zeros(shape, np.bool_)
        observation, step = self.environments.begin(self.quota.reshape(-1)), 0
        while (played < self.quota).any():
            if step % AHEAD == 0:
                ahead = policy.noise(noise, AHEAD, lanes)
            seen = self._seen(observation, normaliser)
            if held_out is not None:
                held_out.see(seen[:, lanes:])
            if memory is None:
                greedy = act(seen[:, :lanes], None)
                sampled = act(seen[:, lanes:], ahead[step % AHEAD])
            else:
                greedy = act(seen[:, :lanes], None, memory[:, :lanes])
                sampled = act(seen[:, lanes:], ahead[step % AHEAD], memory[:, lanes:])
                memory *= ~ended[..., None]  # of those that this step resets
            action = np.concatenate([greedy, sampled], axis=1).reshape(-1, *space.shape)
            observation, reward, terminated, truncated = self.environments.advance(
                policy.environment(action)
            )
            if held_out is not None:
                live = ~ended & (played < self.quota)
                gained = reward if normaliser is None else normaliser.scaled(reward.reshape(shape))
                parts = (gained, terminated, truncated, live)
                held_out.step(*(part.reshape(shape)[:, lanes:] for part in parts))
            index = (member, lane, played)
            returns[index] += reward.reshape(shape)
            lengths[index] += ~ended
            ended = (terminated | truncated).reshape(shape)
            played += ended
            step += 1
        if held_out is not None:
            held_out.see(self._seen(observation, normaliser)[:, lanes:])
        return self._complete(returns), self._complete(lengths)

    def _seen(self, observation: np.ndarray, normaliser: Normaliser | None) -> np.ndarray:
        """What policies see [M, P L, D]."""
        rows = observation.reshape(*self.quota.shape, -1)
        return rows if normaliser is None else normaliser.apply(rows)

    def _streams(self) -> list[np.random.Generator]:
        """One stream per member and policy, shared by its lanes: both get the same episodes."""
        return [
            stream
            for seed in self.seeds
            for _ in range(2)
            for stream in generators([seed], "evaluation") * self.lanes
        ]

    def _complete(self, values: np.ndarray) -> np.ndarray:
        """[M, P L, episodes of a lane + 1] -> [M, P, episodes]."""
        most = values.shape[-1] - 1
        kept = np.arange(most) < self.quota[0, : self.lanes, None]
        split = values[..., :most].reshape(len(self.seeds), 2, self.lanes, most)
        return np.asarray(split[:, :, kept])


def evaluation(returns: np.ndarray, lengths: np.ndarray, threshold: float | None) -> Evaluation:
    """Metrics of returns and lengths [M, P, N]: means over episodes and their standard errors."""
    metrics, stderr, arrays = {}, {}, {"returns": returns[:, 0]}
    for i, name in enumerate(("return", "return/stochastic")):
        metrics[name] = returns[:, i].mean(axis=1)
        if returns.shape[2] > 1:
            deviation = returns[:, i].std(axis=1, ddof=1)
            stderr[name] = deviation / np.sqrt(returns.shape[2])
    metrics["episode_length"] = lengths[:, 0].mean(axis=1)
    if threshold is not None:
        arrays["threshold"] = np.array([threshold])
    return Evaluation(metrics, stderr, arrays)
