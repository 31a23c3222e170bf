"""Finite Markov decision processes as data: transition, reward, start, ends and features.

    bandit       one decision, Bernoulli arms
    chain        Strens 2000: a long way to the large reward, a small one near
    gridworld    Sutton & Barto 2018, example 4.1: -1 a step until a corner is reached
    garnet       random transitions and rewards (Archibald et al. 1995; Bhatnagar et al. 2009)
    from_file    arrays of one's own

Shape legend: S states, A actions, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class MDP:
    """A finite Markov decision process. Episodes end on arrival in a terminal state.

    Attributes:
        transition: P(s'|s, a) [S, A, S].
        reward: r(s, a, s') [S, A, S].
        start: distribution of the first state [S].
        terminal: bool [S].
        features: what is observed in each state [S, D].
    """

    transition: np.ndarray
    reward: np.ndarray
    start: np.ndarray
    terminal: np.ndarray
    features: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(S, A)."""
        return self.transition.shape[0], self.transition.shape[1]


def mdp(
    transition: np.ndarray,
    reward: np.ndarray,
    start: np.ndarray | None = None,
    terminal: np.ndarray | None = None,
    features: np.ndarray | None = None,
) -> MDP:
    """A checked MDP.

    Args:
        transition: P(s'|s, a) [S, A, S]; rows that start in a terminal state are not used.
        reward: r(s, a) [S, A] or r(s, a, s') [S, A, S].
        start: distribution of the first state [S]; None is uniform over non-terminal states.
        terminal: bool [S]; None is no terminal state.
        features: observations [S, D]; None is one-hot.

    Raises:
        ValueError: naming the array and what is wrong with it.
    """
    P, r = np.asarray(transition, np.float64), np.asarray(reward, np.float64)
    if P.ndim != 3 or P.shape[0] != P.shape[2] or not P.size:
        raise ValueError(f"transition: must be [S, A, S], not {list(P.shape)}")
    S, A = P.shape[:2]
    if r.shape not in ((S, A), P.shape):
        raise ValueError(f"reward: must be {[S, A]} or {[S, A, S]}, not {list(r.shape)}")
    end = np.zeros(S, np.bool_) if terminal is None else np.asarray(terminal, np.bool_)
    if end.shape != (S,) or end.all():
        raise ValueError(f"terminal: must be {[S]} and not all true")
    first = np.where(end, 0.0, 1.0) / (~end).sum() if start is None else np.asarray(start, float)
    if first.shape != (S,):
        raise ValueError(f"start: must be {[S]}, not {list(first.shape)}")
    seen = np.eye(S) if features is None else np.asarray(features, np.float64)
    if seen.ndim != 2 or len(seen) != S:
        raise ValueError(f"features: must be [{S}, D], not {list(seen.shape)}")
    for name, array in {"reward": r, "features": seen}.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: must be finite")
    for s, a in np.ndindex(S, A):
        if not end[s]:
            _check_distribution(P[s, a], f"transition[{s}, {a}]")
    _check_distribution(first, "start")
    if first[end].any():
        raise ValueError("start: a terminal state cannot be the first")
    P = np.where(end[:, None, None], np.eye(S)[:, None, :], P)
    full = np.broadcast_to(r[..., None] if r.ndim == 2 else r, P.shape)
    return MDP(P, np.where(end[:, None, None], 0.0, full), first, end, seen)


def _check_distribution(p: np.ndarray, name: str) -> None:
    if not (p >= 0).all() or abs(p.sum() - 1) > 1e-9:  # also NaN
        raise ValueError(f"{name}: must be at least 0 and sum to 1, not to {p.sum():.6g}")


def bandit(means: Sequence[float] = (0.2, 0.4, 0.6, 0.8)) -> MDP:
    """One decision among Bernoulli arms: state 0, then 1 (reward 0) or 2 (reward 1), both ends.

    Args:
        means: probability of reward 1 of each arm (default: ours).
    """
    p = np.asarray(means, float)
    if p.ndim != 1 or not len(p) or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"means: must be probabilities, not {list(means)}")
    transition = np.zeros((3, len(p), 3))
    transition[0, :, 1], transition[0, :, 2] = 1 - p, p
    reward = np.zeros_like(transition)
    reward[0, :, 2] = 1.0
    return mdp(transition, reward, np.eye(3)[0], np.array([False, True, True]))


def chain(states: int = 5, slip: float = 0.2, small: float = 2.0, large: float = 10.0) -> MDP:
    """Action 0 goes one state on (reward ``large`` from the last, which it stays in, else 0).

    Action 1 goes back to the first (reward ``small``); with probability ``slip`` the other
    action's effect takes place. Episodes begin in state 0 and have no end of their own.

    Source: Strens 2000, figure 1 (all defaults).
    """
    _check_count("states", states, 2)
    _check_share("slip", slip)
    on, back = np.zeros((2, states, states))
    on[np.arange(states), np.minimum(np.arange(states) + 1, states - 1)] = 1.0
    back[:, 0] = 1.0
    gain = np.where(np.arange(states) == states - 1, large, 0.0)
    transition = np.stack([(1 - slip) * on + slip * back, slip * on + (1 - slip) * back], axis=1)
    effect = on * gain[:, None] + small * back  # the two effects lead to different states
    reward = np.stack([effect, effect], axis=1)
    return mdp(transition, reward, np.eye(states)[0])


def gridworld(
    rows: int = 4,
    columns: int = 4,
    goals: Sequence[int] | None = None,
    walls: Sequence[int] = (),
    slip: float = 0.0,
) -> MDP:
    """Cells in reading order, actions up, right, down, left; reward -1 a step until a goal.

    A move against the border or a wall stays. Episodes begin anywhere.

    Args:
        rows: of the grid (4 x 4: the source's).
        columns: of the grid.
        goals: terminal cells; None is the first and the last, as in the source.
        walls: cells that cannot be entered.
        slip: probability that a uniformly random move takes place instead (0: the source's).

    Source: Sutton & Barto 2018, example 4.1.
    """
    _check_count("rows", rows, 1)
    _check_count("columns", columns, 1)
    _check_share("slip", slip)
    count = rows * columns
    ends = [0, count - 1] if goals is None else list(goals)
    for name, cells in {"goals": ends, "walls": list(walls)}.items():
        if not all(0 <= cell < count for cell in cells):
            raise ValueError(f"{name}: cells are 0 to {count - 1}, not {cells}")
    moves = np.zeros((count, 4, count))
    for cell in range(count):
        row, column = divmod(cell, columns)
        for action, (down, right) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
            r, c = row + down, column + right
            free = 0 <= r < rows and 0 <= c < columns and r * columns + c not in walls
            moves[cell, action, r * columns + c if free else cell] = 1.0
    transition = (1 - slip) * moves + slip * moves.mean(axis=1, keepdims=True)
    terminal = np.isin(np.arange(count), ends)
    open_cells = ~terminal & ~np.isin(np.arange(count), walls)
    if not open_cells.any():
        raise ValueError("goals: no cell is left to begin in")
    start = open_cells / open_cells.sum()
    return mdp(transition, np.full((count, 4), -1.0), start, terminal)


def garnet(
    states: int = 10,
    actions: int = 3,
    branching: int = 3,
    seed: int = 0,
    features: int | None = None,
) -> MDP:
    """A random MDP without an end; rewards r(s, a) are N(0, 1).

    Every pair leads to ``branching`` states drawn without replacement, with probabilities cut
    from the unit interval by uniform points; episodes begin anywhere.

    Args:
        states: S (all sizes: ours).
        actions: A.
        branching: successors of every pair.
        seed: of the draw.
        features: D normal features instead of one-hot observations.

    Source: Archibald et al. 1995; Bhatnagar et al. 2009, section 7.
    """
    for name, value in {"states": states, "actions": actions, "branching": branching}.items():
        _check_count(name, value, 1)
    if branching > states:
        raise ValueError(f"branching={branching}: must be at most states={states}")
    rng = np.random.default_rng(seed)
    transition = np.zeros((states, actions, states))
    for s, a in np.ndindex(states, actions):
        cuts = np.sort(rng.random(branching - 1))
        where = rng.choice(states, branching, replace=False)
        transition[s, a, where] = np.diff(cuts, prepend=0.0, append=1.0)
    reward = rng.normal(size=(states, actions))
    seen = None if features is None else rng.normal(size=(states, features))
    return mdp(transition, reward, features=seen)


def from_file(file: str | Path) -> MDP:
    """An MDP from a ``.npz`` file whose arrays are named as the arguments of ``mdp``.

    Raises:
        ValueError: it cannot be read, or an array is missing, unknown or wrong.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
    except Exception as error:  # zipfile and NumPy raise many kinds
        raise ValueError(f"file={file}: {str(error).splitlines()[0]}") from error
    known = ("transition", "reward", "start", "terminal", "features")
    for name in arrays:
        if name not in known:
            raise ValueError(f"file={file}: array {name} is none of {', '.join(known)}")
    for name in known[:2]:
        if name not in arrays:
            raise ValueError(f"file={file}: array {name} is missing")
    return mdp(**arrays)


def _check_count(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value}: must be a whole number, at least {least}")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value}: must be in [0, 1]")
