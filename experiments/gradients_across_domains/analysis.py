"""The same quantities of gradients in a classifier, a landscape, PPO and a GAN.

Early and late are the first and last third of a run. The signal |E G|^2 and the noise tr Cov(G) of
a batch's gradient are unbiased at every measurement and summed over a third before they are
divided. On the landscape both are known: the noise is Gaussian, of a given variance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from playground.record.reader import Run
from playground.record.text import dump_json
from playground.study import Claim, interval

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())
PLAYERS = {
    "classifier": ("model",), "landscape": ("x",), "PPO": ("agent",),
    "GAN": ("generator", "discriminator"),
}  # fmt: skip
TITLES = {
    "classifier": "Classifier\ndigits", "landscape": "Landscape\nRosenbrock with noise",
    "PPO": "PPO\nCartPole", "GAN": "GAN\nring of eight Gaussians",
}  # fmt: skip
COLORS = {
    "model": "#0072B2", "x": "#009E73", "agent": "#7A5195", "generator": "#D55E00",
    "discriminator": "#56B4E9", "": "#222222",
}  # fmt: skip
ROWS = {  # series: (label, log y, level that is marked)
    "norm": ("gradient norm", True, None),
    "ratio": ("|update| /\n|parameters|", True, 1e-3),
    "cosine": ("cosine with the\nprevious gradient", False, 0.0),
    "directions": ("effective directions\nof 32 gradients", True, None),
    "straightness": ("straightness\n(dashed: 1/sqrt t)", True, None),
    "noise": ("noise over\n|gradient|^2", True, 1.0),
    "sharpness": ("sharpness /\nAdam's line", True, 1.0),
    "rotation": ("antisymmetric\nshare", False, 0.0),
}
NAMES = {
    "loss": "log10 of the late over the early loss",
    "norm": "log10 of the late over the early norm",
    "ratio": "log10 |update| / |parameters| at the start",
    "snr": "signal to noise, late over early", "cosine": "cosine of consecutive gradients, late",
    "predicted": "that cosine less s / (1 + s)",
    "directions": "directions of updates over those of gradients, late",
    "straightness": "slope of log straightness on log t",
    "sharpness": "preconditioned sharpness over the line, late",
    "rotation": "antisymmetric share of the Jacobian",
}  # fmt: skip


def runs(quick: bool) -> dict[str, list[str]]:
    """A run a domain, all its members in one."""
    size = "quick" if quick else "full"
    return {
        name: [
            *CONFIG["base"], *domain["overrides"], f"members={CONFIG[size]['members']}",
            f"budget.iterations={domain[size]['iterations']}",
            f"evaluate.every={domain[size]['every']}",
            f"probes.game.every={domain[size]['every']}",
        ]
        for name, domain in CONFIG["domains"].items()
    }  # fmt: skip


@dataclass(frozen=True)
class Series:
    """A quantity over a run.

    Attributes:
        t: updates, or iterations, at which it is known [K].
        values: [K, M], NaN where a member has none.
        end: the last of the run.
    """

    t: np.ndarray
    values: np.ndarray
    end: float

    def early(self, part: float) -> np.ndarray:
        """Values of the first part of the run [K', M]."""
        return self.values[self.t <= part * self.end]

    def late(self, part: float) -> np.ndarray:
        """Values of the last part [K', M]."""
        return self.values[self.t > (1 - part) * self.end]


def collect(table: pa.Table, time: str, value: str, end: float) -> Series:
    """Rows of one quantity as a series."""
    known = table.filter(pc.is_valid(table[value]))
    member = known["member"].to_numpy()
    t, row = np.unique(known[time].to_numpy(), return_inverse=True)
    values = np.full((len(t), int(member.max(initial=-1)) + 1), np.nan)
    values[row, member] = known[value].to_numpy()
    return Series(t, values, end)


def tier0(run: Run, player: str, tap: str, quantity: str) -> Series:
    """A quantity of every measured update."""
    table = run.gradients.select(["update", "member", "player", "tensor", "tap", quantity])
    wanted = (pc.field("player") == player) & (pc.field("tensor") == "") & (pc.field("tap") == tap)
    table = table.filter(wanted)
    return collect(table, "update", quantity, pc.max(table["update"]).as_py())


def measured(run: Run, player: str, probe: str, quantity: str) -> Series:
    """A quantity of a probe, over iterations."""
    table = run.measurements
    wanted = ((pc.field("player") == player) & (pc.field("tensor") == "")
              & (pc.field("probe") == probe) & (pc.field("quantity") == quantity))  # fmt: skip
    end = pc.max(run.metrics["iteration"]).as_py()
    if probe == "direction":  # followed by updates
        end = tier0(run, player, "gradient", "norm").end
        return collect(table.filter(wanted), "update", "value", end)
    return collect(table.filter(wanted), "iteration", "value", end)


def parts(run: Run, player: str) -> tuple[Series, Series]:
    """|E G|^2 and tr Cov(G) of a batch's gradient."""
    if player != "x":
        return (measured(run, player, "noise", "norm_squared"),
                measured(run, player, "noise", "variance"))  # fmt: skip
    norm = measured(run, player, "terms", "norm/value")
    variance = run.config["problem"]["noise"] ** 2 * 2  # of two entries
    return (Series(norm.t, norm.values**2, norm.end),
            Series(norm.t, np.full_like(norm.values, variance), norm.end))  # fmt: skip


def series(run: Run, player: str) -> dict[str, Series]:
    """What the page shows of a player."""
    signal, noise = parts(run, player)
    whole = np.maximum(signal.values + noise.values, noise.values * 1e-3)
    return {
        "norm": tier0(run, player, "gradient", "norm"),
        "ratio": tier0(run, player, "update", "ratio"),
        "cosine": tier0(run, player, "gradient", "cosine_previous"),
        "directions": measured(run, player, "direction", "effective_directions/gradient"),
        "straightness": measured(run, player, "direction", "straightness"),
        "noise": Series(noise.t, noise.values / whole, noise.end),
        "sharpness": measured(run, player, "curvature", "sharpness_ratio"),
        "rotation": measured(run, "", "game", "antisymmetric_share"),
    }


def snr(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Signal over noise of several measurements together [M], of parts [K, M]."""
    return signal.sum(axis=0) / noise.sum(axis=0)


def slope(found: Series) -> np.ndarray:
    """Slope of log(value) on log(t) of each member [M]."""
    return np.polyfit(np.log(found.t), np.log(found.values), 1)[0]


def fall(found: Series) -> np.ndarray:
    """log10 of the late over the early median [M]."""
    part = CONFIG["part"]
    late, early = (np.nanmedian(v, axis=0) for v in (found.late(part), found.early(part)))
    return np.log10(late / early)


def estimates(run: Run, player: str, found: Mapping[str, Series]) -> dict[str, np.ndarray]:
    """{claim: [M]} of a player."""
    part = CONFIG["part"]
    signal, noise = parts(run, player)
    s = [snr(getattr(signal, when)(part), getattr(noise, when)(part)) for when in ("early", "late")]
    cosine = np.nanmean(found["cosine"].late(part), axis=0)
    updates = measured(run, player, "direction", "effective_directions/update")
    loss = "value" if player == "x" else "loss"
    iterations, values = run.metric(loss, "" if player == "x" else player)
    made = {
        "norm": fall(found["norm"]),
        "ratio": np.log10(np.nanmedian(found["ratio"].early(CONFIG["start"]), axis=0)),
        "snr": s[1] / s[0],
        "cosine": cosine,
        "predicted": cosine - s[1] / (1 + s[1]),
        "directions": np.nanmean(updates.late(part) / found["directions"].late(part), axis=0),
        "straightness": slope(found["straightness"]),
        "sharpness": np.nanmedian(found["sharpness"].late(part), axis=0),
        "rotation": np.nanmean(found["rotation"].values, axis=0),
    }
    if player in CONFIG["claims"]["loss"]["players"]:
        made = {"loss": fall(Series(iterations, values, iterations[-1])), **made}
    return made


def readings(run: Run, player: str, found: Mapping[str, Series]) -> dict[str, list[float]]:
    """{quantity: mean and 95 % interval} of what nothing was claimed of."""
    part = CONFIG["part"]
    signal, noise = parts(run, player)
    updates = measured(run, player, "direction", "effective_directions/update")
    straight, sharp = found["straightness"], found["sharpness"].values
    values = {
        "signal to noise, early": snr(signal.early(part), noise.early(part)),
        "signal to noise, late": snr(signal.late(part), noise.late(part)),
        "cosine, first tenth": np.nanmean(found["cosine"].early(0.1), axis=0),
        "cosine, early": np.nanmean(found["cosine"].early(part), axis=0),
        "directions of gradients, late": np.nanmean(found["directions"].late(part), axis=0),
        "directions of updates, late": np.nanmean(updates.late(part), axis=0),
        "straightness at the end": straight.values[-1],
        "straightness at the end x sqrt t": straight.values[-1] * np.sqrt(straight.t[-1]),
        "ratio, late": np.nanmean(found["ratio"].late(part), axis=0),
        "sharpness over the line, share above 1": np.nanmean(
            np.where(np.isnan(sharp), np.nan, sharp > 1), axis=0
        ),
        "sharpness over the line, largest": np.nanmax(sharp, axis=0),
    }
    if player == "agent":  # 20 updates take one batch
        cosine = found["cosine"]
        late, first = cosine.t > (1 - part) * cosine.end, cosine.t % 20 == 1
        values["cosine to a new batch, late"] = np.nanmean(cosine.values[late & first], axis=0)
        values["cosine on one batch, late"] = np.nanmean(cosine.values[late & ~first], axis=0)
    return {name: list(interval(value)) for name, value in values.items()}


def claims(runs: Mapping[str, Run], folder: Path) -> list[Claim]:
    """Every claim of the configuration, player by player."""
    found = {n: {p: series(run, p) for p in PLAYERS[n]} for n, run in runs.items()}
    values = {p: (name, estimates(runs[name], p, each))
              for name, players in found.items() for p, each in players.items()}  # fmt: skip
    draw(found, folder / "gradients_across_domains.png")
    told = {p: readings(runs[n], p, each) for n, all_ in found.items() for p, each in all_.items()}
    (folder / "readings.json").write_bytes(dump_json(told))
    made = []
    for key, claim in CONFIG["claims"].items():
        for player, (name, estimate) in values.items():
            label = player if name == "GAN" else name
            own = claim.get("players", {}).get(player, claim.get("default"))
            if key == "rotation":
                if player == "discriminator":
                    continue  # the game has one Jacobian
                label, own = name, claim["players"].get(name, own)
            if own is None or player in claim.get("without", ()):
                continue
            high = float(own[1])  # YAML reads 1e-6 as text
            low = -np.inf if own[0] is None else float(own[0])
            said = f"at most {high:g}" if own[0] is None else f"{low:g} to {high:g}"
            made.append(Claim(f"{label}: {NAMES[key]}", said, estimate[key], low, high))
    return made


def binned(found: Series, bins: int, log: bool) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the run [B] and means (of logarithms) in each of so many bins [B, M]."""
    share = found.t / found.end
    values = np.where(found.values > 0, found.values, np.nan) if log else found.values
    values = np.log(values) if log else values
    if len(share) <= bins:
        return share, np.exp(values) if log else values
    place = np.minimum((share * bins).astype(int), bins - 1)
    kept = np.unique(place)
    means = np.stack([np.nanmean(values[place == b], axis=0) for b in kept])
    return (kept + 0.5) / bins, np.exp(means) if log else means


def draw(found: Mapping[str, Mapping[str, Mapping[str, Series]]], path: Path) -> None:
    """Rows are quantities, columns domains; x is the share of the run."""
    figure = Figure(figsize=(11.5, 14.5), layout="constrained", dpi=120)
    cells = figure.subplots(len(ROWS), len(found), sharex=True, sharey="row")
    for column, (name, players) in enumerate(found.items()):
        for row, (key, (label, log, level)) in enumerate(ROWS.items()):
            axes = cells[row, column]
            for player, each in players.items():
                if key != "rotation" or player == PLAYERS[name][0]:
                    one = "" if key == "rotation" and len(players) > 1 else player
                    curve(axes, each[key], COLORS[one], log, player)
            if key == "straightness":
                t = next(iter(players.values()))[key].t
                axes.plot(t / t[-1], t**-0.5, "--", color="0.4", lw=1)
            if level is not None:
                axes.axhline(level, color="0.4", lw=0.8, ls="--", zorder=1)
            if log:
                axes.set_yscale("log")
            axes.grid(alpha=0.2)
            axes.spines[["top", "right"]].set_visible(False)
            if column == 0:
                axes.set_ylabel(label, fontsize=10.5)
        cells[0, column].set_title(TITLES[name], fontsize=12, weight="bold")
        cells[-1, column].set(xlabel="share of the run", xlim=(0, 1.01),
                              xticks=[0, 0.25, 0.5, 0.75, 1])  # fmt: skip
        cells[-1, column].set_xticklabels(["0", "1/4", "1/2", "3/4", "1"])
    cells[0, -1].legend(frameon=False, fontsize=9)
    figure.align_ylabels(cells[:, 0])
    figure.savefig(path)


def curve(axes: Axes, found: Series, color: str, log: bool, label: str) -> None:
    """Thin lines of the members, and their mean, of logarithms where y is."""
    share, values = binned(found, 60, log)
    axes.plot(share, values, color=color, lw=0.6, alpha=0.35)
    known = np.isfinite(values).any(axis=1)
    logs = np.log(values[known]) if log else values[known]
    mean = np.nanmean(logs, axis=1)
    axes.plot(share[known], np.exp(mean) if log else mean, color=color, lw=1.8, label=label)
