"""What the study of initialisations reads from a run, against a network of NumPy."""

import numpy as np
import pytest

import playground
from playground import study


@pytest.fixture(scope="module")
def analysis():
    return study.load_analysis(study.find("glorot2010_he2015"))


@pytest.fixture
def run(analysis, tmp_path, without_figures):
    return playground.run(
        [*analysis.CONFIG["start"], "problem.activation=relu", "problem.initialisation=he",
         analysis.widths(24, 3), "members=2", "problem.batch_size=full",
         f"run_dir={tmp_path / 'run'}"], quiet=True,
    )  # fmt: skip


def test_layers_are_those_of_the_network_as_it_was_drawn(analysis, run):
    """Forward and backward by hand at the parameters before the first update."""
    from playground.temporary import find_point

    found = analysis.layers(run)
    assert found["forward"].shape == found["backward_theory"].shape == (4, 2)
    data = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    from sklearn.model_selection import train_test_split

    x, _, y, _ = train_test_split(
        data[0] / 16, data[1], test_size=0.2, stratify=data[1], random_state=0
    )
    values = find_point(run, 0, 1).parameters["model"].numpy()
    place, weights = 0, []
    for n_in, n_out in ((64, 24), (24, 24), (24, 24), (24, 10)):
        weights.append(values[place : place + n_in * n_out].reshape(n_out, n_in))
        place += n_in * n_out + n_out
    assert place == len(values)
    z = [x @ weights[0].T]
    for weight in weights[1:]:
        z.append(np.maximum(z[-1], 0) @ weight.T)
    p = np.exp(z[-1]) / np.exp(z[-1]).sum(axis=1, keepdims=True)
    delta = [p - np.eye(10)[y]]
    for weight, before in zip(weights[:0:-1], z[-2::-1], strict=True):
        delta.append((delta[-1] @ weight) * (before > 0))
    forward, backward = found["forward"][:, 1], found["backward"][:, 1]
    assert forward == pytest.approx([(v**2).mean() for v in z])
    scale = backward[-1] / (delta[0] ** 2).mean()  # of a mean loss, or of a sum
    assert backward == pytest.approx([scale * (d**2).mean() for d in delta[::-1]])


def test_steps_go_the_signals_own_way(analysis):
    values = np.array([[1.0], [2.0], [8.0], [99.0]])  # the last layer is no hidden one
    assert analysis.steps(values, "forward").ravel().tolist() == [2.0, 4.0]
    assert analysis.steps(values, "backward").ravel().tolist() == [0.5, 0.25]


@pytest.mark.parametrize("kind", ["torch", "lecun", "glorot", "he", "orthogonal"])
def test_variances_are_those_of_the_initialisations(analysis, kind):
    import torch

    from playground.nets import MLP

    net = MLP((300, 300, 300), "relu", kind)
    weight = net.init(0, "model")["0.weight"]
    measured = 300 * weight.square().mean().item()
    assert measured == pytest.approx(analysis.CONFIG["variance"][kind], rel=0.03)
    assert weight.dtype == torch.float64
