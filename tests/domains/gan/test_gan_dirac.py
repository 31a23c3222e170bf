"""The Dirac-GAN against its closed forms, through the code that trains the ring.

Source: Mescheder et al. 2018, section 2 and appendix; start (1, 1), h = .2 as in their
notebook. Their discriminator is high on fakes: our psi is minus theirs. The discrete-time
numbers were derived apart from this code; ``published`` iterates the paper's field in NumPy.
"""

import math

import numpy as np
import pytest
import torch

STEP = 0.2
SIM, ALT = "problem.rounds=simultaneous", "problem.rounds=alternating"


def published(loss, gamma, rounds, steps, updates=1):
    """(theta, psi) after some steps of the paper's maps, psi in the paper's sign."""

    def slope(t):  # f(t) = -log(1 + exp(-t))
        return 1 / (1 + math.exp(t))

    def generator(theta, psi):
        return -psi * slope(theta * psi if loss == "minimax" else -theta * psi)

    def discriminator(theta, psi):
        return theta * slope(theta * psi) - gamma * psi

    theta, psi = 1.0, 1.0
    for _ in range(steps):
        if rounds == SIM:
            move = generator(theta, psi), discriminator(theta, psi)
            theta, psi = theta + STEP * move[0], psi + STEP * move[1]
        else:
            theta += STEP * generator(theta, psi)
            for _ in range(updates):
                psi += STEP * discriminator(theta, psi)
    return theta, psi


def play(game, loss, gamma, rounds, steps, *more):
    """(theta, psi) after some iterations of ours, psi in the paper's sign."""
    run = game("problem=gan/dirac", f"loss={loss}", f"penalty.r1={gamma}", rounds, *more)
    run.iterate(steps)
    return run.values("generator").item(), -run.values("discriminator").item()


@pytest.mark.parametrize(
    ("loss", "gamma", "steps", "expected"),
    [
        ("minimax", 0, 1, (0.946211716, 1.053788284)),
        ("nonsaturating", 0, 1, (0.853788284, 1.053788284)),
        ("minimax", 0, 10, (0.257053374, 1.417682168)),
        ("minimax", 0.3, 10, (0.364932198, 0.891536968)),
    ],
)
def test_first_and_tenth_point(game, loss, gamma, steps, expected):
    assert play(game, loss, gamma, SIM, steps) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("loss", ["minimax", "nonsaturating"])
@pytest.mark.parametrize("gamma", [0, 0.3])
@pytest.mark.parametrize("rounds", [SIM, ALT])
def test_twenty_points_of_the_papers_field(game, loss, gamma, rounds):
    expected = published(loss, gamma, rounds, 20)
    assert play(game, loss, gamma, rounds, 20) == pytest.approx(expected, abs=1e-13)


RADII = [
    # loss, gamma, SimGD, AltGD, AltGD with 5 updates of the discriminator
    ("minimax", 0, "3.097", "1.421", "1.845"),
    ("nonsaturating", 0, ".6402", ".2839", ".1389"),
    ("minimax", 0.3, "2.6e-6", "2.3e-7", "9e-34"),
    ("minimax", 1, "9.5e-22", "7.5e-17", "5e-12"),
    ("nonsaturating", 0.3, "2.2e-6", "1.5e-7", "4e-34"),
]


def as_printed(value, text):
    """The value with as many significant digits as the text has."""
    digits = len(text.split("e")[0].replace(".", "").lstrip("0"))
    return float(f"{value:.{digits - 1}e}")


@pytest.mark.parametrize(("loss", "gamma", "sim", "alt", "five"), RADII)
def test_radius_after_500_steps(game, loss, gamma, sim, alt, five):
    for rounds, text in ((SIM, sim), (ALT, alt)):
        radius = math.hypot(*play(game, loss, gamma, rounds, 500))
        assert as_printed(radius, text) == float(text), rounds


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "gamma", "sim", "alt", "five"), RADII)
def test_radius_after_500_steps_with_five_critic_updates(game, loss, gamma, sim, alt, five):
    updates = "problem.discriminator_updates=5"
    radius = math.hypot(*play(game, loss, gamma, ALT, 500, updates))
    assert as_printed(radius, five) == float(five)


def jacobian(run):
    """J [2, 2] of v = -(gradients of both players) at the start, by autograd."""
    at = {name: run.values(name).clone().requires_grad_() for name in run.players}
    rows = []
    for name in run.players:
        move = run.problem._move(name)
        value = -run.engine.gradient(move, at, create_graph=True).value
        row = torch.autograd.grad(value.sum(), list(at.values()), materialize_grads=True)
        rows.append([entry.item() for entry in row])
    return np.array(rows)


@pytest.mark.parametrize("loss", ["minimax", "nonsaturating"])
@pytest.mark.parametrize("gamma", [0, 0.3, 1, 2.5])
def test_eigenvalues_of_the_jacobian_at_the_equilibrium(game, loss, gamma):
    run = game("problem=gan/dirac", f"loss={loss}", f"penalty.r1={gamma}", "problem.start=[0,0]")
    found = np.sort_complex(np.linalg.eigvals(jacobian(run)).astype(complex))
    root = np.sqrt(complex(gamma**2 / 4 - 1 / 4))  # f'(0) = 1/2; critical at gamma = 1
    expected = np.sort_complex(np.array([-gamma / 2 - root, -gamma / 2 + root]))
    assert found == pytest.approx(expected, abs=1e-6)


def test_jacobian_away_from_the_equilibrium_has_the_papers_entries(game):
    theta, psi, gamma = 0.7, -0.4, 0.3  # psi in the paper's sign
    run = game("problem=gan/dirac", "loss=minimax", f"penalty.r1={gamma}",
               f"problem.start=[{theta},{-psi}]")  # fmt: skip
    p = 1 / (1 + math.exp(theta * psi))  # f'
    q = -p * (1 - p)  # f''
    cross = p + theta * psi * q
    expected = [[-(psi**2) * q, -cross], [cross, theta**2 * q - gamma]]
    flip = np.diag([1.0, -1.0])
    assert flip @ jacobian(run) @ flip == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("gamma", "rounds", "radius"),
    [
        (0, SIM, math.sqrt(1 + STEP**2 / 4)),
        (0, ALT, 1.0),
        (0.3, SIM, math.sqrt(1 - STEP * 0.3 + STEP**2 / 4)),  # .974679
        (0.3, ALT, math.sqrt(1 - STEP * 0.3)),  # .969536
    ],
)
def test_spectral_radius_of_one_iteration(game, gamma, rounds, radius):
    columns = []
    for start in ([1e-6, 0], [0, 1e-6]):
        run = game("problem=gan/dirac", "loss=minimax", f"penalty.r1={gamma}", rounds,
                   f"problem.start={start}").iterate()  # fmt: skip
        columns.append(run.problem._position()[0].numpy() / 1e-6)
    found = np.abs(np.linalg.eigvals(np.stack(columns, axis=1))).max()
    assert found == pytest.approx(radius, abs=1e-6)


def test_evaluation_gives_the_distance_and_the_points_since_the_last_one(game):
    run = game("problem=gan/dirac", "loss=minimax", "members=2")
    first = run.problem.evaluate()
    assert first.metrics["distance"] == pytest.approx([math.sqrt(2)] * 2)
    assert first.arrays["trajectory"].tolist() == [[[1.0, -1.0]]] * 2
    second = run.iterate(3).problem.evaluate()
    theta, psi = published("minimax", 0, ALT, 3)
    assert second.metrics["theta"] == pytest.approx([theta] * 2)
    assert second.metrics["psi"] == pytest.approx([-psi] * 2)
    assert second.arrays["trajectory"].shape == (2, 4, 2)
