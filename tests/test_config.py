"""Composition: resolved values, every option, round trips, and a config as data."""

import dataclasses
import shutil
from functools import cache
from pathlib import Path

import pytest
import yaml
from harness import TINY, assert_same, final, quiet

import playground
from playground import composition
from playground.config import (
    DOMAINS,
    BudgetConfig,
    CheckpointConfig,
    Config,
    EvaluateConfig,
    compose,
    domain_of,
    from_dict,
    members,
    to_dict,
)
from playground.crosschecks import budget
from playground.optim.config import OPTIMIZERS, TORCH_CLASSES
from playground.optim.steppers.config import STEPPERS
from playground.probes.config import ProbesConfig
from playground.schema import ConfigError

CONF = Path(playground.__file__).resolve().parent.parent / "conf"


def names(group):
    return sorted(
        file.relative_to(CONF / group).with_suffix("").as_posix()
        for file in (CONF / group).rglob("*.yaml")
        if file.stem != "custom"
    )


PROBLEMS = names("problem")


@cache
def shipped(problem):
    """The configuration of a problem with nothing overridden."""
    return compose([f"problem={problem}"])


def optimizers(config):
    """{player: its optimizer} as the run resolves it."""
    players = getattr(config.algorithm, "players", None) or config.problem.players()
    return {player: config.player_optimizer(player) for player in players}


def test_the_bare_command_is_ppo_on_cartpole():
    config = compose([])
    assert config.problem.name == "rl/cartpole"
    assert config.algorithm.name == "ppo"
    assert budget(config) == ("env_steps", 100_000)
    assert (config.seed, config.members, config.device, config.threads) == (0, 1, "auto", 1)
    assert config.probes.name == "light"
    assert config.compile is False
    assert config.name is config.run_dir is config.on_nonfinite is None


def test_penalty_and_lr_of_a_gan():
    """problem=gan/ring penalty.r1=10 optimizer=adam optimizer.lr=2e-4"""
    config = compose(["problem=gan/ring", "penalty.r1=10", "optimizer=adam", "optimizer.lr=2e-4"])
    assert config.loss.name == "nonsaturating"
    assert config.penalty.r1 == 10.0
    for optimizer in optimizers(config).values():
        assert (optimizer.name, optimizer.lr) == ("adam", 2e-4)
    assert config.players == {}


def test_a_slot_for_each_player():
    """optimizer@players.generator=adam optimizer@players.discriminator=sgd, and one lr"""
    config = compose(
        ["problem=gan/ring", "optimizer@players.generator=adam",
         "optimizer@players.discriminator=sgd", "players.discriminator.lr=4e-4"]
    )  # fmt: skip
    chosen = optimizers(config)
    assert chosen["generator"].name == "adam"
    assert chosen["generator"].lr == compose(["problem=gan/ring"]).optimizer.lr
    assert chosen["discriminator"].name == "sgd"
    assert chosen["discriminator"].lr == 4e-4


def test_a_null_player_inherits_and_others_do_not():
    config = compose(
        ["problem=gan/ring", "optimizer=rmsprop", "optimizer.lr=0.3", "optimizer.alpha=0.5",
         "optimizer@players.discriminator=momentum"]
    )  # fmt: skip
    chosen = optimizers(config)
    assert (chosen["generator"].name, chosen["generator"].lr) == ("rmsprop", 0.3)
    assert chosen["generator"].alpha == 0.5
    assert chosen["discriminator"].name == "momentum"
    assert chosen["discriminator"].lr != 0.3


def test_a_stepper_is_orthogonal_to_the_optimizer():
    config = compose(["problem=gan/ring", "stepper=extragradient", "optimizer=momentum"])
    assert config.stepper.name == "extragradient"
    assert from_dict(to_dict(config)) == config
    assert config.optimizer.name == "momentum"


def test_supervised_batch_size_and_lr():
    config = compose(
        ["problem=supervised/digits", "optimizer=sgd", "optimizer.lr=0.1", "problem.batch_size=64"]
    )
    assert (config.optimizer.name, config.optimizer.lr) == ("sgd", 0.1)
    assert config.problem.batch_size == 64


def test_vary_is_paired_and_the_last_key_is_fastest():
    """vary.optimizer.lr=[...] members=5: index = value * members + replica."""
    config = compose(
        ["problem=supervised/digits", "vary.optimizer.lr=[1e-4,1e-3,1e-2]", "members=5", "seed=7"]
    )
    replicas = members(config)
    assert [m.index for m in replicas] == list(range(15))
    assert [m.seed for m in replicas] == [7, 8, 9, 10, 11] * 3
    assert [m.values["optimizer.lr"] for m in replicas] == [1e-4] * 5 + [1e-3] * 5 + [1e-2] * 5
    two = compose(
        ["problem=landscape/beale", "vary.optimizer.beta1=[0,0.5]", "vary.optimizer.lr=[1,2]"]
    )
    pairs = [tuple(m.values.values()) for m in members(two)]
    assert pairs == [(0, 1), (0, 2), (0.5, 1), (0.5, 2)]


def test_landscapes_and_dirac_are_in_double_precision():
    doubles = {name for name in PROBLEMS if shipped(name).problem.dtype == "float64"}
    landscapes = {name for name in PROBLEMS if name.startswith("landscape/")}
    assert doubles == {*landscapes, "gan/dirac"}


def test_reinforce_has_its_own_players_and_budget():
    config = compose(["algorithm=reinforce"])
    assert set(optimizers(config)) == {"policy", "value"}
    assert budget(config) == ("env_steps", 500_000)


def test_a_problem_chooses_groups_that_an_override_still_beats():
    assert compose(["problem=gan/dirac"]).optimizer.name == "sgd"
    assert compose(["problem=gan/dirac", "optimizer=adam"]).optimizer.name == "adam"
    assert compose(["optimizer=adam", "problem=gan/dirac"]).optimizer.name == "adam"


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_problem_composes_builds_and_has_a_slot_for_each_player(problem):
    from playground.assembly import assemble

    config = shipped(problem)
    parts = assemble(config, None)
    assert parts.problem.name == problem
    assert set(parts.players) == set(optimizers(config))
    group = (
        f"problem/{problem}" if config.algorithm is None else f"algorithm/{config.algorithm.name}"
    )
    source = yaml.safe_load((CONF / f"{group}.yaml").read_text())
    for player in parts.players:
        assert {f"/optimizer@_global_.players.{player}": None} in source["defaults"]


ALGORITHMS = [[f"algorithm={name}"] for name in names("algorithm")] + [
    [f"algorithm={name}", "algorithm.separate=true"] for name in ("a2c", "ppo", "ppo_kl")
]


@pytest.mark.parametrize("overrides", ALGORITHMS, ids="-".join)
def test_every_algorithm_has_a_slot_for_each_player(overrides):
    from playground.assembly import assemble

    config = compose(["problem=rl/cartpole", *overrides])
    players = config.algorithm.players
    assert {*players} <= {*config.problem.players()}
    assert {*assemble(config, None).players} == {*players}
    for player in players:
        keys = ["problem=rl/cartpole", *overrides, f"optimizer@players.{player}=momentum"]
        assert compose([*keys, f"players.{player}.lr=0.3"]).players[player].lr == 0.3
    for other in {*config.problem.players()} - {*players}:
        with pytest.raises(ConfigError, match=f"players.{other}"):
            compose(["problem=rl/cartpole", *overrides, f"optimizer@players.{other}=momentum"])


REGIONS = {"natural_gradient": "npg", "trust_region": "trpo"}
"""Optimizers that want moves with a divergence, and the algorithm that has them."""


@pytest.mark.parametrize("name", REGIONS)
def test_optimizers_with_a_geometry_compose_and_build(name):
    from playground.assembly import assemble

    for algorithm in REGIONS.values():  # either optimizer in either algorithm
        config = compose(["problem=rl/cartpole", f"algorithm={algorithm}",
                          f"optimizer@players.policy={name}"])  # fmt: skip
        assert type(config.players["policy"]) is OPTIMIZERS[name]
        made = assemble(config, None).optimizers
        assert made["policy"].uses_geometry
        assert not made["value"].uses_geometry


@pytest.mark.parametrize("name", [n for n in names("optimizer") if n not in ("torch", *REGIONS)])
def test_every_optimizer_composes_for_every_player_and_builds(name):
    from playground.assembly import assemble

    config = compose(["problem=landscape/bilinear", f"optimizer@players.y={name}"])
    assert type(config.players["y"]) is OPTIMIZERS[name]
    step = assemble(config, None).optimizers["y"]
    import torch

    point = torch.ones(1, 1, dtype=torch.float64)
    assert torch.isfinite(step.step(point, point).update).all()


@pytest.mark.parametrize("name", TORCH_CLASSES)
def test_every_torch_class_composes_and_builds(name):
    from playground.assembly import assemble

    config = compose(["problem=landscape/beale", "optimizer=torch", f"optimizer.class_name={name}"])
    assert set(assemble(config, None).optimizers) == {"x"}


@pytest.mark.parametrize("group", ["stepper", "probes", "loss", "algorithm"])
def test_every_option_of_a_group_composes(group):
    problems = {"loss": "gan/ring", "algorithm": "rl/cartpole", "stepper": "landscape/bilinear"}
    for name in names(group):
        more = ["stepper.player=x"] if name == "unrolled" else []
        config = compose([f"problem={problems.get(group, 'landscape/beale')}",
                          f"{group}={name}", *more])  # fmt: skip
        assert getattr(config, group).name == name


def test_a_frozen_player_is_no_part_of_the_game():
    """With one player held, competitive descent has no opponent."""
    config = compose(["problem=gan/ring", "frozen=[discriminator]", "stepper=extragradient"])
    assert config.frozen == ["discriminator"]
    with pytest.raises(ConfigError, match="2 players that train, not 1"):
        compose(["problem=landscape/bilinear", "frozen=[y]", "stepper=cgd"])


def test_every_option_has_a_schema_and_every_schema_an_option():
    assert names("optimizer") == sorted(OPTIMIZERS)
    assert names("stepper") == sorted(STEPPERS)
    for domain in DOMAINS:
        for group, options in domain_of(domain).GROUPS.items():
            if group != "penalty":
                assert names(group) == sorted(options), group
    rule = ProbesConfig.__dataclass_fields__["name"].metadata["rule"]
    assert names("probes") == sorted(rule["options"])


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n != "torch"])
def test_an_optimizers_yaml_and_schema_agree(name):
    """Where a problem tunes nothing, a value is the schema's; the learning rate may be ours."""
    if name in REGIONS:
        keys = ["problem=rl/gridworld", f"algorithm={REGIONS[name]}"]
        config = compose(keys).players["policy"]
    else:
        config = compose(["problem=landscape/beale", f"optimizer={name}"]).optimizer
    schema = OPTIMIZERS[name]()
    for field in dataclasses.fields(schema):
        if field.name != "lr":
            assert getattr(config, field.name) == getattr(schema, field.name), field.name


def test_the_root_of_the_yaml_and_the_schema_agree():
    config = compose(["problem=landscape/beale"])
    for field in dataclasses.fields(Config):
        if field.default is not dataclasses.MISSING and field.default is not None:
            assert getattr(config, field.name) == field.default, field.name
    assert (config.budget, config.evaluate, config.checkpoint) == (
        BudgetConfig(), EvaluateConfig(), CheckpointConfig(),
    )  # fmt: skip


@pytest.mark.parametrize(
    "overrides",
    [
        *[[f"problem={name}"] for name in PROBLEMS],
        *TINY.values(),
        ["problem=gan/ring", "optimizer@players.generator=torch", "budget.samples=9",
         "players.generator.class_name=SGD", "players.generator.kwargs={momentum:0.9}",
         "vary.optimizer.lr=[1e-3,1]"],
        ["problem=landscape/beale", "problem.start=[1,2.5]", "optimizer.clip_norm=1e-9",
         "name=a.b"],
    ],
    ids=lambda overrides: overrides[0],
)  # fmt: skip
def test_a_saved_configuration_is_the_same_configuration(overrides):
    from playground.record.formats import dump_yaml

    first = overrides[0].partition("=")[2]
    config = shipped(first) if len(overrides) == 1 else compose(overrides)
    assert from_dict(to_dict(config)) == config
    assert from_dict(yaml.safe_load(dump_yaml(to_dict(config)))) == config


def test_a_runs_configuration_is_enough_to_run_it_again(tmp_path, without_figures):
    from playground.extend import Extensions
    from playground.progress import Reporter
    from playground.run import execute

    overrides = [*TINY["game"], "optimizer@players.y=adam", "budget.iterations=5", "members=2"]
    first = quiet(overrides, tmp_path / "first")
    data = yaml.safe_load((tmp_path / "first" / "config.yaml").read_text())
    data["run_dir"] = str(tmp_path / "second")
    second = execute(from_dict(data), Extensions(), Reporter(quiet=True))
    assert_same(final(first)["players"], final(second)["players"])


def saved():
    return to_dict(compose(["problem=gan/ring", "optimizer@players.generator=sgd"]))


@pytest.mark.parametrize(
    "path", [(), ("problem",), ("optimizer",), ("players", "generator"), ("loss",), ("budget",)]
)
def test_a_config_is_data_and_a_target_is_refused(path, tmp_path):
    data = saved()
    node = data
    for part in path:
        node = node[part]
    marker = tmp_path / "ran"
    node["_target_"] = "pathlib.Path.touch"
    node["self"] = str(marker)
    with pytest.raises(ConfigError, match=r"_target_|self"):
        from_dict(data)
    assert not marker.exists()


def test_no_configuration_file_names_code():
    for file in CONF.rglob("*.yaml"):
        assert "_target_" not in file.read_text()


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"seed": "abc"}, ["seed=abc", "whole number"]),
        ({"members": 0}, ["members=0", "at least 1"]),
        ({"problem": "gan/ring"}, ["problem"]),
        ({"problem": {"name": "elsewhere/x"}}, ["problem=elsewhere/x", "no such problem"]),
        ({"optimizer": {"name": "adm"}}, ["optimizer=adm", "did you mean adam"]),
        ({"optimizer": {"name": "adam", "lr": "x"}}, ["optimizer.lr=x", "must be a number"]),
        ({"players": {"nobody": {"name": "adam"}}}, ["no player nobody"]),
        ({"loss": None}, ["loss=None", "minimax"]),
        ({"sede": 1}, ["sede", "did you mean seed"]),
        ({"vary": {"optimizer": {"lr": 3}}}, ["vary.optimizer.lr=3"]),
    ],
)
def test_a_tampered_file_is_an_error_of_one_line(change, fragments):
    with pytest.raises(ConfigError) as caught:
        from_dict({**saved(), **change})
    assert "\n" not in str(caught.value)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        ({"env_steps": 5}, "does not count env_steps"),
        ({"iterations": 0}, "whole number"),
        ({"iterations": 1.5}, "whole number"),
        ({"iterations": "many"}, "whole number"),
        ({"iterations": 2, "updates": 2}, "one counter"),
        ({}, "one counter"),
    ],
)
def test_a_default_budget_is_checked_too(value, fragment):
    data = saved()
    data["problem"]["default_budget"] = value
    with pytest.raises(ConfigError, match=fragment):
        from_dict(data)


def test_open_keys_take_anything_and_others_nothing_new():
    torch = ["problem=landscape/beale", "optimizer=torch", "optimizer.class_name=SGD"]
    whole = compose([*torch, "optimizer.kwargs={momentum:0.9}"])
    assert compose([*torch, "optimizer.kwargs.momentum=0.9"]) == whole
    assert whole.optimizer.kwargs == {"momentum": 0.9}
    assert compose(["problem.env_kwargs={sutton_barto_reward:true}"]).problem.env_kwargs == {
        "sutton_barto_reward": True
    }
    for overrides in (["problem=landscape/beale", "problem.env_kwargs={a:1}"],
                      ["optimizer=adam", "optimizer.kwargs.momentum=0.9"]):  # fmt: skip
        with pytest.raises(ConfigError, match="no such key"):
            compose(overrides)


def test_an_edited_option_is_read_again(tmp_path, monkeypatch):
    """Options are composed once a process, but not once for all."""
    copy = tmp_path / "conf"
    shutil.copytree(composition.conf_dir(), copy)
    monkeypatch.setattr(composition, "conf_dir", lambda: copy)
    before = compose(["problem=landscape/saddle"]).optimizer.lr
    file = copy / "problem" / "landscape" / "saddle.yaml"
    file.write_text(file.read_text() + "\nnoise: 0.25\n")
    edited = compose(["problem=landscape/saddle"])
    assert edited.problem.noise == 0.25
    assert edited.optimizer.lr == before
