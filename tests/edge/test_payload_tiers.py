"""Images give way in quality before samples are left behind; what travels is what the tier promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.routing.budget import Backlog, UploadBudget
from edge.routing.payload_tiers import PREVIEW_SIDE_PIXELS, PayloadTiers, Tier, hot_region
from edge.settings import RouterSettings
from shared.crops import CONTEXT_PIXELS
from shared.images import decode_image, encode_jpeg
from shared.modality import Modality
from tests.edge.clock import Clock


def tiers_of(clock: Clock | None = None, **settings: object) -> tuple[PayloadTiers, UploadBudget]:
    chosen = RouterSettings.model_validate(settings)
    budget = UploadBudget(chosen, clock or Clock())
    return PayloadTiers(chosen, budget), budget


def photograph(height: int = 640, width: int = 800) -> np.ndarray:
    from skimage import data

    return np.ascontiguousarray(np.tile(data.astronaut(), (2, 2, 1))[:height, :width])


def test_as_the_queue_grows_quality_gives_way_step_by_step() -> None:
    tiers, budget = tiers_of(max_queue_s=100)
    seen = []
    for wait_s in (0, 10, 30, 60, 80, 500):
        budget.follow(Backlog(wait_s * 1000, 0.0, True, 1000.0, 0.0))
        seen.append(tiers.choose(1e6, Modality.IMAGE))
    assert seen == [Tier.LOSSLESS, Tier.LOSSLESS, Tier.JPEG, Tier.CROP, Tier.FEATURES, Tier.FEATURES]


def test_an_image_that_would_use_up_the_budget_for_long_travels_smaller() -> None:
    tiers, _ = tiers_of(max_bytes_per_s=10_000, burst_s=10)
    assert tiers.choose(10_000, Modality.IMAGE) is Tier.LOSSLESS
    assert tiers.choose(200_000, Modality.IMAGE) is Tier.JPEG
    assert tiers.choose(1_000_000, Modality.IMAGE) is Tier.CROP


def test_with_a_steady_stream_a_budget_is_used_and_kept_at_less_quality() -> None:
    clock = Clock()
    tiers, budget = tiers_of(clock, max_bytes_per_s=30_000, burst_s=10)
    weights = {Tier.LOSSLESS: 1.0, Tier.JPEG: 0.2, Tier.CROP: 0.05, Tier.FEATURES: 0.01}
    sent, left_behind = dict.fromkeys(Tier, 0), 0
    for _ in range(2000):  # 100 kB a second as they are, 20 kB as JPEG
        clock.now += 1.0
        tier = tiers.choose(100_000, Modality.IMAGE)
        if budget.grant(np.array([100_000 * weights[tier]])):
            sent[tier] += 1
        else:
            left_behind += 1
    assert left_behind == 0
    assert sent[Tier.JPEG] > 1000
    used = sum(count * 100_000 * weights[tier] for tier, count in sent.items())
    assert used == pytest.approx(30_000 * 2000, rel=0.1)


def test_who_wants_lossless_only_gets_nothing_else() -> None:
    tiers, budget = tiers_of(payloads=["lossless"], max_bytes_per_s=10, max_queue_s=1)
    budget.follow(Backlog(10**9, 1.0, True, 10.0, 0.0))
    assert tiers.choose(1e9, Modality.IMAGE) is Tier.LOSSLESS


def test_rows_and_windows_always_travel_whole() -> None:
    tiers, budget = tiers_of()
    budget.follow(Backlog(10**12, 1.0, True, 1.0, 0.0))
    assert tiers.choose(1e9, Modality.SERIES) is Tier.LOSSLESS
    assert tiers.choose(1e9, Modality.TABULAR) is Tier.LOSSLESS


@pytest.mark.parametrize("wrong", [["jpeg", "lossless"], ["jpeg", "jpeg"], [], ["webp"]])
def test_payloads_out_of_order_are_refused(wrong: list[str]) -> None:
    with pytest.raises(ValueError, match="payloads"):
        RouterSettings.model_validate({"payloads": wrong})


def test_each_tier_is_smaller_than_the_one_before() -> None:
    tiers, _ = tiers_of()
    pixels, hot = photograph(), np.zeros((80, 100), np.uint8)
    hot[40:44, 50:54] = 255
    sizes = []
    for tier in (Tier.JPEG, Tier.CROP, Tier.FEATURES):
        values, encoded, part = tiers.reduce(tier, pixels, None, hot, (640, 800))
        assert encoded is not None
        assert decode_image(encoded).shape == values.shape
        assert (part is None) == (tier is Tier.JPEG)
        sizes.append(len(encoded))
    assert pixels.nbytes > 4 * sizes[0]
    assert sizes[0] > 2 * sizes[1] > 4 * sizes[2]
    assert max(values.shape[:2]) == PREVIEW_SIDE_PIXELS


def test_a_file_that_is_smaller_than_a_new_one_stays_as_it_is() -> None:
    tiers, _ = tiers_of(jpeg_quality=95)
    pixels = photograph(200, 200)
    small = encode_jpeg(pixels, 30)
    assert tiers.reduce(Tier.JPEG, pixels, small, None, (200, 200))[1] == small


def test_of_an_image_without_any_hot_place_nothing_is_cut() -> None:
    tiers, _ = tiers_of()
    values, _, part = tiers.reduce(Tier.CROP, photograph(), None, np.zeros((80, 100), np.uint8), (640, 800))
    assert part is None
    assert values.shape == (640, 800, 3)


def test_what_jpeg_cannot_hold_travels_as_it_is() -> None:
    tiers, _ = tiers_of()
    long = np.zeros((8, 70_000, 1), np.uint8)
    assert tiers.reduce(Tier.JPEG, long, b"the file", None, (64, 64)) == (long, b"the file", None)


@pytest.mark.parametrize(
    ("allowed", "expected"), [(["lossless", "features"], Tier.LOSSLESS), (["jpeg", "crop"], Tier.JPEG)]
)
def test_an_audit_is_never_cut(allowed: list[str], expected: Tier) -> None:
    tiers, _ = tiers_of(payloads=allowed)
    assert tiers.whole(Tier.CROP) is tiers.whole(Tier.FEATURES) is expected


def test_without_a_map_a_crop_is_the_whole_as_jpeg() -> None:
    tiers, _ = tiers_of()
    values, encoded, part = tiers.reduce(Tier.CROP, photograph(), None, None, (640, 800))
    assert part is None
    assert encoded is not None
    assert values.shape == (640, 800, 3)


sides = st.integers(4, 90).map(lambda blocks: 16 * blocks)


@given(st.tuples(sides, sides), st.sampled_from([8, 16, 32]), st.floats(0.25, 3.0), st.integers(0, 2**32 - 1))
def test_the_hottest_place_is_in_the_crop_with_all_that_surrounds_it(
    graph_size: tuple[int, int], patch: int, zoom: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    cells = max(1, graph_size[0] // patch), max(1, graph_size[1] // patch)
    hot = np.zeros(cells, np.uint8)
    peak = tuple(random.integers(0, count) for count in cells)
    hot[peak] = 255
    size = max(8, int(graph_size[0] * zoom)), max(8, int(graph_size[1] * zoom))
    region = hot_region(hot, size, graph_size)
    assert 0 <= region.top < region.rows.stop <= size[0]
    assert 0 <= region.left < region.columns.stop <= size[1]
    for axis, span in enumerate((region.rows, region.columns)):
        centre, context = (peak[axis] + 0.5) * size[axis] / cells[axis], CONTEXT_PIXELS * size[axis] / graph_size[axis]
        assert span.start <= max(0, centre - context) + 1
        assert span.stop >= min(size[axis], centre + context) - 1
