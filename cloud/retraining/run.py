"""Retraining of a bundle from the store: samples, training, comparison on the frozen set, publication."""

import asyncio
import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from cloud.job_process.modalities import Collecting, SplitData
from cloud.jobs.publishing import check_release, release, with_free_version
from cloud.jobs.signing import usable_key
from cloud.retraining.figures import Conclusion, FrozenFigures, frozen_figures
from cloud.retraining.judging import compare_on
from cloud.retraining.recalibrate import recalibrated, stream_normals
from cloud.retraining.stored import StoredParts, collect_normals, labelled_samples, stored_parts
from cloud.rollouts.stages import Stage
from cloud.serving.analysis import load_analysis
from cloud.settings import CloudSettings
from cloud.store import open_store
from cloud.store.registry import Registry
from cloud.training.labelled import LabelledSamples
from cloud.training.modalities import training_modality
from cloud.training.progress import StageProgress
from cloud.training.settings import TrainingSettings
from cloud.training.train import train_bundle
from shared.bundle import Bundle, Manifest
from shared.errors import BundleError, DataError

ACTOR = "vedette retrain"


@dataclass(frozen=True, slots=True)
class RetrainRequest:
    """Request of a retraining.

    `days`: age of the oldest verdict. `effort`: share of the training steps; None: as before.
    `publish`: add the candidate to the registry; `stages` of a rollout to begin, empty: none. `calibrate_only`: keep
    all networks, and calibrate the fusion again. `config`: file of the settings, for the next command; None: built-in.
    """

    name: str
    settings: CloudSettings
    trusted_key: Ed25519PublicKey
    days: float
    output: Path
    signing_key: Path | None = None
    effort: float | None = None
    publish: bool = False
    calibrate_only: bool = False
    stages: Sequence[Stage] = ()
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class _Gathered:
    """The running bundle, the version and key of the candidate, and the samples with those to learn from decoded.

    `data`: normal samples to train on; None without a training.
    """

    running: Bundle
    version: int
    key: Ed25519PrivateKey
    parts: StoredParts
    data: SplitData | None
    labelled: LabelledSamples


def retrain(request: RetrainRequest, progress: StageProgress) -> dict[str, Any]:
    """Retrain, compare on the frozen set, write the candidate and publish it if asked; return all figures as JSON.

    Raises BundleError without a running bundle, DataError where samples or labels are too few, CertificateError without
    a trusted key, as `check_release` before the training, and as `train_bundle`.
    """
    with tempfile.TemporaryDirectory(prefix="vedette-retrain-") as folder:
        gathered = asyncio.run(_gather(request, Path(folder), progress))
        running, data = gathered.running, gathered.data
        settings = settings_of(running.manifest, request.effort, gathered.version)
        parent, labelled = running.manifest.bundle_id, gathered.labelled
        if data is None:
            candidate = _recalibrate(request, gathered, settings, progress)
        else:
            candidate = train_bundle(data.training, settings, gathered.key, progress, parent=parent, labelled=labelled)
    candidate = asyncio.run(_with_free_version(request, candidate, gathered.key))
    candidate.save(request.output)
    figures = asyncio.run(_compare(request, gathered, candidate, progress))
    outcome = asyncio.run(_publish(request, candidate, figures)) if request.publish else ""
    return {
        "status": "ok",
        "bundle": str(request.output),
        "bundle_id": candidate.manifest.bundle_id,
        "running_bundle_id": running.manifest.bundle_id,
        "samples": _counts(gathered.parts),
        "weights": candidate.manifest.training.get("weights", {}),
        "recalibration": candidate.manifest.training.get("recalibration") if request.calibrate_only else None,
        "comparison": figures.model_dump(mode="json"),
        "published": outcome,
        "next_command": _next(request, candidate, figures.conclusion, outcome),
    }


async def _with_free_version(request: RetrainRequest, candidate: Bundle, key: Ed25519PrivateKey) -> Bundle:
    """Return the candidate with a version that no bundle has got during the training."""
    async with open_store(request.settings.store, actor=ACTOR) as store:
        return await with_free_version(Registry(store, request.settings.store, request.trusted_key), candidate, key)


def _recalibrate(
    request: RetrainRequest, gathered: _Gathered, settings: TrainingSettings, progress: StageProgress
) -> Bundle:
    """Return the running bundle with labelled false alarms in its fused calibration."""
    alarms = gathered.labelled.false_alarms
    if not alarms:
        known = len(gathered.parts.learned.false_alarms)
        found = f"{known} false alarms, of which only crops are stored" if known else "no false alarm"
        raise DataError(
            f"The labels of {request.name!r} name {found}: decide more items in the review of the console, then run "
            "this command again."
        )
    progress("recalibrating", 0.0)
    normals = stream_normals(gathered.parts.learned, settings.judgement.audit_share)
    device = request.settings.analysis.device
    return recalibrated(gathered.running, alarms, normals, settings=settings, signing_key=gathered.key, device=device)


def settings_of(manifest: Manifest, effort: float | None, version: int) -> TrainingSettings:
    """Return the settings that a bundle was trained with, for its next version on stored samples.

    Raises BundleError if its manifest holds none that can be used.
    """
    try:
        settings = TrainingSettings.model_validate(manifest.training["settings"])
    except (KeyError, ValidationError) as error:
        raise BundleError(
            f"Bundle {manifest.bundle_id} holds no training settings that this version reads ({type(error).__name__}): "
            "train the next version with vedette train."
        ) from None
    form = training_modality(manifest.modality).form_settings(manifest.input)
    return settings.changed({"name": manifest.name, "version": version, "effort": effort, **form})


async def _gather(request: RetrainRequest, folder: Path, progress: StageProgress) -> _Gathered:
    progress("reading the store", 0.0)
    async with open_store(request.settings.store, actor=ACTOR) as store:
        registry = Registry(store, request.settings.store, request.trusted_key)
        current = await registry.current(request.name)
        if current is None:
            known = ", ".join(entry.name for entry in await registry.all_current())
            raise BundleError(
                f"No device runs a bundle named {request.name!r}: name one of {known}."
                if known
                else f"No device runs a bundle named {request.name!r}: train one with vedette train and publish it."
            )
        if request.stages:
            await check_release(store, request.name, request.stages)
        _, key = await usable_key(registry, request.signing_key or request.settings.training.signing_key)
        running = await registry.bundle(current.bundle_id)
        version = max(entry.version for entry in await registry.versions(request.name)) + 1
        since_s = time.time() - request.days * 86_400
        parts = await stored_parts(store, running.manifest, since_s)
        data = None
        if not request.calibrate_only:
            how = Collecting(request.name, settings_of(running.manifest, None, version).seed, folder)
            data = await collect_normals(store, parts, how, lambda share: progress("reading the store", share))
        return _Gathered(running, version, key, parts, data, await labelled_samples(store, parts.learned))


async def _compare(
    request: RetrainRequest, gathered: _Gathered, candidate: Bundle, progress: StageProgress
) -> FrozenFigures:
    analysis, running_id = request.settings.analysis, gathered.running.manifest.bundle_id
    judges = [
        (
            bundle.manifest.bundle_id,
            load_analysis(bundle, analysis.device, analysis.false_alarm_rate, analysis.precision),
        )
        for bundle in (gathered.running, candidate)
    ]
    async with open_store(request.settings.store, actor=ACTOR) as store:
        rate = analysis.false_alarm_rate
        stage = "comparing on the frozen set"
        found = await compare_on(store, gathered.parts.frozen, judges, rate, lambda share: progress(stage, share))
    return frozen_figures(found, running_id, candidate.manifest.bundle_id, rate)


async def _publish(request: RetrainRequest, candidate: Bundle, figures: FrozenFigures) -> str:
    """Add the candidate to the registry, and begin its rollout if there are stages; return what was done."""
    if figures.conclusion is Conclusion.WORSE:
        return "refused"
    async with open_store(request.settings.store, actor=ACTOR) as store:
        registry = Registry(store, request.settings.store, request.trusted_key)
        if not request.stages:
            await registry.publish(candidate, make_current=False)
            return "registered"
        reason = "retrained with labels"
        await release(store, registry, candidate, request.stages, ACTOR, reason)
        return "rollout begun"


def _counts(parts: StoredParts) -> dict[str, Any]:
    learned, frozen = parts.learned, parts.frozen
    names = ("judged_normal", "audits", "false_alarms", "real", "missed")
    return {
        **{name: len(getattr(learned, name)) for name in names},
        **{name: value for name, value in asdict(learned).items() if name in ("other_format", "without_payload")},
        "frozen": len(frozen),
        "frozen_labelled": sum(each.label is not None for each in frozen),
    }


def _next(request: RetrainRequest, candidate: Bundle, conclusion: Conclusion, outcome: str) -> str:
    """Return the command to run next, or for a worse candidate what to do before another run."""
    if conclusion is Conclusion.WORSE:
        return "label more items in the review, then run this command again"
    words = ["vedette", "cloud"]
    if outcome == "rollout begun":
        words += ["rollout", "status", request.name]
    elif outcome == "registered":
        words += ["rollout", request.name, "--to", candidate.manifest.bundle_id, "--stages", "trial=5%"]
    else:
        words += ["publish", str(request.output), "--keep-current"]
    return shlex.join([*words, "--config", str(request.config)] if request.config is not None else words)
