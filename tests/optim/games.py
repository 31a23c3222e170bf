"""Bilinear and quadratic games through the real engine, and their one-round linear maps."""

import numpy as np
import torch
from harness import engine, player

from playground.game import Move
from playground.optim.config import SGD
from playground.optim.steppers.config import STEPPERS


def bilinear(matrix, own=None):
    """Objectives of f = x'By + x'Ax/2 and g = -x'By + y'Cy/2, with own = (A, C)."""
    matrix = torch.as_tensor(matrix, dtype=torch.float64)
    blocks = [torch.zeros(n, n, dtype=torch.float64) for n in matrix.shape]
    if own is not None:
        blocks = [torch.as_tensor(block, dtype=torch.float64) for block in own]

    def objective(name):
        sign, block = (1.0, blocks[0]) if name == "x" else (-1.0, blocks[1])

        def value(params, batch):
            x, y, mine = params["x"]["x"], params["y"]["y"], params[name][name]
            cross = sign * torch.dot(x, matrix @ y)
            return {"cross": cross, "own": 0.5 * torch.dot(mine, block @ mine)}, {}

        return value

    return {name: objective(name) for name in "xy"}


class Played:
    """A two-player game from start [M, n], played by a stepper over an optimizer."""

    def __init__(self, objectives, start, stepper, optimizer, split=1, **keys):
        start = torch.as_tensor(start, dtype=torch.float64)
        pieces = (start[:, :split], start[:, split:])
        players = [player(n, **{n: piece}) for n, piece in zip("xy", pieces, strict=True)]
        method = STEPPERS[stepper](**keys)
        self.engine = engine(players, optimizer, method)
        self.moves = {name: Move(name, objectives[name], {}) for name in "xy"}

    def play(self, rounds=1, turns=("xy",)):
        for _ in range(rounds):
            for turn in turns:
                self.engine.play(tuple(self.moves[name] for name in turn))
        return self

    def point(self):
        values = [self.engine.players[name].parameters.values for name in "xy"]
        return torch.cat(values, dim=1).numpy().copy()


def memory(state, found=None):
    """References to every [M, n] tensor of an engine's state, parameters aside."""
    found = [] if found is None else found
    if isinstance(state, torch.Tensor):
        if state.ndim == 2 and state.dtype == torch.float64:
            found.append(state)
    elif isinstance(state, dict):
        for value in state.values():
            memory(value, found)
    elif isinstance(state, list):
        for value in state:
            memory(value, found)
    return found


def one_round(
    objectives, sizes, stepper, optimizer, turns=("xy",), rounds=1, *, fresh=False, **keys
):
    """The linear map of one round on (z, everything that method and optimizer remember).

    Every basis vector is a member of one real engine; with ``fresh`` there is no memory.
    """
    n = sum(sizes)

    def made(start):
        return Played(objectives, start, stepper, optimizer, sizes[0], **keys)

    widths = []
    if not fresh:
        trial = made(torch.zeros(1, n)).play(turns=turns)
        widths = [tensor.shape[1] for tensor in memory(trial.engine.state())]
    total = n + sum(widths)
    basis = torch.eye(total, dtype=torch.float64)
    game = made(torch.zeros(total, n))
    if not fresh:
        state = game.play(turns=turns).engine.state()
        pieces = basis[:, n:].split(widths, dim=1) if widths else ()
        for tensor, piece in zip(memory(state), pieces, strict=True):
            tensor.copy_(piece)
        game.engine.load_state(state)
    for name, piece in zip("xy", basis[:, :n].split(list(sizes), dim=1), strict=True):
        game.engine.players[name].parameters.values.copy_(piece)
    game.play(rounds, turns)
    after = np.concatenate(
        [game.point(), *([t.numpy() for t in memory(game.engine.state())] if not fresh else [])],
        axis=1,
    )
    return after.T


def radius(matrix, stepper, rate, *, optimizer=None, **keys):
    """Spectral radius of one round on x'By."""
    matrix = np.atleast_2d(np.asarray(matrix, float))
    made = optimizer or SGD(lr=rate)
    found = one_round(bilinear(matrix), matrix.shape, stepper, made, **keys)
    return float(np.abs(np.linalg.eigvals(found)).max())
