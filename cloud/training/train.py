"""The training run, from normal data to a signed bundle, and the shorter run that puts a new head into a bundle."""

from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays

from cloud.training.artefacts import GateSamples, build_artefacts
from cloud.training.choices import checked_methods
from cloud.training.data import TrainingData
from cloud.training.head import checked_head
from cloud.training.judgement.judge import Judgement
from cloud.training.labelled import NO_LABELS, LabelledSamples
from cloud.training.modalities import training_modality
from cloud.training.progress import StageProgress
from cloud.training.screeners import VectorScreener
from cloud.training.settings import TrainingSettings
from cloud.training.stages import TrainingRun, now
from shared.bundle import HEAD_FILE, REFERENCE_FILE, Bundle, InputSpec, Manifest, sign
from shared.diffusion.training import time_limited_trainings
from shared.errors import BundleMismatchError
from shared.modalities import load_preprocessor
from shared.preprocessing import modes_of

_OF_THE_OLD_HEAD = ("head_loss", "seconds", "judgement")


def train_bundle(
    data: TrainingData,
    settings: TrainingSettings,
    signing_key: Ed25519PrivateKey,
    progress: StageProgress | None = None,
    *,
    judged: Callable[[Judgement, InputSpec], None] | None = None,
    parent: str = "",
    labelled: LabelledSamples = NO_LABELS,
) -> Bundle:
    """Train a screener and its analyzers on normal data and pack them into a signed bundle.

    `progress` gets the name of a stage and the share of it that is done. `judged` gets the judgement and the format
    of a sample before anything is signed, and may raise. `parent`: bundle that this one is a retraining of.
    `labelled`: labelled samples that the fusion learns from, and weighs its members by.

    Raises DataError for data that cannot be used, ParityError if the artefacts disagree.
    """
    methods = checked_methods(settings, data.modality)
    run = TrainingRun(data, settings, methods, progress or _no_progress, labelled)
    with run.modality.threads(), time_limited_trainings() as cut_short:
        run.fit()
        run.complete()
    if judged is not None:
        judged(run.judgement, run.split.spec)
    return run.sign(signing_key, cut_short, parent)


def rebuild_bundle(
    bundle: Bundle,
    head_arrays: Mapping[str, NDArray[Any]],
    *,
    signing_key: Ed25519PrivateKey,
    version: int,
    training_note: Mapping[str, Any],
    progress: StageProgress | None = None,
) -> Bundle:
    """Return the bundle with another head, as a federated round makes it, and new artefacts and calibrations.

    Preprocessing and analyzers stay. Raises BundleMismatchError if the head does not fit or the bundle is for images,
    ParityError if the new artefacts disagree.
    """
    manifest = bundle.manifest
    if REFERENCE_FILE not in bundle.files:
        raise BundleMismatchError(
            f"Bundle {manifest.bundle_id} holds no {REFERENCE_FILE}: a new head goes into whole bundles of tabular or "
            "series data only."
        )
    modality, preprocessor = training_modality(manifest.modality), load_preprocessor(bundle)
    reference = bundle.arrays(REFERENCE_FILE)
    quantisation, held_out = reference["quantisation"], reference["held_out"]
    graph_inputs = preprocessor.graph_inputs(held_out)
    head = checked_head(bundle, head_arrays, graph_inputs.shape[1])
    screener = VectorScreener.within(head, quantisation, graph_inputs)
    modes = modes_of(held_out, manifest.input)
    samples = GateSamples(quantisation, held_out, modes=modes, graph_inputs=graph_inputs)
    input_stage, report = modality.input_stage(preprocessor), progress or _no_progress
    with modality.threads():
        built = build_artefacts(screener, samples, modality.graphs, manifest.tolerances, report, input_stage)
    kept = {path: data for path, data in bundle.files.items() if not path.startswith("edge/")}
    updated = manifest.model_copy(
        update={
            "version": version,
            "created_at": now(),
            "artefacts": built.artefacts,
            "parity": built.parity,
            "preferred_artefact": built.preferred,
            "parent_bundle_id": manifest.bundle_id,
            "training": {**_facts_to_keep(manifest), **built.precision_facts(), **training_note},
        }
    )
    return sign(updated, {**kept, **built.files, HEAD_FILE: save_arrays(head.to_arrays())}, signing_key)


def _facts_to_keep(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest's facts about the training without the figures of the old head."""
    facts = {key: value for key, value in manifest.training.items() if key not in _OF_THE_OLD_HEAD}
    replaced = {artefact.name for artefact in manifest.artefacts}
    facts["auroc"] = {name: value for name, value in facts.get("auroc", {}).items() if name not in replaced}
    return facts


def _no_progress(stage: str, share: float) -> None:
    """Ignore the progress."""
