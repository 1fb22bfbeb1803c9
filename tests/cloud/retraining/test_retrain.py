"""`vedette retrain` on a store with judged and labelled samples, with a real small training."""

import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from cloud.retraining.frozen import is_frozen
from cloud.retraining.recalibrate import recalibrated
from cloud.retraining.run import settings_of
from cloud.serving.analysis import load_analysis
from cloud.serving.verdicts import decode_batch, judge_batch
from cloud.store import Store, open_store
from cloud.store.contents import load_payloads
from cloud.store.ingest import Received, store_samples
from cloud.store.judging import store_verdicts, waiting_samples
from cloud.store.labels import Label, NewLabel, add_label
from cloud.store.registry import Registry
from cloud.store.rollouts import newest_rollout
from cloud.store.sqlite.store import DATABASE_FILE
from cloud.training import TrainingSettings, train_bundle
from cloud.training.data import TableData
from edge.screener import CalibrationResolution
from shared.bundle import FUSION_FILE, Bundle
from shared.calibration_modes import CalibrationByMode
from shared.cli import build
from shared.errors import DataError
from shared.modality import Modality
from shared.samples import Decision, Route, Sample, Screening
from shared.signing_keys import load_signing_key, new_signing_key
from shared.wire import encode_payload
from tests.cloud.console.filled_store import add_devices, empty_database
from tests.trained import cached_files

COLUMNS = ("force", "flow", "heat")
SETTINGS = {
    "name": "press",
    "head": {"steps": 150, "batch_size": 128, "perturbed": 4000},
    "hidden": (32, 32),
    "analyzers": ("knn",),
    "device": "cpu",
    "effort": 0.05,
}
DEVICE = "press-7"


def normals(random: np.random.Generator, count: int) -> np.ndarray:
    rows = random.normal(size=(count, 3))
    rows[:, 2] = rows[:, 0] + 0.2 * rows[:, 2]
    return rows


def new_product(random: np.random.Generator, count: int) -> np.ndarray:
    """Normal rows of a kind that the running bundle has never seen."""
    return normals(random, count) * 0.3 + np.array([9.0, 9.0, 9.0])


def defects(random: np.random.Generator, count: int) -> np.ndarray:
    return normals(random, count) * 0.3 + np.array([-6.0, 0.0, 6.0])


def _train(folder: Path) -> None:
    key = new_signing_key(folder / "key.pem")
    rows = normals(np.random.default_rng(1), 300)
    data = TableData(Modality.TABULAR, "press", COLUMNS, rows, np.ones(len(rows), dtype=np.bool_))
    train_bundle(data, TrainingSettings.model_validate(SETTINGS), key).save(folder / "press.vedette")


@dataclass
class Press:
    """Data directory of a service whose device runs the bundle, and the folder of the command's files."""

    folder: Path
    config: Path
    key: Ed25519PrivateKey
    bundle: Bundle

    def call(self, *words: str) -> tuple[Result, dict]:
        result = self.folder / "result.json"
        options = ["--config", str(self.config), "--json", str(result), "--output", str(self.folder / "new.vedette")]
        outcome = CliRunner().invoke(build("cloud").root, ["retrain", "press", *words, *options])
        return outcome, json.loads(result.read_text()) if result.exists() else {}

    async def send(self, store: Store, rows: np.ndarray, first: int, label: Label | None = None) -> None:
        """Store rows, judge them by the bundle as the service does, and label them."""
        analysis, bundle_id = load_analysis(self.bundle, "cpu", 0.01), self.bundle.manifest.bundle_id
        received = []
        for number, row in enumerate(rows.astype(np.float32), start=first):
            sample = Sample(sample_id(number), "lab", Modality.TABULAR, time.time(), "row", row)
            screening = Screening(1.0, 0.01, False, Route.FORWARD, bundle_id, "cal", "int8", None)
            received.append(Received(sample, screening, encode_payload(row, Modality.TABULAR)))
        await store_samples(store, DEVICE, received, time.time())
        while waiting := await waiting_samples(store, 200):
            payloads = await load_payloads(store, [each.number for each in waiting])
            decoded = decode_batch([(each, payloads.get(each.number)) for each in waiting])
            verdicts = judge_batch(analysis, decoded, bundle_id=bundle_id, false_alarm_rate=0.01)
            await store_verdicts(store, list(zip(waiting, verdicts, strict=True)))
            if label is Label.FALSE_ALARM:
                assert all(verdict.decision is Decision.ANOMALOUS for verdict in verdicts)
        if label is not None:
            for number in range(first, first + len(rows)):
                await add_label(store, sample_id(number), NewLabel(label, "ada"), "ada")


def sample_id(number: int) -> uuid.UUID:
    """A UUIDv7 of a fixed time, so that the same samples are frozen in each run."""
    return uuid.UUID(int=(0x0190 << 112) + (7 << 76) + (2 << 62) + number)


@pytest.fixture
def press(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Press:
    trained = cached_files("retrained", SETTINGS, _train)
    home = tmp_path / "home"
    home.mkdir()
    (home / "signing.pem").write_bytes((trained / "key.pem").read_bytes())
    (home / "signing.pem").chmod(0o600)
    monkeypatch.setenv("VEDETTE_HOME", str(home))
    key = load_signing_key(home / "signing.pem")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / DATABASE_FILE).write_bytes(empty_database())
    config = tmp_path / "cloud.toml"
    config.write_text(f'data_dir = "{tmp_path / "data"}"\n[analysis]\ndevice = "cpu"\n')
    bundle = Bundle.open(trained / "press.vedette", [key.public_key()])
    made = Press(tmp_path, config, key, bundle)

    async def fill() -> None:
        async with open_store(tmp_path / "data") as store:
            await add_devices(store, DEVICE, "press-8")
            await Registry(store, tmp_path / "data", key.public_key()).publish(bundle)
            await made.send(store, normals(np.random.default_rng(2), 160), 0)

    asyncio.run(fill())
    return made


def test_labels_are_learned_and_the_candidate_is_compared_on_samples_it_never_saw(press: Press) -> None:
    outcome, result = press.call()
    assert outcome.exit_code != 0
    assert (result["exit_code"], result["status"]) == (4, "failed")
    assert "has a label: decide items in the review" in result["error"]
    random = np.random.default_rng(3)

    async def label() -> None:
        async with open_store(press.folder / "data") as store:
            await press.send(store, new_product(random, 60), 1000, Label.FALSE_ALARM)
            await press.send(store, defects(random, 40), 2000, Label.REAL)

    asyncio.run(label())
    with pytest.MonkeyPatch.context() as patched:
        patched.delattr("cloud.retraining.run.train_bundle")  # refused before the training
        _, result = press.call("--publish", "--trial", "trial=press-9")
        assert "No device 'press-9' is enrolled" in result["error"]
    with pytest.MonkeyPatch.context() as patched:
        patched.delattr("cloud.retraining.run.collect_normals")  # normal samples are not read
        _, result = press.call("--calibrate-only", "--publish")
    assert result["exit_code"] == 17, "the defects score lower than these false alarms, so it is not published"
    facts, figures = result["judgement"]["recalibration"], result["judgement"]["comparison"]
    assert facts["added_scores"] > 0
    assert result["judgement"]["next_command"].startswith("label more items"), "no command publishes a worse one"
    assert figures["candidate"]["dismissed"]["hits"] < figures["running"]["dismissed"]["hits"]
    assert figures["candidate"]["auroc"] == pytest.approx(figures["running"]["auroc"], abs=0.05), "the order stays"
    changed = Bundle.open(press.folder / "new.vedette", [press.key.public_key()])
    before = press.bundle.manifest.files
    check_recalibrated(press, changed)
    assert {name for name, entry in changed.manifest.files.items() if entry != before[name]} == {FUSION_FILE}
    outcome, result = press.call("--publish", "--trial", "trial=press-8", "--waves", "100")
    assert outcome.exit_code == 0, outcome.output
    frozen = {kind: sum(is_frozen(sample_id(kind + n), by_time=False) for n in range(60)) for kind in (1000,)}
    running, candidate = result["comparison"]["running"], result["comparison"]["candidate"]
    assert running["dismissed"]["count"] == frozen[1000] > 5
    assert running["dismissed"]["hits"] == frozen[1000], "the running bundle raised them all"
    assert candidate["dismissed"]["hits"] == 0, "the candidate has learned the new product"
    assert candidate["found"]["hits"] == candidate["found"]["count"] > 3
    assert result["comparison"]["conclusion"] == "better"
    assert result["samples"]["false_alarms"] == 60 - frozen[1000]
    made = Bundle.open(press.folder / "new.vedette", [press.key.public_key()])
    assert (made.manifest.version, made.manifest.parent_bundle_id) == (2, press.bundle.manifest.bundle_id)
    learned = made.manifest.training["train_samples"] + made.manifest.training["held_out_samples"]
    assert learned == sum(result["samples"][kind] for kind in ("judged_normal", "audits", "false_alarms"))
    assert "The candidate is better" in outcome.output
    assert result["weights"]["defect_likeness"] > 0
    learned_labels = made.manifest.training["learned_labels"]
    assert learned_labels == {"defects": result["samples"]["real"], "false_alarms": result["samples"]["false_alarms"]}

    async def rollout():
        async with open_store(press.folder / "data") as store, store.reading() as connection:
            return await newest_rollout(connection, "press")

    begun = asyncio.run(rollout())
    assert begun is not None
    with pytest.MonkeyPatch.context() as patched:
        patched.delattr("cloud.retraining.run.train_bundle")
        _, refused = press.call("--publish", "--trial", "trial=press-8")
        assert refused["error"].startswith("A rollout of 'press' to press-2-")
    assert (begun.bundle_id, begun.before_bundle_id) == (made.manifest.bundle_id, press.bundle.manifest.bundle_id)
    assert result["published"] == "rollout begun"
    assert result["next_command"] == f"vedette cloud rollout status press --config {press.config}"


def check_recalibrated(press: Press, changed: Bundle) -> None:
    """A recalibrated bundle does not say what was judged of its parent, and cannot be recalibrated again."""
    old, new = press.bundle.manifest, changed.manifest
    assert "seconds" not in new.training
    assert new.training["judgement"] == {"figures": {"resolution": old.training["judgement"]["figures"]["resolution"]}}
    calibration = CalibrationByMode.from_arrays(changed.arrays(new.artefacts[0].calibration))
    assert CalibrationResolution.of(calibration, new) == CalibrationResolution.of(calibration, old), "as devices say"
    settings, alarms = settings_of(new, None, 3), list(new_product(np.random.default_rng(4), 5).astype(np.float32))
    with pytest.raises(DataError, match=f"already: .* press --to {old.bundle_id}"):
        recalibrated(changed, alarms, 100.0, settings=settings, signing_key=press.key, device="cpu")


def test_the_same_samples_are_frozen_each_time_and_windows_of_one_time_together() -> None:
    ids = [sample_id(number) for number in range(2000)]
    share = sum(is_frozen(each, by_time=False) for each in ids) / len(ids)
    assert 0.17 < share < 0.23
    assert len({is_frozen(each, by_time=True) for each in ids}) == 1, "all have the same time"
    slots = [uuid.UUID(int=each.int + (slot * 600_000 << 80)) for slot, each in enumerate(ids[:400])]
    assert 0.12 < sum(is_frozen(each, by_time=True) for each in slots) / len(slots) < 0.28
