"""Runs side by side: the same as one after the other, also where one stops or a signal comes."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import playground
from playground.record.reader import Run
from playground.session import RunFailed
from playground.signals import Interrupted
from playground.study import begins, earlier
from playground.workers import finished, side_by_side

BEALE = ["problem=landscape/beale", "optimizer=sgd", "probes=none"]
LONG = [*BEALE, "budget.iterations=100000000", "checkpoint.every=1000", "evaluate.every=1000000"]


def tasks_in(folder):
    """Four runs, of which the third begins where the second ends."""
    keys = {
        "a": [*BEALE, "budget.iterations=3", "seed=1", "problem.start=random"],
        "b": [*BEALE, "budget.iterations=300"],
        "c": [*BEALE, "budget.iterations=2", begins(folder / "b")],
        "d": [*BEALE, "budget.iterations=5", "seed=2", "problem.start=random"],
    }
    return {name: (folder / name, own) for name, own in keys.items()}


@pytest.mark.usefixtures("without_figures")
def test_side_by_side_is_one_after_the_other(tmp_path):
    told = {"one": [], "two": []}
    for jobs in (1, 2):
        name = {1: "one", 2: "two"}[jobs]
        tasks = tasks_in(tmp_path / name)
        side_by_side(tasks, jobs, told[name].append, earlier(tasks))
    assert told["one"] == ["a", "b", "c", "d"]
    assert sorted(told["two"]) == ["a", "b", "c", "d"]
    assert told["two"].index("b") < told["two"].index("c")  # which cannot begin before b's end
    for name in "abcd":
        one, two = (Run(tmp_path / folder / name).metric("distance") for folder in ("one", "two"))
        np.testing.assert_array_equal(one[1], two[1])
    again = []
    side_by_side(tasks, 2, again.append, earlier(tasks))
    assert again == []  # finished runs are not begun again


@pytest.mark.slow
def test_where_one_stops_those_beside_it_end_and_no_other_begins(tmp_path):
    wrong = ["problem=supervised/linear_regression", "optimizer=sgd", "optimizer.lr=1e6"]
    tasks = {
        "wrong": (tmp_path / "wrong", wrong),
        "beside": (tmp_path / "beside", [*BEALE, "budget.iterations=20000"]),
        "never": (tmp_path / "never", [*BEALE, "budget.iterations=1"]),
    }
    told = []
    with pytest.raises(RunFailed, match="non-finite"):
        side_by_side(tasks, 2, told.append)
    assert told == ["wrong", "beside"]
    assert finished(tmp_path / "beside")
    assert not (tmp_path / "never").exists()


def begun(folders, seconds=120):
    """Wait until all have a checkpoint."""
    end = time.monotonic() + seconds
    while not all(list((folder / "checkpoints").glob("*")) for folder in folders):
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.slow
def test_killed_processes_are_one_line(tmp_path):
    def kill():
        begun([tmp_path / "a", tmp_path / "b"])
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RunFailed, match="its process was killed; go on with the same folder"):
        side_by_side({name: (tmp_path / name, LONG) for name in "abc"}, 2, print)
    killer.join()
    assert not (tmp_path / "c").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_with_everything_saved(number, code, tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from playground.workers import side_by_side\n"
        "from playground.signals import Interrupted\n"
        "if __name__ == '__main__':\n"
        f"    tasks = {{n: (Path({str(tmp_path)!r}) / n, {LONG!r}) for n in 'abc'}}\n"
        "    try:\n"
        "        side_by_side(tasks, 2, print)\n"
        "    except Interrupted as error:\n"
        "        sys.exit(128 + error.number)\n"
    )
    (tmp_path / "program.py").write_text(program)
    root = str(Path(playground.__file__).parent.parent)
    folders = [tmp_path / name for name in "ab"]
    with subprocess.Popen([sys.executable, tmp_path / "program.py"],
                          env={**os.environ, "PYTHONPATH": root}) as command:  # fmt: skip
        begun(folders)
        command.send_signal(number)
        assert command.wait(timeout=60) == code
    assert not (tmp_path / "c").exists()
    for folder in folders:
        run = playground.load(folder)
        assert run.manifest["status"] == "interrupted"
        assert run.manifest["counters"]["iterations"] > 0


def test_an_interruption_passes_between_processes():
    error = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM)))
    assert (error.number, str(error)) == (signal.SIGTERM, "SIGTERM")
