"""A closer look at deep policy gradients: gradient estimates, baselines, landscapes.

TRPO is trained on Hopper. At some of its iterations many independent rollouts are drawn: their
gradients are compared with each other and with a reference, and the same rollouts are judged with
other baselines. Then the surrogate and the true return are measured along the update.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from matplotlib.figure import Figure
from torch import Tensor

import playground
from playground.domains.rl.batches import normalize
from playground.domains.rl.collector import Rollout, advantages, returns_to_go
from playground.game import Move
from playground.gradients import Differentiator
from playground.probes.landscape import random_direction
from playground.probes.noise.estimates import grouped, noise
from playground.randomness import stream_seed
from playground.record.checkpoint import load_snapshot
from playground.record.reader import Run
from playground.study import Claim
from playground.temporary import Source, Temporary, find_point
from playground.workers import go_on

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())
PAIRS, GAMMA = 2048, 0.99
BASELINES = {"true": "#009E73", "learned": "#0072B2", "returns": "#D55E00", "none": "#999999"}
STEPS = [0.0, 1.0, 2.0, 3.0]
MARGIN = 300  # pairs before the end of a rollout whose returns are cut too early: 0.99^300 = 0.05


def runs(quick: bool) -> dict[str, list[str]]:
    """One run of TRPO, whose snapshots are judged."""
    changed = CONFIG["quick" if quick else "full"]
    iterations = changed["judged"][-1]
    own = [f"members={changed['members']}", f"budget.iterations={iterations}"]
    return {"train": [*CONFIG["train"], *own]}


def settings(run: Run) -> dict[str, Any]:
    """What the run's size says was asked for."""
    quick = run.config["budget"]["iterations"] == CONFIG["quick"]["judged"][-1]
    return dict(CONFIG["quick" if quick else "full"])


# Gradient estimates


class Drawn:
    """K independent rollouts of one policy, and their gradients under any baseline.

    Under ``learned`` the gradients are those of ``playground.gradient_estimates``.

    Attributes:
        rollout: of K members with one environment each.
        values: {baseline: V [T + 1, K, 1]}.
    """

    def __init__(self, source: Source, at: str | int, member: int, estimates: int) -> None:
        seeds = [stream_seed(member, f"estimate/{k}") for k in range(estimates)]
        self.made = Temporary(find_point(source, at, member), seeds)
        problem: Any = self.made.problem
        self.problem = problem
        self.rollout: Rollout = problem.collect(problem.algorithm.num_steps)
        learned = problem.values(self.rollout.observation)
        self.values = {"learned": learned, "returns": 0 * learned, "none": 0 * learned}
        self.layout = self.made.players["policy"].parameters.layout

    def advantage(self, baseline: str, lam: float = 0.95) -> np.ndarray:
        """[T, K, 1]; without values it is the discounted return to go."""
        if baseline in ("returns", "none"):
            return returns_to_go(self.rollout, GAMMA)
        return advantages(self.rollout, self.values[baseline], GAMMA, lam)

    def gradients(self, baseline: str) -> Tensor:
        """[K, N] of the surrogate; advantages are standardised in each batch, but for none."""
        batch = self.problem.batch(self.rollout, old=True)
        batch["advantage"] = self.problem.rows(self.advantage(baseline))
        if baseline != "none":
            batch["advantage"] = normalize(batch["advantage"], batch["weight"])
        move = Move("policy", self.problem.surrogate, batch)
        return Differentiator(self.made.players)(move).value

    def fit(self, passes: int) -> None:
        """Adds the values ``true``: the learned ones, trained on to fit the discounted returns.

        In each half of the rollouts they are those fitted in the other half.
        """
        half = self.rollout.reward.shape[1] // 2
        views = self.made.players["value"].parameters.views
        observation = self.problem.tensor(self.rollout.observation)
        learned, valid = self.values["learned"], self.rollout.valid
        target = self.advantage("learned", 1.0) + learned[:-1]
        self.values["true"] = np.empty_like(learned)
        for own, other in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
            tensors = {name: view[0].clone().requires_grad_() for name, view in views.items()}
            x = observation[:-1, own][torch.from_numpy(valid[:, own])]
            y = self.problem.tensor(target[:, own][valid[:, own]])
            value = partial(self.problem.value, tensors)
            regress(value, list(tensors.values()), x, y, passes)
            with torch.no_grad():
                self.values["true"][:, other] = value(observation[:, other]).squeeze(-1).numpy()

    def error(self, baseline: str, lam: float) -> float:
        """Mean relative error of values on the learned ones' targets at lambda.

        At lambda 1 targets are discounted returns, but near the rollout's end.
        """
        target = self.advantage("learned", lam) + self.values["learned"][:-1]
        kept = self.rollout.valid.copy()
        kept[-MARGIN:] = False
        off = np.abs(self.values[baseline][:-1] - target)
        return float(np.mean(off[kept] / np.abs(target[kept])))


def regress(value: Any, tensors: list[Tensor], x: Tensor, y: Tensor, passes: int) -> None:
    """Least squares by Adam with minibatches of 1024 and a rate that falls from 1e-3 to 0."""
    count = max(1, len(x) // 1024) * passes
    optimizer = torch.optim.Adam(tensors, lr=1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, count)
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        index = torch.randint(len(x), (1024,), generator=generator)
        loss = (value(x[index]).squeeze(-1) - y[index]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def cosines(gradients: Tensor, layout: Any) -> dict[int, float]:
    """{pairs: mean cosine between independent estimates of so many}."""
    found, size = {}, 1
    while len(gradients) // size >= 3:
        values = grouped(gradients, size).unsqueeze(1)
        found[size * PAIRS] = noise(values, layout)["cosine"].value[0, 0].item()
        size *= 2
    return found


def references(gradients: Tensor, layout: Any) -> dict[int, float]:
    """{pairs: mean cosine of estimates of one half with the mean of the other half}."""
    half, found, size = len(gradients) // 2, {}, 1
    first, other = gradients[:half], gradients[half : 2 * half].mean(0, keepdim=True)
    while half // size >= 3:
        values = grouped(first, size).unsqueeze(1)
        measured = noise(values, layout, other)["cosine_reference"]
        found[size * PAIRS] = measured.value[0, 0].item()
        size *= 2
    whole = torch.nn.functional.cosine_similarity(first.mean(0), other[0], dim=0)
    return found | {half * PAIRS: whole.item()}


def judge(run: Run, at: int, member: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Cosines of one member's estimates under every baseline, and the values' errors."""
    drawn = Drawn(run, at, member, given["estimates"])
    drawn.fit(given["passes"])
    own = drawn.gradients("learned").double()
    result: dict[str, Any] = {
        "pairwise": cosines(own, drawn.layout), "reference": references(own, drawn.layout),
    }  # fmt: skip
    for name in BASELINES:  # in halves, which true values do not make dependent
        halves = drawn.gradients(name).chunk(2)
        pair = [cosines(part, drawn.layout) for part in halves]
        result[name] = {size: (pair[0][size] + pair[1][size]) / 2 for size in pair[0]}
    for name in ("learned", "true"):
        result[f"{name} error"] = drawn.error(name, 1.0)
    return result | {"target error": drawn.error("learned", 0.95)}


# Landscapes


def update(run: Run, at: int, folder: Path) -> Tensor:
    """What one more iteration of training adds to every member's policy [M, N]."""
    own = [f"members={len(run.members)}", "budget.iterations=1", "seed=1000"]
    path = str(run.path).replace("'", "''")
    keys = [*CONFIG["train"], *own, f"snapshot.run='{path}'", f"snapshot.iteration={at}"]
    made = go_on(folder / f"update-{at}", keys)
    after, before = (load_snapshot(made.path, i)[1]["policy"] for i in (1, 0))
    return after - before


def returns(source: Source, at: str | int, member: int, where: Tensor, episodes: int) -> np.ndarray:
    """Returns [P, E] of E complete episodes and their lengths at points [P, N]: [2, P, E].

    Those of the sampling policy, with the same seeds and noise at every point.
    """
    point = find_point(source, at, member, overrides=[f"problem.num_envs={episodes}"])
    made = Temporary(point, [stream_seed(member, "returns")] * len(where))
    made.place("policy", where.to(made.players["policy"].parameters.values))
    problem: Any = made.problem
    problem.collector.begin(episodes=1)
    rollout = problem.collect(problem.factory.limit, until_done=True)
    return np.stack([(rollout.reward * rollout.valid).sum(0), rollout.valid.sum(0)])


def line(run: Run, at: int, member: int, step: Tensor, given: Mapping[str, Any]) -> dict[str, Any]:
    """Gains over the start and their errors along the update: surrogate and true return."""
    fresh = playground.landscape(
        run, [step], [STEPS], at=at, member=member, player="policy", metrics=[],
        batches=given["fresh"], seed=member + 1,
    )  # fmt: skip
    center = find_point(run, at, member).parameters["policy"]
    where = center + torch.tensor(STEPS)[:, None] * step
    drawn, lengths = returns(run, at, member, where, given["episodes"])
    gains = drawn - drawn[:1]
    many = np.sqrt(drawn.shape[1])
    error = drawn.std(axis=1, ddof=1) * np.sqrt(lengths.mean(axis=1) / PAIRS)
    noise_squared = (drawn.std(axis=1, ddof=1) / many) ** 2
    signal = max(drawn.mean(axis=1).var(ddof=1) - noise_squared.mean(), 0.0)
    return {
        "surrogate": -fresh.values["objective"].numpy(),
        "surrogate error": fresh.stderr["objective"].numpy(),
        "return": gains.mean(axis=1) / drawn[0].mean(),
        "return error": gains.std(axis=1, ddof=1) / many / drawn[0].mean(),
        "noise": float(np.mean(error**2) / (np.mean(error**2) + signal)),
    }


def surfaces(run: Run, at: int, step: Tensor, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Member 0's surrogate and returns over the update and a random direction of its length."""
    point = find_point(run, at, 0)
    layout = Temporary(point, [0]).players["policy"].parameters.layout
    drawn = random_direction(layout, torch.Generator().manual_seed(0), norm=step.norm().item())
    axis = np.linspace(0, 3, given["grid"])
    found = playground.landscape(
        run, [step, drawn], [axis, axis], at=at, player="policy", metrics=[],
        batches=given["fresh"], seed=1,
    )  # fmt: skip
    center = point.parameters["policy"]
    offsets = torch.cartesian_prod(*[torch.from_numpy(axis).to(center)] * 2)
    where = center + offsets @ torch.stack([step, drawn.to(center)])
    pieces = [returns(run, at, 0, part, given["episodes"]) for part in where.split(given["grid"])]
    every, lengths = np.concatenate(pieces, axis=1)
    few = min(max(2, round(PAIRS / lengths.mean())), given["episodes"] // 3)
    shape = (len(axis), len(axis))
    return {
        "axis": axis, "surrogate": -found.values["objective"].numpy(),
        "few": every[:, :few].mean(axis=1).reshape(shape),
        "many": every.mean(axis=1).reshape(shape), "length": lengths.mean(),
        "episodes": np.array([few, given["episodes"]]),
    }  # fmt: skip


# Claims


def claims(runs: Mapping[str, Run], folder: Path) -> list[Claim]:
    """Estimates agree poorly and worse later; baselines; surrogate and return part."""
    run = runs["train"]
    given, members = settings(run), range(len(run.members))
    judged = given["judged"]
    found = {at: [judge(run, at, m, given) for m in members] for at in judged}
    steps = {at: update(run, at, folder) for at in judged}
    lines = {at: [line(run, at, m, steps[at][m], given) for m in members] for at in judged}
    drawn = {at: surfaces(run, at, steps[at][0], given) for at in (judged[0], judged[-1])}
    draw(run, found, lines, drawn, folder / "ilyas2020.png")
    return [*estimate_claims(found), *value_claims(found), *landscape_claims(lines)]


def column(found: Mapping[int, list[dict[str, Any]]], at: int, name: str, pairs: int) -> np.ndarray:
    """A cosine at one iteration and number of pairs [M]."""
    return np.array([member[name][pairs] for member in found[at]])


def estimate_claims(found: Mapping[int, list[dict[str, Any]]]) -> list[Claim]:
    """Of the estimates as training makes them."""
    first, *later = found
    last = later[-1]
    at = {i: column(found, i, "pairwise", PAIRS) for i in found}
    near = {i: column(found, i, "reference", PAIRS) for i in found}
    sizes = list(found[last][0]["pairwise"])
    most, few = sizes[-1], [size for size in sizes if size <= 10_000][-1]
    growth = column(found, last, "pairwise", most) - at[last]
    made = [
        Claim(f"iteration {i}: pairwise cosine of estimates of {few // 1024}K pairs", "< 0.35",
              column(found, i, "pairwise", few), high=0.35) for i in later
    ]  # fmt: skip
    if len(later) > 1:
        change = at[later[0]] - at[last]
        name = f"pairwise cosine of 2K pairs, iteration {later[0]} over {last}: difference"
        made.append(Claim(name, "> 0", change, low=0.0))
    return [
        *made,
        Claim(f"iteration {last}: pairwise cosine of 2K pairs", "poor (< 0.5)", at[last],
              high=0.5),
        Claim(f"iteration {last}: the same of {most // PAIRS} times the pairs, more", "> 0",
              growth, low=0.0),
        Claim(f"iteration {last}: cosine of 2K pairs with the reference", "poor (< 0.5)",
              near[last], high=0.5),
        Claim(f"pairwise cosine of 2K pairs, iteration 0 over {last}: difference", "> 0",
              at[first] - at[last], low=0.0),
        Claim(f"cosine with the reference, iteration 0 over {last}: difference", "> 0",
              near[first] - near[last], low=0.0),
    ]  # fmt: skip


def value_claims(found: Mapping[int, list[dict[str, Any]]]) -> list[Claim]:
    """Of the baselines and of the learned values, means over all iterations but the first."""
    later = list(found)[1:]
    cosine = {
        name: np.mean([column(found, i, name, PAIRS) for i in later], axis=0) for name in BASELINES
    }
    learned, true = cosine["learned"], cosine["true"]
    error = {
        name: np.mean([[m[name] for m in found[i]] for i in later], axis=0)
        for name in ("learned error", "true error", "target error")
    }
    share = (learned - cosine["returns"]) / (true - cosine["returns"])
    return [
        Claim("values on held-out returns: mean relative error", "0.5", error["learned error"],
              0.25, 0.75),
        Claim("the same over the error on GAE's targets, log ratio", "> 0",
              np.log(error["learned error"] / error["target error"]), low=0.0),
        Claim("the better values' error on held-out returns over it, log ratio", "< 0",
              np.log(error["true error"] / error["learned error"]), high=0.0),
        Claim("pairwise cosine, learned values over returns alone: difference", "> 0",
              learned - cosine["returns"], low=0.0),
        Claim("pairwise cosine, better values over learned: difference", "> 0",
              true - learned, low=0.0),
        Claim("gain of learned values over that of better ones", "< 0.5", share, high=0.5),
    ]  # fmt: skip


def landscape_claims(lines: Mapping[int, list[dict[str, Any]]]) -> list[Claim]:
    """Of the surrogate on fresh rollouts and the true return along the update."""
    first, *later = lines
    last = later[-1]

    def gain(at: int, name: str) -> np.ndarray:
        return np.array([m[name][1] - m[name][0] for m in lines[at]])

    def parted(at: int) -> np.ndarray:
        """Share of points where the surrogate rises and the return falls, by 2 errors each."""
        rises = [m["surrogate"][1:] - m["surrogate"][0] > 2 * m["surrogate error"][1:]
                 for m in lines[at]]  # fmt: skip
        falls = [m["return"][1:] < -2 * m["return error"][1:] for m in lines[at]]
        return (np.array(rises) & np.array(falls)).mean(axis=1)

    share = np.mean([parted(at) for at in later], axis=0)
    return [
        Claim("iteration 0: surrogate's gain of one update", "> 0", gain(first, "surrogate"),
              low=0.0),
        Claim("iteration 0: return's relative gain of one update", "> 0", gain(first, "return"),
              low=0.0),
        Claim("later: surrogate's gain of one update", "> 0",
              np.mean([gain(at, "surrogate") for at in later], axis=0), low=0.0),
        Claim("later: share of points with a higher surrogate and a lower return", "often (> 0.25)",
              share, low=0.25),
        Claim("the same, over its share at iteration 0: difference", "> 0", share - parted(first),
              low=0.0),
        Claim(f"iteration {last}: share of noise in returns of 2K pairs along the update", "> 0.5",
              [m["noise"] for m in lines[last]], low=0.5),
    ]  # fmt: skip


# The picture


def draw(
    run: Run,
    found: Mapping[int, list[dict[str, Any]]],
    lines: Mapping[int, list[dict[str, Any]]],
    drawn: Mapping[int, dict[str, np.ndarray]],
    path: Path,
) -> None:
    """Cosines against pairs; baselines; lines; surfaces at the first and the last iteration."""
    figure = Figure(figsize=(17, 12.5), layout="constrained", dpi=110)
    top, *below = figure.subfigures(3, 1, height_ratios=[1, 1.05, 1.05])
    axes = top.subplots(1, 4)
    last = list(found)[-1]
    shades = {at: (0.15 + 0.7 * i / (len(found) - 1), 0.3, 0.85 - 0.7 * i / (len(found) - 1))
              for i, at in enumerate(found)}  # fmt: skip
    for at, color in shades.items():
        curves(axes[0], [m["pairwise"] for m in found[at]], color, str(at))
        curves(axes[1], [m["reference"] for m in found[at]], color, str(at))
    for name, color in BASELINES.items():
        curves(axes[2], [m[name] for m in found[last]], color, name)
    half = max(found[last][0]["reference"])
    axes[0].set(title="Agreement of gradient estimates", ylabel="mean pairwise cosine")
    axes[1].set(
        title="Agreement with a reference", ylabel=f"cosine with {half // 1024}K other pairs"
    )
    axes[2].set(title=f"Baselines, iteration {last}", ylabel="mean pairwise cosine")
    for panel, title in zip(axes, ("iteration", "iteration", "baseline"), strict=False):
        panel.set(xscale="log", ylim=(-0.1, 1), xlabel="state-action pairs of an estimate")
        panel.axvline(PAIRS, color="black", lw=0.8, ls=":")
        ticks = [PAIRS << i for i in range(5)]
        panel.set_xticks(ticks, [f"{tick // 1024}K" for tick in ticks])
        panel.set_xticks([], minor=True)
        panel.legend(title=title, frameon=False, fontsize=8)
    iterations, values = run.metric("train/return")
    axes[3].plot(iterations, values, color="#0072B2", lw=0.8)
    axes[3].set(title="Training: TRPO on Hopper-v5", xlabel="iteration", ylabel="return")
    for panel in axes:
        panel.grid(alpha=0.2)
        panel.spines[["top", "right"]].set_visible(False)
    for part, (at, surface) in zip(below, drawn.items(), strict=True):
        part.suptitle(f"Iteration {at}", fontsize=13)
        landscapes(part, surface, lines[at])
    figure.savefig(path)


def curves(axes: Any, members: list[dict[int, float]], color: Any, label: str) -> None:
    """Every member thin, their mean thick."""
    pairs = list(members[0])
    values = np.array([list(member.values()) for member in members])
    axes.plot(pairs, values.T, color=color, lw=0.6, alpha=0.4)
    axes.plot(pairs, values.mean(axis=0), "o-", ms=3, color=color, lw=1.8, label=label)


def landscapes(part: Any, surface: dict[str, np.ndarray], lines: list[dict[str, Any]]) -> None:
    """Three surfaces of member 0, and all members along the update."""
    x, y = np.meshgrid(surface["axis"], surface["axis"], indexing="ij")
    titles = {"surrogate": "Surrogate"}
    for name, count in zip(("few", "many"), surface["episodes"], strict=True):
        pairs = count * surface["length"] / 1000
        titles[name] = f"Return, {count} episodes ({pairs:.1f}K pairs) a point"
    for i, (name, title) in enumerate(titles.items()):
        axes = part.add_subplot(1, 4, i + 1, projection="3d")
        axes.plot_surface(x, y, surface[name], cmap="viridis", edgecolor="white", lw=0.3)
        axes.set(title=title, xlabel="updates", ylabel="random direction")
        axes.view_init(25, -125)
    axes = part.add_subplot(1, 4, 4)
    scale = max(np.abs(m["surrogate"]).max() for m in lines)
    for name, color, unit in (("surrogate", "#0072B2", scale), ("return", "#D55E00", 1.0)):
        for i, member in enumerate(lines):
            gain = (member[name] - member[name][0]) / unit
            label = {"surrogate": f"surrogate / {scale:.2g}", "return": "return, relative"}[name]
            axes.errorbar(STEPS, gain, 2 * member[f"{name} error"] / unit, color=color, lw=1,
                          capsize=2, label=label if i == 0 else None)  # fmt: skip
    axes.axhline(0, color="black", lw=0.8)
    axes.set(title="Along the update, every member", xlabel="updates", ylabel="gain over the start")
    axes.legend(frameon=False, fontsize=8)
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
