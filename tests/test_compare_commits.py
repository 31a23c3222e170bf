"""The net under every change: a planted bit is found, whatever file it lies in."""

import json
import shutil
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(__file__).parent / "data" / "v0.1.1"


@pytest.fixture(scope="module")
def compare():
    spec = spec_from_file_location("compare_commits", ROOT / "scripts" / "compare_commits.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pair(tmp_path):
    return [Path(shutil.copytree(DATA / "ring", tmp_path / side / "a")) for side in ("old", "new")]


def flip(array):
    """The last bit of a float array's first element."""
    view = array.reshape(-1)[:1].view(np.uint8)
    view[0] ^= 1


def parameters(path):
    file = path / "checkpoints" / "8.pt"
    content = torch.load(file, weights_only=True)
    flip(content["players"]["generator"]["parameters"].numpy())
    torch.save(content, file)


def state(path):
    file = path / "checkpoints" / "8.pt"
    content = torch.load(file, weights_only=True)
    content["counters"]["samples"][0] += 1
    torch.save(content, file)


def snapshot(path):
    file = path / "snapshots" / "2.pt"
    content = torch.load(file, weights_only=True)
    tensor = next(iter(content["players"].values()))
    flip(tensor.numpy())
    torch.save(content, file)


def record(path):
    file = path / "records" / "metrics.parquet"
    table = pq.read_table(file)
    values = table["value"].to_numpy().copy()
    flip(values)
    column = table.column_names.index("value")
    pq.write_table(table.set_column(column, "value", pa.array(values)), file)


def array(path):
    file = next((path / "arrays").glob("samples-*.npy"))
    content = np.load(file).copy()
    flip(content)
    np.save(file, content)


def configuration(path):
    file = path / "config.yaml"
    content = yaml.safe_load(file.read_text())
    content["optimizer"]["lr"] = np.nextafter(content["optimizer"]["lr"], 1).item()
    file.write_text(yaml.safe_dump(content))


def manifest(path):
    content = json.loads((path / "manifest.json").read_text())
    content["counters"]["updates"] = -1
    (path / "manifest.json").write_text(json.dumps(content))


def missing(path):
    next((path / "arrays").glob("field-*.npy")).unlink()


PLANTED = {
    "parameters": parameters, "state": state, "snapshots": snapshot, "records": record,
    "arrays": array, "configuration": configuration, "manifest": manifest, "arrays ": missing,
}  # fmt: skip


def test_the_same_folders_are_equal(compare, pair):
    assert not list(compare.differences(*(path.parent for path in pair)))


def test_a_key_that_was_renamed_is_no_difference(compare, monkeypatch):
    old, new = {"a": {"lr": 1.0}}, {"a": {"rate": 1.0}}
    assert list(compare.unequal(old, new)) == [".a.lr", ".a.rate"]
    monkeypatch.setitem(compare.RENAMED, "lr", "rate")
    assert not list(compare.unequal(old, new))
    assert list(compare.unequal(old, {"a": {"rate": 2.0}})) == [".a.rate"]


@pytest.mark.parametrize("kind", PLANTED)
def test_one_bit_is_found(compare, pair, kind):
    PLANTED[kind](pair[1])
    found = list(compare.differences(*(path.parent for path in pair)))
    assert [name for name, _ in found] == [kind.strip()]


@pytest.mark.slow
def test_a_commit_that_changes_a_bit_is_found(tmp_path):
    """One number of an optimizer, changed by a rounding in a clone."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
    file = clone / "playground" / "optim" / "optimizer.py"
    text = file.read_text()
    changed = text.replace("return Step(value,", "return Step(value * 1.0000002,", 1)
    assert changed != text
    file.write_text(changed)
    author = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *author, "commit", "-qam", "planted"], cwd=clone, check=True)
    tool = clone / "scripts" / "compare_commits.py"
    given = [sys.executable, tool, "HEAD~1", "HEAD", "--only", "rosenbrock"]
    done = subprocess.run(given, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "parameters" in done.stdout
    same = subprocess.run([*given[:2], "HEAD", "HEAD", *given[4:]], cwd=clone,
                          capture_output=True, text=True)  # fmt: skip
    assert same.returncode == 0, same.stdout + same.stderr
