"""Tier 0 against NumPy in float64, by hand from the same updates."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from harness import engine, player

from playground.game import Move, Observation
from playground.optim.config import SGD, Adam
from playground.parameters import Layout
from playground.probes.tier0.probe import SLOTS, Norms, pick
from playground.record.columns import QUANTITIES

LAYOUT = Layout({"w": (3, 2), "b": (3,), "s": ()})
MEMBERS = 2


class Stream:
    """A made-up training: values of every update, and the rows that tier 0 made of them."""

    def __init__(self, updates, every=1, megabytes=64, dtype=torch.float64, flushes=(), scale=1.0):
        draw = torch.Generator().manual_seed(7)
        shape = (MEMBERS, LAYOUT.size)
        self.blocks = []
        self.norms = Norms(every, 3, lambda columns, null: self.blocks.append((columns, null)))
        self.norms.capacity = megabytes * 2**20
        self.seen = []
        for index in range(1, updates + 1):
            gradient = scale * torch.randn(shape, generator=draw, dtype=dtype)
            gradient[:, :2] = 0.0
            update = torch.randn(shape, generator=draw, dtype=dtype)
            parameters = torch.randn(shape, generator=draw, dtype=dtype)
            parameters[1, 6:9] = 0.0
            observation = Observation(
                "m", LAYOUT, gradient, gradient.norm(dim=1), None,
                torch.tensor([0.5, 1.0]) / index, update, parameters, 0.1 * index, index,
                index % 3,
            )  # fmt: skip
            self.norms.iteration = (index + 1) // 2
            self.norms(observation)
            self.seen.append(observation)
            if index in flushes:
                self.norms.flush()
        self.norms.flush()

    def rows(self):
        """{(update, member, tap, tensor): {quantity: value or None}}."""
        found = {}
        for columns, null in self.blocks:
            codes, names = columns["tensor"]
            for i in range(len(codes)):
                key = (int(columns["update"][i]), int(columns["member"][i]), columns["tap"],
                       names[codes[i]])  # fmt: skip
                assert columns["player"] == "m"
                assert columns["iteration"][i] == (key[0] + 1) // 2
                assert columns["round"][i] == key[0] % 3
                values = {
                    q: None if q in null and null[q][i] else float(columns[q][i])
                    for q in QUANTITIES
                    if q in columns
                }
                assert key not in found
                found[key] = values
        return found


def expected(stream, update, member, tap, tensor):
    """By hand."""
    piece = slice(0, LAYOUT.size) if tensor == "" else LAYOUT.slices[tensor]

    def value(kind, index=update):
        if index < 1:
            return np.zeros(LAYOUT.size)[piece]
        return getattr(stream.seen[index - 1], kind)[member].double().numpy()[piece]

    own = value("gradient" if tap == "gradient" else "update")
    before = value("gradient" if tap == "gradient" else "update", update - 1)
    norm = math.sqrt((own**2).sum())
    result = {
        "norm": norm,
        "mean_abs": np.abs(own).sum() / own.size,
        "max_abs": np.abs(own).max(),
        "zero_share": (own == 0).sum() / own.size,
        "nonfinite": 0.0,
        "cosine_previous": cosine(own, before),
    }
    if tap == "update":
        size = math.sqrt((value("parameters") ** 2).sum())
        result |= {
            "parameter_norm": size,
            "ratio": norm / size if size else None,
            "alignment": cosine(own, -value("gradient")),
            "learning_rate": 0.1 * update,
        }
    return result


def cosine(a, b):
    product = math.sqrt((a**2).sum()) * math.sqrt((b**2).sum())
    return (a * b).sum() / product if product else None


def close(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if value is None:
            assert found[name] is None, name
        else:
            assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-7), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("flushes", [(), (1, 2, 5)])
def test_every_quantity_of_every_tensor(dtype, flushes):
    stream = Stream(7, dtype=dtype, flushes=flushes)
    found = stream.rows()
    keys = {
        (update, member, tap, tensor)
        for update in range(1, 8)
        for member in range(MEMBERS)
        for tap in ("gradient", "update")
        for tensor in ("", *LAYOUT.names)
    }
    clipped = {(u, m, "clipped", "") for u in range(1, 8) for m in range(MEMBERS)}
    assert set(found) == keys | clipped
    for key in keys:
        close(found[key], expected(stream, *key))
    for update, member, tap, tensor in clipped:
        wanted = {"clip_coefficient": np.float32([0.5, 1.0][member]) / update}
        close(found[update, member, tap, tensor], wanted)


def test_what_is_undefined_is_null():
    found = Stream(3).rows()
    assert found[1, 0, "gradient", ""]["cosine_previous"] is None  # nothing came before
    assert found[1, 0, "update", "b"]["cosine_previous"] is None
    assert found[2, 1, "update", "b"]["ratio"] is None  # its parameters are 0
    assert found[2, 0, "update", "b"]["ratio"] is not None
    assert found[2, 0, "gradient", ""]["cosine_previous"] is not None


@pytest.mark.parametrize("every", [2, 8, 5])
def test_one_update_in_every_window_at_varying_places(every):
    windows = 60
    found = Stream(every * windows - 1, every=every, flushes=(100,)).rows()
    measured = sorted({key[0] for key in found if key[2] == "update"})
    count = Counter(update // every for update in measured)
    assert set(count.values()) == {1}
    assert set(count) >= set(range(1, windows))  # the first window lacks update 0
    places = Counter(update % every for update in measured)
    assert len(places) == every
    assert max(places.values()) < 3 * windows / every
    for update in range(1, every * windows):  # no spike is missed
        assert (update, 1, "gradient", "") in found
        assert (update, 1, "clipped", "") in found


def test_unmeasured_updates_leave_their_norm():
    stream = Stream(40, every=8)
    found = stream.rows()
    measured = {key[0] for key in found if key[2] == "update"}
    for update in set(range(1, 41)) - measured:
        row = found[update, 1, "gradient", ""]
        assert list(row) == ["norm"]
        wanted = np.linalg.norm(stream.seen[update - 1].gradient[1].numpy())
        assert row["norm"] == pytest.approx(wanted, rel=1e-6)
        assert (update, 0, "gradient", "w") not in found
    for update in measured:  # also the update before a measured one was not measured itself
        close(found[update, 0, "gradient", "w"], expected(stream, update, 0, "gradient", "w"))


@pytest.mark.parametrize("megabytes", [0, 1e-3, 64])
def test_in_place_equals_the_ring(megabytes):
    """Above the size limit values are measured without copies; 1 kB is a ring of one or two."""
    left, right = Stream(50, every=2, megabytes=megabytes), Stream(50, every=2)
    assert left.rows() == right.rows()


def test_a_full_ring_is_measured():
    stream = Stream(2 * SLOTS + 3, every=1)
    assert set(stream.rows()) == set(Stream(2 * SLOTS + 3, flushes=(5, 77)).rows())
    assert stream.rows() == Stream(2 * SLOTS + 3, flushes=(5, 77)).rows()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("members", [1, 3])
def test_when_a_flush_comes_does_not_change_a_bit(threads, members):
    """Large enough for torch to split sums among threads."""
    layout = Layout({"w": (200, 201), "b": (200,)})
    draw = torch.Generator().manual_seed(0)
    torch.set_num_threads(threads)
    values = [torch.randn(3, members, layout.size, generator=draw) for _ in range(5)]

    def rows(flushes):
        blocks = []
        norms = Norms(1, 0, lambda columns, null: blocks.append(columns))
        for i, (gradient, update, parameters) in enumerate(values):
            norms(Observation("m", layout, gradient, gradient.norm(dim=1), None, None, update,
                              parameters, 0.1, i + 1, 0))  # fmt: skip
            if i in flushes:
                norms.flush()
        norms.flush()
        found = {}
        for columns in blocks:
            codes, names = columns["tensor"]
            for quantity in set(QUANTITIES) & set(columns):
                for i, value in enumerate(columns[quantity]):
                    where = (columns["update"][i], columns["member"][i], names[codes[i]])
                    found[(*where, columns["tap"], quantity)] = np.float32(value).tobytes()
        return found

    assert rows(()) == rows((0, 1)) == rows(range(5))


def test_non_finite_values_are_counted_by_tensor_and_named_nowhere_else():
    draw = torch.Generator().manual_seed(1)
    gradient = torch.randn(MEMBERS, LAYOUT.size, generator=draw)
    gradient[1, 0], gradient[1, 7], gradient[1, 8] = float("nan"), float("inf"), -float("inf")
    blocks = []
    norms = Norms(1, 0, lambda columns, null: blocks.append((columns, null)))
    norms(Observation("m", LAYOUT, gradient, gradient.norm(dim=1), None, None, 0 * gradient,
                      gradient, 0.1, 1, 0))  # fmt: skip
    norms.flush()
    columns, _ = next(b for b in blocks if b[0]["tap"] == "gradient" and "nonfinite" in b[0])
    counts = columns["nonfinite"].reshape(MEMBERS, 1 + len(LAYOUT.names))
    assert counts.tolist() == [[0, 0, 0, 0], [3, 1, 2, 0]]
    peaks = columns["max_abs"].reshape(counts.shape)
    assert np.isnan(peaks[1, 0])
    assert np.isinf(peaks[1, 2])
    assert np.isfinite(peaks[0]).all()


def test_a_norm_that_overflows_is_counted_as_finite():
    stream = Stream(1, dtype=torch.float32, scale=1e25)
    row = stream.rows()[1, 0, "gradient", ""]
    assert row["nonfinite"] == 0
    assert np.isfinite(row["max_abs"])


@pytest.mark.parametrize("scale", [1e60, 1e160])
def test_float64_beyond_float32_is_a_measured_infinity(scale):
    """1e160 squared is beyond float64 too; neither is a warning, nor non-finite."""
    row = Stream(2, scale=scale).rows()[2, 0, "gradient", ""]
    assert row["nonfinite"] == 0
    assert row["norm"] == row["max_abs"] == np.inf


def test_learning_rates_of_members():
    blocks = []
    norms = Norms(1, 0, lambda columns, null: blocks.append(columns))
    value = torch.ones(MEMBERS, LAYOUT.size)
    for index, rate in enumerate((0.5, torch.tensor([[0.1], [0.2]], dtype=torch.float64))):
        norms(Observation("m", LAYOUT, value, value.norm(dim=1), None, None, value, value, rate,
                          index + 1, 0))  # fmt: skip
    norms.flush()
    (block,) = [b for b in blocks if b["tap"] == "update"]
    rates = block["learning_rate"].reshape(2, MEMBERS, -1)[..., 0]
    assert np.allclose(rates, [[0.5, 0.5], [0.1, 0.2]])


@pytest.mark.parametrize("limit", [0.7, 1e9])
def test_the_clip_coefficient_is_torch_s(limit):
    """Through the engine, per member, against clip_grad_norm_ on each member alone."""
    draw = torch.Generator().manual_seed(4)
    to = torch.randn(MEMBERS, 5, generator=draw) * torch.tensor([[0.1], [3.0]])
    blocks = []
    norms = Norms(1, 0, lambda columns, null: blocks.append(columns))
    made = engine([player("m", w=torch.zeros(MEMBERS, 5))], SGD(clip_norm=limit), observers=[norms])

    def objective(params, batch):
        return {"f": -(params["m"]["w"] * batch["to"]).sum()}, {}

    made.play((Move("m", objective, {"to": to}),))
    norms.flush()
    (found,) = [b["clip_coefficient"] for b in blocks if b["tap"] == "clipped"]
    for member in range(MEMBERS):
        parameter = torch.nn.Parameter(torch.zeros(5))
        parameter.grad = -to[member].clone()
        torch.nn.utils.clip_grad_norm_([parameter], limit)
        coefficient = parameter.grad.norm().item() / to[member].norm().item()
        assert found[member] == pytest.approx(coefficient, rel=1e-6)


def test_without_clipping_there_are_no_rows_of_clipped():
    blocks = []
    norms = Norms(1, 0, lambda columns, null: blocks.append(columns))
    made = engine([player("m", w=torch.ones(1, 5))], Adam(), observers=[norms])
    made.play((Move("m", lambda p, b: ({"f": p["m"]["w"].square().sum()}, {}), {}),))
    norms.flush()
    assert {b["tap"] for b in blocks} == {"gradient", "update"}


def test_state_carries_the_previous_values():
    """A cosine across a resume equals the one without."""
    whole = Stream(9)
    parts = Stream(4)
    other = Norms(1, 3, lambda columns, null: parts.blocks.append((columns, null)))
    other.load_state(parts.norms.state(), {"m": LAYOUT})
    for seen in whole.seen[4:]:
        other.iteration = (seen.index + 1) // 2
        other(seen)
    other.flush()
    assert parts.rows() == whole.rows()


def test_places_are_uniform():
    """Chi-squared with 7 degrees of freedom stays below its 99.9 % point, 24.3."""
    for seed in range(5):
        counts = np.bincount([pick(seed, window, 8) for window in range(4000)], minlength=8)
        assert ((counts - 500) ** 2 / 500).sum() < 24.3
