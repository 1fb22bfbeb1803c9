"""Quality is reduced before samples are left out, and each payload form keeps its guarantee."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.routing.budget import UplinkLoad, UploadBudget
from edge.routing.planner import UploadPlanner, complete_form
from edge.settings import RouterSettings
from shared.bundle import InputSpec
from shared.crops import CONTEXT_PIXELS
from shared.images import decode_image, encode_jpeg
from shared.modalities.base import FormSettings, PayloadForm, Reduced
from shared.modalities.image import PREVIEW_SIDE_PIXELS, SAMPLE_TYPE, hot_region
from shared.modality import Modality
from shared.samples import SampleBatch
from tests.edge.clock import Clock

LOSSLESS, JPEG, CROP, FEATURES = PayloadForm.LOSSLESS, PayloadForm.JPEG, PayloadForm.CROP, PayloadForm.FEATURES


def planner_with(clock: Clock | None = None, **settings: object) -> tuple[UploadPlanner, UploadBudget]:
    chosen = RouterSettings.model_validate(settings)
    budget = UploadBudget(chosen, clock or Clock())
    return UploadPlanner(chosen, budget), budget


def reduced(
    form: PayloadForm,
    pixels: np.ndarray,
    encoded: bytes | None = None,
    anomaly_map: np.ndarray | None = None,
    quality: int = 90,
) -> Reduced:
    spec = InputSpec(image_height=640, image_width=800)
    return SAMPLE_TYPE.reduce(form, Reduced(pixels, encoded), anomaly_map, spec, FormSettings(jpeg_quality=quality))


def photograph(height: int = 640, width: int = 800) -> np.ndarray:
    from skimage import data

    return np.ascontiguousarray(np.tile(data.astronaut(), (2, 2, 1))[:height, :width])


def test_quality_falls_step_by_step_as_the_queue_grows() -> None:
    planner, budget = planner_with(max_queue_s=100)
    seen = []
    for wait_s in (0, 10, 30, 60, 80, 500):
        budget.follow(UplinkLoad(wait_s * 1000, 0.0, True, 1000.0, 0.0))
        seen.append(planner.choose_form(Modality.IMAGE, 1e6))
    assert seen == [LOSSLESS, LOSSLESS, JPEG, CROP, FEATURES, FEATURES]


def test_an_image_larger_than_the_budget_is_sent_in_a_smaller_form() -> None:
    planner, _ = planner_with(max_bytes_per_s=10_000, burst_s=10)
    assert planner.choose_form(Modality.IMAGE, 10_000) == LOSSLESS
    assert planner.choose_form(Modality.IMAGE, 200_000) == JPEG
    assert planner.choose_form(Modality.IMAGE, 1_000_000) == CROP


def test_a_steady_stream_uses_the_whole_budget_at_less_quality() -> None:
    clock = Clock()
    planner, budget = planner_with(clock, max_bytes_per_s=30_000, burst_s=10)
    weights = {LOSSLESS: 1.0, JPEG: 0.2, CROP: 0.05, FEATURES: 0.01}
    sent, left_behind = dict.fromkeys(weights, 0), 0
    for _ in range(2000):  # 100 kB a second as they are, 20 kB as JPEG
        clock.now += 1.0
        form = planner.choose_form(Modality.IMAGE, 100_000)
        if budget.grant(np.array([100_000 * weights[form]])).others:
            sent[form] += 1
        else:
            left_behind += 1
    assert left_behind == 0
    assert sent[JPEG] > 1000
    used = sum(count * 100_000 * weights[form] for form, count in sent.items())
    assert used == pytest.approx(30_000 * 2000, rel=0.1)


def test_a_limit_that_ends_while_a_plan_is_made_leaves_the_samples_unlimited() -> None:
    class FallingBudget(UploadBudget):
        def available_bytes(self) -> float:
            self.follow(UplinkLoad(0, 0.0, True, 0.0, 0.0))  # as the thread of the uplink does
            return super().available_bytes()

    settings = RouterSettings(max_queue_s=1)
    budget = FallingBudget(settings, Clock())
    budget.follow(UplinkLoad(10**6, 0.0, True, 1000.0, 0.0))
    assert budget.counts_bytes
    batch = SampleBatch("s", Modality.TABULAR, np.zeros((1, 3), dtype=np.float32), np.zeros(1), ["s:1"])
    plan = UploadPlanner(settings, budget).plan(batch, np.array([0]), np.array([0]))
    assert not budget.counts_bytes
    assert plan.form.settings.max_bytes == 0


def test_lossless_alone_stays_lossless() -> None:
    planner, budget = planner_with(payloads=["lossless"], max_bytes_per_s=10, max_queue_s=1)
    budget.follow(UplinkLoad(10**9, 1.0, True, 10.0, 0.0))
    assert planner.choose_form(Modality.IMAGE, 1e9) == LOSSLESS


def test_rows_and_windows_are_always_lossless() -> None:
    planner, budget = planner_with()
    budget.follow(UplinkLoad(10**12, 1.0, True, 1.0, 0.0))
    assert planner.choose_form(Modality.SERIES, 1e9) == LOSSLESS
    assert planner.choose_form(Modality.TABULAR, 1e9) == LOSSLESS


@pytest.mark.parametrize("wrong", [["jpeg", "lossless"], ["jpeg", "jpeg"], [], ["webp"]])
def test_payloads_out_of_order_are_refused(wrong: list[str]) -> None:
    with pytest.raises(ValueError, match="payloads"):
        RouterSettings.model_validate({"payloads": wrong})


def test_each_form_is_smaller_than_the_one_before() -> None:
    pixels, hot = photograph(), np.zeros((80, 100), np.uint8)
    hot[40:44, 50:54] = 255
    sizes = []
    for form in (JPEG, CROP, FEATURES):
        content = reduced(form, pixels, None, hot)
        values, encoded = content.values, content.encoded
        assert encoded is not None
        assert decode_image(encoded).shape == values.shape
        assert (content.crop is None) == (form == JPEG)
        sizes.append(len(encoded))
    assert pixels.nbytes > 4 * sizes[0]
    assert sizes[0] > 2 * sizes[1] > 4 * sizes[2]
    assert max(values.shape[:2]) == PREVIEW_SIDE_PIXELS


def test_a_source_file_smaller_than_a_new_jpeg_is_kept() -> None:
    pixels = photograph(200, 200)
    small = encode_jpeg(pixels, 30)
    assert reduced(JPEG, pixels, small, quality=95).encoded == small


def test_an_image_without_hot_cells_is_not_cropped() -> None:
    content = reduced(CROP, photograph(), None, np.zeros((80, 100), np.uint8))
    assert content.crop is None
    assert content.values.shape == (640, 800, 3)


def test_an_image_too_long_for_jpeg_is_sent_unchanged() -> None:
    long = np.zeros((8, 70_000, 1), np.uint8)
    content = reduced(JPEG, long, b"the file")
    assert np.shares_memory(content.values, long)
    assert content.encoded == b"the file"
    assert content.crop is None


@pytest.mark.parametrize(("allowed", "expected"), [(["lossless", "features"], LOSSLESS), (["jpeg", "crop"], JPEG)])
def test_the_form_of_an_audit_shows_the_whole_image(allowed: list[str], expected: PayloadForm) -> None:
    planner, _ = planner_with(payloads=allowed)
    forms = planner.allowed_forms(Modality.IMAGE)
    assert complete_form(forms, CROP) is complete_form(forms, FEATURES) is expected
    assert complete_form(forms, JPEG) is JPEG


def test_without_a_map_the_crop_is_the_whole_image_as_jpeg() -> None:
    content = reduced(CROP, photograph())
    assert content.crop is None
    assert content.encoded is not None
    assert content.values.shape == (640, 800, 3)


sides = st.integers(4, 90).map(lambda blocks: 16 * blocks)


@given(st.tuples(sides, sides), st.sampled_from([8, 16, 32]), st.floats(0.25, 3.0), st.integers(0, 2**32 - 1))
def test_the_crop_contains_the_hottest_cell_and_its_context(
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


def test_without_pressure_or_limit_the_first_allowed_form_is_sent() -> None:
    planner, _ = planner_with(payloads=["jpeg", "crop"])
    pixels = [photograph(64, 64)]
    batch = SampleBatch("plant", Modality.IMAGE, pixels, np.zeros(1), ["a.png"])
    plan = planner.plan(batch, np.zeros(1, np.intp), np.zeros(1, np.intp))
    assert plan.form.usual is JPEG
    assert not plan.is_priced


def test_a_priced_plan_has_the_size_of_each_sample_as_delivered() -> None:
    planner, _ = planner_with(max_bytes_per_s=10_000)
    files = [b"x" * 100, b"x" * 300, b"x" * 200]
    batch = SampleBatch("plant", Modality.IMAGE, [photograph(8, 8)] * 3, np.zeros(3), ["a", "b", "c"], encoded=files)
    plan = planner.plan(batch, np.array([0, 2]), np.array([1]))
    assert plan.form.usual is LOSSLESS
    assert plan.source_bytes.tolist() == [100, 200]
    assert plan.cost_bytes.tolist() == [planner.envelope_bytes + 200]
