import inspect
import subprocess
import sys

import pytest
import torch

from playground.optim.config import (
    OPTIMIZERS,
    SGD,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    RMSprop,
    Torch,
    uses_budget,
    validate,
    variable_fields,
)
from playground.schema import ConfigError

BAD = [
    (SGD(lr=0.0), "o.lr=0.0: must be greater than 0"),
    (SGD(lr=float("nan")), "o.lr=nan: must be finite"),
    (SGD(schedule="step"), "o.schedule=step: allowed are constant, linear, cosine"),
    (SGD(schedule="linear", final=1.5), "o.final=1.5: must be at most 1"),
    (SGD(final=0.5), "o.final=0.5: has no effect while o.schedule is constant"),
    (SGD(warmup=-1), "o.warmup=-1: must be at least 0"),
    (SGD(clip_norm=0.0), "o.clip_norm=0.0: must be greater than 0"),
    (SGD(clip_value=-1.0), "o.clip_value=-1.0: must be greater than 0"),
    (SGD(weight_decay=-1.0), "o.weight_decay=-1.0: must be at least 0"),
    (Momentum(momentum=1.0), "o.momentum=1.0: must be less than 1"),
    (Nesterov(momentum=0.0), "o.momentum=0.0: must be greater than 0"),
    (Adam(beta2=1.0), "o.beta2=1.0: must be less than 1"),
    (Adam(name="sgd"), "o.name=sgd: allowed are adam"),
    (Torch(), "o.class_name=: allowed are ASGD, Adadelta"),
    (Torch(class_name="Muon"), "o.class_name=Muon: allowed are ASGD, Adadelta"),
    (Torch(class_name="SGD", kwargs={"lr": 1}), "o.kwargs.lr=1: use o.lr"),
    (Torch(class_name="SGD", kwargs={"maximize": True}), "o.kwargs.maximize=True: is not"),
    (Torch(class_name="SGD", weight_decay=0.1), "o.weight_decay=0.1: give it to the class"),
    (Torch(class_name="Rprop", schedule="linear"), "o.schedule=linear: Rprop reads lr at its"),
    (Torch(class_name="Rprop", warmup=3), "o.warmup=3: Rprop reads lr at its first update"),
]


@pytest.mark.parametrize(("config", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_values_are_named(config, message):
    with pytest.raises(ConfigError) as caught:
        validate(config, "o")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_are_valid_and_know_their_name(name):
    config = OPTIMIZERS[name]() if name != "torch" else Torch(class_name="Adam")
    validate(config, "optimizer")
    assert config.name == name
    assert not uses_budget(config)


def test_clipping_by_value_and_norm_together_is_allowed():
    validate(Adam(clip_norm=1.0, clip_value=0.1, schedule="cosine", final=0.1), "o")


def test_defaults_are_torchs():
    def theirs(cls, *names):
        signature = inspect.signature(cls.__init__).parameters
        return tuple(signature[name].default for name in names)

    for config in (Adam(), OPTIMIZERS["amsgrad"](), AdamW()):
        cls = torch.optim.AdamW if isinstance(config, AdamW) else torch.optim.Adam
        ours = (config.lr, (config.beta1, config.beta2), config.eps, config.weight_decay)
        assert ours == theirs(cls, "lr", "betas", "eps", "weight_decay")
    names = ("lr", "alpha", "eps", "centered", "momentum", "weight_decay")
    assert tuple(getattr(RMSprop(), name) for name in names) == theirs(torch.optim.RMSprop, *names)
    adagrad = OPTIMIZERS["adagrad"]()
    ours = (adagrad.lr, adagrad.eps, adagrad.initial_accumulator)
    assert ours == theirs(torch.optim.Adagrad, "lr", "eps", "initial_accumulator_value")
    for name in ("sgd", "momentum", "nesterov"):
        assert (OPTIMIZERS[name]().lr,) == theirs(torch.optim.SGD, "lr")


def test_variable_fields():
    common = ("lr", "clip_norm", "clip_value")
    assert variable_fields(SGD()) == (*common, "weight_decay", "project")
    assert variable_fields(SGD(schedule="linear")) == (
        "lr",
        "final",
        "clip_norm",
        "clip_value",
        "weight_decay",
        "project",
    )
    assert variable_fields(Adam()) == (*common, "weight_decay", "project", "beta1", "beta2", "eps")
    assert variable_fields(RMSprop()) == (
        *common,
        "weight_decay",
        "project",
        "alpha",
        "eps",
        "momentum",
    )
    assert variable_fields(Torch(class_name="Adam")) == (*common, "project")


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_use_the_budget(schedule):
    assert uses_budget(Adam(schedule=schedule))
    assert not uses_budget(Adam(warmup=10))


def test_kwargs_are_not_shared_between_configs():
    Torch(class_name="SGD").kwargs["momentum"] = 0.9
    assert Torch(class_name="SGD").kwargs == {}


def test_config_needs_no_torch():
    code = "import sys, playground.optim.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
