"""Films: the first episode is the evaluation's first, picture by picture; clear refusals."""

import numpy as np
import pytest
from PIL import Image

import playground
from playground.domains.rl.pictures import Frame, film
from playground.schema import ConfigError
from playground.temporary import Temporary, find_point
from playground.videos import thin

pytest.importorskip("pygame")


FILMED = [
    "cartpole",
    pytest.param("pendulum", marks=pytest.mark.slow),
    pytest.param("cartpole_no_velocity", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=FILMED)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("film") / request.param
    size = ["problem.normalize_observations=true"] if request.param == "pendulum" else []
    return playground.run([
        f"problem=rl/{request.param}", "budget.iterations=2", "members=2", "evaluate.every=2",
        "problem.evaluation_episodes=3", "seed=5", f"run_dir={folder}", "probes=none", *size,
    ])  # fmt: skip


def test_the_first_episode_is_the_first_of_the_evaluation(run):
    returns = run.arrays["returns"]
    expected = returns[max(returns)][1, 0]
    temporary = Temporary(find_point(run, member=1), [6])
    frames = list(film(temporary.problem, 1))
    # Products of one row round otherwise than those of many, and episodes amplify that; another
    # seed's episode is off by tens of percent.
    assert frames[-1].total == pytest.approx(expected, rel=1e-3)
    assert [frame.step for frame in frames] == list(range(len(frames)))
    assert all(frame.pixels.dtype == np.uint8 and frame.pixels.ndim == 3 for frame in frames)
    assert frames[0].pixels.std() > 0


def test_a_gif_is_written(run):
    path = playground.video(run, sample=True)
    assert path == run.path / "figures" / "policy.gif"
    with Image.open(path) as image:
        assert image.n_frames > 2


def test_thinning_keeps_every_second_frame_and_the_ends():
    frames = [Frame(np.zeros((1, 1, 3)), e, k, 0.0) for e in (0, 1) for k in range(4)]
    kept = [(frame.episode, frame.step) for frame in thin(iter(frames), 50)]
    assert kept == [(0, 0), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3)]


def test_refusals(tmp_path):
    saddle = playground.run(["problem=landscape/saddle", "budget.iterations=1",
                             f"run_dir={tmp_path / 'saddle'}"])  # fmt: skip
    with pytest.raises(ConfigError, match="no policy to film"):
        playground.video(saddle)
    bandit = playground.run(["problem=rl/bandit", "budget.iterations=1", "members=2",
                             f"run_dir={tmp_path / 'bandit'}"])  # fmt: skip
    with pytest.raises(ConfigError, match="no video"):
        playground.video(bandit)
    with pytest.raises(ConfigError, match="episodes=0: must be at least 1"):
        playground.video(bandit, episodes=0)
