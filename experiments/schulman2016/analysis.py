"""Generalised advantage estimation: bias and variance against lambda, and learning speed.

The exact part takes policies and learned values from the snapshots of a run on a random MDP and
computes the mean and covariance of the gradient estimate by linear algebra, for every lambda and
for three baselines. The other part trains on cart-pole over a grid of gamma and lambda.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from torch import Tensor

from playground.domains.rl.environments.mdp import garnet
from playground.domains.rl.exact.moments import estimate_moments
from playground.domains.rl.exact.values import Exact, softmax_policy
from playground.estimates import gradient_estimates
from playground.record.reader import Run
from playground.study import Claim
from playground.temporary import Temporary, find_point

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())
GAMMA, STEPS, LAMBDAS = 0.99, CONFIG["steps"], CONFIG["lambdas"]
BASELINES = {"none": "#D55E00", "learned": "#0072B2", "exact": "#009E73"}


def runs(quick: bool) -> dict[str, list[str]]:
    """The run of the exact part, and one for every gamma and lambda on cart-pole."""
    changed = CONFIG["quick" if quick else "full"]
    planned = {"exact": [*CONFIG["exact"], f"members={changed['exact_members']}"]}
    common = [f"members={changed['members']}", f"budget.iterations={changed['iterations']}"]
    for gamma in changed["gammas"]:
        for lam in changed["grid"]:
            planned[f"{gamma}-{lam}"] = [
                *CONFIG["learning"], *common, f"algorithm.gamma={gamma}",
                f"algorithm.gae_lambda={lam}",
            ]  # fmt: skip
    return planned


class Judged:
    """One member of the run of the exact part, in the middle of its training.

    Attributes:
        truth: the mean of the estimate with the true values, which no lambda changes [N].
        values: {baseline: V [S]}.
    """

    def __init__(self, run: Run, member: int, at: int) -> None:
        self.point = find_point(run, at, member)
        problem = self.point.config.problem.build(self.point.config)
        layout = Temporary(self.point, [0]).players["agent"].parameters.layout
        model = garnet()
        self.theta = self.point.parameters["agent"]
        self.policy = softmax_policy(problem.policy.network, layout, model.features)
        self.exact = Exact(model, GAMMA)
        true = self.exact.value(self.policy(self.theta).exp())
        x = torch.from_numpy(model.features)
        learned = problem.value(layout.views(self.theta), x).squeeze(-1)
        self.values = {"none": torch.zeros_like(true), "learned": learned, "exact": true}
        self.own = torch.cat([torch.arange(layout.size)[layout.slices[name]]
                              for name in layout.names if name.startswith("policy.")])  # fmt: skip
        self.truth = self.moments("exact", 1.0)[0]

    def moments(self, baseline: str, lam: float) -> tuple[Tensor, Tensor]:
        """Exact mean and covariance of the policy's estimate from one episode of T steps."""
        mean, covariance = estimate_moments(
            self.exact, self.policy, self.theta, self.values[baseline], lam, STEPS
        )
        return mean[self.own], covariance[self.own][:, self.own]

    def curve(self, baseline: str) -> np.ndarray:
        """Squared bias and variance for every lambda [2, L]."""
        rows = []
        for lam in LAMBDAS:
            mean, covariance = self.moments(baseline, lam)
            rows.append([(mean - self.truth).square().sum().item(), covariance.trace().item()])
        return np.array(rows).T


def sampled(run: Run, judged: Judged, member: int, at: int, lam: float) -> tuple[float, float]:
    """Variance of PPO's own first gradients over the exact one, and z of their mean's distance."""
    found = gradient_estimates(
        run, at, member=member, seed=member, estimates=CONFIG["estimates"],
        at_once=CONFIG["estimates"],
        overrides=[
            f"algorithm.gae_lambda={lam}", "algorithm.normalize_advantage=false",
            "algorithm.value_coefficient=0", "problem.num_envs=1",
            f"algorithm.num_steps={STEPS}", f"algorithm.batch_size={STEPS}",
        ],
    )  # fmt: skip
    values = -STEPS * found.values["agent"][:, judged.own]
    mean, covariance = judged.moments("learned", lam)
    off = values.mean(0) - mean
    square = len(values) * off @ torch.linalg.pinv(covariance, rtol=1e-9) @ off
    rank = int(torch.linalg.matrix_rank(covariance, rtol=1e-9))
    z = (square.item() - rank) / np.sqrt(2 * rank)
    return (values.var(0).sum() / covariance.trace()).item(), z


def learned(runs: Mapping[str, Run], gamma: float | str, lam: float | str) -> np.ndarray:
    """Mean return of the sampling policy after the last iteration, in evaluation episodes [M]."""
    return runs[f"{gamma}-{lam}"].metric("return/stochastic")[1][-1]


def claims(runs: Mapping[str, Run], folder: Path) -> list[Claim]:
    """Exact: variance rises and bias falls with lambda. Cart-pole: where learning is fast."""
    run = runs["exact"]
    at = CONFIG["at"]
    members = range(len(run.members))
    judged = [Judged(run, member, at) for member in members]
    curves = {name: np.stack([j.curve(name) for j in judged]) for name in BASELINES}  # [M, 2, L]
    made = [recorded_claim(run, judged, at), *exact_claims(curves, judged)]
    for lam in (0, 0.96, 1):
        pairs = [sampled(run, j, m, at, lam) for m, j in enumerate(judged)]
        name = f"PPO's own first gradient, lambda {lam}:"
        made.append(Claim(f"{name} variance over the exact one", "1", [p[0] for p in pairs],
                          0.9, 1.1))  # fmt: skip
        worst = max(abs(p[1]) for p in pairs)
        made.append(Claim(f"{name} largest |z| of the mean's chi-squared", "< 4.5", [worst],
                          high=4.5))  # fmt: skip
    made += learning_claims(runs)
    draw(runs, curves, folder / "schulman2016.png")
    return made


def recorded_claim(run: Run, judged: list[Judged], at: int) -> Claim:
    """The judged policies are those that trained: their exact returns are what the run recorded."""
    rows = [
        row for row in run.metrics.to_pylist()
        if row["name"] == "return/stochastic" and row["iteration"] == at
    ]  # fmt: skip
    z = []
    for row in rows:
        judge = judged[row["member"]]
        whole = Exact(judge.exact.mdp, gamma=1.0, horizon=STEPS)
        exact = whole.objective(judge.policy(judge.theta).exp()).item()
        z.append(abs(row["value"] - exact) / row["stderr"])
    name = "exact return of the judged policies: largest |z| of the run's own evaluation"
    return Claim(name, "< 4.5", [max(z)], high=4.5)


def exact_claims(curves: Mapping[str, np.ndarray], judged: list[Judged]) -> list[Claim]:
    """What holds for every member: the smallest or largest change from one lambda to the next."""
    bias, variance = np.log(curves["learned"][:, 0]), np.log(curves["learned"][:, 1])
    ends = curves["none"][:, 1, -1], curves["learned"][:, 1, -1], curves["exact"][:, 1, -1]
    size = np.array([judge.truth.square().sum().item() for judge in judged])
    upper = variance[:, LAMBDAS.index(0.68) :]
    return [
        Claim("exact, learned values: log variance at lambda 1 over that at lambda 0", "> 0",
              variance[:, -1] - variance[:, 0], low=0.0),
        Claim("exact, learned values: smallest log step of the variance from lambda 0.68 on", "> 0",
              np.diff(upper, axis=1).min(axis=1), low=0.0),
        Claim("exact, learned values: largest log step of the squared bias along lambda", "< 0",
              np.diff(bias, axis=1).max(axis=1), high=0.0),
        Claim("exact, true values: squared bias over the squared gradient, any lambda", "0",
              (curves["exact"][:, 0].max(axis=1) / size), high=1e-18),
        Claim("exact, lambda 1: log variance without a baseline over learned values", "> 0",
              np.log(ends[0] / ends[1]), low=0.0),
        Claim("exact, lambda 1: log variance with learned values over true ones", "> 0",
              np.log(ends[1] / ends[2]), low=0.0),
    ]  # fmt: skip


def learning_claims(runs: Mapping[str, Run]) -> list[Claim]:
    """Paired over seeds: log ratios of the sampling policy's return after the last iteration."""
    grid = [name.split("-") for name in runs if name != "exact"]
    score = {(float(g), float(lam)): np.log(learned(runs, g, lam)) for g, lam in grid}
    near = [value for (g, lam), value in score.items() if g == 0.99 and 0.92 <= lam <= 0.98]
    best = np.mean(near, axis=0)
    inside = {key: 0.96 <= key[0] <= 0.99 and 0.92 <= key[1] <= 0.99 for key in score}
    region, others = ([score[key] for key in score if inside[key] == good]
                      for good in (True, False))  # fmt: skip
    return [
        Claim("cart-pole, gamma 0.99: lambda 0.92-0.98 over lambda 0, log return", "> 0",
              best - score[0.99, 0.0], low=0.0),
        Claim("cart-pole, gamma 0.99: lambda 0.92-0.98 over lambda 1, log return", "> 0",
              best - score[0.99, 1.0], low=0.0),
        Claim("cart-pole: gamma 0.96-0.99, lambda 0.92-0.99 over the rest, log return", "> 0",
              np.mean(region, axis=0) - np.mean(others, axis=0), low=0.0),
    ]  # fmt: skip


def draw(runs: Mapping[str, Run], curves: Mapping[str, np.ndarray], path: Path) -> None:
    """Exact bias and variance against lambda; learning curves; the grid of gamma and lambda."""
    figure = Figure(figsize=(17, 4.2), layout="constrained", dpi=130)
    left, second, third, right = figure.subplots(1, 4)
    x = np.arange(len(LAMBDAS))
    for name, color in BASELINES.items():
        middle = np.exp(np.log(np.maximum(curves[name], 1e-300)).mean(axis=0))
        left.semilogy(x, middle[1], "o-", ms=3, color=color, label=name)
        if name != "exact":  # whose bias is 0
            second.semilogy(x, middle[0], "o-", ms=3, color=color, label=name)
    left.set(title="Exact variance of the gradient estimate", ylabel="tr Cov, one episode")
    second.set(title="Exact squared bias (true values: 0)", ylabel="|E g - grad|^2")
    for axes in (left, second):
        axes.set(xlabel="lambda", xticks=x, xticklabels=[f"{lam:g}" for lam in LAMBDAS])
        axes.legend(title="values", frameon=False)
    names = [name.split("-") for name in runs if name != "exact"]
    gammas, lambdas = (list(dict.fromkeys(part)) for part in zip(*names, strict=True))
    shades = np.linspace(0.1, 0.9, len(lambdas))
    for shade, lam in zip(shades, lambdas, strict=True):
        run = runs[f"0.99-{lam}"]
        iterations, values = run.metric("train/return")
        third.plot(iterations, values.mean(axis=1), color=(shade, 0.3, 1 - shade), label=lam)
    third.set(title="Cart-pole, TRPO, gamma 0.99", xlabel="iteration", ylabel="training return")
    third.legend(title="lambda", frameon=False, fontsize=7)
    table = np.array([[learned(runs, g, lam).mean() for lam in lambdas] for g in gammas])
    image = right.imshow(table, aspect="auto", origin="lower", cmap="viridis")
    right.set(title="Return after the last iteration", xlabel="lambda", ylabel="gamma",
              xticks=range(len(lambdas)), xticklabels=lambdas, yticks=range(len(gammas)),
              yticklabels=gammas)  # fmt: skip
    figure.colorbar(image, ax=right)
    for axes in (left, second, third):
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
