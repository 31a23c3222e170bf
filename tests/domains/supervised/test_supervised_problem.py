import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from playground import run
from playground.domains.supervised.config import SupervisedConfig
from playground.engine import Engine
from playground.game import Context
from playground.optim.config import Adam
from playground.optim.optimizer import Optimizer
from playground.schema import check

KEYS = {
    "linear_regression": {
        "samples": 60, "test_samples": 40, "noise": 0.2, "dimension": 3, "condition": 4.0,
        "widths": [],
    },
    "two_moons": {
        "samples": 60, "test_samples": 40, "noise": 0.1, "widths": [8], "activation": "tanh",
    },
    "digits": {"widths": [16], "activation": "relu"},
    "chebyshev": {
        "samples": 20, "test_samples": 40, "degree": 6, "widths": [8, 5], "activation": "tanh",
        "initialisation": "lecun",
    },
}  # fmt: skip


def build(data, seeds=(0,), dtype=torch.float32, **keys):
    keys = {"batch_size": 7, **KEYS[data], **keys}
    config = SupervisedConfig(name=f"supervised/{data}", data=data, **keys)
    check(config)
    config.validate()
    problem = config.build(None)
    return problem, problem.setup(Context(tuple(seeds), dtype=dtype))


def batches(problem, count):
    """The batches of the next iterations; nothing is updated."""
    result = []
    for _ in range(count):
        ((move,),) = list(problem.iteration(0.0))
        result.append(move.batch)
    return result


def train(problem, engine, iterations):
    for _ in range(iterations):
        rounds, outcomes = problem.iteration(0.0), None
        while True:
            try:
                outcomes = engine.play(rounds.send(outcomes))
            except StopIteration:
                break


def engine_of(players, lr=0.01):
    values = players["model"].parameters.values
    return Engine(players, {"model": Optimizer(Adam(lr=lr), values)})


@pytest.mark.parametrize("data", KEYS)
@pytest.mark.parametrize("size", [1, 7, "full"])
def test_batches_have_their_shape_and_are_counted(data, size):
    problem, players = build(data, range(3), batch_size=size)
    rows = problem.config.train_size() if size == "full" else size
    for batch in batches(problem, 11):
        assert batch["input"].shape == (3, rows, players["model"].parameters.views[
            "0.weight"].shape[2])  # fmt: skip
        assert batch["target"].shape == (3, rows)
    assert problem.counters["samples"].tolist() == [11 * rows] * 3


@pytest.mark.parametrize("data", KEYS)
def test_batches_hold_rows_of_the_training_set(data):
    problem, _ = build(data, range(2), batch_size=7)
    inputs, targets = problem.data.train
    rows = {row.tobytes(): target for row, target in zip(
        inputs.astype(np.float32), targets.astype(np.float32), strict=True)}  # fmt: skip
    for batch in batches(problem, 5):
        flat = batch["input"].flatten(0, 1).numpy()
        found = [rows[row.tobytes()] for row in flat]
        assert found == pytest.approx(batch["target"].flatten().numpy())


def test_the_full_batch_is_the_training_set_itself():
    problem, _ = build("digits", range(4), batch_size="full")
    first, second = batches(problem, 2)
    assert first["input"].data_ptr() == second["input"].data_ptr() == problem.train[0].data_ptr()
    assert torch.equal(first["input"][3], problem.train[0])
    assert torch.equal(first["target"][3], problem.train[1])


@pytest.mark.parametrize("data", KEYS)
@pytest.mark.parametrize("replacement", [False, True])
def test_a_member_starts_and_draws_as_its_single_run(data, replacement):
    keys = {"batch_size": 7, "replacement": replacement}
    together, many = build(data, [3, 4, 5], **keys)
    alone, one = build(data, [5], **keys)
    left, right = many["model"].parameters.values[2:], one["model"].parameters.values
    assert torch.equal(left, right)
    for several, single in zip(batches(together, 12), batches(alone, 12), strict=True):
        assert torch.equal(several["input"][2:], single["input"])
        assert torch.equal(several["target"][2:], single["target"])


@pytest.mark.parametrize("data", KEYS)
def test_the_module_computes_what_the_player_computes(data):
    problem, players = build(data, range(2), dtype=torch.float64)
    player = players["model"]
    module = player.module().double()
    module.load_state_dict(player.parameters.member(1))
    inputs = torch.tensor(problem.data.test[0])
    assert torch.allclose(problem._outputs(inputs)[1], module(inputs), atol=1e-12)


@pytest.mark.parametrize("data", ["two_moons", "digits"])
def test_metrics_are_those_of_scikit_learn(data):
    problem, players = build(data, range(2), dtype=torch.float64)
    train(problem, engine_of(players), 30)
    result = problem.evaluate()
    classes = problem.data.classes
    for member in range(2):
        module = players["model"].module().double()
        module.load_state_dict(players["model"].parameters.member(member))
        for part, accuracy, loss in (
            (problem.data.test, "accuracy", "test_loss"),
            (problem.data.train, "train_accuracy", "train_loss"),
        ):
            chances = module(torch.tensor(part[0])).softmax(dim=1).detach().numpy()
            share = accuracy_score(part[1], chances.argmax(axis=1))
            assert result.metrics[accuracy][member] == pytest.approx(share)
            expected = log_loss(part[1], chances, labels=range(classes))
            assert result.metrics[loss][member] == pytest.approx(expected)
        share = result.metrics["accuracy"][member]
        size = len(problem.data.test[1])
        expected = np.sqrt(share * (1 - share) / size)
        assert result.stderr["accuracy"][member] == pytest.approx(expected)


def test_confusion_and_misread_digits():
    problem, players = build("digits", range(2))
    train(problem, engine_of(players), 40)
    arrays = problem.evaluate().arrays
    images, labels = problem.data.test
    for member in range(2):
        module = players["model"].module()
        module.load_state_dict(players["model"].parameters.member(member))
        predicted = module(torch.tensor(images).float()).argmax(dim=1).numpy()
        assert np.array_equal(arrays["confusion"][member], confusion_matrix(labels, predicted))
        index = arrays["misread_indices"][member]
        assert len(set(index)) == len(index) == 16
        assert set(index) <= set(np.flatnonzero(predicted != labels))
        assert np.array_equal(arrays["misread_labels"][member], labels[index])
        assert np.array_equal(arrays["misread_predictions"][member], predicted[index])
        shown = arrays["misread_images"][member].reshape(16, 64) / 16
        assert np.array_equal(shown, images[index])


def test_where_fewer_digits_are_misread_the_rest_is_blank():
    problem, _ = build("digits")
    labels = problem.test[1]
    logits = torch.nn.functional.one_hot(labels, 10).double()[None] * 5
    logits[0, 17] = logits[0, 17].roll(1)
    arrays = problem._evaluate_classes(logits, problem._outputs(problem.train[0])).arrays
    assert arrays["misread_indices"][0].tolist() == [17] + [-1] * 15
    assert arrays["misread_predictions"][0, 0] == (labels[17] + 1) % 10
    assert not arrays["misread_images"][0, 1:].any()


def test_the_boundary_is_the_probability_of_class_one():
    problem, players = build("two_moons", range(2))
    train(problem, engine_of(players), 30)
    arrays = problem.evaluate().arrays
    (x, y), field = arrays["boundary_axes"][0], arrays["boundary"]
    module = players["model"].module()
    module.load_state_dict(players["model"].parameters.member(1))
    point = torch.tensor([[x[50], y[20]]], dtype=torch.float32)
    expected = module(point).softmax(dim=1)[0, 1].item()
    assert field[1, 20, 50] == pytest.approx(expected, abs=1e-3)
    assert np.array_equal(arrays["points"][0], problem.data.train[0])


def test_regression_reports_its_excess_risk():
    problem, players = build("linear_regression", range(2), dtype=torch.float64)
    values = players["model"].parameters.values
    values.copy_(torch.tensor([[1.0, 1.0, 1.0], [1.0, 3.0, 0.0]]))
    result = problem.evaluate()
    assert result.metrics["value"] == pytest.approx([0.0, 0.5 * (0.5 * 4 + 1.0 * 1)])
    assert result.metrics["distance"] == pytest.approx([0.0, np.sqrt(5)])
    x, y = problem.data.test
    errors = 0.5 * (x @ np.array([1.0, 3.0, 0.0]) - y) ** 2
    assert result.metrics["test_loss"][1] == pytest.approx(errors.mean())
    assert result.stderr["test_loss"][1] == pytest.approx(errors.std(ddof=1) / np.sqrt(40))
    assert result.arrays["predictions"][1] == pytest.approx(x @ np.array([1.0, 3.0, 0.0]))


def test_the_curve_is_the_modules_and_its_losses_are_half_mean_squares():
    problem, players = build("chebyshev", range(2), dtype=torch.float64, batch_size="full")
    train(problem, engine_of(players), 30)
    result = problem.evaluate()
    x = np.linspace(-1, 1, 40)
    target = np.polynomial.chebyshev.chebval(x, [0] * 6 + [1])
    assert (problem.main_metric, problem.higher_is_better) == ("test_loss", False)
    assert result.stderr == {}
    assert result.arrays["curve_target"][0] == pytest.approx(np.stack([x, target]))
    for member in range(2):
        module = players["model"].module().double()
        module.load_state_dict(players["model"].parameters.member(member))
        curve = module(torch.tensor(x)[:, None])[:, 0].detach().numpy()
        assert result.arrays["curve"][member] == pytest.approx(curve)
        assert result.metrics["test_loss"][member] == pytest.approx(
            ((curve - target) ** 2).mean() / 2
        )
        fit = module(torch.tensor(problem.data.train[0]))[:, 0].detach().numpy()
        square = ((fit - problem.data.train[1]) ** 2).mean()
        assert result.metrics["train_loss"][member] == pytest.approx(square / 2)


def test_the_shipped_chebyshev_is_the_published_task(tmp_path):
    """Descent from NumPy's own network and its chain rule takes the same five steps."""
    result = run(
        ["problem=supervised/chebyshev", "optimizer=sgd", "dtype=float64", "probes=none",
         "evaluate.every=1", "budget.iterations=5", f"run_dir={tmp_path / 'run'}"], quiet=True,
    )  # fmt: skip
    assert result.config["optimizer"]["lr"] == 0.2
    start = problem_of(result)
    weights = [start[f"{k}.weight"] for k in (0, 2, 4)]
    biases = [start[f"{k}.bias"] for k in (0, 2, 4)]
    assert sum(a.size for a in [*weights, *biases]) == 701
    assert not any(b.any() for b in biases)
    x = np.linspace(-1, 1, 20)[:, None]
    y = np.polynomial.chebyshev.chebval(x, [0] * 6 + [1])
    losses = []
    for _ in range(6):
        hidden = [x]
        for w, b in zip(weights, biases, strict=True):
            hidden.append(np.tanh(hidden[-1] @ w.T + b))
        residual = hidden[2] @ weights[2].T + biases[2] - y
        losses.append((residual**2).mean() / 2)
        delta = residual / len(x)
        for k in (2, 1, 0):
            gradient, shift = delta.T @ hidden[k], delta.sum(axis=0)
            delta = (delta @ weights[k]) * (1 - hidden[k] ** 2)
            weights[k], biases[k] = weights[k] - 0.2 * gradient, biases[k] - 0.2 * shift
    assert result.metric("train_loss")[1][-1, 0] == pytest.approx(losses[-1], rel=1e-12)
    assert result.metric("loss", "model")[1][:, 0] == pytest.approx(losses[:5], rel=1e-12)


def problem_of(result):
    """Initial tensors of a run's first member, from its configuration."""
    keys = {
        k: v for k, v in result.config["problem"].items() if k not in ("default_budget", "tuned")
    }
    problem = SupervisedConfig(**keys).build(None)
    players = problem.setup(Context((result.config["seed"],), dtype=torch.float64))
    member = players["model"].parameters.member(0)
    return {name: tensor.numpy().copy() for name, tensor in member.items()}


@pytest.mark.parametrize("data", KEYS)
def test_evaluation_changes_nothing(data):
    first, one = build(data, range(2), batch_size=7)
    second, other = build(data, range(2), batch_size=7)
    engines = engine_of(one), engine_of(other)
    for _ in range(3):
        train(first, engines[0], 5)
        metrics = [first.evaluate().metrics for _ in range(2)]
        assert all(np.array_equal(metrics[0][name], metrics[1][name]) for name in metrics[0])
    train(second, engines[1], 15)
    assert torch.equal(one["model"].parameters.values, other["model"].parameters.values)


@pytest.mark.parametrize("data", KEYS)
@pytest.mark.parametrize("keys", [{}, {"replacement": True}, {"batch_size": "full"}])
def test_state_resumes_exactly_within_an_epoch(data, keys, tmp_path):
    keys = {"batch_size": 7, **keys}
    problem, players = build(data, range(2), **keys)
    engine = engine_of(players)
    train(problem, engine, 10)
    torch.save(problem.state(), tmp_path / "state.pt")
    other, others = build(data, range(2), **keys)
    other.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    others["model"].parameters.values.copy_(players["model"].parameters.values)
    second = engine_of(others)
    second.load_state(engine.state())
    train(problem, engine, 15)
    train(other, second, 15)
    assert torch.equal(players["model"].parameters.values, others["model"].parameters.values)


def test_two_moons_are_learned():
    """The noise leaves no overlap worth speaking of, but a straight line leaves a tenth wrong."""
    accuracies = {}
    for widths in ((), (32,)):
        problem, players = build(
            "two_moons", range(2), samples=300, test_samples=1000, noise=0.1,
            widths=list(widths), batch_size=50,
        )  # fmt: skip
        train(problem, engine_of(players, lr=0.05), 200)
        accuracies[widths] = problem.evaluate().metrics["accuracy"]
    assert accuracies[(32,)].min() > 0.99
    assert accuracies[()].max() < 0.92


def test_regression_reaches_its_least_squares_solution():
    problem, players = build("linear_regression", (3,), torch.float64, batch_size="full")
    train(problem, engine_of(players, lr=0.05), 1000)
    x, y = problem.data.train
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    assert players["model"].parameters.values.numpy() == pytest.approx(best[None])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "share"),
    [("adam", 0.965), ("sgd", 0.955), ("momentum", 0.955), ("nesterov", 0.955), ("rmsprop", 0.955)],
)
def test_digits_accuracy_with_the_shipped_settings(optimizer, share, tmp_path):
    result = run(
        ["problem=supervised/digits", f"optimizer={optimizer}", "members=10", "probes=none",
         f"run_dir={tmp_path / 'run'}"], quiet=True,
    )  # fmt: skip
    _, values = result.metric("accuracy")
    assert values.shape[1] == 10
    assert values[-1].mean() >= share


@pytest.mark.slow
def test_a_member_of_a_learning_rate_curve_is_its_single_run(tmp_path):
    """Index = value_index * members + replica; the same seed and batches, so the same curve."""
    common = ["problem=supervised/digits", "budget.iterations=8", "evaluate.every=4", "probes=none"]
    curve = run(
        [*common, "vary.optimizer.lr=[1e-3,1e-2,3e-2]", "members=2", "seed=5",
         f"run_dir={tmp_path / 'curve'}"], quiet=True,
    )  # fmt: skip
    single = run(
        [*common, "optimizer.lr=1e-2", "seed=6", f"run_dir={tmp_path / 'single'}"], quiet=True
    )
    _, many = curve.metric("test_loss")
    _, one = single.metric("test_loss")
    assert many.shape == (3, 6)
    assert many[:, 3] == pytest.approx(one[:, 0], rel=1e-4)
    assert np.ptp(many[-1, [1, 3, 5]]) > 0.1
