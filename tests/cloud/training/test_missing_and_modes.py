"""Tests of rows with gaps and operating modes, from the file to verdicts on the device and in the cloud."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cloud.evaluation.scoring import BundleScorer
from cloud.serving.analysis import Analysis
from cloud.training import TrainingSettings, load_training_data, rebuild_bundle
from cloud.training.data import TableData
from cloud.training.settings import DataSettings
from shared.bundle import HEAD_FILE, REFERENCE_FILE, Bundle
from shared.calibration_modes import CalibrationByMode
from shared.cli import main
from shared.engines import EngineConfiguration, load_engine, run_graph
from shared.errors import DataError, SampleRejected
from shared.modalities import load_preprocessor
from shared.modality import Modality
from shared.preprocessing import modes_of
from shared.samples import Verdict
from shared.signing_keys import public_pem
from tests.cloud.training.conftest import Trained, train
from tests.cloud.training.test_false_alarms import likely_counts

MODES = (0, 1, 2)


def segments() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return river's copy of the Statlog image segments: 2310 rows of 18 features, and the surface of each."""
    datasets = pytest.importorskip("river.datasets")
    samples = list(datasets.ImageSegments())
    rows = np.array([list(values.values()) for values, _ in samples], dtype=np.float64)
    kinds = np.unique([kind for _, kind in samples], return_inverse=True)[1]
    return rows[:, np.ptp(rows, axis=0) > 0], kinds


def plant(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return training rows and fresh rows with the surface as mode and 10 % of the values missing."""
    rows, kinds = segments()
    order = np.random.default_rng(seed).permutation(np.flatnonzero(kinds < len(MODES)))
    frame = pd.DataFrame(rows, columns=[f"s{index}" for index in range(rows.shape[1])]).iloc[order]
    gaps = np.random.default_rng(seed + 1).random(frame.shape) < 0.1
    frame = frame.mask(gaps).assign(mode=kinds[order])
    return frame.iloc[:-300], frame.iloc[-300:]


@pytest.fixture(scope="module")
def with_modes(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    path = tmp_path_factory.mktemp("plant") / "plant.csv"
    plant(0)[0].to_csv(path, index=False)
    data = {"missing": "allow", "mode_column": "mode", "held_out_share": 0.5}
    head = {"steps": 1000, "batch_size": 128, "perturbed": 30_000}
    return train(path, Modality.TABULAR, data=data, head=head, hidden=(96, 96), analyzers=("knn", "pca"))


def verdicts(bundle: Bundle, frame: pd.DataFrame) -> list[Verdict]:
    answers = Analysis.load(bundle, "cpu").judge(list(frame.to_numpy(dtype=np.float32)))
    assert not any(isinstance(answer, SampleRejected) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Verdict)]


def screened(bundle: Bundle, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return p-values (n,) of the INT8 graph on ONNX Runtime."""
    artefact = bundle.manifest.artefact("int8_onnxruntime")
    inputs = load_preprocessor(bundle).prepare(frame.to_numpy()).inputs
    scores = run_graph(load_engine(bundle, artefact.name, EngineConfiguration()), inputs).scores
    calibration = CalibrationByMode.from_arrays(bundle.arrays(artefact.calibration))
    assert calibration.calibration_id == artefact.calibration_id
    return calibration.p_values(scores, modes_of(inputs, bundle.manifest.input)).values


def test_the_manifest_lists_modes_and_allows_missing_values(with_modes: Trained) -> None:
    spec = with_modes.bundle.manifest.input
    assert spec.missing
    assert spec.mode_channel == "mode"
    assert spec.modes == MODES
    opened = Bundle.open(with_modes.bundle.archive(), [with_modes.key.public_key()])
    assert opened.manifest.input == spec
    values = len(spec.value_channels)
    assert with_modes.bundle.arrays(REFERENCE_FILE)["held_out"].shape[1] == 2 * values + len(MODES)


def test_normal_rows_with_gaps_keep_the_false_alarm_rate_in_every_mode(with_modes: Trained) -> None:
    fresh = plant(0)[1]
    cloud = np.array([answer.p_value for answer in verdicts(with_modes.bundle, fresh)])
    edge = screened(with_modes.bundle, fresh)
    held_out = modes_of(with_modes.bundle.arrays(REFERENCE_FILE)["held_out"], with_modes.bundle.manifest.input)
    assert held_out is not None
    for p, share in ((cloud, 2), (edge, 1)):  # the cloud calibrates members and fusion on one half each
        for index, mode in enumerate(MODES):
            of_mode = p[fresh["mode"] == mode]
            low, high = likely_counts(0.3, int((held_out == index).sum()) // share, len(of_mode))
            assert low <= (of_mode <= 0.3).sum() <= high
            assert (of_mode <= 0.3).mean() == pytest.approx(0.3, abs=0.2)


def test_readings_of_another_mode_are_anomalous(with_modes: Trained) -> None:
    fresh = plant(0)[1]
    swapped = fresh.assign(mode=(fresh["mode"] + 1) % len(MODES))
    assert np.median([answer.p_value for answer in verdicts(with_modes.bundle, swapped)]) < 0.25
    assert np.median(screened(with_modes.bundle, swapped)) < 0.25


def test_an_unknown_mode_is_judged_by_the_strictest_calibration(with_modes: Trained) -> None:
    fresh = plant(0)[1]
    unknown = screened(with_modes.bundle, fresh.assign(mode=77.0))
    assert np.median(unknown) < np.median(screened(with_modes.bundle, fresh))
    answers = verdicts(with_modes.bundle, fresh.assign(mode=np.nan))
    assert all(0 < answer.p_value <= 1 for answer in answers)


def test_missing_values_do_not_contribute_to_the_score(with_modes: Trained) -> None:
    fresh = plant(0)[1].iloc[:50]
    for answer, (_, row) in zip(verdicts(with_modes.bundle, fresh), fresh.iterrows(), strict=True):
        shares = dict(answer.contributions)
        assert "mode" not in shares
        if shares:
            assert sum(shares[name] for name in fresh.columns[:-1] if np.isnan(row[name])) == pytest.approx(0, abs=1e-9)


def test_a_row_without_values_is_rejected(with_modes: Trained) -> None:
    fresh = plant(0)[1].iloc[:3].copy()
    fresh.iloc[1, :-1] = np.nan
    answers = Analysis.load(with_modes.bundle, "cpu").judge(list(fresh.to_numpy(dtype=np.float32)))
    assert [isinstance(answer, SampleRejected) for answer in answers] == [False, True, False]
    assert "without any value" in str(answers[1])


def test_evaluation_supports_modes_and_gaps(with_modes: Trained) -> None:
    fresh = plant(0)[1]
    scored = BundleScorer(with_modes.bundle, "cpu").score([fresh.to_numpy()])
    method = scored.methods["screener_int8_onnxruntime"]
    assert method.p_values is not None
    np.testing.assert_allclose(method.p_values, screened(with_modes.bundle, fresh))


def test_a_new_head_is_calibrated_by_mode(with_modes: Trained) -> None:
    from safetensors.numpy import load

    head = load(with_modes.bundle.read(HEAD_FILE))
    new = rebuild_bundle(with_modes.bundle, head, signing_key=with_modes.key, version=2, training_note={})
    artefact = new.manifest.artefact("fp32_onnxruntime")
    assert set(CalibrationByMode.from_arrays(new.arrays(artefact.calibration)).by_mode) == set(MODES)


def load_data(frame: pd.DataFrame, folder: Path, **settings: object) -> TableData:
    frame.to_csv(folder / "rows.csv", index=False)
    data = load_training_data(folder / "rows.csv", Modality.TABULAR, DataSettings.model_validate(settings))
    assert isinstance(data, TableData)
    return data


def test_gaps_are_refused_unless_allowed(tmp_path: Path) -> None:
    frame = plant(0)[0]
    with pytest.raises(DataError, match="--allow-missing"):
        load_data(frame, tmp_path)
    allowed = load_data(frame, tmp_path, missing="allow")
    assert allowed.usable.all()
    assert allowed.missing
    dropped = load_data(frame, tmp_path, bad_rows="drop")
    assert dropped.usable.sum() == frame.notna().all(axis=1).sum()
    settings = TrainingSettings().changed({"data": {"missing": "allow", "bad_rows": ""}})
    assert settings.data.missing == "allow"


BAD = {
    "no such column": ({"mode_column": "gear"}, {}, "has no column 'gear'"),
    "too many modes": ({"mode_column": "s1"}, {}, "at most 32 operating modes"),
    "a word": ({"mode_column": "mode"}, {"mode": "idle"}, "'idle' is not a number"),
    "no mode": ({"mode_column": "mode"}, {"mode": np.nan}, "row 5 has no mode in column 'mode'"),
    "an empty row": ({}, dict.fromkeys(plant(0)[0].columns, np.nan), "row 5 is empty"),
    "infinite": ({}, {"s1": np.inf}, "row 5, column 's1' is inf"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_modes_and_rows_are_one_line_errors(tmp_path: Path, name: str) -> None:
    settings, cells, expected = BAD[name]
    frame = plant(0)[0].fillna({"s1": 0.5}).astype(object)
    for column, value in cells.items():
        frame.iloc[4, frame.columns.get_loc(column)] = value
    with pytest.raises(DataError) as caught:
        load_data(frame, tmp_path, missing="allow", **settings)
    assert expected in str(caught.value)


def test_a_mode_column_need_not_be_a_named_input(tmp_path: Path) -> None:
    data = load_data(plant(0)[0], tmp_path, missing="allow", columns=("s1", "s2"), mode_column="mode", bad_rows="drop")
    assert data.columns == ("s1", "s2", "mode")
    assert data.mode_column == "mode"


def test_evaluate_accepts_gaps_if_the_bundle_does(
    tmp_path: Path, with_modes: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(0)[1].assign(label=0).to_csv(tmp_path / "fresh.csv", index=False)
    with_modes.bundle.save(tmp_path / "b.vedette")
    (tmp_path / "key.pem").write_bytes(public_pem(with_modes.key.public_key()))
    arguments = ("evaluate", tmp_path / "b.vedette", tmp_path / "fresh.csv", "--json", tmp_path / "out.json")
    monkeypatch.setattr("sys.argv", ["vedette", *map(str, arguments), "--key", str(tmp_path / "key.pem")])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    assert (tmp_path / "out.json").is_file()
