"""Every rule on records made for it: it fires where its condition holds, and not just beside."""

import numpy as np
import pytest

from playground.diagnosis import RULES, gradient_rules, player_rules, probe_rules, step_rules
from playground.diagnosis.finding import held
from playground.probes.curvature.critical import MINIMUM, SADDLE
from playground.record.view import Series

T = 64


class Records:
    """What rules ask of a view, from dictionaries; two members, the second healthy."""

    def __init__(self, domain="supervised", players=("model",), **options):
        self.domain, self.players, self.members = domain, list(players), [{}, {}]
        self.metrics, self.gradients, self.games = {}, {}, {}
        self.solved, self.events, self.config = None, [], {}
        self.main_metric, self.manifest = "accuracy", {"tensors": {}, "higher_is_better": True}
        for name, value in options.items():
            setattr(self, name, value)

    @staticmethod
    def series(values):
        return Series(np.arange(1.0, len(values) + 1), np.asarray(values, float))

    def metric(self, name, player="", x="iteration"):
        return self.metrics.get((name, player), self.series(np.empty((0, 2))))

    def has(self, name, player=""):
        return (name, player) in self.metrics

    def gradient(self, player, quantity, tap="gradient", tensor=""):
        return self.gradients.get((player, quantity, tensor), self.series(np.empty((0, 2))))

    def measured(self, player, probe):
        return self.games


def both(ill, healthy, points=T):
    """[T, 2] of two constants or two series."""
    columns = [np.broadcast_to(np.asarray(c, float), (points,)) for c in (ill, healthy)]
    return Records.series(np.stack(columns, axis=1))


def members(rule, records):
    return sorted({finding.member for finding in rule(records)})


def gradient(quantity, ill, healthy, tensor="", player="model"):
    return {(player, quantity, tensor): both(ill, healthy)}


def test_a_condition_holds_where_four_fifths_of_the_last_sixteen_points_meet_it():
    met = np.zeros((40, 3), bool)
    met[10:, 0] = True
    met[10:, 1] = True
    met[[30, 33, 36], 1] = False  # 13 of the last 16 points
    met[:30, 2] = True  # over before the end
    found = held(met, np.arange(100, 140))
    np.testing.assert_array_equal(found.now, [True, True, False])
    # The first window with 13 of 16 points ends at index 22 and begins at 7.
    assert found.since[0] == 122
    assert found.began[0] == 107
    assert found.confidence[0] == pytest.approx(30 / 33)
    assert found.confidence[1] == pytest.approx(27 / 33)
    assert not held(met[:15], np.arange(15)).now.any()


def test_exploding_and_spikes():
    growth = np.geomspace(1.0, 1e5, T)
    records = Records(gradients=gradient("norm", growth, 900.0))
    assert members(gradient_rules.exploding, records) == [0]
    norms = np.ones(128)
    norms[100] = 51.0
    near = np.ones(128)
    near[100] = 49.0
    records.gradients = {("model", "norm", ""): both(norms, near, 128)}
    (finding,) = gradient_rules.spike(records)
    assert (finding.member, finding.iteration, finding.value) == (0, 101.0, 51.0)
    records.gradients[("model", "clip_coefficient", "")] = both(0.5, 0.5)
    assert members(gradient_rules.spike, records) == []  # clipped: it did no harm


def network(*shares, quantity="zero_share"):
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    found = {}
    for name, share in zip(names, shares, strict=True):
        found |= gradient(quantity, *share, tensor=name)
    return Records(gradients=found, manifest={"tensors": {"model": names}})


def test_dead_units_silence_the_weights_behind_them_and_a_cut_off_layer_does_not():
    dead = network((1.0, 0.1), (0.9, 0.7), (0.9, 0.7), (0.0, 0.0))
    assert members(gradient_rules.dead_units, dead) == [0]
    assert members(gradient_rules.cut_off, dead) == []
    cut = network((1.0, 0.1), (1.0, 0.1), (0.0, 0.0), (0.0, 0.0))
    assert members(gradient_rules.dead_units, cut) == []
    assert members(gradient_rules.cut_off, cut) == [0]
    nothing = network((1.0, 0.1), (1.0, 0.1), (1.0, 0.0), (1.0, 0.0))
    assert members(gradient_rules.dead_units, nothing) == []
    assert members(gradient_rules.cut_off, nothing) == [0]


def test_vanishing_is_read_from_the_error_signals():
    faint = network((1.0, 1.0), (9e-5, 2e-4), (1.0, 1.0), (1.0, 1.0), quantity="mean_abs")
    assert members(gradient_rules.vanishing, faint) == [0]


def test_steps_too_long():
    assert members(step_rules.too_long, Records(
        gradients=gradient("cosine_previous", -0.6, -0.4))) == [0]  # fmt: skip
    assert members(step_rules.too_long, Records(gradients=gradient("ratio", 0.11, 0.09))) == [0]
    loss = (
        np.concatenate([[1.0], np.full(T - 1, 3.1)]),
        np.concatenate([[1.0], np.full(T - 1, 2.9)]),
    )
    assert members(step_rules.too_long, Records(metrics={("loss", "model"): both(*loss)})) == [0]
    # Agents' and players' losses do not say how well they do.
    assert members(step_rules.too_long, Records(
        domain="gan", players=("generator", "discriminator"),
        gradients=gradient("cosine_previous", -0.6, -0.4, player="generator"))) == []  # fmt: skip


def test_steps_too_short_for_half_of_the_run_and_far_from_its_end():
    flat = {("loss", "model"): both(1.0, 1.0)}
    short = gradient("ratio", 9e-6, 2e-5)
    assert members(step_rules.too_short, Records(gradients=short, metrics=flat)) == [0]
    done = {("loss", "model"): both(np.geomspace(1, 1e-3, T), 1.0)}
    assert members(step_rules.too_short, Records(gradients=short, metrics=done)) == []
    annealed = np.where(np.arange(T) < 40, 1e-3, 1e-6)
    late = Records(gradients=gradient("ratio", annealed, 1e-3), metrics=flat)
    assert members(step_rules.too_short, late) == []
    frozen = Records(gradients=short, metrics=flat, config={"frozen": ["model"]})
    assert members(step_rules.too_short, frozen) == []


def test_plateau_and_mismatch():
    stuck = np.linspace(1.0, 0.9, T) * 0 + 0.99
    falling = np.geomspace(1.0, 0.1, T)
    records = Records(metrics={("loss", "model"): both(stuck, falling)})
    assert members(step_rules.plateau, records) == [0]
    records.metrics[("loss", "model")] = both(falling, falling)
    records.metrics[("accuracy", "")] = both(np.linspace(0.5, 0.2, T), np.linspace(0.5, 0.9, T))
    assert members(step_rules.mismatch, records) == [0]


def test_a_critical_point_far_from_the_minimum():
    norm = np.geomspace(1.0, 1e-5, T)
    records = Records(
        domain="landscape", players=("x",), gradients=gradient("norm", norm, norm, player="x"),
        metrics={("distance", ""): both(2.0, np.geomspace(2.0, 1e-4, T))},
    )  # fmt: skip
    assert members(step_rules.elsewhere, records) == [0]


def test_gan_rules():
    records = Records(domain="gan", players=("generator", "discriminator"), metrics={
        ("accuracy", "discriminator"): both(0.99, 0.97),
        ("modes", ""): both(5, 7, 8), ("modes/perfect", ""): both(8, 8, 8),
        ("high_quality", ""): both(0.9, 0.9, 8), ("high_quality/perfect", ""): both(0.99, 0.99, 8),
    })  # fmt: skip
    assert members(player_rules.saturated, records) == [0]
    assert members(player_rules.collapse, records) == [0]
    assert members(player_rules.off_data, records) == []
    records.metrics[("high_quality", "")] = both(0.29, 0.31, 8)
    assert members(player_rules.off_data, records) == [0]
    assert members(player_rules.collapse, records) == []  # no modes to speak of, or enough


def test_rotation_of_a_field_that_does_not_shrink():
    records = Records(domain="landscape", players=("x", "y"), games={
        "stretch": both(0.1, 0.1), "turn": both(0.11, 0.09), "field_norm": both(1.0, 1.0),
    })  # fmt: skip
    assert members(player_rules.rotation, records) == [0]
    records.games["field_norm"] = both(np.geomspace(1, 1e-3, T), 1.0)
    assert members(player_rules.rotation, records) == []


def agent(**metrics):
    return Records(domain="rl", players=("agent",), metrics={
        (name, ""): series for name, series in metrics.items()},
        solved=475.0)  # fmt: skip


def test_rules_of_policies():
    assert members(player_rules.policy_jump, agent(approx_kl=both(0.11, 0.09))) == [0]
    early = np.where(np.arange(T) < 8, 0.2, 0.0)
    assert members(player_rules.policy_jump, agent(approx_kl=both(early, 0.0))) == [0]
    entropy = np.concatenate([[1.0], np.full(T - 1, 0.04)])
    poor = agent(entropy=both(entropy, entropy), **{"train/return": both(20.0, 480.0)})
    assert members(player_rules.entropy_collapse, poor) == [0]
    critic = agent(explained_variance=both(0.0, 0.5), **{"train/return": both(20.0, 20.0)})
    assert members(player_rules.useless_critic, critic) == [0]
    solved = agent(explained_variance=both(0.0, 0.0), **{"train/return": both(500.0, 500.0)})
    assert members(player_rules.useless_critic, solved) == []


def test_rules_on_what_probes_measured():
    noise = {"noise_scale_low": both(650.0, 630.0, 5), "samples": both(64, 64, 5)}
    assert members(probe_rules.noisy, Records(games=noise)) == [0]
    curvature = {"sharpness_ratio": both(1.0, 0.9, 5), "kind": both(SADDLE, MINIMUM, 5),
                 "lambda_min": both(-1.0, 1.0, 5), "lambda_max": both(2.0, 2.0, 5)}  # fmt: skip
    assert members(probe_rules.edge, Records(games=curvature)) == [0]
    assert members(probe_rules.saddle, Records(games=curvature)) == [0]
    assert probe_rules.SADDLE == SADDLE


def test_a_non_finite_event_is_a_finding():
    event = {"kind": "nonfinite", "member": 1, "iteration": 7, "message": "non-finite gradient"}
    (finding,) = gradient_rules.non_finite(Records(events=[event]))
    assert (finding.member, finding.iteration) == (1, 7)


def test_every_rule_says_where_it_comes_from_and_what_would_refute_it():
    assert len(RULES) >= 18
    for name, rule in RULES.items():
        assert name == rule.name
        assert all([rule.says, rule.source, rule.refuted, rule.remedy])
