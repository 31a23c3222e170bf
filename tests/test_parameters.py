import numpy as np
import pytest
import torch

from playground.parameters import Layout, Parameters

LAYOUT = Layout({"w": (3, 2), "b": (3,), "s": ()})


def test_layout_counts_in_storage_order():
    assert LAYOUT.names == ("w", "b", "s")
    assert LAYOUT.sizes == (6, 3, 1)
    assert LAYOUT.size == 10
    assert LAYOUT.slices == {"w": slice(0, 6), "b": slice(6, 9), "s": slice(9, 10)}


def test_views_are_the_rows_reshaped():
    flat = torch.arange(20.0).view(2, 10)
    views = LAYOUT.views(flat)
    assert np.array_equal(views["w"], np.arange(20).reshape(2, 10)[:, :6].reshape(2, 3, 2))
    assert np.array_equal(views["b"], np.arange(20).reshape(2, 10)[:, 6:9])
    assert views["s"].tolist() == [9.0, 19.0]
    assert LAYOUT.views(flat[0])["w"].shape == (3, 2)


def test_views_share_memory_and_are_differentiable():
    flat = torch.zeros(2, 10, requires_grad=True)
    LAYOUT.views(flat)["b"].sum().backward()
    assert flat.grad is not None
    assert flat.grad[:, 6:9].tolist() == [[1.0] * 3] * 2
    assert flat.grad.sum() == 6
    parameters = Parameters(LAYOUT, torch.zeros(2, 10))
    parameters.values[1, 6] = 7.0
    assert parameters.views["b"][1, 0] == 7.0
    assert parameters.member(1)["b"][0] == 7.0
    parameters.member(0)["w"].fill_(1.0)
    assert parameters.values[0].sum() == 6.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_build_stacks_members_in_the_dtype_asked_for(dtype):
    def initialise(member):
        return {
            "w": torch.full((3, 2), 1 / 3 + member, dtype=torch.float64),
            "b": torch.full((3,), -float(member), dtype=torch.float64),
        }

    parameters = Parameters.build(initialise, 3, torch.device("cpu"), dtype)
    assert parameters.values.shape == (3, 9)
    assert parameters.values.dtype == dtype
    assert parameters.values.is_contiguous()
    expected = np.concatenate([np.full(6, 2 + 1 / 3), np.full(3, -2.0)])
    assert np.array_equal(parameters.values[2], torch.tensor(expected).to(dtype))


@pytest.mark.parametrize("shape", [(10,), (2, 9), (2, 5, 2)])
def test_values_must_fit_the_layout(shape):
    with pytest.raises(ValueError, match="values must be"):
        Parameters(LAYOUT, torch.zeros(shape))
