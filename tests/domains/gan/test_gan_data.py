"""Mixtures and batches drawn ahead."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from playground.config import compose
from playground.domains.gan.data import (
    BLOCK,
    MOST,
    Ahead,
    Mixture,
    Spiral,
    grid,
    line,
    random_mixture,
    ring,
    source,
)
from playground.randomness import Streams

CPU = torch.device("cpu")


def test_the_ring_has_eight_different_centres_at_equal_angles():
    centres = ring(8, 2.0)
    z = torch.view_as_complex(centres.contiguous()).numpy()
    assert z**8 == pytest.approx(np.full(8, 2.0**8 + 0j), abs=1e-10)  # the roots of z^8 = 2^8
    assert len({complex(round(p.real, 6), round(p.imag, 6)) for p in z}) == 8


def test_the_grid_is_the_published_one():
    expected = {(float(x), float(y)) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}
    assert {tuple(c) for c in grid(25, 2.0).tolist()} == expected


@pytest.mark.parametrize(("centres", "sigma"), [(ring(8, 2.0), 0.02), (grid(25, 2.0), 0.05)])
def test_modes_are_sampled_equally_with_gaussian_noise(centres, sigma):
    mixture = Mixture(centres, sigma)
    samples = mixture.draw(Streams((5,), "data", CPU), 20_000)[0]
    offset, nearest = torch.cdist(samples, centres).min(dim=1)
    counts = torch.bincount(nearest, minlength=len(centres)).numpy()
    assert stats.chisquare(counts).pvalue > 1e-3
    assert counts.std() > 0.3 * np.sqrt(20_000 / len(centres))  # sampled, not cycled
    noise = ((samples - centres[nearest]) / sigma).numpy()
    assert stats.kstest(noise[:, 0], "norm").pvalue > 1e-3
    assert stats.kstest(noise[:, 1], "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise.T)[0, 1]) < 4 / np.sqrt(20_000)
    assert stats.kstest((offset.numpy() / sigma) ** 2, "chi2", (2,)).pvalue > 1e-3


def test_random_centres_are_apart_inside_the_square_and_of_their_seed():
    centres = random_mixture(12, 3.0, 5)
    assert centres.shape == (12, 2)
    assert centres.abs().max() <= 3
    assert torch.pdist(centres).min() > 0.8  # uniform ones come as near as .1
    assert torch.equal(centres, random_mixture(12, 3.0, 5))
    assert not torch.equal(centres, random_mixture(12, 3.0, 6))


def test_the_line_has_berards_modes():
    assert line(2, 4.0).tolist() == [[-2.0], [2.0]]
    assert line(3, 1.5).tolist() == [[-1.5], [0.0], [1.5]]


def test_the_spiral_is_sklearns_swiss_roll_from_the_side():
    """x = t cos t, z = t sin t with t = 1.5 pi (1 + 2 u), and noise of its own size."""
    roll = Spiral(4.5 * math.pi, 0.0, torch.float64)
    points = roll.draw(Streams((0,), "data", CPU), 5000)[0].numpy()
    t = np.linalg.norm(points, axis=1)
    assert points == pytest.approx(np.stack([t * np.cos(t), t * np.sin(t)], axis=1), abs=1e-9)
    assert stats.kstest((t / math.pi - 1.5) / 3, "uniform").pvalue > 1e-3
    noisy = Spiral(4.5 * math.pi, 0.7, torch.float64).draw(Streams((0,), "data", CPU), 5000)[0]
    noise = (noisy.numpy() - points).ravel() / 0.7  # the same places: they are drawn first
    assert stats.kstest(noise, "norm").pvalue > 1e-3


@pytest.mark.parametrize("name", ["ring", "grid", "random_mixture", "mixture_1d", "spiral",
                                  "digits", "stacked_digits", "dirac"])  # fmt: skip
def test_sources_have_the_dimension_that_networks_are_built_for(name):
    config = compose([f"problem=gan/{name}"]).problem
    made = source(config, CPU, torch.float32)
    assert made.dimension == config.dimension
    assert made.draw(Streams((0, 1), "data", CPU), 3, 4).shape == (2, 3, 4, config.dimension)
    assert made.draw(Streams((0,), "data", CPU), 2).dtype == torch.float32


def test_a_point_mass_is_a_mixture_without_noise():
    samples = Mixture(torch.zeros(1, 1), 0.0).draw(Streams((0, 1), "data", CPU), 3, 4)
    assert torch.equal(samples, torch.zeros(2, 3, 4, 1))


def batches(seeds, numbers=BLOCK // 2):
    """Two batches a block, unless told otherwise."""
    streams = Streams(seeds, "data", CPU)
    return Ahead(streams, lambda n: streams.normal(n, numbers), numbers)


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4])
def test_batches_go_on_exactly_from_a_saved_state(stop):
    source = batches((3, 4))
    for _ in range(stop):
        source.next()
    saved = source.state()
    expected = [source.next() for _ in range(5)]
    fresh = batches((3, 4))
    fresh.next()
    fresh.load_state(saved)
    for batch in expected:
        assert torch.equal(fresh.next(), batch)


def test_a_block_never_holds_more_than_so_many_batches():
    source = batches((0,), numbers=1)
    drawn = torch.cat([source.next() for _ in range(MOST + 1)])
    assert len(source._block) == MOST
    assert len(drawn.unique()) == MOST + 1


def test_a_member_draws_the_batches_of_its_single_run():
    many, single = batches((7, 8, 9)), batches((9,))
    for _ in range(5):
        assert torch.equal(many.next()[2:], single.next())
