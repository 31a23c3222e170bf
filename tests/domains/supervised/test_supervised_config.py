import pytest

from playground import initialisations, nets
from playground.domains.supervised import config as module
from playground.domains.supervised.config import SupervisedConfig
from playground.domains.supervised.data import load
from playground.schema import ConfigError, check

MOONS = {"data": "two_moons", "samples": 100, "test_samples": 50, "noise": 0.1}
LINE = {
    "data": "linear_regression", "samples": 100, "test_samples": 50, "noise": 0.1,
    "dimension": 3, "condition": 2.0, "widths": [],
}  # fmt: skip
WAVE = {
    "data": "chebyshev", "samples": 20, "test_samples": 50, "degree": 6, "activation": "tanh",
}  # fmt: skip
DIGITS = {"data": "digits", "activation": "relu"}
SUMS = {
    "data": "adding", "samples": 100, "test_samples": 50, "length": 8, "activation": "tanh",
    "network": "recurrent", "widths": [8],
}  # fmt: skip
BLOCKS = {**DIGITS, "network": "residual", "widths": [8], "depth": 6}


def checked(config):
    check(config)
    config.validate()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({**DIGITS, "data": "letters"}, "data=letters: allowed are"),
        ({**DIGITS, "batch_size": 0}, "problem.batch_size=0: allowed are full and 1 to 1437"),
        ({**DIGITS, "batch_size": 1438}, "problem.batch_size=1438"),
        ({**DIGITS, "batch_size": "all"}, "problem.batch_size=all"),
        ({**DIGITS, "batch_size": 6.5}, "problem.batch_size=6.5"),
        ({**DIGITS, "batch_size": True}, "problem.batch_size=True"),
        ({**DIGITS, "batch_size": "full", "replacement": True}, "problem.replacement=true"),
        ({**DIGITS, "widths": [64, 0]}, "widths=0: must be at least 1"),
        ({**DIGITS, "activation": "step"}, "activation=step"),
        ({**DIGITS, "initialisation": "zeros"}, "initialisation=zeros"),
        ({**DIGITS, "split_seed": -1}, "split_seed=-1"),
        ({**DIGITS, "noise": 0.1}, "problem.noise=0.1: has no effect on digits"),
        ({**DIGITS, "samples": 100}, "problem.samples=100: has no effect on digits"),
        ({"data": "digits"}, "problem.activation=null: digits needs a value"),
        ({**MOONS, "activation": "tanh", "condition": 3.0}, "problem.condition=3.0: has no effect"),
        ({**MOONS, "activation": "tanh", "batch_size": 101}, "1 to 100"),
        ({**MOONS, "activation": "tanh", "noise": None}, "problem.noise=null"),
        ({**LINE, "widths": [8]}, "problem.widths=[8]: linear_regression"),
        ({**LINE, "activation": "relu"}, "problem.activation=relu: has no effect"),
        ({**LINE, "condition": 0.5}, "condition=0.5: must be at least 1"),
        ({**WAVE, "degree": None}, "problem.degree=null: chebyshev needs a value"),
        ({**WAVE, "degree": 0}, "degree=0: must be at least 1"),
        ({**WAVE, "noise": 0.1}, "problem.noise=0.1: has no effect on chebyshev"),
        ({**WAVE, "split_seed": 1}, "problem.split_seed=1: has no effect on chebyshev"),
        ({**LINE, "degree": 3}, "problem.degree=3: has no effect on linear_regression"),
        ({**LINE, "noise": float("nan")}, "noise=nan: must be finite"),
        ({**SUMS, "length": None}, "problem.length=null: adding needs a value"),
        ({**SUMS, "length": 1}, "length=1: must be at least 2"),
        ({**SUMS, "network": "mlp"}, "problem.network=mlp: allowed are recurrent for adding"),
        ({**SUMS, "widths": [8, 8]}, "problem.widths=[8, 8]: must be one number for network"),
        ({**SUMS, "depth": 3}, "problem.depth=3: has no effect on network=recurrent"),
        ({**SUMS, "recurrent_gain": 0.0}, "recurrent_gain=0.0: must be greater than 0"),
        ({**SUMS, "noise": 0.1}, "problem.noise=0.1: has no effect on adding"),
        ({**DIGITS, "network": "recurrent", "widths": [8]}, "allowed are mlp, residual, conv"),
        ({**MOONS, "activation": "tanh", "network": "conv"}, "problem.network=conv: allowed are"),
        ({**DIGITS, "length": 5}, "problem.length=5: has no effect on digits"),
        ({**DIGITS, "branch": "zero"}, "problem.branch=zero: has no effect on network=mlp"),
        ({**DIGITS, "channels": 4}, "problem.channels=4: has no effect on network=mlp"),
        ({**DIGITS, "recurrent_gain": 1.0}, "problem.recurrent_gain=1.0: has no effect"),
        ({**DIGITS, "depth": 5}, "problem.widths=[64, 64]: must be one number for problem.depth=5"),
        ({**DIGITS, "depth": 1}, "depth=1: must be at least 2"),
        ({**DIGITS, "network": "conv", "gain": 2.0}, "problem.gain=2.0: has no effect on network"),
        ({**DIGITS, "widths": [], "gain": 2.0}, "problem.gain=2.0: has no effect without hidden"),
        ({**BLOCKS, "depth": None}, "problem.depth=null: must be 4, 6, 8, ..."),
        ({**BLOCKS, "depth": 7}, "problem.depth=7: must be 4, 6, 8, ..."),
        ({**BLOCKS, "depth": 2}, "problem.depth=2: must be 4, 6, 8, ..."),
        ({**BLOCKS, "branch": "batchnorm"}, "branch=batchnorm: allowed are plain, scaled"),
        ({**BLOCKS, "widths": [8, 8]}, "problem.widths=[8, 8]: must be one number"),
    ],
)
def test_bad_values_are_refused(keys, message):
    config = SupervisedConfig(**keys)
    with pytest.raises(ConfigError) as caught:
        checked(config)
    assert message in str(caught.value)


def test_names_are_those_of_the_networks():
    assert tuple(nets.ACTIVATIONS) == module.ACTIVATIONS
    assert initialisations.INITIALISATIONS == module.INITIALISATIONS


@pytest.mark.parametrize("keys", [{**MOONS, "activation": "tanh"}, LINE, DIGITS, WAVE, SUMS])
def test_sizes_known_without_the_data_are_those_of_the_data(keys):
    config = SupervisedConfig(**keys, batch_size="full")
    config.validate()
    data = load(config)
    assert config.train_size() == config.batch() == len(data.train[0]) == len(data.train[1])
