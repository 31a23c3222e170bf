"""Memory stays flat over a run ten times longer."""

import gc
import tracemalloc

import numpy as np
import pytest
import torch
from harness import TINY, quiet
from torch.nn.parameter import is_lazy

from playground.session import Session


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize("domain", ["landscape", "supervised", "gan"])
def test_memory_is_flat_over_a_run_ten_times_longer(domain, tmp_path, monkeypatch):
    """Tensors alive and Python memory at the end of N and of 10 N iterations."""
    monkeypatch.setattr("playground.session.FLUSH_SECONDS", 0.05)
    peaks: dict[int, list[float]] = {}

    def measure(iterations):
        real, kept, alive = Session.iterate, [0.0], [0.0]

        def iterate(session):
            real(session)
            if session.iteration % max(1, iterations // 10) == 0:
                gc.collect()
                kept[0] = tracemalloc.get_traced_memory()[0]
                tensors = [
                    o for o in gc.get_objects()
                    if issubclass(type(o), torch.Tensor) and not is_lazy(o)  # another test's
                ]  # fmt: skip
                alive[0] = max(alive[0], sum(t.numel() * t.element_size() for t in tensors))

        with monkeypatch.context() as patch:
            patch.setattr(Session, "iterate", iterate)
            tracemalloc.start()
            quiet(
                [*TINY[domain], f"budget.iterations={iterations}", "evaluate.every=50"],
                tmp_path / str(iterations),
            )
            tracemalloc.stop()
        peaks[iterations] = [kept[0], alive[0]]

    for iterations in (20, 100, 1000):  # the first pays for imports and caches
        measure(iterations)
    left, right = np.array(peaks[100]), np.array(peaks[1000])
    assert (right < 1.25 * left + 2**17).all(), peaks
