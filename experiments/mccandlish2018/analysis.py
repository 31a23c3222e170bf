"""The gradient noise scale and the critical batch size, on digits and on linear regression.

    S(B) = S_min (1 + B_crit / B),  E = B S    the same as (S/S_min - 1)(E/E_min - 1) = 1
    B_simple = tr Sigma / |G|^2,  B_noise = tr(H Sigma) / G.H G
    best rate and improvement of one step: those of the full gradient over 1 + B_noise / B

Source: McCandlish, Kaplan, Amodei et al. (2018), sections 2.2 and 2.3. Shape legend: B batch
sizes, R rates, M members, T evaluations, W windows of updates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from playground.domains.supervised.data import linear_regression, variances
from playground.record.reader import Run
from playground.study import Claim, interval

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())
LIMITS = CONFIG["tolerances"]
DIMENSION, NOISE, SAMPLES = 10, 0.5, 1000  # defaults of supervised/linear_regression
BLUE, RED, GREEN = "#0072B2", "#D55E00", "#009E73"
COLORS = dict(zip(CONFIG["goals"], ("#56B4E9", "#009E73", "#D55E00", "#7A3E9D"), strict=True))


def runs(quick: bool) -> dict[str, list[str]]:
    """A race per batch size, the noise along one, and two of linear regression."""
    size = CONFIG["quick" if quick else "full"]
    members = f"members={size['members']}"
    planned = {}
    for batch in size.get("batches", CONFIG["batches"]):
        race = CONFIG["batches"][batch]
        planned[f"batch {batch}"] = [
            *CONFIG["digits"], members, f"problem.batch_size={batch}",
            f"vary.optimizer.lr=[{','.join(map(str, race['rates']))}]",
            f"budget.iterations={race['iterations']}", f"evaluate.every={race['every']}",
        ]  # fmt: skip
    noise = CONFIG["noise"]
    planned["noise"] = [
        *CONFIG["digits"], f"members={size['members'] * noise['pooled']}",
        f"problem.batch_size={noise['batch']}", f"optimizer.lr={noise['rate']}",
        f"budget.iterations={noise['iterations']}", "evaluate.every=2", "probes.noise.every=1",
    ]  # fmt: skip
    closed = f"members={size['closed']}"
    planned["closed"] = [*CONFIG["regression"], *CONFIG["closed"]["overrides"], closed]
    theory = at_start()
    for batch in CONFIG["step"]["batches"]:
        rates = [repr(factor * theory.rate(batch)) for factor in CONFIG["step"]["factors"]]
        planned[f"step {batch}"] = [
            *CONFIG["regression"], f"members={size['step']}", f"problem.batch_size={batch}",
            f"vary.optimizer.lr=[{','.join(rates)}]", "budget.iterations=1", "evaluate.every=1",
        ]  # fmt: skip
    return planned


@dataclass(frozen=True)
class OneStep:
    """A step of SGD on a quadratic loss: section 2.2.

    Attributes:
        rate_max, gain_max: the best rate of the full gradient and what it improves.
        noise: B_noise.
    """

    rate_max: float
    gain_max: float
    noise: float

    def rate(self, batch: float) -> float:
        """The best rate at a batch size."""
        return self.rate_max / (1 + self.noise / batch)

    def gain(self, batch: float) -> float:
        """The mean improvement of the loss at that rate."""
        return self.gain_max / (1 + self.noise / batch)


def one_step(inputs: np.ndarray, targets: np.ndarray, weight: np.ndarray) -> OneStep:
    """Of linear regression on a training set that is the population: [N, D], [N], [D]."""
    each = inputs * (inputs @ weight - targets)[:, None]
    gradient, hessian = each.mean(axis=0), inputs.T @ inputs / len(inputs)
    covariance = np.cov(each.T, ddof=0)
    curvature, square = gradient @ hessian @ gradient, gradient @ gradient
    noise = np.trace(hessian @ covariance) / curvature
    return OneStep(float(square / curvature), float(0.5 * square**2 / curvature), float(noise))


def at_start() -> OneStep:
    """The theory of the study's one-step runs."""
    data = linear_regression((SAMPLES, SAMPLES), variances(DIMENSION, 10.0), NOISE, 0)
    return one_step(*data.train, np.eye(DIMENSION)[0])


@dataclass(frozen=True)
class Fit:
    """S = s_min (1 + b_crit / B), and how well it holds: R^2 and deviation of log S."""

    s_min: float
    b_crit: float
    r_squared: float
    residual: float


def hyperbola(batches: Sequence[float], steps: np.ndarray) -> Fit:
    """Least squares of log S over batch sizes; all NaN where a goal was not reached [B]."""
    if not np.isfinite(steps).all():
        return Fit(np.nan, np.nan, np.nan, np.nan)
    size, logs = np.asarray(batches, float), np.log(steps)
    low, high = np.log(1e-2 * size.min()), np.log(1e2 * size.max())
    for _ in range(6):  # narrows a grid twentyfold each time
        grid = np.linspace(low, high, 201)
        rest = logs - np.log1p(np.exp(grid)[:, None] / size)
        best = int(rest.var(axis=1).argmin())
        low, high = grid[max(best - 5, 0)], grid[min(best + 5, 200)]
    squares = rest[best].var()
    return Fit(float(np.exp(rest[best].mean())), float(np.exp(grid[best])),
               1 - float(squares / logs.var()), float(np.sqrt(squares)))  # fmt: skip


def reached(at: np.ndarray, loss: np.ndarray, goal: float) -> np.ndarray:
    """Updates until the loss [T, M] first is at the goal; inf if never; log loss interpolated."""
    steps = np.full(loss.shape[1], np.inf)
    for member, curve in enumerate(loss.T):
        below = np.flatnonzero(curve <= goal)
        if len(below) and below[0] > 0:
            left, right = np.log(curve[below[0] - 1 : below[0] + 1])
            start, end = at[below[0] - 1 : below[0] + 1]
            steps[member] = start + (left - np.log(goal)) / (left - right) * (end - start)
    return steps


def cross_chosen(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each member's steps at the rate that is best for the others, and its index: [R, M] to [M].

    So no member chooses the rate by which it is judged. Best is the least mean of log S.
    """
    logs = np.log(steps)
    members = logs.shape[1]
    best = np.array([np.delete(logs, m, axis=1).mean(axis=1).argmin() for m in range(members)])
    return steps[best, np.arange(members)], best


@dataclass(frozen=True)
class Races:
    """Updates to every goal, and the rates by which: {goal: [B, M]} each."""

    batches: list[int]
    steps: dict[float, np.ndarray]
    rates: dict[float, np.ndarray]

    def fits(self, goal: float) -> list[Fit]:
        """One of each member."""
        return [hyperbola(self.batches, each) for each in self.steps[goal].T]

    def b_crit(self, goal: float) -> np.ndarray:
        """Critical batch sizes [M]."""
        return np.array([fit.b_crit for fit in self.fits(goal)])


def races(runs: Mapping[str, Run]) -> Races:
    """Read the races of all batch sizes."""
    batches = [int(name.split()[1]) for name in runs if name.startswith("batch")]
    steps: dict[float, list] = {goal: [] for goal in CONFIG["goals"]}
    chosen: dict[float, list] = {goal: [] for goal in CONFIG["goals"]}
    for batch in batches:
        run = runs[f"batch {batch}"]
        at, loss = run.metric("train_loss")
        own = rates_of(run)
        rates = np.unique(own)
        for goal in CONFIG["goals"]:
            table = np.stack([reached(at, loss[:, own == rate], goal) for rate in rates])
            found, best = cross_chosen(table)
            steps[goal].append(found)
            chosen[goal].append(rates[best])
    return Races(batches, {goal: np.array(v) for goal, v in steps.items()},
                 {goal: np.array(v) for goal, v in chosen.items()})  # fmt: skip


def rates_of(run: Run) -> np.ndarray:
    """The learning rate of every member [M]."""
    return np.array([member["values"]["optimizer.lr"] for member in run.members])


def measured(run: Run, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """A whole player's quantity of the noise probe: updates before it [K] and values [K, M]."""
    rows = [r for r in run.measurements.to_pylist()
            if r["quantity"] == quantity and not r["tensor"]]  # fmt: skip
    at, place = np.unique([r["iteration"] for r in rows], return_inverse=True)
    values = np.full((len(at), len(run.members)), np.nan)
    values[place, [r["member"] for r in rows]] = [r["value"] for r in rows]
    return at - 1, values


def pooled(values: np.ndarray, length: int, groups: int) -> np.ndarray:
    """Means over windows of measurements and groups of members: [K, M] to [W, groups].

    Measurements that are left over at the end are dropped.
    """
    whole = len(values) - len(values) % length
    return values[:whole].reshape(whole // length, length, groups, -1).mean(axis=(1, 3))


@dataclass(frozen=True)
class Noise:
    """The noise scale along a run: the ratio of both parts' means over windows and groups.

    Attributes:
        at: updates before each window [W].
        scale: B_simple [W, G].
        loss: training loss, mean over the window [W, G].
        until: {goal: updates [G]}, of the group's mean loss.
    """

    at: np.ndarray
    scale: np.ndarray
    loss: np.ndarray
    until: dict[float, np.ndarray]

    def average(self, goal: float) -> np.ndarray:
        """Mean of the noise scale over training to a goal [G]."""
        seen = self.at[:, None] < self.until[goal]
        return np.where(seen, self.scale, 0.0).sum(axis=0) / seen.sum(axis=0)


def noise_of(run: Run) -> Noise:
    """Read the run in which the noise scale is measured."""
    at, trace = measured(run, "sample_variance")
    length = CONFIG["noise"]["window"] // int(at[1] - at[0])
    groups = len(run.members) // CONFIG["noise"]["pooled"]
    square = pooled(measured(run, "norm_squared")[1], length, groups)
    evaluated, loss = run.metric("train_loss")
    before = pooled(loss[np.searchsorted(evaluated, at)], length, groups)
    mean = pooled(loss, 1, groups)
    until = {goal: reached(evaluated, mean, goal) for goal in CONFIG["goals"]}
    scale = pooled(trace, length, groups) / square
    return Noise(at[::length][: len(scale)], scale, before, until)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's, over the first axis: [W, M] and [W, M] to [M]."""
    ranks = [x.argsort(axis=0).argsort(axis=0) for x in (a, b)]
    pairs = zip(ranks[0].T, ranks[1].T, strict=True)
    return np.array([np.corrcoef(x, y)[0, 1] for x, y in pairs])


def closed_form(run: Run) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Excess risk, noise scale and its closed form over windows and groups [W, groups] each.

    S = 1: tr Sigma = (d + 1) |e|^2 + d s^2, |G|^2 = |e|^2 and the excess risk is |e|^2 / 2.
    """
    at, trace = measured(run, "sample_variance")
    square = measured(run, "norm_squared")[1]
    evaluated, value = run.metric("value")
    risk = value[np.searchsorted(evaluated, at)]
    length = len(at) // CONFIG["closed"]["windows"]
    trace, square, risk = (pooled(x, length, CONFIG["groups"]) for x in (trace, square, risk))
    return risk, trace / square, DIMENSION + 1 + DIMENSION * NOISE**2 / (2 * risk)


def stepped(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Best rate and best improvement of one step, by groups of members [groups] each.

    Improvement is rate a - rate^2 b, of which two rates give both coefficients.
    """
    loss, own = run.metric("train_loss")[1], rates_of(run)
    first, second = np.unique(own)
    gains = [
        (loss[0] - loss[1])[own == rate].reshape(CONFIG["groups"], -1).mean(axis=1) / rate
        for rate in (first, second)
    ]
    bend = (gains[0] - gains[1]) / (second - first)
    slope = gains[0] + bend * first
    return slope / (2 * bend), slope**2 / (4 * bend)


def claims(runs: Mapping[str, Run], folder: Path) -> list[Claim]:
    """One step and the closed form in theory; growth, Pareto front and prediction on digits."""
    raced, noise, theory = races(runs), noise_of(runs["noise"]), at_start()
    closed = closed_form(runs["closed"])
    steps = {batch: stepped(runs[f"step {batch}"]) for batch in CONFIG["step"]["batches"]}
    made = []
    for batch, (rate, gain) in steps.items():
        title = f"one step, batch {batch}:"
        made.append(Claim(f"{title} best rate over theory", "1", rate / theory.rate(batch),
                          *LIMITS["step"]))  # fmt: skip
        made.append(Claim(f"{title} best improvement over theory", "1",
                          gain / theory.gain(batch), *LIMITS["step"]))  # fmt: skip
    for number, (_, scale, form) in enumerate(zip(*closed, strict=True)):
        name = f"linear regression, third {number + 1} of the run: noise scale over closed form"
        made.append(Claim(name, "1", scale / form, *LIMITS["closed"]))
    made += on_digits(raced, noise)
    draw(raced, noise, closed, steps, folder / "mccandlish2018.png")
    return made


def on_digits(raced: Races, noise: Noise) -> list[Claim]:
    """Growth, Pareto front and prediction."""
    goal, goals = CONFIG["judged"], CONFIG["goals"]
    fits, critical = raced.fits(goal), {g: raced.b_crit(g) for g in goals}
    return [
        Claim("noise scale at the end over that at the start", "> 1",
              noise.scale[-1] / noise.scale[0], low=LIMITS["growth"]),
        Claim("rank correlation of noise scale and training loss", "< 0",
              rank_correlation(noise.scale, noise.loss), high=LIMITS["correlation"]),
        Claim(f"steps to loss {goal}: R^2 of the hyperbola in log S", "1",
              [fit.r_squared for fit in fits], low=LIMITS["fit"]),
        Claim(f"steps to loss {goal}: deviation of log S from it", "0",
              [fit.residual for fit in fits], high=LIMITS["residual"]),
        Claim(f"mean noise scale over critical batch size, loss {goal}",
              "4.5 (MNIST)", noise.average(goal) / critical[goal],
              *LIMITS["ratio"]),
        Claim(f"critical batch size for loss {goals[-1]} over that for {goals[0]}", "> 1",
              critical[goals[-1]] / critical[goals[0]], low=1.0),
    ]  # fmt: skip


# The figure


def draw(
    raced: Races, noise: Noise, closed: Sequence[np.ndarray],
    steps: Mapping[int, tuple[np.ndarray, np.ndarray]], path: Path,
) -> None:  # fmt: skip
    """Digits above, theory and rates below."""
    figure = Figure(figsize=(15.5, 9), layout="constrained", dpi=130)
    cells = figure.subplots(2, 3)
    front(cells[0, 0], raced)
    along(cells[0, 1], noise)
    predicted(cells[0, 2], raced, noise)
    best_rates(cells[1, 0], raced)
    exact(cells[1, 1], closed)
    single(cells[1, 2], steps)
    for axes in cells.flat:
        axes.grid(alpha=0.2, which="major")
        axes.spines[["top", "right"]].set_visible(False)
        axes.title.set_size(11)
    figure.savefig(path)


def front(axes: Axes, raced: Races) -> None:
    """Steps against examples to every goal, and the mean fit."""
    size = np.array(raced.batches, float)
    for goal, color in COLORS.items():
        steps = np.exp(np.log(raced.steps[goal]).mean(axis=1))
        axes.loglog(size * steps, steps, "o", ms=5, color=color, label=f"loss {goal:g}")
        fits = raced.fits(goal)
        least = np.exp(np.mean([np.log(fit.s_min) for fit in fits]))
        critical = np.exp(np.mean([np.log(fit.b_crit) for fit in fits]))
        fine = np.geomspace(size[0] / 1.5, 1.5 * size[-1], 200)
        curve = least * (1 + critical / fine)
        axes.loglog(fine * curve, curve, color=color, lw=1.2)
        axes.plot(2 * critical * least, 2 * least, "*", ms=11, color=color, mec="white", mew=0.6)
        if goal == CONFIG["goals"][-1]:
            for x, y, batch in zip(size * steps, steps, raced.batches, strict=True):
                axes.annotate(f"{batch}", (x, y), xytext=(5, 4), textcoords="offset points",
                              fontsize=8, color="0.35")  # fmt: skip
    axes.set(xlabel="examples E", ylabel="updates S",
             title="Digits: updates and examples to a training loss\n"
             "(lines: hyperbola; star: critical batch size; numbers: B)")  # fmt: skip
    axes.legend(frameon=False, fontsize=9)


def plain_ticks(axis: Axis, values: Sequence[float]) -> None:
    """Figures as they are said, and no others."""
    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def along(axes: Axes, noise: Noise) -> None:
    """Noise scale and loss over the updates."""
    axes.semilogy(noise.at, noise.scale, color=BLUE, alpha=0.25, lw=0.8)
    axes.semilogy(noise.at, np.exp(np.log(noise.scale).mean(axis=1)), color=BLUE, lw=2)
    axes.set(xlabel="update", title="Digits: the noise scale grows while the loss falls\n"
             f"(batch {CONFIG['noise']['batch']}; thin: groups of members)")  # fmt: skip
    axes.set_ylabel("noise scale, samples", color=BLUE)
    other = axes.twinx()
    other.semilogy(noise.at, noise.loss, color=RED, alpha=0.25, lw=0.8)
    other.semilogy(noise.at, np.exp(np.log(noise.loss).mean(axis=1)), color=RED, lw=2)
    other.set_ylabel("training loss", color=RED)
    other.spines[["top"]].set_visible(False)
    plain_ticks(axes.yaxis, (10, 20, 50, 100, 200, 500))
    plain_ticks(other.yaxis, (0.05, 0.1, 0.2, 0.5, 1, 2))


def predicted(axes: Axes, raced: Races, noise: Noise) -> None:
    """Critical batch size and mean noise scale for every goal."""
    goals = np.array(CONFIG["goals"])
    kinds = (
        ("noise scale, mean over training to the loss", BLUE, "s", noise.average),
        ("critical batch size, from the hyperbola", GREEN, "o", raced.b_crit),
    )
    for label, color, mark, value in kinds:
        spans = np.array([interval(value(goal)) for goal in goals]).T
        axes.errorbar(goals, spans[0], (spans[0] - spans[1], spans[2] - spans[0]), color=color,
                      fmt=f"{mark}-", capsize=3, lw=1.4, label=label)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="training loss to reach", ylabel="samples",
             title="Digits: prediction and critical batch size\n(95 % intervals)")  # fmt: skip
    plain_ticks(axes.xaxis, goals)
    plain_ticks(axes.yaxis, (5, 10, 20, 30, 50, 100))
    axes.invert_xaxis()
    axes.legend(frameon=False, fontsize=9)


def best_rates(axes: Axes, raced: Races) -> None:
    """The chosen rates, beside the paper's rule fitted to those of the judged goal."""
    size = np.array(raced.batches, float)
    for goal, color in COLORS.items():
        mean = np.exp(np.log(raced.rates[goal]).mean(axis=1))
        axes.loglog(size, mean, "o", ms=5, color=color, label=f"loss {goal:g}")
    goal, fine = CONFIG["judged"], np.geomspace(size[0], size[-1], 200)
    critical = np.exp(np.log(raced.b_crit(goal)).mean())
    top = np.exp((np.log(raced.rates[goal]).mean(axis=1) + np.log1p(critical / size)).mean())
    axes.loglog(fine, top / (1 + critical / fine), color=COLORS[goal], lw=1.2,
                label=f"{top:.2f} / (1 + {critical:.0f} / B)")  # fmt: skip
    axes.set(xlabel="batch size B", ylabel="learning rate", ylim=(0.07, 1.1),
             title="Digits: the best learning rate")  # fmt: skip
    plain_ticks(axes.yaxis, (0.1, 0.2, 0.5, 1.0))
    plain_ticks(axes.xaxis, raced.batches)
    axes.legend(frameon=False, fontsize=9)


def exact(axes: Axes, closed: Sequence[np.ndarray]) -> None:
    """Noise scale of linear regression against the excess risk."""
    risk, scale, _ = closed
    fine = np.geomspace(risk.min() / 1.5, 1.5 * risk.max(), 200)
    axes.loglog(fine, DIMENSION + 1 + DIMENSION * NOISE**2 / (2 * fine), color="0.3", lw=1.2,
                label=r"$d + 1 + d\,\sigma^2 / (2 \cdot \mathrm{excess\ risk})$")  # fmt: skip
    axes.loglog(risk.ravel(), scale.ravel(), "o", color=BLUE, ms=4, alpha=0.6, label="measured")
    axes.invert_xaxis()
    plain_ticks(axes.yaxis, (10, 15, 20, 30, 50, 70))
    axes.set(xlabel="excess risk", ylabel="noise scale, samples",
             title="Linear regression: the closed form")  # fmt: skip
    axes.legend(frameon=False, fontsize=9)


def single(axes: Axes, steps: Mapping[int, tuple[np.ndarray, np.ndarray]]) -> None:
    """Best rate and improvement of one step, over those of the full gradient."""
    theory = at_start()
    fine = np.geomspace(min(steps) / 2, 2 * max(steps), 200)
    axes.semilogx(fine, 1 / (1 + theory.noise / fine), color="0.3", lw=1.2,
                  label=f"1 / (1 + {theory.noise:.1f} / B)")  # fmt: skip
    kinds = (("best learning rate", GREEN, "o", theory.rate_max),
             ("improvement of the loss", RED, "s", theory.gain_max))  # fmt: skip
    for place, (label, color, mark, largest) in enumerate(kinds):
        spans = np.array([interval(values[place] / largest) for values in steps.values()]).T
        axes.errorbar(np.array(list(steps)) * (0.95, 1.05)[place], spans[0],
                      (spans[0] - spans[1], spans[2] - spans[0]), fmt=mark, ms=5, color=color,
                      capsize=3, label=label)  # fmt: skip
    axes.set(xlabel="batch size B", ylabel="share of the full gradient's", ylim=(0, 1.05),
             title="Linear regression: one step at the best rate")  # fmt: skip
    axes.legend(frameon=False, fontsize=9)
