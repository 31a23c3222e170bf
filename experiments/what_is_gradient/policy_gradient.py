"""REINFORCE's estimate against the exact gradient of the expected return, and what it teaches."""

from collections.abc import Mapping

import gymnasium
import numpy as np
from torch import Tensor

from playground.domains.rl.exact.values import Exact, softmax_policy
from playground.estimates import gradient_estimates
from playground.record.reader import Run
from playground.report.drawing.style import COLORS, Sheet, counts, legend
from playground.temporary import Temporary

from .common import Check, page

ESTIMATES = 200


def gradients(run: Run, member: int) -> tuple[Tensor, Tensor]:
    """Estimates [K, N] of 32 episodes each, uphill, and the exact gradient [N], at the start."""
    found = gradient_estimates(run, 0, member=member, seed=member, estimates=ESTIMATES,
                               at_once=ESTIMATES)  # fmt: skip
    temporary = Temporary(found.point, [0])
    environment = gymnasium.make(found.point.config.problem.env)
    assert environment.spec is not None
    exact = Exact(environment.unwrapped.mdp, 1.0, environment.spec.max_episode_steps)
    network = temporary.problem.policy.network  # type: ignore[attr-defined]
    policy = softmax_policy(network, found.layouts["policy"], exact.mdp.features)
    return -found.values["policy"], exact.gradient(policy, found.point.parameters["policy"])


def cosine(a: Tensor, b: Tensor) -> float:
    """Of the angle between two vectors."""
    return (a @ b / a.norm() / b.norm()).item()


def along(values: Tensor, exact: Tensor) -> float:
    """Error of the mean's component along the exact gradient, in standard errors."""
    component = values @ exact / exact.norm()
    error = component.mean() - exact.norm()
    return float(error.abs() / (component.std() / len(component) ** 0.5))


def judge(runs: Mapping[str, Run]) -> tuple[list[Check], Sheet]:
    """Right on average, and enough to learn from."""
    pairs = [gradients(runs["grid"], k) for k in range(len(runs["grid"].members))]
    returns = runs["cartpole"].metric("return/stochastic")[1]
    z = [along(values, exact) for values, exact in pairs]
    checks = [
        Check(f"grid world: cosine of the mean of {ESTIMATES} estimates with the exact gradient",
              "1", [cosine(values.mean(0), exact) for values, exact in pairs], low=0.95),
        Check("grid world: along the exact gradient, largest error of that mean in standard errors",
              "< 3.5", [max(z)], high=3.5),
        Check("grid world: cosine of one estimate with the exact gradient", "< 1",
              [np.mean([cosine(v, exact) for v in values]) for values, exact in pairs], high=0.9),
        Check("cart-pole: return gained", "> 0", returns[-1] - returns[0], low=0.0),
    ]  # fmt: skip
    return checks, draw(pairs[0], runs["cartpole"])


def draw(pair: tuple[Tensor, Tensor], run: Run) -> Sheet:
    """Estimates against the exact gradient, entry by entry; the return."""
    values, exact = pair
    agents = len(run.members)
    sheet, cells = page(
        "policy_gradient", "Does the reward give a gradient?",
        "Nobody can differentiate the world. REINFORCE multiplies the reward that came by the "
        "gradient of the probability of what was done. Left: in a small grid world, whose exact "
        "gradient is known by linear algebra, one estimate (32 episodes) is noisy; the mean of "
        f"{ESTIMATES} lies on the line. Right: following such estimates, {agents} agents learn to "
        "hold up a pole.", 2,
    )  # fmt: skip
    left = sheet.panel(cells[0], "Grid world: every parameter of the policy",
                       "exact gradient of the expected return", "estimate")  # fmt: skip
    left.plot(exact, values[0], "o", ms=4, alpha=0.5, mew=0, color=COLORS[7], label="one estimate")
    left.plot(exact, values.mean(0), "o", ms=4.5, mew=0, color=COLORS[1],
              label=f"mean of {ESTIMATES}")  # fmt: skip
    span = [exact.min().item(), exact.max().item()]
    left.plot(span, span, color="0.3", lw=0.8, zorder=1)
    legend(left)
    right = sheet.panel(cells[1], "Cart-pole: return of the policy", "iteration, 8 episodes each")
    x, returns = run.metric("return/stochastic")
    right.plot(x, returns, color=COLORS[0], lw=0.9, alpha=0.6)
    right.plot(x, returns.mean(axis=1), color=COLORS[0], lw=2.2)
    right.set_ylim(bottom=0)
    counts(right)
    return sheet
