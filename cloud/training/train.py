"""The training run: normal data in, signed bundle out; and the shorter run that puts a new head into a bundle."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays
from torch import Tensor

from cloud.methods import ANALYZERS, BASELINES
from cloud.methods.encoders import ENCODER_FILE, encoder_bytes
from cloud.modalities import cloud_modality
from cloud.serving.analysis import Analysis
from cloud.serving.device import pick_device
from cloud.training.analysis import AnalysisOptions, fit_analysis
from cloud.training.artefacts import Built, Examples, build_artefacts
from cloud.training.data import TrainingData
from cloud.training.modalities import TrainingModality, split_samples, training_modality
from cloud.training.parity import auroc
from cloud.training.samples import Split
from cloud.training.screeners import VectorScreener
from cloud.training.settings import TrainingSettings
from cloud.training.trimming import trimmed
from shared.bundle import Bundle, InputSpec, Manifest, npz_bytes, sign
from shared.diffusion.distillation import Perturbation, Teacher, distill_head
from shared.diffusion.perturbation import InputLayout
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.diffusion.training import noting_short_trainings, one_thread
from shared.errors import BundleMismatchError, DataError, SettingsError
from shared.modalities import fit_preprocessor, load_preprocessor
from shared.modality import Modality
from shared.preprocessing import Preprocessor, mask_width, modes_of

HEAD_FILE = "cloud/head.safetensors"
REFERENCE_FILE = "cloud/reference.npz"
MAX_TEST_SAMPLES = 2000
MAX_HEAD_PARAMETERS = 250_000  # 1 MB in FP32: what a federated round sends, and a device holds
WIDTH_STEP = 8

Progress: TypeAlias = Callable[[str, float], None]


def train_bundle(
    data: TrainingData,
    settings: TrainingSettings,
    signing_key: Ed25519PrivateKey,
    progress: Progress | None = None,
) -> Bundle:
    """Train a screener and its analyzers on normal data and pack them. `progress` gets a stage and the share done.

    Raises DataError for data that cannot be used, ParityError if the artefacts disagree.
    """
    report = progress if progress is not None else _say_nothing
    started_s = time.monotonic()
    methods = _methods(settings, data.modality)
    modality = training_modality(data.modality)
    with modality.threads(), noting_short_trainings() as cut_short:
        report("reading", 0.0)
        split = split_samples(data, settings, lambda share: report("reading", share))
        split = trimmed(split, data.modality, settings.data.trim_share, torch.Generator().manual_seed(settings.seed))
        preprocessor = fit_preprocessor(data.modality, split.train, split.spec)
        train = preprocessor.prepare(split.train).inputs
        held_out = preprocessor.prepare_for_engine(split.held_out).inputs
        held_out_graph_inputs = preprocessor.graph_inputs(held_out)
        split = _bounded(split, settings.seed)
        test, test_labels = _test_part(preprocessor, split)
        generator = torch.Generator().manual_seed(settings.seed)
        encoder, normals = modality.encode(train, settings, generator, lambda share: report("encoding", share))
        options = AnalysisOptions(
            methods=methods,
            fused=settings.fused,
            seed=settings.seed,
            device=settings.device,
            learn_held_out=settings.data.trim_share == 0,  # the held-out part is not trimmed and may hold anomalies
            effort=settings.effort,
        )
        fitted = fit_analysis(
            preprocessor,
            encoder,
            split.train,
            split.held_out,
            options,
            lambda share: report("fitting the analyzers", share),
        )
        analysis = fitted.analysis
        teacher = modality.teacher(fitted.without_held_out)
        perturbation = modality.perturbation(preprocessor, split.train)
        head, loss = _train_head(normals, split.spec, modality, settings, generator, report, teacher, perturbation)
        quantisation = modality.quantisation_inputs(train, head, settings)
        modes = modes_of(held_out, split.spec)
        examples = Examples(quantisation, held_out, test, test_labels, modes, held_out_graph_inputs)
        tolerances = settings.tolerances.model_dump()
        screener = modality.screener(encoder, head, analysis, train, quantisation, held_out_graph_inputs)
        front = modality.front(preprocessor)
        built = build_artefacts(screener, examples, modality.graphs, tolerances, report, front)
        files = {**preprocessor.files(), **built.files, **analysis.files(), HEAD_FILE: save_arrays(head.to_arrays())}
        if encoder is not None:
            files[ENCODER_FILE] = encoder_bytes(encoder)
        else:
            files[REFERENCE_FILE] = npz_bytes({"held_out": held_out, "quantisation": quantisation})
        facts = _facts(data, split, settings, built, loss)
        facts["notes"] += [f"a training ended early: {note}; a faster machine trains longer" for note in cut_short]
        if test is not None and test_labels is not None:
            report("scoring the labelled part", 0.0)
            facts["auroc"] |= _analyzer_aurocs(fitted.without_held_out, modality, split)
        facts["seconds"] = round(time.monotonic() - started_s, 1)
        manifest = _manifest(data, settings, preprocessor, built, facts)
    report("signing", 1.0)
    return sign(manifest, files, signing_key)


def rebuild_bundle(
    bundle: Bundle,
    head_arrays: Mapping[str, NDArray[Any]],
    *,
    signing_key: Ed25519PrivateKey,
    version: int,
    training_note: Mapping[str, Any],
    progress: Progress | None = None,
) -> Bundle:
    """The bundle with another head, as a federated round makes: exported, quantised, gated, calibrated and signed anew.

    Preprocessing and analyzers stay. Raises BundleMismatchError if the head does not fit or the bundle is for images,
    ParityError if the new artefacts disagree.
    """
    manifest = bundle.manifest
    if REFERENCE_FILE not in bundle.files:
        raise BundleMismatchError(
            f"Bundle {manifest.bundle_id} holds no {REFERENCE_FILE}: a new head goes into whole bundles of tabular or "
            "series data only."
        )
    reference, preprocessor = bundle.arrays(REFERENCE_FILE), load_preprocessor(bundle)
    modality = training_modality(manifest.modality)
    quantisation, held_out = reference["quantisation"], reference["held_out"]
    graph_inputs = preprocessor.graph_inputs(held_out)
    head = _checked_head(bundle, head_arrays, graph_inputs.shape[1])
    screener = VectorScreener.within(head, quantisation, graph_inputs)
    with one_thread():
        modes = modes_of(held_out, manifest.input)
        examples = Examples(quantisation, held_out, modes=modes, graph_inputs=graph_inputs)
        front = modality.front(preprocessor)
        report = progress or _say_nothing
        built = build_artefacts(screener, examples, modality.graphs, manifest.tolerances, report, front)
    kept = {path: data for path, data in bundle.files.items() if not path.startswith("edge/")}
    updated = manifest.model_copy(
        update={
            "version": version,
            "created_at": _now(),
            "artefacts": built.artefacts,
            "parity": built.parity,
            "preferred_artefact": built.preferred,
            "parent_bundle_id": manifest.bundle_id,
            "training": {
                **_facts_kept(manifest),
                **_precision(built),
                **training_note,
            },
        }
    )
    return sign(updated, {**kept, **built.files, HEAD_FILE: save_arrays(head.to_arrays())}, signing_key)


def _checked_head(bundle: Bundle, arrays: Mapping[str, NDArray[Any]], dim: int) -> TimeEstimationHead:
    where = f"The new head for bundle {bundle.manifest.bundle_id}"
    if not all(np.isfinite(np.asarray(array)).all() for array in arrays.values()):
        raise BundleMismatchError(f"{where} holds NaN or infinite weights: the training that made it diverged.")
    try:
        head = TimeEstimationHead.from_arrays(arrays)
    except (ValueError, KeyError) as error:
        raise BundleMismatchError(f"{where} cannot be used: {error}") from None
    if head.dim != dim:
        raise BundleMismatchError(f"{where} takes {head.dim} inputs, and its preprocessing gives {dim}.")
    return head


def _methods(settings: TrainingSettings, modality: Modality) -> tuple[str, ...]:
    """The analyzers asked for, none for the modality's own; raises SettingsError for one that cannot be had."""
    for name in settings.analyzers:
        if name not in ANALYZERS:
            raise SettingsError(f"analyzers: there is no {name!r}; there are {', '.join(ANALYZERS)}.")
    fitted = settings.analyzers or (*cloud_modality(modality).default_methods, *BASELINES)
    for name in settings.fused:
        if name not in fitted:
            raise SettingsError(f"fused: {name!r} is not among the analyzers fitted, {', '.join(fitted)}.")
    lacking = training_modality(modality).untaught
    untaught = [name for name in settings.fused or settings.analyzers if ANALYZERS[name].needs & lacking]
    if untaught:
        raise SettingsError(
            f"fused: {', '.join(sorted(untaught))} see more than the vectors that the screener's teacher perturbs: "
            "name the other analyzers under fused, and these give their opinion beside the verdict."
        )
    return settings.analyzers


def _train_head(
    normals: Tensor,
    spec: InputSpec,
    modality: TrainingModality,
    settings: TrainingSettings,
    generator: torch.Generator,
    report: Progress,
    teacher: Teacher | None,
    perturbation: Perturbation | None,
) -> tuple[TimeEstimationHead, float]:
    """The distilled head, on the CPU, and the last training loss."""
    hidden = settings.hidden or hidden_widths(normals.shape[1], modality.hidden)
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(settings.seed)
        head = TimeEstimationHead(normals.shape[1], tuple(hidden))
    device = pick_device(settings.device)
    with one_thread():
        loss = distill_head(
            head.to(device),
            normals.to(device),
            settings=settings.distillation(modality.distillation),
            generator=generator,
            teacher=teacher,
            layout=InputLayout(mask_width(spec), len(spec.modes)),
            perturbation=perturbation,
            progress=lambda share: report("distilling the head", share),
        )
    return head.cpu(), loss


def hidden_widths(dim: int, widths: tuple[int, ...]) -> tuple[int, ...]:
    """Return `widths`, narrowed in proportion until a head of `dim` inputs fits into MAX_HEAD_PARAMETERS."""
    while _parameters(dim, widths) > MAX_HEAD_PARAMETERS and min(widths) > WIDTH_STEP:
        widths = tuple(max(WIDTH_STEP, width - WIDTH_STEP * round(width / min(widths))) for width in widths)
    return widths


def _parameters(dim: int, widths: tuple[int, ...]) -> int:
    """Weights and biases of a multilayer perceptron from `dim` values to one."""
    return sum((inputs + 1) * outputs for inputs, outputs in pairwise((dim, *widths, 1)))


def _test_part(preprocessor: Preprocessor, split: Split) -> tuple[NDArray[Any] | None, NDArray[np.bool_] | None]:
    """Engine inputs and labels of the labelled samples, or nothing if one kind is absent."""
    if split.test is None or split.test_labels is None:
        return None, None
    prepared = preprocessor.prepare_for_engine(split.test)
    labels = split.test_labels[prepared.kept]
    return (prepared.inputs, labels) if labels.any() and not labels.all() else (None, None)


def _bounded(split: Split, seed: int) -> Split:
    """The same split with at most MAX_TEST_SAMPLES labelled samples, in random order."""
    if split.test is None or split.test_labels is None:
        return split
    order = np.random.default_rng(seed).permutation(len(split.test))[:MAX_TEST_SAMPLES]
    return replace(split, test=split.test[order], test_labels=split.test_labels[order])


def _analyzer_aurocs(analysis: Analysis, modality: TrainingModality, split: Split) -> dict[str, float]:
    """AUROC of each analyzer and of the fused score; of images a part, since each is hundreds of vectors."""
    if split.test is None or split.test_labels is None:
        return {}
    count = modality.max_scored(len(split.test))
    test = split.test[:count]
    labels = split.test_labels[:count][analysis.preprocessor.prepare(test).kept]
    if not labels.any() or labels.all():
        return {}
    return {name: auroc(labels, scores) for name, scores in analysis.score(test).items()}


def _facts(data: TrainingData, split: Split, settings: TrainingSettings, built: Built, loss: float) -> dict[str, Any]:
    """What the manifest says of the run, for people; no paths beyond the data's own name."""
    return {
        "data": Path(data.origin).name,
        "train_samples": len(split.train),
        "held_out_samples": len(split.held_out),
        "labelled_samples": 0 if split.test_labels is None else len(split.test_labels),
        **_precision(built),
        "head_loss": round(loss, 6),
        "auroc": dict(built.auroc),
        "notes": list(split.notes),
        "settings": settings.model_dump(mode="json"),
    }


def _facts_kept(manifest: Manifest) -> dict[str, Any]:
    """What the manifest says of the training that holds for another head too: not the old head's own figures."""
    facts = {key: value for key, value in manifest.training.items() if key not in ("head_loss", "seconds")}
    replaced = {artefact.name for artefact in manifest.artefacts}
    facts["auroc"] = {name: value for name, value in facts.get("auroc", {}).items() if name not in replaced}
    return facts


def _precision(built: Built) -> dict[str, Any]:
    """How many layers the screener has, and which of them each INT8 artefact keeps in float."""
    return {"layers": built.layers, "float_layers": {name: list(names) for name, names in built.float_layers.items()}}


def _manifest(
    data: TrainingData, settings: TrainingSettings, preprocessor: Preprocessor, built: Built, facts: dict[str, Any]
) -> Manifest:
    return Manifest(
        name=settings.name or bundle_name(data.origin),
        version=settings.version,
        created_at=_now(),
        modality=data.modality,
        input=preprocessor.spec,
        artefacts=built.artefacts,
        preferred_artefact=built.preferred,
        parity=built.parity,
        tolerances=settings.tolerances.model_dump(),
        training=facts,
        files={},
    )


def bundle_name(origin: str) -> str:
    """A bundle's name made from the name of its data; raises DataError if nothing of it can be used."""
    name = re.sub(r"[^a-z0-9_-]+", "-", Path(origin).name.partition(".")[0].lower()).strip("-_")[:64]
    if not name:
        raise DataError(f"{origin}: no bundle name can be made of it; set one with --name.")
    return name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _say_nothing(stage: str, share: float) -> None:
    pass
