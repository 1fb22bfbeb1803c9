"""Tests of fitting an analysis, storing it in a signed bundle, loading it and judging, for each modality."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from safetensors.torch import load

from cloud.methods import BASELINES, Analyzer, fit_context
from cloud.methods.encoders import encoder_bytes, load_encoder
from cloud.modalities import cloud_modality
from cloud.serving.analysis import Analysis
from cloud.serving.device import pick_device
from cloud.serving.precision import MAX_P_FACTOR
from cloud.training.analysis import AnalysisOptions, fit_analysis
from cloud.training.encoders import fit_image_encoder
from cloud.training.teachers import patch_teacher
from shared.bundle import ENCODER_FILE, REFERENCE_FILE, Artefact, Bundle, InputSpec, Manifest, npz_bytes, sign
from shared.diffusion.training import OptimizerSettings
from shared.errors import BundleError, DataError, SampleRejected, SettingsError
from shared.modalities import fit_preprocessor
from shared.modality import Modality
from shared.preprocessing import Preprocessor
from shared.samples import Verdict

CHANNELS = ("pressure", "flow", "temperature", "speed")


@pytest.fixture(scope="module", autouse=True)
def short_training() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_context, "TRAINING", OptimizerSettings(steps=200, batch_size=128))
        yield
    torch.set_num_threads(threads)


def make_bundle(preprocessor: Preprocessor, files: Mapping[str, bytes]) -> Bundle:
    artefact = Artefact(
        name="fp32_onnxruntime", engine="onnxruntime", precision="fp32", graph="", calibration="", calibration_id=""
    )
    manifest = Manifest(
        name="plant",
        version=1,
        created_at=datetime.now(UTC).isoformat(),
        modality=preprocessor.modality,
        input=preprocessor.spec,
        artefacts=(artefact,),
        preferred_artefact="fp32_onnxruntime",
        parity={},
        tolerances={},
        training={},
        files={},
    )
    return sign(manifest, files, Ed25519PrivateKey.generate())


def readings(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return normal rows in physical units, in which flow follows pressure."""
    rows = rng.standard_normal((count, 4))
    rows[:, 1] = 2 * rows[:, 0] + 0.1 * rng.standard_normal(count)
    return (rows * [10, 3, 0.1, 1000] + [100, 20, 1, 0]).astype(np.float32)


@dataclass(frozen=True)
class Plant:
    preprocessor: Preprocessor
    fitted: Analysis
    loaded: Analysis
    bundle: Bundle
    progress: list[float]


@pytest.fixture(scope="module")
def plant() -> Plant:
    rng = np.random.default_rng(0)
    train, held_out = readings(600, rng), readings(400, rng)
    preprocessor = fit_preprocessor(Modality.TABULAR, train, InputSpec(channels=CHANNELS))
    progress: list[float] = []
    options = AnalysisOptions(device="cpu")
    fitted = fit_analysis(preprocessor, None, train, held_out, options, progress.append).analysis
    bundle = make_bundle(preprocessor, {**preprocessor.files(), **fitted.files()})
    return Plant(preprocessor, fitted, Analysis.load(bundle, "cpu"), bundle, progress)


def judged(answers: list[Verdict | SampleRejected]) -> list[Verdict]:
    assert all(isinstance(answer, Verdict) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Verdict)]


def test_the_false_alarm_rate_of_normal_rows_is_the_configured_one(plant: Plant) -> None:
    answers = judged(plant.loaded.judge(list(readings(1500, np.random.default_rng(1)))))
    p = np.array([answer.p_value for answer in answers])
    assert (p <= 0.1).mean() == pytest.approx(0.1, abs=0.05)
    assert (p <= 0.01).mean() < 0.03


def test_the_refit_includes_the_held_out_samples(plant: Plant) -> None:
    rng = np.random.default_rng(0)
    train, held_out = readings(600, rng), readings(400, rng)
    prepared = plant.preprocessor.prepare(held_out).inputs
    reference = load(plant.bundle.read("cloud/analyzers/knn.safetensors"))["reference"].numpy()
    assert len(reference) == len(train) + len(held_out)
    assert {row.tobytes() for row in prepared} <= {row.tobytes() for row in reference}


def test_the_refit_can_be_switched_off() -> None:
    rng = np.random.default_rng(0)
    train, held_out = readings(60, rng), readings(50, rng)
    preprocessor = fit_preprocessor(Modality.TABULAR, train, InputSpec(channels=CHANNELS))
    options = AnalysisOptions(methods=("knn",), device="cpu", learn_held_out=False)
    analysis = fit_analysis(preprocessor, None, train, held_out, options).analysis
    assert len(load(analysis.files()["cloud/analyzers/knn.safetensors"])["reference"]) == len(train)


def test_an_anomaly_is_found_and_explained(plant: Plant) -> None:
    row = np.array([100.0, 20.0, 1.0, 8000.0], dtype=np.float32)
    (answer,) = judged(plant.loaded.judge([row]))
    assert answer.p_value < 0.005
    assert answer.extrapolated
    assert {opinion.analyzer for opinion in answer.opinions} == {
        *cloud_modality(Modality.TABULAR).default_methods,
        *BASELINES,
    }
    assert all(opinion.p_value < 0.05 for opinion in answer.opinions)
    shares = dict(answer.contributions)
    assert tuple(shares) == CHANNELS
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["speed"] > 0.5
    assert answer.anomaly_map is None


def test_a_row_in_which_nothing_deviates_has_no_contributions(plant: Plant) -> None:
    answers = judged(plant.loaded.judge(list(readings(100, np.random.default_rng(3)))))
    shares = [[share for _, share in answer.contributions] for answer in answers]
    assert any(shares)
    assert not all(shares)
    assert all(max(each) > 1 / len(CHANNELS) for each in shares if each)


def test_a_broken_dependence_of_usual_readings_is_found(plant: Plant) -> None:
    row = np.array([112.0, 13.0, 1.0, 0.0], dtype=np.float32)
    (answer,) = judged(plant.loaded.judge([row]))
    assert answer.p_value < 0.02


def test_a_bad_sample_is_rejected_without_affecting_others(plant: Plant) -> None:
    good = readings(1, np.random.default_rng(2))[0]
    answers = plant.loaded.judge([good, np.full(4, np.nan, np.float32), np.ones(3, np.float32), good])
    assert [type(answer) for answer in answers] == [Verdict, SampleRejected, SampleRejected, Verdict]
    assert answers[0] == answers[3]
    assert "NaN" in str(answers[1])
    assert plant.loaded.judge([]) == []


def test_huge_readings_are_judged_and_finite(plant: Plant) -> None:
    for answer in judged(plant.loaded.judge([np.full(4, value, np.float32) for value in (3e38, -3e38, 1e12)])):
        assert np.isfinite(answer.score)
        assert 0 < answer.p_value < 0.01
        assert sum(share for _, share in answer.contributions) == pytest.approx(1.0)


def test_a_loaded_analysis_gives_the_verdicts_of_the_fitted_one(plant: Plant) -> None:
    rows = readings(50, np.random.default_rng(3))
    before, after = plant.fitted.score(rows), plant.loaded.score(rows)
    assert set(before) == {*cloud_modality(Modality.TABULAR).default_methods, *BASELINES, "fused"}
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_scores_do_not_depend_on_the_batch_and_equal_those_of_verdicts(plant: Plant) -> None:
    rows = readings(30, np.random.default_rng(4))
    together = plant.loaded.score(rows)["fused"]
    alone = np.concatenate([plant.loaded.score(rows[index : index + 1])["fused"] for index in range(30)])
    assert np.allclose(together, alone, atol=1e-3)
    answers = judged(plant.loaded.judge(list(rows)))
    assert np.allclose([answer.score for answer in answers], together, atol=1e-3)
    assert np.allclose([answer.p_value for answer in answers], plant.loaded.p_values(together), rtol=0.05)


def test_progress_rises_to_the_end(plant: Plant) -> None:
    assert plant.progress == sorted(plant.progress)
    assert plant.progress[-1] == 1.0


def test_an_empty_batch_gives_empty_scores(plant: Plant) -> None:
    scores = plant.loaded.score(np.zeros((0, 4), np.float32))
    assert all(len(values) == 0 for values in scores.values())


@pytest.mark.parametrize(
    "change",
    [
        {"cloud/analysis.json": b"{}"},
        {"cloud/analysis.json": b'{"analyzers": ["oracle"], "scales": {}}'},
        {"cloud/analysis.json": b'{"analyzers": [], "scales": {}}'},
        {"cloud/analyzers/time_estimation.safetensors": b"nothing"},
        {"cloud/fusion.npz": b"nothing"},
        {"cloud/fusion.npz": None},
    ],
)
def test_a_bundle_with_a_bad_cloud_part_is_refused_in_one_line(plant: Plant, change: dict[str, bytes | None]) -> None:
    files = {path: data for path, data in {**plant.bundle.files, **change}.items() if data is not None}
    with pytest.raises(BundleError) as refused:
        Analysis.load(make_bundle(plant.preprocessor, files), "cpu")
    assert "\n" not in str(refused.value)


def test_too_little_data_is_a_clear_error(plant: Plant) -> None:
    rows = readings(100, np.random.default_rng(5))
    options = AnalysisOptions(methods=("knn",))
    with pytest.raises(DataError, match="at least 2 normal"):
        fit_analysis(plant.preprocessor, None, rows[:1], rows, options)
    with pytest.raises(DataError, match="at least 20 held-out"):
        fit_analysis(plant.preprocessor, None, rows, rows[:5], options)


def test_an_unusable_device_is_a_clear_error() -> None:
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(SettingsError, match='set "auto" or "cpu"'):
        pick_device("gpu7")


def waves(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return windows (count, 24, 2): a sine of random phase and its cosine in other units."""
    phase = rng.uniform(0, 2 * np.pi, (count, 1))
    angle = phase + 2 * np.pi * np.arange(24) / 12
    windows = np.stack([80 + 20 * np.sin(angle), 0.5 * np.cos(angle)], axis=2)
    return (windows + rng.standard_normal(windows.shape) * [2.0, 0.05]).astype(np.float32)


def test_series_get_a_map_that_locates_the_anomaly() -> None:
    rng = np.random.default_rng(6)
    spec = InputSpec(channels=("arterial", "flow"), window_length=24, window_stride=12)
    train = waves(500, rng)
    preprocessor = fit_preprocessor(Modality.SERIES, train, spec)
    fitted = fit_analysis(preprocessor, None, train, waves(300, rng), AnalysisOptions(device="cpu")).analysis
    analysis = Analysis.load(make_bundle(preprocessor, {**preprocessor.files(), **fitted.files()}), "cpu")

    normal = judged(analysis.judge(list(waves(100, rng))))
    broken = waves(1, rng)[0]
    broken[9:15, 0] += 60.0
    (answer,) = judged(analysis.judge([broken]))
    assert answer.p_value < 0.02
    assert answer.anomaly_map is not None
    assert answer.anomaly_map.shape == (24, 2)
    assert answer.anomaly_map.dtype == np.uint8
    assert answer.anomaly_map[9:15, 0].mean() > 1.5 * answer.anomaly_map[:, 1].mean()
    assert dict(answer.contributions)["arterial"] > 0.6
    assert np.mean([one.anomaly_map for one in normal if one.anomaly_map is not None]) < 96


def textures(count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return images (count, 64, 64, 3) of a striped surface."""
    rows = np.arange(64)[:, np.newaxis]
    stripes = 128 + 60 * np.sin(rows / 3 + rng.uniform(0, 6, (count, 1, 1)))
    images = stripes[..., np.newaxis] + rng.normal(0, 8, (count, 64, 64, 3))
    return images.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def surface() -> Bundle:
    """Return a bundle with an analysis fitted on `textures`."""
    rng = np.random.default_rng(7)
    train = textures(60, rng)
    spec = InputSpec(image_height=64, image_width=64)
    preprocessor = fit_preprocessor(Modality.IMAGE, list(train), spec)
    generator = torch.Generator().manual_seed(0)
    encoder, _ = fit_image_encoder(train, generator=generator, dim=16)
    options = AnalysisOptions(device="cpu", effort=0.2)
    fitted = fit_analysis(preprocessor, encoder, train, textures(40, rng), options).analysis
    return make_bundle(preprocessor, {**preprocessor.files(), **fitted.files(), ENCODER_FILE: encoder_bytes(encoder)})


def test_images_get_a_map_that_is_bright_at_the_defect_and_dark_elsewhere(surface: Bundle) -> None:
    rng = np.random.default_rng(8)
    analysis = Analysis.load(surface, "cpu")
    defective = textures(1, rng)[0]
    defective[16:32, 32:48] = 255
    answer, normal = judged(analysis.judge([defective, textures(1, rng)[0]]))
    assert answer.p_value < 0.05
    assert answer.anomaly_map is not None
    assert normal.anomaly_map is not None
    encoder = load_encoder(surface)
    assert encoder is not None
    rows, columns = encoder.grid
    assert answer.anomaly_map.shape == (rows, columns)
    inside = answer.anomaly_map[rows // 4 : rows // 2, columns // 2 : 3 * columns // 4]
    assert inside.mean() > 96
    assert normal.anomaly_map.mean() < 80
    assert answer.contributions == ()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("kind", ["rows", "images"])
def test_cuda_and_cpu_give_equal_verdicts(kind: str, plant: Plant, surface: Bundle) -> None:
    rng = np.random.default_rng(9)
    bundle, samples = (plant.bundle, list(readings(40, rng))) if kind == "rows" else (surface, list(textures(20, rng)))
    samples[0] = 2 * samples[0]
    ours, theirs = (judged(Analysis.load(bundle, device).judge(samples)) for device in ("cpu", "cuda"))
    assert [one.p_value for one in theirs] == pytest.approx([one.p_value for one in ours], rel=0.02)
    assert [one.score for one in theirs] == pytest.approx([one.score for one in ours], rel=1e-3, abs=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize(("precision", "compiled"), [("auto", False), ("fp32", True), ("auto", True)])
def test_short_precision_and_compiled_denoisers_give_close_verdicts_on_cuda(
    precision: Literal["auto", "fp32"], compiled: bool, plant: Plant
) -> None:
    samples = list(readings(40, np.random.default_rng(9)))
    analysis = Analysis.load(with_reference(plant), "cuda", precision=precision, compiled=compiled)
    ours, theirs = judged(plant.loaded.judge(samples)), judged(analysis.judge(samples))
    assert analysis.precision.in_bfloat16 == (precision == "auto" and torch.cuda.is_bf16_supported())
    assert [one.p_value for one in theirs] == pytest.approx([one.p_value for one in ours], rel=0.3)


def with_reference(plant: Plant) -> Bundle:
    """Return the bundle with held-out samples, as training stores them."""
    held_out = plant.preprocessor.prepare(readings(300, np.random.default_rng(11))).inputs
    return make_bundle(plant.preprocessor, {**plant.bundle.files, REFERENCE_FILE: npz_bytes({"held_out": held_out})})


def test_bf16_is_used_where_the_p_values_of_the_reference_stay_the_same(plant: Plant) -> None:
    bundle = with_reference(plant)
    analysis = Analysis.load(bundle, "cpu", precision="bf16")
    choice = analysis.precision
    assert choice.in_bfloat16, choice
    assert choice.checked == 300
    assert choice.p_factor is not None
    assert 1.0 < choice.p_factor <= MAX_P_FACTOR
    rows = list(readings(60, np.random.default_rng(12)))
    short, full = judged(analysis.judge(rows)), judged(plant.loaded.judge(rows))
    assert [one.score for one in short] != [one.score for one in full]  # the networks did compute in bfloat16
    assert [one.p_value for one in short] == pytest.approx([one.p_value for one in full], rel=0.3)


def test_bf16_is_refused_with_the_figure_where_p_values_move(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cloud.serving.precision.MAX_P_FACTOR", 1.0)
    with caplog.at_level("WARNING", logger="vedette"):
        analysis = Analysis.load(with_reference(plant), "cpu", precision="bf16")
    assert not analysis.precision.in_bfloat16
    (record,) = [record for record in caplog.records if record.getMessage() == "precision"]
    facts = record.__dict__["fields"]
    assert facts["precision"] == "fp32"
    assert facts["p_factor"] == analysis.precision.p_factor
    assert "factor" in facts["reason"]
    rows = readings(20, np.random.default_rng(13))
    assert np.array_equal(analysis.score(rows)["fused"], plant.loaded.score(rows)["fused"])


def test_bf16_is_not_used_without_a_check_or_on_a_cpu_by_itself(plant: Plant) -> None:
    unchecked = Analysis.load(plant.bundle, "cpu", precision="bf16").precision
    assert (unchecked.in_bfloat16, unchecked.p_factor) == (False, None)
    assert "no reference" in unchecked.reason
    assert not Analysis.load(with_reference(plant), "cpu", precision="auto").precision.in_bfloat16


def test_denoisers_are_not_compiled_on_a_cpu(plant: Plant) -> None:
    analysis = Analysis.load(plant.bundle, "cpu", compiled=True)
    analyzer = analysis.analyzers["denoising_likelihood"]
    assert isinstance(analyzer, Analyzer)
    assert [denoiser.is_compiled for denoiser in analyzer.denoisers] == [False]


def test_the_teacher_of_a_patch_head_is_the_analyzers_of_patches() -> None:
    rng = np.random.default_rng(8)
    train = textures(60, rng)
    preprocessor = fit_preprocessor(Modality.IMAGE, list(train), InputSpec(image_height=64, image_width=64))
    generator = torch.Generator().manual_seed(0)
    encoder, patches = fit_image_encoder(train, generator=generator, dim=16)
    options = AnalysisOptions(methods=("knn", "local_corruption"), device="cpu", effort=0.1)
    analysis = fit_analysis(preprocessor, encoder, train, textures(40, rng), options).analysis
    normal, far = patches[:500].clone(), patches[:500] + 6.0
    teacher = patch_teacher(analysis)
    assert teacher is not None
    taught = teacher(torch.cat([normal, far]), torch.arange(1000))
    assert abs(float(taught[:500].mean())) < 1.0
    assert taught[500:].min() > taught[:500].quantile(0.99)
    head = analysis.corruption_head
    assert head is not None
    assert all(parameter.device.type == "cpu" for parameter in head.parameters())
