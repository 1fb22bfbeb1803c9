"""Bundles: versioned, signed packages that devices run.

A bundle is an uncompressed ZIP archive: `manifest.json`, `manifest.sig` (its Ed25519 signature) and the files that the
manifest lists with their SHA-256. The manifest is verified before it is parsed, and each file before it is read. Files
lie in three folders: `preprocessing/` (used on both sides), `edge/` (graphs and calibrations) and `cloud/` (analyzers
and fusion). A device fetches the archive without `cloud/`; the signature stays valid because it covers the manifest.

The archive of a bundle is reproducible byte for byte. All ZIP metadata other than names and contents (dates, comments,
gaps) is fixed, so any changed byte is detected.

The files are ONNX, OpenVINO IR, safetensors, NPZ without pickle, or JSON. None of them executes code on load.
"""

import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from shared.errors import (
    BundleError,
    BundleIntegrityError,
    BundleMismatchError,
    UntrustedBundleError,
)
from shared.files import write_durably
from shared.modality import Modality

FORMAT_VERSION = 4
READABLE_FORMATS = (3, 4)  # since 4 rows have a linear range of their own, which older versions would not see
MAX_ARCHIVE_BYTES = 512 * 2**20
MAX_MANIFEST_BYTES = 2**20
MAX_FILES = 256
MAX_BATCH_SIZE = 4096  # samples that a graph takes at once
PREPROCESSING_FOLDER = "preprocessing/"
EDGE_FOLDER, CLOUD_FOLDER = "edge/", "cloud/"
EDGE_FOLDERS = (PREPROCESSING_FOLDER, EDGE_FOLDER)
ALL_FOLDERS = (*EDGE_FOLDERS, CLOUD_FOLDER)
HEAD_FILE = f"{CLOUD_FOLDER}head.safetensors"
REFERENCE_FILE = f"{CLOUD_FOLDER}reference.npz"  # held-out graph inputs
EXAMPLES_FILE = f"{CLOUD_FOLDER}normal_examples.npz"  # held-out pictures as PNG files, the golden one first
ENCODER_FILE = f"{CLOUD_FOLDER}encoder.safetensors"
FUSION_FILE = f"{CLOUD_FOLDER}fusion.npz"
ANALYSIS_FILE = f"{CLOUD_FOLDER}analysis.json"
FP32_ONNXRUNTIME, INT8_OPENVINO, INT8_ONNXRUNTIME = "fp32_onnxruntime", "int8_openvino", "int8_onnxruntime"
GRAPH_FILES = {  # by artefact; the weights of an .xml lie beside it
    FP32_ONNXRUNTIME: f"{EDGE_FOLDER}screener_fp32.onnx",
    INT8_OPENVINO: f"{EDGE_FOLDER}screener_int8_openvino.xml",
    INT8_ONNXRUNTIME: f"{EDGE_FOLDER}screener_int8_onnxruntime.onnx",
}
CALIBRATION_FILES = {name: f"{EDGE_FOLDER}calibration_{name}.npz" for name in GRAPH_FILES}
_MANIFEST, _SIGNATURE = "manifest.json", "manifest.sig"
_FILE_PATH = re.compile(r"(preprocessing|edge|cloud)(/[A-Za-z0-9_][A-Za-z0-9._-]{0,99}){1,4}")
_UNIX = 3
_LATER_FIELDS = ("frame_interval_s", "missing", "mode_channel", "modes", "categories", "decimal", "pixel_range")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FileEntry(_Strict):
    """Entry of the manifest for one file."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0, le=MAX_ARCHIVE_BYTES)


class Artefact(_Strict):
    """Screener graph for one engine, with its own calibration."""

    name: str = Field(description='such as "int8_openvino"')
    engine: str = Field(description='"openvino" or "onnxruntime"')
    precision: str = Field(description='"fp32" or "int8"')
    graph: str = Field(description="path of the .onnx or .xml file in the archive; the .bin of an .xml lies beside it")
    calibration: str = Field(description="path of the .npz file in the archive")
    calibration_id: str


class InputSpec(_Strict):
    """Format of one sample. Fields that do not apply to the modality are empty."""

    channels: tuple[str, ...] = Field(default=(), description="names of tabular features or series channels, in order")
    window_length: int = Field(default=0, ge=0, description="time points of a series window")
    window_stride: int = Field(default=0, ge=0, description="time points between the starts of two windows")
    image_height: int = Field(default=0, ge=0, description="rows the graph expects, after resizing")
    image_width: int = Field(default=0, ge=0, description="columns the graph expects, after resizing")
    pixel_range: tuple[float, float] | None = Field(
        default=None, description="values of deep images that become 0 and 255; none for 8-bit images"
    )
    frame_interval_s: float = Field(default=0.0, ge=0, description="seconds between two frames of a clip")
    missing: bool = Field(
        default=False, description="whether NaN stands for a missing value instead of causing rejection"
    )
    mode_channel: str = Field(default="", description="channel with the operating mode; empty without one")
    modes: tuple[float, ...] = Field(default=(), description="operating modes of the training data, ascending")
    categories: dict[str, tuple[str, ...]] = Field(
        default={}, description='values of each column of text; value "on" of column "pump" is channel "pump=on"'
    )
    decimal: Literal["", ","] = Field(default="", description="decimal mark of the training table if it is a comma")

    @model_validator(mode="after")
    def _has_its_mode(self) -> Self:
        if self.mode_channel and self.mode_channel not in self.channels:
            raise ValueError(f"the mode channel {self.mode_channel!r} is not one of the channels")
        if self.pixel_range is not None and not self.pixel_range[0] < self.pixel_range[1]:
            raise ValueError(f"the pixel range {self.pixel_range} does not rise")
        return self

    @property
    def value_channels(self) -> tuple[str, ...]:
        """Channels that are measured: all except the operating mode."""
        return tuple(name for name in self.channels if name != self.mode_channel)

    @model_serializer(mode="wrap")
    def _omit_unset_later_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit later fields that have their default value, so that older bundles keep their bytes and ids."""
        values: dict[str, Any] = handler(self)
        later = {name: getattr(self, name) for name in _LATER_FIELDS}
        return {key: value for key, value in values.items() if later.get(key, True)}


class ParityFigures(_Strict):
    """Agreement of one artefact with the FP32 torch model on held-out normal data."""

    rank_correlation: float = Field(description="Spearman's rho of the scores")
    label_agreement: float = Field(description="share of samples with the same label, each model at its own threshold")
    max_score_difference: float
    auroc_difference: float | None = Field(default=None, description="artefact minus FP32, when labels exist")


class Manifest(_Strict):
    """Manifest of a bundle: identity, input format, artefacts, training facts and the hash of every file."""

    format_version: int = FORMAT_VERSION
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    version: int = Field(ge=1)
    created_at: str = Field(description="ISO 8601, UTC")
    modality: Modality
    input: InputSpec
    artefacts: tuple[Artefact, ...]
    preferred_artefact: str
    parity: dict[str, ParityFigures] = Field(description="figures of the parity gate by artefact name")
    tolerances: dict[str, float] = Field(description="tolerances of the parity gate")
    training: dict[str, Any] = Field(description="facts about the training run, for display")
    parent_bundle_id: str = Field(default="", description="bundle that a federated round or a retraining started from")
    files: dict[str, FileEntry]

    @property
    def bundle_id(self) -> str:
        """Identifier made of name, version and a hash of the contents, unique to each bundle."""
        digest = hashlib.sha256(self.to_bytes()).hexdigest()
        return f"{self.name}-{self.version}-{digest[:8]}"

    def to_bytes(self) -> bytes:
        """Return the canonical JSON that is signed."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    def artefact(self, name: str) -> Artefact:
        """Return the artefact of that name; raises BundleMismatchError, which lists the known names."""
        for artefact in self.artefacts:
            if artefact.name == name:
                return artefact
        known = ", ".join(artefact.name for artefact in self.artefacts)
        raise BundleMismatchError(f"Bundle {self.bundle_id} has no artefact {name!r}; it has {known}.")


@dataclass(frozen=True, slots=True)
class Bundle:
    """Verified bundle in memory. `files`: bytes by path, for the folders that were in the archive."""

    manifest: Manifest
    signature: bytes
    files: Mapping[str, bytes]

    @classmethod
    def open(cls, source: Path | bytes, trusted_keys: Iterable[Ed25519PublicKey], *, edge_only: bool = False) -> Self:
        """Read an archive and verify its signature, hashes, sizes and list of files.

        A device's archive has no `cloud/` folder; pass `edge_only=True` to accept it.
        Raises BundleIntegrityError for bytes that a trusted key did not sign, BundleError for a file that cannot be
        read, and BundleMismatchError for a format that this version does not support.
        """
        where = str(source) if isinstance(source, Path) else "the bundle"
        data = _read_source(source, where)
        content = _read_archive(data, where)
        manifest_bytes, signature = content.pop(_MANIFEST, b""), content.pop(_SIGNATURE, b"")
        if not any(_signed_by(key, signature, manifest_bytes) for key in trusted_keys):
            raise UntrustedBundleError(
                f"{where}: not signed by a trusted key, or changed after signing. Fetch it again, or check which key "
                "signs your bundles (vedette bundle inspect shows its id)."
            )
        manifest = _parse_manifest(manifest_bytes, where)
        _check_files(manifest, content, where)
        bundle = cls(manifest, signature, content)
        if bundle.archive() != data:
            raise BundleIntegrityError(f"{where}: ZIP metadata was changed after signing. Fetch it again.")
        _check_complete(bundle, where, edge_only=edge_only)
        return bundle

    @staticmethod
    def peek(source: Path | bytes) -> Manifest:
        """Return the manifest of an archive WITHOUT verification. Display it only; never run it."""
        where = str(source) if isinstance(source, Path) else "the bundle"
        return _parse_manifest(_read_archive(_read_source(source, where), where).get(_MANIFEST, b""), where)

    def signer(self, keys: Iterable[Ed25519PublicKey]) -> Ed25519PublicKey | None:
        """Return the key that signed the bundle, or None if it is not among `keys`."""
        manifest = self.manifest.to_bytes()
        return next((key for key in keys if _signed_by(key, self.signature, manifest)), None)

    def read(self, path: str) -> bytes:
        """Return the bytes of one file; raises BundleError if this archive does not contain it."""
        try:
            return self.files[path]
        except KeyError:
            raise BundleError(f"Bundle {self.manifest.bundle_id} does not contain {path!r}.") from None

    def arrays(self, path: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of one NPZ file, read without pickle; raises BundleError if it is not an NPZ file."""
        try:
            with np.load(io.BytesIO(self.read(path)), allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(f"Bundle {self.manifest.bundle_id}: {path} is not an array file: {error}.") from None

    def json(self, path: str) -> Any:
        """Return the value in one JSON file; raises BundleError if it is not JSON."""
        try:
            return json.loads(self.read(path))
        except ValueError as error:
            raise BundleError(f"Bundle {self.manifest.bundle_id}: {path} is not JSON: {error}.") from None

    def archive(self, *, edge_only: bool = False) -> bytes:
        """Return the archive, equal for equal bundles; `edge_only` omits `cloud/`."""
        folders = EDGE_FOLDERS if edge_only else ALL_FOLDERS
        files = {path: data for path, data in sorted(self.files.items()) if path.startswith(folders)}
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for path, data in {_MANIFEST: self.manifest.to_bytes(), _SIGNATURE: self.signature, **files}.items():
                entry = zipfile.ZipInfo(path)  # its default date is fixed
                entry.create_system = _UNIX
                archive.writestr(entry, data)
        return buffer.getvalue()

    def save(self, path: Path) -> None:
        """Write the archive atomically: after a failure `path` still holds the previous content."""
        write_durably(path, self.archive())


def sign(manifest: Manifest, files: Mapping[str, bytes], key: Ed25519PrivateKey) -> Bundle:
    """Return a signed bundle of `files` (bytes by path); they replace the file list of `manifest`."""
    misplaced = [path for path in files if not _FILE_PATH.fullmatch(path)]
    if misplaced:
        raise BundleError(
            f"Invalid paths in a bundle: {', '.join(misplaced)}. Files must lie below {', '.join(ALL_FOLDERS)} and "
            "have plain names."
        )
    entries = {
        path: FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)) for path, data in files.items()
    }
    complete = manifest.model_copy(update={"files": entries})
    return Bundle(complete, key.sign(complete.to_bytes()), dict(files))


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return named arrays as the bytes of an NPZ file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _read_source(source: Path | bytes, where: str) -> bytes:
    try:
        size = source.stat().st_size if isinstance(source, Path) else len(source)
        if size > MAX_ARCHIVE_BYTES:
            raise BundleError(f"{where}: {size} bytes; a bundle has at most {MAX_ARCHIVE_BYTES}.")
        return source.read_bytes() if isinstance(source, Path) else source
    except FileNotFoundError:
        raise BundleError(f"{where}: no such bundle.") from None
    except OSError as error:
        raise BundleError(f"{where}: cannot be read ({error.strerror or error}).") from None


def _read_archive(data: bytes, where: str) -> dict[str, bytes]:
    if not data.startswith(b"PK"):  # the first bytes of every archive
        raise BundleIntegrityError(f"{where}: not a bundle. Name a file that vedette train wrote, or fetch it again.")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > len(data):
                raise BundleIntegrityError(
                    f"{where}: too many files, or more bytes than the archive has. Fetch it again."
                )
            if len({entry.filename for entry in entries}) != len(entries):
                raise BundleIntegrityError(f"{where}: contains two files of one name. Fetch it again.")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise BundleIntegrityError(
                    f"{where}: compressed; the files of a bundle are stored uncompressed. Fetch it again."
                )
            return {entry.filename: archive.read(entry) for entry in entries}
    except (
        zipfile.BadZipFile,
        ValueError,
        NotImplementedError,
        EOFError,
        RuntimeError,
        OSError,
        struct.error,
    ) as error:
        raise BundleIntegrityError(f"{where}: damaged, or not a bundle ({error}). Fetch it again.") from None


def _signed_by(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _parse_manifest(data: bytes, where: str) -> Manifest:
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleIntegrityError(f"{where}: its manifest is larger than {MAX_MANIFEST_BYTES} bytes.")
    try:
        value = json.loads(data)
        version = value.get("format_version") if isinstance(value, dict) else None
        if version not in READABLE_FORMATS:
            is_newer = isinstance(version, int) and version > FORMAT_VERSION
            advice = "Update Vedette" if is_newer else "Retrain the bundle"
            formats = f"formats {READABLE_FORMATS[0]} to {FORMAT_VERSION}"
            raise BundleMismatchError(f"{where}: format {version}; this version reads {formats}. {advice}.")
        return Manifest.model_validate(value)
    except (ValueError, RecursionError) as error:
        raise BundleIntegrityError(f"{where}: invalid manifest: {error}.") from None


def _check_files(manifest: Manifest, content: Mapping[str, bytes], where: str) -> None:
    unknown = content.keys() - manifest.files.keys()
    if unknown:
        raise BundleIntegrityError(
            f"{where}: contains files that its manifest does not list: {', '.join(sorted(unknown))}."
        )
    misplaced = [path for path in manifest.files if not _FILE_PATH.fullmatch(path)]
    if misplaced:
        raise BundleIntegrityError(f"{where}: names files outside a bundle's folders: {', '.join(misplaced)}.")
    for path, data in content.items():
        if hashlib.sha256(data).hexdigest() != manifest.files[path].sha256:
            raise BundleIntegrityError(
                f"{where}: {path} differs from the file that was signed. Fetch the bundle again."
            )


def _check_complete(bundle: Bundle, where: str, *, edge_only: bool) -> None:
    missing = sorted(bundle.manifest.files.keys() - bundle.files.keys())
    edge_missing = [path for path in missing if path.startswith(EDGE_FOLDERS)]
    if edge_missing:
        raise BundleIntegrityError(f"{where}: {', '.join(edge_missing)} missing. Fetch it again.")
    if missing and not edge_only:
        raise BundleError(f"{where}: {', '.join(missing)} missing: this is a device's copy. Use the whole bundle.")
