"""A GIF of a run's policy: ``playground.video(run)``, ``scripts/video.py RUN``.

The policy plays in an environment that renders; the run is read from its folder and only the
GIF is written into it.
"""

import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from playground.config import members
from playground.domains.rl.pictures import Frame, film
from playground.domains.rl.problem import PolicyGradient
from playground.record.atomic import write_atomic
from playground.record.reader import Run, load
from playground.schema import ConfigError
from playground.temporary import Temporary, find_point

RATE = 25
"""Frames a second at most (ours): of faster environments every second, third, ... is shown."""

LAST = 1500
"""Milliseconds that an episode's last frame stays (ours)."""

WIDTH = 400
"""Pixels at most (ours)."""


def video(
    source: Run | Path | str,
    *,
    at: str | int = "final",
    member: int = 0,
    episodes: int = 1,
    sample: bool = False,
    path: Path | None = None,
) -> Path:
    """Write episodes of a policy as a GIF.

    Args:
        source: a run of domain rl, or its folder.
        at: ``final``, ``best``, or the iteration of a snapshot; where observations are
            normalised ``final`` alone, since snapshots hold no statistics.
        member: whose policy.
        episodes: how many, one after the other; the first is the evaluation's first.
        sample: draw actions from the policy instead of taking its mode.
        path: where to; null is ``figures/policy.gif`` of the run.

    Raises:
        ConfigError: another domain, no such member, an environment without pictures.
        RecordError: the run has no such snapshot, or the file cannot be written.
    """
    run = source if isinstance(source, Run) else load(source)
    if not isinstance(run, Run):
        raise ConfigError(f"{source}: a sweep; give one of its runs")
    if episodes < 1:
        raise ConfigError(f"episodes={episodes}: must be at least 1")
    point = find_point(run, at, member)
    temporary = Temporary(point, [members(point.config)[member].seed])
    problem = temporary.problem
    if not isinstance(problem, PolicyGradient):
        raise ConfigError(f"{run.path}: {problem.name} has no policy to film")
    if problem.config.normalize_observations and point.state is None:
        raise ConfigError(f"at={at}: observations are normalised, and only final has how")
    frames = list(thin(film(problem, episodes, sample=sample), steps_a_second(problem)))
    path = path or run.path / "figures" / "policy.gif"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, gif(frames))
    return path


def steps_a_second(problem: PolicyGradient) -> float:
    """Of the environment, as it says."""
    import gymnasium

    env = gymnasium.make(problem.factory.spec, **problem.factory.kwargs)
    env.close()
    return float(env.metadata.get("render_fps") or RATE)


def gif(frames: Sequence[Frame]) -> bytes:
    """Frames as a GIF that repeats."""
    ends = [a.episode != b.episode for a, b in itertools.pairwise(frames)] + [True]
    images = [picture(frame) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(buffer, format="GIF", save_all=True, append_images=images[1:], loop=0,
                   duration=[LAST if end else round(1000 / RATE) for end in ends])  # fmt: skip
    return buffer.getvalue()


def thin(frames: Iterator[Frame], steps: float) -> Iterator[Frame]:
    """Frames at ``RATE`` a second, and of each episode the last."""
    every, held = max(1, round(steps / RATE)), None
    for frame in frames:
        if held is not None and frame.episode != held.episode:
            yield held
        held = frame
        if frame.step % every == 0:
            yield frame
            held = None
    if held is not None:
        yield held


def picture(frame: Frame) -> Image.Image:
    """A frame with its return so far."""
    image = Image.fromarray(np.ascontiguousarray(frame.pixels))
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)))
    text = f"episode {frame.episode + 1}   step {frame.step}   return {frame.total:.1f}"
    ImageDraw.Draw(image, "RGBA").rectangle((0, 0, image.width, 16), fill=(255, 255, 255, 190))
    ImageDraw.Draw(image).text((6, 3), text, fill=(34, 34, 34))
    return image
