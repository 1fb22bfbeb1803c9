"""Bundles: signed, byte for byte the same, refused after any change."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from shared import bundle as bundles
from shared.bundle import FORMAT_VERSION, READABLE_FORMATS, Bundle, InputSpec, Manifest, ParityFigures, npz_bytes, sign
from shared.errors import BundleError, BundleIntegrityError, BundleMismatchError
from shared.modality import Modality

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
TRUSTED = [KEY.public_key()]
FILES = {
    "preprocessing/scaling.npz": npz_bytes({"mean": np.zeros(3)}),
    "edge/screener_fp32.onnx": b"graph",
    "edge/empty.json": b"",
    "cloud/analyzers/knn.safetensors": b"reference",
    "cloud/analysis.json": b'{"analyzers": ["knn"]}',
}


def make_manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "name": "press-4",
        "version": 2,
        "created_at": "2026-01-02T03:04:05Z",
        "modality": Modality.TABULAR,
        "input": InputSpec(channels=("a", "b", "c")),
        "artefacts": (),
        "preferred_artefact": "fp32_onnxruntime",
        "parity": {"fp32_onnxruntime": ParityFigures(rank_correlation=1, label_agreement=1, max_score_difference=1e-6)},
        "tolerances": {"rank_correlation": 0.99},
        "training": {"seconds": 1.5},
        "files": {},
    }
    return Manifest(**(values | changes))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return sign(make_manifest(), FILES, KEY)


def zipped(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


def entries_of(archive: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return [(name, opened.read(name)) for name in opened.namelist()]


def signed_by_hand(manifest: Mapping[str, Any] | bytes, files: Mapping[str, bytes]) -> bytes:
    """Return an archive with a valid signature over any manifest."""
    data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return zipped([("manifest.json", data), ("manifest.sig", KEY.sign(data)), *files.items()])


def test_what_was_signed_is_what_is_read(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "press.bundle"
    bundle.save(path)
    opened = Bundle.open(path, TRUSTED)

    assert opened.manifest == bundle.manifest
    assert dict(opened.files) == FILES
    assert opened.manifest.bundle_id == bundle.manifest.bundle_id
    assert opened.json("cloud/analysis.json") == {"analyzers": ["knn"]}
    assert np.array_equal(opened.arrays("preprocessing/scaling.npz")["mean"], np.zeros(3))
    assert [entry.name for entry in path.parent.iterdir()] == ["press.bundle"]


def test_one_bundle_is_one_archive_byte_for_byte(bundle: Bundle) -> None:
    backwards = sign(make_manifest(), dict(reversed(FILES.items())), KEY)
    assert backwards.archive() == bundle.archive()
    assert npz_bytes({"a": np.arange(3)}) == npz_bytes({"a": np.arange(3)})


@pytest.mark.parametrize("edge_only", [False, True])
def test_every_flipped_byte_is_refused(bundle: Bundle, edge_only: bool) -> None:
    archive = bundle.archive(edge_only=edge_only)
    for position in range(len(archive)):
        damaged = bytearray(archive)
        damaged[position] ^= 1 << position % 8
        with pytest.raises((BundleIntegrityError, BundleMismatchError)):
            Bundle.open(bytes(damaged), TRUSTED, edge_only=edge_only)


def test_a_file_of_other_contents_is_refused_though_the_archive_is_sound(bundle: Bundle) -> None:
    for path in FILES:
        changed = Bundle(bundle.manifest, bundle.signature, {**bundle.files, path: bundle.files[path] + b"!"})
        with pytest.raises(BundleIntegrityError, match="differs from the file that was signed"):
            Bundle.open(changed.archive(), TRUSTED)


def test_every_truncation_is_refused(bundle: Bundle) -> None:
    archive = bundle.archive()
    for size in range(len(archive)):
        with pytest.raises(BundleIntegrityError):
            Bundle.open(archive[:size], TRUSTED)


@given(st.binary(max_size=400), st.booleans())
def test_bytes_that_are_no_bundle_are_refused(data: bytes, after_a_header: bool) -> None:
    with pytest.raises(BundleIntegrityError):
        Bundle.open(b"PK\x03\x04" + data + b"PK\x05\x06" + data if after_a_header else data, TRUSTED)


def test_bytes_before_or_after_are_refused(bundle: Bundle) -> None:
    for data in (b"#!/bin/sh\n" + bundle.archive(), bundle.archive() + b"\0"):
        with pytest.raises(BundleIntegrityError):
            Bundle.open(data, TRUSTED)


@pytest.mark.parametrize("name", ["edge/more.onnx", "extra.txt", "edge/../../extra.txt", "/etc/passwd", "edge\\x"])
def test_a_file_that_the_manifest_does_not_list_is_refused(bundle: Bundle, name: str) -> None:
    with pytest.raises(BundleIntegrityError, match="does not list"):
        Bundle.open(zipped([*entries_of(bundle.archive()), (name, b"x")]), TRUSTED)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused(bundle: Bundle) -> None:
    entries = entries_of(bundle.archive())
    for name in ("manifest.json", "edge/screener_fp32.onnx"):
        with pytest.raises(BundleIntegrityError, match="two files of one name"):
            Bundle.open(zipped([*entries, (name, b"x")]), TRUSTED)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_archive_is_refused(bundle: Bundle, compression: int) -> None:
    with pytest.raises(BundleIntegrityError, match="compressed"):
        Bundle.open(zipped(entries_of(bundle.archive()), compression), TRUSTED)


def test_an_archive_that_promises_gigabytes_is_refused_before_they_are_read() -> None:
    bomb = zipped([("manifest.json", bytes(50_000_000))], zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleIntegrityError, match="too many files, or more bytes"):
        Bundle.open(bomb, TRUSTED)


def test_too_many_files_are_refused() -> None:
    with pytest.raises(BundleIntegrityError, match="too many files"):
        Bundle.open(zipped([(f"edge/{number}", b"") for number in range(bundles.MAX_FILES + 1)]), TRUSTED)


@pytest.mark.parametrize("path", ["edge/../../etc/passwd", "/edge/x", "edge/", "edge//x", "other/x", "edge/.hidden"])
def test_a_path_that_leaves_the_folders_is_refused_even_when_signed(path: str) -> None:
    with pytest.raises(BundleError, match="lie below"):
        sign(make_manifest(), {path: b"x"}, KEY)
    entry = {"sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", "size_bytes": 1}
    manifest = make_manifest(files={path: entry})
    with pytest.raises(BundleIntegrityError, match="outside"):
        Bundle.open(signed_by_hand(manifest.to_bytes(), {path: b"x"}), TRUSTED)


def test_a_mode_channel_that_is_none_of_the_channels_is_refused_even_when_signed() -> None:
    manifest = json.loads(make_manifest().to_bytes())
    manifest["input"]["mode_channel"] = "elsewhere"
    with pytest.raises(BundleIntegrityError, match="'elsewhere' is not one of the channels"):
        Bundle.open(signed_by_hand(manifest, {}), TRUSTED)


def test_a_foreign_or_absent_signature_is_refused(bundle: Bundle) -> None:
    foreign = Ed25519PrivateKey.generate()
    with pytest.raises(BundleIntegrityError, match="not signed by a trusted key"):
        Bundle.open(sign(make_manifest(), FILES, foreign).archive(), TRUSTED)
    with pytest.raises(BundleIntegrityError, match="not signed by a trusted key"):
        Bundle.open(bundle.archive(), [])
    unsigned = [entry for entry in entries_of(bundle.archive()) if entry[0] != "manifest.sig"]
    with pytest.raises(BundleIntegrityError, match="not signed by a trusted key"):
        Bundle.open(zipped(unsigned), TRUSTED)


def test_a_look_at_the_manifest_needs_no_trust_and_survives_garbage(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "press.bundle"
    bundle.save(path)
    assert Bundle.peek(path) == Bundle.peek(bundle.archive()) == bundle.manifest
    for garbage in (b"", b"PK", zipped([]), zipped([("manifest.json", b"{}")])):
        with pytest.raises(BundleError):
            Bundle.peek(garbage)


def test_any_of_several_trusted_keys_will_do(bundle: Bundle) -> None:
    keys = [Ed25519PrivateKey.generate().public_key(), KEY.public_key()]
    assert Bundle.open(bundle.archive(), iter(keys)).manifest == bundle.manifest


def test_a_device_copy_lacks_the_cloud_part_and_says_so(bundle: Bundle) -> None:
    copy = bundle.archive(edge_only=True)
    opened = Bundle.open(copy, TRUSTED, edge_only=True)

    assert b"reference" not in copy
    assert opened.manifest.bundle_id == bundle.manifest.bundle_id
    assert opened.archive() == copy
    assert Bundle.open(bundle.archive(), TRUSTED, edge_only=True).archive(edge_only=True) == copy
    with pytest.raises(BundleError, match=r"cloud/analysis\.json"):
        opened.read("cloud/analysis.json")
    with pytest.raises(BundleError, match="device's copy"):
        Bundle.open(copy, TRUSTED)


def test_a_device_copy_without_an_edge_file_is_refused(bundle: Bundle) -> None:
    files = {path: data for path, data in bundle.files.items() if path != "edge/screener_fp32.onnx"}
    partial = Bundle(bundle.manifest, bundle.signature, files)
    with pytest.raises(BundleIntegrityError, match=r"edge/screener_fp32\.onnx missing"):
        Bundle.open(partial.archive(edge_only=True), TRUSTED, edge_only=True)


def test_another_format_is_told_apart_from_damage() -> None:
    manifest = json.loads(make_manifest().to_bytes())
    newer = manifest | {"format_version": FORMAT_VERSION + 1, "unheard_of": 1}
    with pytest.raises(BundleMismatchError, match="Update Vedette"):
        Bundle.open(signed_by_hand(newer, {}), TRUSTED)
    with pytest.raises(BundleMismatchError, match="Retrain the bundle"):
        Bundle.open(signed_by_hand(manifest | {"format_version": READABLE_FORMATS[0] - 1}, {}), TRUSTED)


@pytest.mark.parametrize("manifest", [b"", b"[]", b"null", b"\xff", b'{"format_version": 1}', b"[" * 100_000])
def test_a_signed_manifest_that_is_none_is_refused(manifest: bytes) -> None:
    with pytest.raises((BundleIntegrityError, BundleMismatchError)):
        Bundle.open(signed_by_hand(manifest, {}), TRUSTED)


def test_a_manifest_of_another_spelling_is_refused() -> None:
    manifest = make_manifest()
    spaced = json.dumps(json.loads(manifest.to_bytes()), indent=1).encode()
    with pytest.raises(BundleIntegrityError, match="changed after signing"):
        Bundle.open(signed_by_hand(spaced, {}), TRUSTED)


def test_figures_are_finite_and_other_facts_valid_json() -> None:
    with pytest.raises(ValueError, match="finite"):
        ParityFigures(rank_correlation=float("nan"), label_agreement=1, max_score_difference=0)
    odd = sign(make_manifest(training={"loss": float("inf")}), {}, KEY)
    assert b"Infinity" not in odd.manifest.to_bytes()
    assert Bundle.open(odd.archive(), TRUSTED).manifest.bundle_id == odd.manifest.bundle_id


def test_a_missing_or_unreadable_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        Bundle.open(tmp_path / "none.bundle", TRUSTED)
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(tmp_path, TRUSTED)


def test_an_archive_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.bundle"
    path.write_bytes(bytes(100))
    monkeypatch.setattr(bundles, "MAX_ARCHIVE_BYTES", 99)
    with pytest.raises(BundleError, match="at most 99"):
        Bundle.open(path, TRUSTED)


@pytest.mark.parametrize(
    "content",
    [b"", b"no zip", npz_bytes({"a": np.zeros(9)})[:-30], b"\x93NUMPY\x01\x00", b"\x80\x04\x95pickle", b"PK\x05\x06"],
)
def test_array_files_that_are_none_are_told(content: bytes) -> None:
    with pytest.raises(BundleError, match="not an array file"):
        sign(make_manifest(), {"edge/a.npz": content}, KEY).arrays("edge/a.npz")


def test_a_lone_array_or_a_pickled_one_is_no_array_file() -> None:
    lone, pickled = io.BytesIO(), io.BytesIO()
    np.save(lone, np.zeros(3))
    np.savez(pickled, a=np.array([object()], dtype=object))
    for content in (lone.getvalue(), pickled.getvalue()):
        with pytest.raises(BundleError, match="not an array file"):
            sign(make_manifest(), {"edge/a.npz": content}, KEY).arrays("edge/a.npz")


def test_arrays_of_objects_are_not_written() -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        npz_bytes({"a": np.array([object()], dtype=object)})


def test_an_unknown_artefact_names_those_there_are() -> None:
    values = {"engine": "openvino", "precision": "int8", "graph": "edge/a.xml", "calibration": "edge/a.npz"}
    artefact = bundles.Artefact(name="int8_openvino", calibration_id="0", **values)
    manifest = make_manifest(artefacts=(artefact,))
    assert manifest.artefact("int8_openvino") is artefact
    with pytest.raises(BundleMismatchError, match="it has int8_openvino"):
        manifest.artefact("int4")


def test_another_file_in_place_of_a_bundle_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "readings.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BundleError, match=r"readings.csv: not a bundle. Name a file that vedette train wrote"):
        Bundle.open(tmp_path / "readings.csv", TRUSTED)
