"""Pictures of GANs other than points in the plane: images, the line, other losses, the GIF."""

import itertools

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from playground.report import animate, draw, names
from playground.report.figures import animation
from playground.report.figures.animation import LAST
from playground.report.figures.gan import LEVELS, ground, probability
from playground.report.figures.gan_images import tiles

RNG = np.random.default_rng(0)
PLAYERS = {"generator": ["0.weight"], "discriminator": ["0.weight"]}
TIMES = (0, 10, 20, 30)


def several(*shape):
    return {time: RNG.normal(size=shape) for time in TIMES}


IMAGES = {
    "images": {t: RNG.integers(0, 256, size=(2, 64, 1, 8, 8)).astype(np.uint8) for t in TIMES},
    "real_images": {t: np.zeros((1, 64, 1, 8, 8), np.uint8) for t in TIMES},
}
STACKED = {name: {t: a.repeat(3, axis=2) for t, a in part.items()} for name, part in IMAGES.items()}
LINE = {
    "samples": several(2, 50, 1), "data": several(1, 50, 1), "arrows": several(2, 20, 1),
    "arrow_points": several(2, 20, 1), "field": several(2, 9),
    "field_axes": {time: np.linspace(-2, 2, 9)[None, None] for time in TIMES},
}  # fmt: skip
PLANE = {
    "samples": several(2, 50, 2), "data": several(1, 50, 2), "arrows": several(2, 20, 2),
    "arrow_points": several(2, 20, 2), "field": several(2, 9, 9), "centres": several(1, 8, 2),
    "field_axes": {time: np.stack([np.linspace(-2, 2, 9)] * 2)[None] for time in TIMES},
}  # fmt: skip
CASES = {"digits": IMAGES, "stacked_digits": STACKED, "mixture_1d": LINE, "ring": PLANE}


def falls(time, member):
    return 1 / (1.0 + time[:, None] + member[None])


def made(record, name, **options):
    metric = {
        "frechet": falls,
        "frechet/perfect": lambda t, m: 0.01 + 0 * falls(t, m),
        "high_quality": lambda t, m: 1 - falls(t, m),
        "modes": lambda t, m: 8 + 0 * falls(t, m),
    }
    options = {"problem": f"gan/{name}", "players": PLAYERS, "metric": metric,
               "arrays": CASES[name], **options}  # fmt: skip
    return record(f"{name}-{len(options)}", **options)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("members", [1, 2])
def test_every_kind_of_data_has_its_picture(record, name, members):
    pixels = imread(draw(made(record, name, members=members), "gan"))
    assert np.isfinite(pixels).all()
    assert pixels.std() > 0.02


@pytest.mark.parametrize("name", CASES)
def test_the_animation_has_a_frame_an_evaluation_and_changes(record, name):
    run = made(record, name)
    path = animate(run)
    assert path == run.path / "figures" / "animation.gif"
    with Image.open(path) as gif:
        assert gif.n_frames == len(TIMES)
        assert gif.info["loop"] == 0
        frames, times = [], []
        for index in range(gif.n_frames):
            gif.seek(index)
            frames.append(np.asarray(gif.convert("RGB"), np.int16))
            times.append(gif.info["duration"])
    assert times[-1] == LAST
    for first, second in itertools.pairwise(frames):
        assert np.abs(first - second).mean() > 0.1
    assert draw(run, "animation") == path  # the same by its name
    assert "animation" not in names(run)  # not drawn unless asked for


def test_a_long_run_is_thinned_and_keeps_its_end(record, monkeypatch):
    monkeypatch.setattr(animation, "MOST", 2)
    with Image.open(animate(made(record, "digits", members=1))) as gif:
        assert gif.n_frames == 3  # iterations 0, 20 and the last


def test_a_run_without_samples_has_no_animation(record):
    with pytest.raises(ValueError, match="hold no samples over time"):
        animate(record("plain"))


def test_tiles_are_images_with_gaps_of_paper():
    images = np.arange(1, 4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 3), np.uint8)
    found = tiles(images, side=2)
    expected = [[1, 1, 1, 0, 2, 2, 2]] * 2 + [[0] * 7] + [[3, 3, 3, 0, 0, 0, 0]] * 2
    assert found.tolist() == expected
    colours = tiles(images.repeat(3, axis=1), side=2)
    assert colours.shape == (5, 7, 3)
    assert colours[0, 0].tolist() == [254] * 3  # ink is dark


@pytest.mark.parametrize(
    "loss", ["nonsaturating", "hinge", "least_squares", "wgan", "relativistic"]
)
def test_the_ground_is_in_its_range_and_undecided_at_the_border(loss):
    field = RNG.normal(size=(9, 9)) * 50
    found = ground(field, loss)
    assert 0 <= found.min() < found.max() <= 1
    order = np.argsort(field, axis=None, kind="stable")
    assert (np.diff(found.flat[order]) >= 0).all()  # high is real
    border = LEVELS.get(loss, np.median(field))
    field.flat[0] = border
    if loss in LEVELS:
        assert ground(field, loss).flat[0] == pytest.approx(0.5)
    if loss == "nonsaturating":
        assert np.array_equal(ground(field, loss), probability(field))
