"""Properties of all routings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.evaluation.leaderboard import (
    RoutingRule,
    final_p_values,
    leaderboard,
    lowest_share,
    oracle_share,
    random_share,
    routing_names,
    surprise,
    without_ties,
)
from cloud.metrics import auroc


def opinions(seed: int, count: int = 400, share: float = 0.1, edge_noise: float = 1.5):
    """Return labels and p-values of an edge less accurate than the cloud; uniform on normal samples."""
    from scipy.stats import norm

    generator = np.random.default_rng(seed)
    labels = generator.random(count) < share
    labels[:2] = [True, False]
    cloud = generator.normal(size=count) + 3.0 * labels
    edge = (cloud + edge_noise * generator.normal(size=count)) / np.hypot(1, edge_noise)
    return labels, norm.sf(edge), norm.sf(cloud)


def test_the_board_has_every_routing_and_its_ends_are_the_edge_and_the_cloud() -> None:
    labels, edge, cloud = opinions(0)
    board = leaderboard(labels, edge, cloud)
    assert list(board) == list(routing_names())
    assert set(board) == {
        "edge_only", "random_10", "cascade_1", "cascade_2", "cascade_5", "cascade_10", "oracle_10", "cloud_only",
    }  # fmt: skip
    assert board["edge_only"]["auroc"] == auroc(labels, surprise(edge))
    assert board["cloud_only"]["auroc"] == auroc(labels, surprise(cloud))
    assert board["edge_only"]["upload_share"] == 0.0
    assert board["cloud_only"]["upload_share"] == 1.0
    assert board["cloud_only"]["recall_kept_at_5_far"] == 1.0
    assert board["cascade_10"]["upload_share"] == pytest.approx(0.1)


def test_where_edge_and_cloud_agree_every_routing_is_the_cloud() -> None:
    labels, _, cloud = opinions(1)
    for figures in leaderboard(labels, cloud, cloud).values():
        assert figures["auroc"] == pytest.approx(auroc(labels, surprise(cloud)))
        assert figures["recall_kept_at_5_far"] == pytest.approx(1.0)


def test_the_cascade_spends_its_budget_better_than_chance_and_the_oracle_best() -> None:
    boards = [leaderboard(*opinions(seed, 2000, 0.05)) for seed in range(5)]

    def mean(routing: str, figure: str) -> float:
        return float(np.mean([board[routing][figure] for board in boards]))

    assert mean("cascade_10", "recall_at_1_far") > mean("random_10", "recall_at_1_far") + 0.05
    for figure in ("auroc", "recall_at_1_far"):
        assert mean("oracle_10", figure) >= mean("cascade_10", figure)
    assert mean("oracle_10", "auroc") > mean("random_10", "auroc")
    recalls = [mean(name, "recall_at_1_far") for name in ("edge_only", "cascade_2", "cascade_10", "cloud_only")]
    assert recalls == sorted(recalls)


@given(st.integers(0, 5000), st.floats(0.0, 1.0))
def test_no_budget_is_overspent_and_the_lowest_p_values_are_forwarded(seed: int, share: float) -> None:
    labels, edge, cloud = opinions(seed, 100, 0.2)
    for chosen in (
        lowest_share(edge, share),
        random_share(len(edge), share, np.random.default_rng(seed)),
        oracle_share(labels, edge, cloud, share),
    ):
        assert chosen.sum() <= share * len(edge) + 1e-6
    chosen = lowest_share(edge, share)
    if chosen.any() and not chosen.all():
        assert edge[chosen].max() <= edge[~chosen].min()


@given(st.integers(0, 5000))
def test_below_the_highest_forwarded_p_value_the_cascade_has_no_more_false_alarms_than_the_cloud(seed: int) -> None:
    _, edge, cloud = opinions(seed, 200, 0.0)
    forwarded = lowest_share(edge, 0.2)
    final = final_p_values(edge, cloud, RoutingRule("cascade_20", forwarded, lowest_first=True))
    for level in np.linspace(0.0, edge[forwarded].max(), 7)[:-1]:
        assert np.mean(final <= level) <= np.mean(cloud <= level)
    assert np.mean(final <= 0.9) <= np.mean(cloud <= 0.9) + np.mean(edge <= 0.9)


def test_cleared_samples_are_no_alarm_and_kept_samples_keep_the_edges_p_value() -> None:
    edge, cloud = np.array([0.001, 0.4, 0.03]), np.array([0.8, 0.0001, 0.0001])
    final = final_p_values(edge, cloud, RoutingRule("any", lowest_share(edge, 0.34)))
    assert final.tolist() == [0.8, 0.4, 0.03]


def test_kept_samples_rank_below_samples_that_the_cloud_cleared_at_the_boundary() -> None:
    edge, cloud = np.array([0.001, 0.4, 0.03]), np.array([0.8, 0.0001, 0.0001])
    final = final_p_values(edge, cloud, RoutingRule("cascade_34", lowest_share(edge, 0.34), lowest_first=True))
    assert final[0] == 0.8
    assert 0.8 < final[2] < final[1] < 0.8 * (1 + 2e-6)


def test_kept_samples_do_not_outrank_the_last_ones_forwarded() -> None:
    edge, cloud = np.array([1e-12, 1e-10, 1e-9, 1e-8, 0.5]), np.array([0.001, 0.02, 1e-9, 1e-9, 1e-9])
    cascade = final_p_values(edge, cloud, RoutingRule("cascade_40", lowest_share(edge, 0.4), lowest_first=True))
    assert cascade[0] < cascade[1] < cascade[2] < cascade[3] < cascade[4]
    np.testing.assert_allclose(cascade, [0.001, 0.02, 0.02, 0.02, 0.5], rtol=1e-5)
    at_random = final_p_values(edge, cloud, RoutingRule("random_40", lowest_share(edge, 0.4)))
    assert at_random.tolist() == [0.001, 0.02, 1e-9, 1e-8, 0.5]


def test_ties_of_p_values_are_broken_by_the_scores_and_nothing_else_moves() -> None:
    scores = np.array([1.0, 5.0, 3.0, 3.0, 9.0])
    steps = np.array([0.5, 0.25, 0.25, 0.25, 0.1])
    broken = without_ties(steps, scores)
    assert broken[1] < broken[2] == broken[3] < broken[0]
    assert broken[4] < broken[1]
    np.testing.assert_allclose(broken, steps, rtol=1e-6)
    assert (broken > 0).all()


def test_recall_kept_is_absent_if_the_cloud_finds_nothing() -> None:
    labels, edge, _ = opinions(0)
    blind = np.where(labels, 0.9, np.linspace(0.01, 0.8, len(labels)))
    board = leaderboard(labels, edge, blind)
    assert board["cloud_only"]["recall_at_1_far"] == 0.0
    assert not any(name.startswith("recall_kept") for figures in board.values() for name in figures)


def test_metrics_of_other_units_than_samples_are_accepted() -> None:
    labels, edge, cloud = opinions(0)
    board = leaderboard(
        labels, edge, cloud, compute_metrics=lambda p: {"recall_at_2_far": float((p < 0.1).mean())}, draws=2
    )
    assert board["cascade_10"].keys() == {"recall_at_2_far", "recall_kept_at_2_far", "upload_share"}
    assert board["edge_only"]["recall_at_2_far"] == np.mean(edge < 0.1)
