"""The classic-control environments that have a vector of their own.

State variables and constants are those of ``gymnasium.envs.classic_control``, where each
environment's source is named.
"""

import itertools
import math
from typing import Any

import numpy as np

from playground.domains.rl.environments.native import Native
from playground.domains.rl.environments.no_velocity import NO_VELOCITY


def squared(x: np.ndarray) -> np.ndarray:
    """x^2 by the C library's ``pow``, as ``x ** 2`` of a NumPy scalar has it.

    ``x * x``, and ``numpy.power`` of arrays, may differ in the last bit, which a chaotic pendulum
    does not forget.
    """
    if x.dtype == np.float32:
        return np.array([entry**2 for entry in x])  # powf has no other name in Python
    powers = map(math.pow, x.ravel().tolist(), itertools.repeat(2.0))
    return np.fromiter(powers, np.float64, x.size).reshape(x.shape)


class CartPoles(Native):
    """CartPole-v1: position, velocity, angle, angular velocity.

    Source: Florian 2007, eqs. 23 and 24, without friction.
    """

    variables, size = 4, 4

    def draw(self, episode: np.random.Generator) -> Any:
        """Near the upright."""
        return episode.uniform(-0.05, 0.05, 4)

    def physics(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One explicit Euler step of 0.02 s."""
        x, x_dot, theta, theta_dot = self.state
        cosine, sine = np.cos(theta), np.sin(theta)
        push = np.where(actions == 1, 10.0, -10.0)
        pull = (push + 0.05 * (theta_dot * theta_dot) * sine) / 1.1
        angular = (9.8 * sine - cosine * pull) / (0.5 * (4.0 / 3.0 - 0.1 * (cosine * cosine) / 1.1))
        linear = pull - 0.05 * angular * cosine / 1.1
        self.state += 0.02 * np.array([x_dot, linear, theta_dot, angular])
        far = np.abs(self.state[0]) > 2.4
        terminated = far | (np.abs(self.state[2]) > 12 * 2 * math.pi / 360)
        return np.ones(len(x), np.float32), terminated

    def observe(self, state: np.ndarray) -> np.ndarray:
        """The state."""
        return state.T


class HiddenVelocities(CartPoles):
    """playground/CartPoleNoVelocity-v0: position and angle of a cart-pole."""

    size = 2

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Two of the four variables."""
        return state[::2].T


class MountainCars(Native):
    """MountainCar-v0: position, velocity (Moore 1990; as in Sutton and Barto, example 10.1)."""

    variables, size = 2, 2

    def draw(self, episode: np.random.Generator) -> Any:
        """At rest near the bottom."""
        return episode.uniform(-0.6, -0.4), 0.0

    def physics(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Push, gravity, and a wall on the left that stops the car."""
        position, velocity = self.state
        slope = np.array([math.cos(angle) for angle in (3 * position).tolist()])
        velocity = np.clip(velocity + ((actions - 1) * 0.001 + slope * -0.0025), -0.07, 0.07)
        position = np.clip(position + velocity, -1.2, 0.6)
        velocity[(position == -1.2) & (velocity < 0)] = 0
        self.state = np.array([position, velocity])
        return np.full(len(position), -1.0), (position >= 0.5) & (velocity >= 0)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """The state."""
        return state.T


class ContinuousMountainCars(Native):
    """MountainCarContinuous-v0: position, velocity.

    Gymnasium keeps the state in float32 from the first step on, and computes in float32 then.
    """

    variables, size = 2, 2

    def draw(self, episode: np.random.Generator) -> Any:
        """At rest near the bottom."""
        return episode.uniform(-0.6, -0.4), 0.0

    def physics(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Push, gravity, and a wall on the left; the reward is 100 at the goal less the effort."""
        force = np.clip(actions[:, 0], -1, 1)
        position, velocity = self.state[0], self.state[1].astype(np.float32)
        tripled = np.where(self.steps == 0, 3 * position, (3 * position).astype(np.float32))
        slope = np.array([0.0025 * math.cos(angle) for angle in tripled.tolist()], np.float32)
        velocity = velocity + (force * np.float32(0.0015) - slope)
        velocity = np.clip(velocity, np.float32(-0.07), np.float32(0.07))
        position = (position + velocity).astype(np.float32)
        position = np.clip(position, np.float32(-1.2), np.float32(0.6))
        velocity[(position == np.float32(-1.2)) & (velocity < 0)] = 0
        self.state = np.array([position, velocity], np.float64)
        terminated = (position >= np.float32(0.45)) & (velocity >= 0)
        effort = force.astype(np.float64)
        return np.where(terminated, 100.0, 0.0) - effort * effort * 0.1, terminated

    def observe(self, state: np.ndarray) -> np.ndarray:
        """The state."""
        return state.T


class Pendulums(Native):
    """Pendulum-v1: angle from the upright, angular velocity."""

    variables, size = 2, 3

    def draw(self, episode: np.random.Generator) -> Any:
        """Any angle."""
        high = np.array([np.pi, 1.0])
        return episode.uniform(-high, high)

    def physics(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One semi-implicit Euler step of 0.05 s; the cost is of the state before it."""
        angle, speed = self.state
        torque = np.clip(actions[:, 0], -2, 2)
        normal = (angle + np.pi) % (2 * np.pi) - np.pi
        cost = squared(normal) + 0.1 * squared(speed) + 0.001 * squared(torque)
        speed = np.clip(speed + (15.0 * np.sin(angle) + 3.0 * torque) * 0.05, -8, 8)
        self.state = np.array([angle + speed * 0.05, speed])
        return -cost, np.zeros(len(cost), np.bool_)

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Cosine and sine of the angle, and the angular velocity."""
        return np.array([np.cos(state[0]), np.sin(state[0]), state[1]]).T


class Acrobots(Native):
    """Acrobot-v1: two angles and their velocities (Sutton 1996; the book's dynamics)."""

    variables, size = 4, 6
    drawn = np.float32

    def draw(self, episode: np.random.Generator) -> Any:
        """Hanging, nearly at rest."""
        return episode.uniform(-0.1, 0.1, 4)

    def physics(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One Runge-Kutta step of 0.2 s; -1 until the tip is above the line."""
        torque, state = actions - 1.0, self.state
        first = self._derivative(state, torque)
        second = self._derivative(state + 0.1 * first, torque)
        third = self._derivative(state + 0.1 * second, torque)
        last = self._derivative(state + 0.2 * third, torque)
        state = state + 0.2 / 6.0 * (first + 2 * second + 2 * third + last)
        angles = state[:2]
        while (high := angles > np.pi).any():
            angles[high] -= 2 * np.pi
        while (low := angles < -np.pi).any():
            angles[low] += 2 * np.pi
        np.clip(state[2], -4 * np.pi, 4 * np.pi, out=state[2])
        np.clip(state[3], -9 * np.pi, 9 * np.pi, out=state[3])
        self.state = state
        terminated = -np.cos(state[0]) - np.cos(state[1] + state[0]) > 1.0
        return np.where(terminated, 0.0, -1.0), terminated

    def observe(self, state: np.ndarray) -> np.ndarray:
        """Cosine and sine of both angles, and the velocities."""
        cosine, sine = np.cos(state[:2]), np.sin(state[:2])
        return np.array([cosine[0], sine[0], cosine[1], sine[1], state[2], state[3]]).T

    def _derivative(self, state: np.ndarray, torque: np.ndarray) -> np.ndarray:
        """Velocities and accelerations [4, V]; links of 1 m, 1 kg and 1 kg m^2.

        The order of the sums is Gymnasium's, so that rounding is too.
        """
        theta1, theta2, speed1, speed2 = state
        cosine, sine = np.cos(theta2), np.sin(theta2)
        squares = squared(state[2:])
        d1 = 0.25 + (1.25 + cosine) + 1.0 + 1.0
        d2 = 0.25 + 0.5 * cosine + 1.0
        phi2 = 4.9 * np.cos(theta1 + theta2 - np.pi / 2)
        phi1 = -0.5 * squares[1] * sine - speed2 * speed1 * sine
        phi1 = phi1 + 1.5 * 9.8 * np.cos(theta1 - np.pi / 2) + phi2
        pull = torque + d2 / d1 * phi1 - 0.5 * squares[0] * sine - phi2
        acceleration2 = pull / (1.25 - squared(d2) / d1)
        acceleration1 = -(d2 * acceleration2 + phi1) / d1
        return np.array([speed1, speed2, acceleration1, acceleration2])


NATIVE: dict[str, type[Native]] = {
    "CartPole-v1": CartPoles,
    NO_VELOCITY: HiddenVelocities,
    "Acrobot-v1": Acrobots,
    "MountainCar-v0": MountainCars,
    "MountainCarContinuous-v0": ContinuousMountainCars,
    "Pendulum-v1": Pendulums,
}
"""{id: vector}, for the environments with their default arguments."""
