"""Tests of complete training runs on small real data and of their bundles."""

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load

from cloud.methods import ANALYZERS
from cloud.serving.analysis import Analysis
from cloud.training import TrainingSettings, load_training_data, rebuild_bundle, train_bundle
from cloud.training.choices import checked_methods
from cloud.training.head import hidden_widths
from cloud.training.modalities import TRAINING_MODALITIES
from cloud.training.modalities.base import TrainingVectors
from shared.bundle import (
    CLOUD_FOLDER,
    EXAMPLES_FILE,
    FP32_ONNXRUNTIME,
    HEAD_FILE,
    INT8_ONNXRUNTIME,
    INT8_OPENVINO,
    REFERENCE_FILE,
    Bundle,
)
from shared.calibration import Calibration
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.engines import Engine, EngineConfiguration, load_engine, open_graph, run_graph
from shared.errors import BundleMismatchError, DataError, EngineError, ParityError, SettingsError
from shared.images import decode_image
from shared.modalities import load_preprocessor, preprocessing_id
from shared.modality import Modality

MODALITIES = ("tabular", "series", "image")


@pytest.fixture(params=MODALITIES)
def trained(request: pytest.FixtureRequest):
    return request.getfixturevalue(request.param)


def engine(bundle: Bundle, name: str) -> Engine:
    return load_engine(bundle, name, EngineConfiguration())


def example_inputs(bundle: Bundle, count: int) -> np.ndarray:
    """Return `count` inputs of the engine from the reference inputs."""
    if bundle.manifest.modality is Modality.IMAGE:
        spec = bundle.manifest.input
        return np.random.default_rng(0).integers(0, 256, (count, spec.image_height, spec.image_width, 3), np.uint8)
    return bundle.arrays(REFERENCE_FILE)["held_out"][:count]


def test_the_bundle_opens_verified_and_loads_for_analysis(trained) -> None:
    bundle = Bundle.open(trained.bundle.archive(), [trained.key.public_key()])
    assert tuple(Analysis.load(bundle, "cpu").analyzers) == ("knn",)
    Bundle.open(trained.bundle.archive(edge_only=True), [trained.key.public_key()], edge_only=True)
    assert load_preprocessor(bundle).spec == bundle.manifest.input


def test_every_artefact_passed_the_parity_gate_and_finds_the_anomalies(trained) -> None:
    manifest = trained.bundle.manifest
    assert set(manifest.parity) == {FP32_ONNXRUNTIME, INT8_OPENVINO, INT8_ONNXRUNTIME}
    for name, figures in manifest.parity.items():
        assert figures.rank_correlation >= manifest.tolerances["rank_correlation"]
        assert manifest.training["auroc"][name] > 0.85
    assert set(manifest.training["float_layers"]) == {INT8_OPENVINO, INT8_ONNXRUNTIME}
    for in_float in manifest.training["float_layers"].values():
        assert 2 <= len(set(in_float)) < manifest.training["layers"]
    assert manifest.training["auroc"]["fused"] > 0.85


def test_each_artefact_is_calibrated_on_its_own_scores(trained) -> None:
    bundle = trained.bundle
    identities = set()
    for artefact in bundle.manifest.artefacts:
        calibration = Calibration.from_arrays(bundle.arrays(artefact.calibration))
        assert calibration.calibration_id == artefact.calibration_id
        identities.add(artefact.calibration_id)
        if bundle.manifest.modality is not Modality.IMAGE:
            held_out = bundle.arrays(REFERENCE_FILE)["held_out"]
            scores = np.sort(run_graph(engine(bundle, artefact.name), held_out).scores)
            np.testing.assert_array_equal(scores, calibration.scores)
    assert len(identities) == 3


def test_scores_do_not_depend_on_the_batch(trained) -> None:
    inputs = example_inputs(trained.bundle, 7)
    for artefact in trained.bundle.manifest.artefacts:
        loaded = engine(trained.bundle, artefact.name)
        alone = np.concatenate([run_graph(loaded, inputs[index : index + 1]).scores for index in range(7)])
        np.testing.assert_allclose(run_graph(loaded, inputs).scores, alone, atol=1e-4)


def test_int8_graphs_compute_in_int8(trained) -> None:
    bundle = trained.bundle
    qdq = onnx.load_from_string(bundle.read(bundle.manifest.artefact(INT8_ONNXRUNTIME).graph))
    assert sum(node.op_type == "QuantizeLinear" for node in qdq.graph.node) >= 2
    assert b"FakeQuantize" in bundle.read(bundle.manifest.artefact(INT8_OPENVINO).graph)


def test_a_bundle_of_images_holds_pictures_for_people_that_no_device_gets(image) -> None:
    assert len(image.bundle.arrays(EXAMPLES_FILE)) == 8
    assert all(
        decode_image(data.tobytes()).shape == (64, 64, 3) for data in image.bundle.arrays(EXAMPLES_FILE).values()
    )
    assert EXAMPLES_FILE.startswith(CLOUD_FOLDER)
    assert len(image.bundle.archive(edge_only=True)) < len(image.bundle.archive())


def test_image_graphs_take_pixels_and_give_maps(image) -> None:
    inputs = example_inputs(image.bundle, 3)
    for artefact in image.bundle.manifest.artefacts:
        maps = run_graph(engine(image.bundle, artefact.name), inputs).maps
        assert maps is not None
        assert maps.shape == (3, 8, 8)
        low, high = image.bundle.arrays(artefact.calibration)["map_range"]
        assert low < high
        assert image.bundle.manifest.preferred_artefact == INT8_OPENVINO


def test_progress_covers_the_run_and_reaches_the_end(trained) -> None:
    assert all(0 <= share <= 1 for _, share in trained.stages)
    stages = [stage for stage, _ in trained.stages]
    assert stages[0] == "reading"
    assert stages[-1] == "signing"


def test_equal_data_and_seed_give_an_equal_screener(biopsy_file: Path, tabular) -> None:
    settings = TrainingSettings.model_validate(tabular.bundle.manifest.training["settings"])
    again = train_bundle(load_training_data(biopsy_file, Modality.TABULAR), settings, tabular.key)
    first, second = load(tabular.bundle.read(HEAD_FILE)), load(again.read(HEAD_FILE))
    for name, weights in first.items():
        np.testing.assert_allclose(weights, second[name], rtol=1e-4, atol=1e-5)


def test_the_manifest_contains_nothing_about_the_machine(tabular, biopsy_file: Path) -> None:
    text = tabular.bundle.manifest.to_bytes().decode()
    assert str(biopsy_file.parent) not in text
    json.loads(text)


def test_a_new_head_gives_a_new_bundle_with_its_own_calibration(tabular) -> None:
    old = tabular.bundle
    head = {name: weights * np.float32(1.02) for name, weights in load(old.read(HEAD_FILE)).items()}
    new = rebuild_bundle(old, head, signing_key=tabular.key, version=2, training_note={"round": 1})
    opened = Bundle.open(new.archive(), [tabular.key.public_key()])
    assert opened.manifest.parent_bundle_id == old.manifest.bundle_id
    assert opened.manifest.version == 2
    assert opened.manifest.training["round"] == 1
    assert set(old.manifest.training["auroc"]) >= {FP32_ONNXRUNTIME, "knn"}
    assert set(opened.manifest.training["auroc"]) == set(old.manifest.training["auroc"]) - set(opened.manifest.parity)
    assert "head_loss" not in opened.manifest.training
    assert preprocessing_id(opened.manifest) == preprocessing_id(old.manifest)
    assert (
        opened.manifest.artefact(FP32_ONNXRUNTIME).calibration_id
        != old.manifest.artefact(FP32_ONNXRUNTIME).calibration_id
    )
    np.testing.assert_array_equal(load(opened.read(HEAD_FILE))["layers.0.weight"], head["layers.0.weight"])


def test_an_unusable_head_is_refused(tabular, image) -> None:
    head = load(tabular.bundle.read(HEAD_FILE))
    kept = {"signing_key": tabular.key, "version": 2, "training_note": {}}
    with pytest.raises(BundleMismatchError, match="NaN"):
        rebuild_bundle(tabular.bundle, {**head, "layers.0.bias": head["layers.0.bias"] * np.nan}, **kept)
    with pytest.raises(BundleMismatchError, match="cannot be used"):
        rebuild_bundle(tabular.bundle, {"layers.0.weight": head["layers.0.weight"]}, **kept)
    narrow = {**head, "layers.0.weight": head["layers.0.weight"][:, :7].copy()}
    with pytest.raises(BundleMismatchError, match="takes 7 inputs"):
        rebuild_bundle(tabular.bundle, narrow, **kept)
    with pytest.raises(BundleMismatchError, match="tabular or"):
        rebuild_bundle(image.bundle, head, **kept)


def test_the_parity_gate_stops_a_run_with_disagreeing_artefacts(biopsy_file: Path, tabular) -> None:
    settings = TrainingSettings.model_validate(tabular.bundle.manifest.training["settings"])
    strict = settings.model_copy(
        update={
            "tolerances": settings.tolerances.model_copy(update={"rank_correlation": 1.0}),
            "hidden": (32, 32, 32),  # deep enough that some layers stay in INT8
        }
    )
    with pytest.raises(ParityError, match="rank correlation"):
        train_bundle(load_training_data(biopsy_file, Modality.TABULAR), strict, tabular.key)


def test_too_little_data_and_unknown_analyzers_are_refused(tmp_path: Path, tabular, biopsy_file: Path) -> None:
    np.savez(tmp_path / "few.npz", X=np.random.default_rng(0).normal(size=(30, 3)))
    with pytest.raises(DataError, match=r"30 normal rows, and at least 40"):
        train_bundle(load_training_data(tmp_path / "few.npz", Modality.TABULAR), TrainingSettings(), tabular.key)
    unknown = TrainingSettings(analyzers=("knnn",))
    with pytest.raises(SettingsError, match="knn"):
        train_bundle(load_training_data(biopsy_file, Modality.TABULAR), unknown, tabular.key)
    np.savez(tmp_path / "short.npz", train=np.random.default_rng(0).normal(size=60))
    settings = TrainingSettings().changed({"series": {"window_length": 50}})
    with pytest.raises(DataError, match="window-length"):
        train_bundle(load_training_data(tmp_path / "short.npz", Modality.SERIES), settings, tabular.key)


def test_an_unreadable_image_is_named(brick_folder: Path, tmp_path: Path, tabular) -> None:
    for path in sorted((brick_folder / "train" / "good").iterdir())[:50]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no image")
    with pytest.raises(DataError, match=r"broken\.png"):
        train_bundle(load_training_data(tmp_path, Modality.IMAGE), TrainingSettings(), tabular.key)


def test_engines_refuse_invalid_graphs_with_their_name() -> None:
    with pytest.raises(EngineError, match="ONNX Runtime"):
        open_graph("onnxruntime", b"no graph", None, EngineConfiguration())
    with pytest.raises(EngineError, match="OpenVINO"):
        open_graph("openvino", b"<net/>", b"", EngineConfiguration())


def test_reference_inputs_contain_no_pickle(tabular) -> None:
    with np.load(io.BytesIO(tabular.bundle.read(REFERENCE_FILE)), allow_pickle=False) as arrays:
        assert set(arrays.files) == {"held_out", "quantisation"}


@pytest.mark.parametrize(
    ("modality", "method"),
    [
        (modality, name)
        for modality, training in TRAINING_MODALITIES.items()
        for name, kind in ANALYZERS.items()
        if kind.needs & training.untaught
    ],
)
def test_a_method_without_a_teacher_cannot_be_fused(modality: Modality, method: str) -> None:
    for settings in (
        TrainingSettings(analyzers=(method,)),
        TrainingSettings(analyzers=("knn", method), fused=(method,)),
    ):
        with pytest.raises(SettingsError, match=method):
            checked_methods(settings, modality)
    beside = TrainingSettings(analyzers=("knn", method), fused=("knn",))
    assert checked_methods(beside, modality) == ("knn", method)


@pytest.mark.parametrize("dim", [2, 50, 204, 205, 400, 1555, 3110, 20_000])
def test_a_head_has_at_most_a_megabyte_for_any_number_of_columns(dim: int) -> None:
    widths = hidden_widths(dim, TrainingVectors.hidden)
    head = TimeEstimationHead(dim, widths)
    assert sum(parameter.numel() for parameter in head.parameters()) * 4 <= 1_000_000
    assert widths == (256, 384, 256) or dim >= 205
    assert min(widths) >= 8
