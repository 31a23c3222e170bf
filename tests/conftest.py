from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As the command's default; restored for whoever runs next."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs end without drawing, which takes longer than a tiny run."""
    monkeypatch.setattr("playground.report.draw_all", lambda run: [])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty, so that nothing is left in the checkout."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
