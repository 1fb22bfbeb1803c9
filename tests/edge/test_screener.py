"""p-values that mean what they say, on both engines; nothing that fails ever counts as normal."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.bundles.swap import TRIAL_BATCHES, ScreenerSlot
from edge.routing.packing import LOSSLESS, pack
from edge.routing.router import ALARM, FORWARD, ROUTES, Routing
from edge.screener import UNSCORED, Screener, load_screener
from shared.bundle import Bundle
from shared.calibration import MIN_P_VALUE
from shared.calibration_modes import CalibrationByMode
from shared.engines import EngineConfiguration, load_engine
from shared.engines.base import GraphOutput
from shared.engines.openvino import _OpenVinoPending
from shared.errors import BundleMismatchError, EngineError
from shared.modalities import load_preprocessor
from shared.modality import Modality
from shared.samples import Sample, SampleBatch, Screening
from shared.wire import check_payload, sample_to_message
from tests.edge.bundles import (
    distance_graph,
    mode_bundle,
    normal_images,
    normal_rows,
    normal_windows,
    openvino_files,
    rows_with_gaps,
    run_graph,
    tabular_bundle,
)
from vedette.v1 import sample_pb2

ENGINES = ("int8_openvino", "int8_onnxruntime")


def batch_of(values: np.ndarray, modality: Modality = Modality.TABULAR) -> SampleBatch:
    images = list(values) if modality is Modality.IMAGE else values.astype(np.float32)
    origins = [f"r:{n}" for n in range(len(values))]
    return SampleBatch("plant", modality, images, np.full(len(values), 1.7e9), origins)


@pytest.fixture(params=ENGINES)
def screener(request: pytest.FixtureRequest, tabular: Bundle, tmp_path: Path) -> Screener:
    return load_screener(tabular, request.param, 64, tmp_path)


def test_p_values_are_uniform_on_normals_and_small_on_others(screener: Screener) -> None:
    normal = screener.screen(batch_of(normal_rows(4000, seed=7)))
    assert np.quantile(normal.p_values, [0.05, 0.5, 0.95]) == pytest.approx([0.05, 0.5, 0.95], abs=0.05)
    odd = screener.screen(batch_of(normal_rows(100, seed=8) + np.array([12.0, 6.0, 120.0])))
    assert odd.p_values.max() < 0.01
    assert odd.extrapolated.any()


def test_a_score_does_not_depend_on_the_batch(screener: Screener) -> None:
    rows = normal_rows(100, seed=9)
    together = screener.screen(batch_of(rows)).scores
    alone = [screener.screen(batch_of(rows[n : n + 1])).scores[0] for n in range(0, 100, 9)]
    np.testing.assert_allclose(together[::9], alone, rtol=1e-5)


def test_bad_samples_are_rejected_with_their_position_and_the_rest_is_screened(screener: Screener) -> None:
    rows = normal_rows(10)
    rows[3, 1], rows[7, 0] = np.nan, np.inf
    screened = screener.screen(batch_of(rows))
    assert screened.kept.tolist() == [0, 1, 2, 4, 5, 6, 8, 9]
    assert [position for position, _ in screened.rejections] == [3, 7]
    nothing = screener.screen(batch_of(np.full((2, 3), np.nan)))
    assert len(nothing.kept) == 0
    assert len(nothing.rejections) == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_batch_of_nothing_but_bad_windows_is_rejected_and_the_next_is_screened(
    engine: str, series: Bundle, tmp_path: Path
) -> None:
    screener = load_screener(series, engine, 16, tmp_path)
    windows = normal_windows(4)
    windows[0, 3, 1] = np.nan
    one = screener.screen(batch_of(windows[:1], Modality.SERIES))
    assert (len(one.kept), len(one.scores), len(one.rejections)) == (0, 0, 1)
    assert screener.screen(batch_of(windows, Modality.SERIES)).kept.tolist() == [1, 2, 3]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_score_that_is_no_number_is_the_most_suspicious(
    signing_key: Ed25519PrivateKey, tmp_path: Path, engine: str
) -> None:
    bundle = tabular_bundle(signing_key, graph=distance_graph(3, gain=float("nan")))
    screened = load_screener(bundle, engine, 8, tmp_path).screen(batch_of(normal_rows(5)))
    assert (screened.p_values <= 1e-3).all()
    assert screened.unscored == 5
    assert (screened.scores == UNSCORED).all()


class FailingEngine:
    name, depth, input_shape = "failing", 2, (-1, 3)

    def start(self, inputs: np.ndarray) -> "FailingEngine":
        return self

    def result(self) -> GraphOutput:
        raise EngineError("out of order")


def test_an_engine_that_fails_makes_its_batch_most_suspicious(tabular: Bundle) -> None:
    screener = Screener(tabular, "int8_openvino", load_preprocessor(tabular), FailingEngine())
    screened = screener.screen(batch_of(normal_rows(5)))
    assert screened.unscored == 5
    assert (screened.p_values < 0.01).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("batch_size", [1, 5, 64, 4099])  # the last in pieces, of which one is smaller
def test_engines_agree_with_the_graph_whatever_is_under_way(
    tabular: Bundle, tmp_path: Path, engine: str, batch_size: int
) -> None:
    loaded = load_engine(tabular, engine, EngineConfiguration(tmp_path))
    assert loaded.input_shape == (-1, 3)
    inputs = [np.random.default_rng(n).normal(size=(batch_size, 3)).astype(np.float32) for n in range(5)]
    graph = tabular.read("edge/screener_int8_onnxruntime.onnx")
    under_way = []
    results = []
    for one in inputs:
        under_way.append(loaded.start(one))
        if len(under_way) == loaded.depth:
            results.append(under_way.pop(0).result().scores)
    results += [pending.result().scores for pending in under_way]
    for one, scores in zip(inputs, results, strict=True):
        np.testing.assert_allclose(scores, run_graph(graph, one)["score"], rtol=1e-5)
    empty_after = loaded.start(inputs[0][:1]).result()
    assert empty_after.scores.shape == (1,)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_graph_that_is_none_or_no_screener_is_one_clear_error(
    tabular: Bundle, tmp_path: Path, engine: str, signing_key: Ed25519PrivateKey
) -> None:
    broken = dataclasses.replace(tabular, files=dict.fromkeys(tabular.files, b"nothing"))
    with pytest.raises(EngineError, match="refuses the graph"):
        load_engine(broken, engine, EngineConfiguration(tmp_path))
    graph = distance_graph(3)
    graph.graph.output[0].name = graph.graph.node[-1].output[0] = "loss"
    xml, weights = openvino_files(graph.SerializeToString())
    files = dict(tabular.files)
    files["edge/screener_int8_openvino.xml"], files["edge/screener_int8_openvino.bin"] = xml, weights
    files["edge/screener_int8_onnxruntime.onnx"] = graph.SerializeToString()
    with pytest.raises(EngineError, match="no output 'score'"):
        load_engine(dataclasses.replace(tabular, files=files), engine, EngineConfiguration(tmp_path))
    with pytest.raises(BundleMismatchError, match="has no artefact 'fp8'"):
        load_screener(tabular, "fp8", 8, tmp_path)


def test_windows_and_images_are_screened_with_maps_that_are_dark_where_all_is_well(
    series: Bundle, images: Bundle, tmp_path: Path
) -> None:
    windows = load_screener(series, "auto", 16, tmp_path).screen(batch_of(normal_windows(50, seed=4), Modality.SERIES))
    assert windows.p_values.mean() == pytest.approx(0.5, abs=0.15)
    pictures = normal_images(10, seed=4)
    pictures[4, :16, :16] = 255
    screener = load_screener(images, "auto", 8, tmp_path)
    screened = screener.screen(batch_of(pictures, Modality.IMAGE))
    assert screened.maps is not None
    assert int(np.argmin(screened.p_values)) == 4
    scaled = screener.scaled_map(screened.maps[4])
    assert scaled.dtype == np.uint8
    assert scaled[:2, :2].min() == 255
    assert np.median(scaled[2:]) < 100


@pytest.mark.parametrize("kind", ["rows", "windows that shrink", "windows that do not", "first window shrinks"])
def test_packed_messages_equal_those_of_the_wire_module(kind: str, tabular: Bundle, tmp_path: Path) -> None:
    screener = load_screener(tabular, "auto", 16, tmp_path)
    batch = batch_of(normal_rows(12, seed=2))
    batch.origins[5] = "Zählwerk:5"  # type: ignore[index]
    batch.captured_at_s[9] += 1.5
    screened = screener.screen(batch)
    if kind != "rows":  # the samples do not matter here
        values = np.random.default_rng(0).normal(size=(12, 100, 3)).astype(np.float32)
        shrinking = {"windows that shrink": 12, "first window shrinks": 1}.get(kind, 0)
        values[:shrinking] = np.round(values[:shrinking])
        batch = dataclasses.replace(batch, modality=Modality.SERIES, values=values)
    codes = np.where(np.arange(12) % 2, FORWARD, ALARM).astype(np.int8)
    priorities = np.linspace(0.1, 0.2, 12)
    routing = Routing(codes, np.arange(12) != 3, np.zeros(12, dtype=bool), priorities)
    packed = pack(batch, screened, routing, screener, LOSSLESS)
    assert sorted(packed.sample_ids) == [n for n in range(12) if n != 3]
    for place, stored in zip(packed.sample_ids, packed.samples, strict=True):
        sample = Sample(
            packed.sample_ids[place],
            "plant",
            batch.modality,
            float(batch.captured_at_s[place]),
            batch.origins[place],
            batch.values[place],
        )
        screening = Screening(
            float(screened.scores[place]),
            float(screened.p_values[place]),
            bool(screened.extrapolated[place]),
            ROUTES[codes[place]],
            screener.bundle_id,
            screener.calibration_id,
            screener.artefact,
        )
        assert stored.data == sample_to_message(sample, screening).SerializeToString()
        assert stored.priority == priorities[place]
        check_payload(sample_pb2.Sample.FromString(stored.data).payload, batch.modality)


def test_a_swap_happens_between_batches_and_is_final_after_its_trial(
    tabular: Bundle, signing_key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    first = load_screener(tabular, "auto", 8, tmp_path)
    second = load_screener(tabular_bundle(signing_key, version=2), "auto", 8, tmp_path)
    slot, batch = ScreenerSlot(first), batch_of(normal_rows(8))
    swap = slot.offer(second)
    assert slot.current is first
    slot.take_over()
    for _ in range(TRIAL_BATCHES):
        assert swap.outcome is None
        assert slot.result(batch, slot.current.start(batch))[0] is second
    assert swap.outcome is True


def test_a_screener_that_gives_no_scores_is_taken_back_with_its_batches(
    tabular: Bundle, signing_key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    first = load_screener(tabular, "auto", 8, tmp_path)
    bundle = tabular_bundle(signing_key, version=2, graph=distance_graph(3, gain=float("nan")))
    broken = load_screener(bundle, "auto", 8, tmp_path)
    slot, batch = ScreenerSlot(first), batch_of(normal_rows(8))
    swap = slot.offer(broken)
    slot.take_over()
    under_way = [slot.current.start(batch) for _ in range(2)]
    for pending in under_way:
        screener, screened = slot.result(batch, pending)
        assert screener is first
        assert screened.unscored == 0
    assert swap.wait(1.0, threading.Event().is_set) is False
    with pytest.raises(BundleMismatchError, match="rolled back"):
        slot.offer(broken)


def test_without_a_tail_a_score_that_is_no_number_is_still_the_most_suspicious(tabular: Bundle) -> None:
    screener = Screener(tabular, "int8_openvino", load_preprocessor(tabular), FailingEngine())
    screener._calibration = CalibrationByMode.fit(np.full(20, 3.0))  # all equal: no p-value lies below 1 / 21
    assert (screener.screen(batch_of(normal_rows(5))).p_values == MIN_P_VALUE).all()


class FakeRequest:
    def __init__(self, error: bool) -> None:
        self.error, self.waited = error, False

    def wait(self) -> None:
        self.waited = True
        if self.error:
            raise RuntimeError("out of order")


def test_no_request_is_left_reading_the_inputs_of_a_batch_that_failed() -> None:
    requests = [FakeRequest(True), FakeRequest(False), FakeRequest(True)]
    pending = _OpenVinoPending(requests, [np.zeros((3, 2))], 3, {"score": 0}, [])
    with pytest.raises(EngineError, match="out of order"):
        pending.result()
    assert all(request.waited for request in requests)


def test_when_the_source_has_ended_a_trial_is_passed_and_an_offer_taken_at_once(
    tabular: Bundle, signing_key: Ed25519PrivateKey, tmp_path: Path
) -> None:
    first, second, third = (
        load_screener(tabular_bundle(signing_key, version=version), "auto", 8, tmp_path) for version in (1, 2, 3)
    )
    slot = ScreenerSlot(first)
    on_trial = slot.offer(second)
    slot.take_over()
    slot.finish()
    assert on_trial.outcome is True
    assert slot.offer(third).outcome is True
    assert slot.current is third
    assert not slot.has_offer


@pytest.mark.parametrize("engine", ENGINES)
def test_each_mode_is_judged_by_its_own_calibration(
    signing_key: Ed25519PrivateKey, tmp_path: Path, engine: str
) -> None:
    screener = load_screener(mode_bundle(signing_key), engine, 64, tmp_path)
    rows = rows_with_gaps(4000, seed=7)
    screened = screener.screen(batch_of(rows))
    assert len(screened.kept) == len(rows)
    for mode in (0, 1):
        p = screened.p_values[rows[:, -1] == mode]
        assert (p <= 0.1).mean() == pytest.approx(0.1, abs=0.07)


@pytest.mark.parametrize("mode", [5.0, 0.5, np.nan])
def test_a_sample_of_an_unknown_mode_is_as_suspicious_as_in_the_strictest_one(
    signing_key: Ed25519PrivateKey, tmp_path: Path, mode: float
) -> None:
    bundle = mode_bundle(signing_key)
    screener, preprocessor = load_screener(bundle, "int8_onnxruntime", 64, tmp_path), load_preprocessor(bundle)
    rows, scores = rows_with_gaps(200, seed=8), np.linspace(2.0, 40.0, 200, dtype=np.float32)

    def p_values(in_mode: float) -> np.ndarray:
        prepared = preprocessor.prepare(np.column_stack([rows[:, :3], np.full(200, in_mode)]))
        return screener.judge(prepared, scores, None).p_values

    quiet, wide, rare = p_values(0.0), p_values(1.0), p_values(2.0)
    assert (quiet <= wide).all()
    assert quiet[60] < wide[60]
    strictest = np.minimum(quiet, wide)
    np.testing.assert_array_equal(p_values(mode), strictest)
    np.testing.assert_array_equal(rare, strictest)  # known, but with too few held-out rows for a rate of its own
