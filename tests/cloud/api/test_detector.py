"""Detectors of each kind of data: fit, score, save and load."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError

from cloud.api.detector import Detector
from shared.errors import BundleIntegrityError, DataError, SettingsError
from shared.images import encode_png
from shared.signing_keys import new_signing_key

QUICK = {"effort": 0.01, "analyzers": ("knn",), "device": "cpu"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def _picture(generator: np.random.Generator, *, odd: bool = False) -> NDArray[np.uint8]:
    waves = 120 + 20 * np.sin(np.arange(64) / 3)[:, np.newaxis, np.newaxis]
    pixels = np.clip(waves + generator.normal(0, 4, (64, 64, 3)), 0, 255).astype(np.uint8)
    if odd:
        pixels[20:40, 20:40] = 255
    return pixels


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for number in range(46):
        (folder / f"{number:02d}.png").write_bytes(encode_png(_picture(generator)))
    return folder


def test_images_of_a_folder_with_subfolders_and_a_damaged_file(pictures: Path, tmp_path: Path) -> None:
    detector = Detector("image", image={"height": 64, "width": 64}, **QUICK).fit(pictures)
    generator = np.random.default_rng(1)
    (tmp_path / "day").mkdir()
    (tmp_path / "a.png").write_bytes(encode_png(_picture(generator)))
    (tmp_path / "day" / "b.png").write_bytes(encode_png(_picture(generator, odd=True)))
    (tmp_path / "day" / "c.png").write_bytes(b"no picture")
    (tmp_path / "day" / "._c.png").write_bytes(b"a companion file of macOS")
    found = detector.score(tmp_path, false_alarm_rate=0.02)
    assert [each.file for each in found] == ["a.png", "day/b.png", "day/c.png"]
    assert [each.decision for each in found][1:] == ["anomalous", "undecided"]
    assert "c.png" in found[2].reason
    assert repr(found[1:]) == "Scores(2 samples: 0 normal, 1 anomalous, 1 undecided)"
    assert np.isnan(found.scores[2])
    as_arrays = detector.score([_picture(np.random.default_rng(2), odd=True)])
    assert as_arrays.anomalous.tolist() == [True]
    assert detector.score([tmp_path / "day" / "b.png"])[0].score == found[1].score


def test_a_series_as_an_array(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    wave = np.sin(np.arange(1200) / 5)[:, np.newaxis] + generator.normal(0, 0.05, (1200, 2))
    detector = Detector("series", series={"window_length": 32, "window_stride": 16}, **QUICK).fit(wave)
    stuck = wave[:200].copy()
    stuck[100:140, 0] = 3.0
    found = detector.score(stuck)
    assert [each.id for each in found][:2] == ["1-32", "17-48"]
    assert found.anomalous.any()
    assert found[int(np.nanargmax(found.scores))].contributions[0][0] == "channel1"
    with pytest.raises(DataError, match="a window of this bundle has 32"):
        detector.score(wave[:10])
    with pytest.raises(DataError, match=r"needs \(n, 2\)"):
        detector.score(wave[:, :1])


def test_a_table_survives_the_bundle_and_a_foreign_key_is_refused(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(120, 3))
    detector = Detector("tabular", **QUICK).fit(rows)
    path = detector.save(tmp_path / "rows.vedette")
    assert np.array_equal(Detector.load(path).score(rows).p_values, detector.score(rows).p_values)
    with pytest.raises(BundleIntegrityError):
        Detector.load(path, key=_public_key(tmp_path))


def test_wrong_use_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="tabular, series, image, video"):
        Detector("sound")
    with pytest.raises(SettingsError, match="unknown setting 'efort'"):
        Detector("tabular", efort=0.1)
    with pytest.raises(NotFittedError, match="call fit"):
        Detector("tabular").score(np.zeros((3, 2)))
    with pytest.raises(NotFittedError, match="call fit"):
        Detector("tabular").save(tmp_path / "a.vedette")
    with pytest.raises(DataError, match="no such file"):
        Detector("tabular").fit(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="fit on a folder"):
        Detector("video").fit(np.zeros((3, 4, 5, 3)))


def _public_key(folder: Path) -> Path:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = new_signing_key(folder / "other.pem").public_key()
    path = folder / "other-public.pem"
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path
