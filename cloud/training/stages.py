"""The stages of a training run, over one state."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays
from torch import Tensor

from cloud.methods.encoders import PatchEncoder, encoder_bytes
from cloud.metrics import auroc
from cloud.serving.device import pick_device
from cloud.training.analysis import AnalysisOptions, FittedAnalysis, fit_analysis
from cloud.training.artefacts import BuiltArtefacts, GateSamples, build_artefacts
from cloud.training.choices import bundle_name
from cloud.training.data import TrainingData
from cloud.training.head import distil, new_head
from cloud.training.judgement.judge import Judgement, PreferredScreener, judge
from cloud.training.labelled import NO_LABELS, LabelledSamples
from cloud.training.modalities import TrainingModality, split_samples, training_modality
from cloud.training.progress import StageProgress
from cloud.training.samples import Split
from cloud.training.settings import TrainingSettings
from cloud.training.trimming import trimmed
from shared.bundle import ENCODER_FILE, EXAMPLES_FILE, HEAD_FILE, REFERENCE_FILE, Bundle, Manifest, npz_bytes, sign
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.diffusion.training import Progress
from shared.modalities import fit_preprocessor
from shared.preprocessing import Preprocessor, modes_of

MAX_TEST_SAMPLES = 2000


def now() -> str:
    """Return the current time as the manifest holds it: ISO 8601, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class TrainingRun:
    """State of one training run. Its methods are the stages; `fit` and `complete` call them in their order.

    Attributes:
        train: Graph inputs (n, ...) of the normal samples to train on.
        held_out: Engine inputs (n, ...) of the normal samples to calibrate on.
        held_out_graph_inputs: Graph inputs of the same samples.
        test: Engine inputs of the labelled samples; None unless both kinds are among them.
        test_labels: Labels (n,) of `test`, true for anomalies.
        normals: Normal vectors (n, dim) that the head is distilled on.
        head_loss: Last loss of the distillation.
        quantisation: Normal graph inputs that set the INT8 ranges.
        test_auroc: AUROC of each analyzer and of the fused score on the labelled samples.
        labelled: Labelled samples that the fusion learns from.
    """

    data: TrainingData
    settings: TrainingSettings
    methods: Sequence[str]
    report: StageProgress
    labelled: LabelledSamples = NO_LABELS
    started_s: float = field(default_factory=time.monotonic)
    modality: TrainingModality = field(init=False)
    generator: torch.Generator = field(init=False)
    split: Split = field(init=False)
    preprocessor: Preprocessor = field(init=False)
    train: NDArray[Any] = field(init=False)
    held_out: NDArray[Any] = field(init=False)
    held_out_graph_inputs: NDArray[Any] = field(init=False)
    test: NDArray[Any] | None = field(init=False, default=None)
    test_labels: NDArray[np.bool_] | None = field(init=False, default=None)
    encoder: PatchEncoder | None = field(init=False)
    normals: Tensor = field(init=False)
    fitted: FittedAnalysis = field(init=False)
    head: TimeEstimationHead = field(init=False)
    head_loss: float = field(init=False)
    quantisation: NDArray[Any] = field(init=False)
    built: BuiltArtefacts = field(init=False)
    judgement: Judgement = field(init=False)
    test_auroc: dict[str, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.modality = training_modality(self.data.modality)
        self.generator = torch.Generator().manual_seed(self.settings.seed)

    def fit(self) -> None:
        """Run the first half of the stages: the analyzers can score then. Raises DataError for unusable data."""
        self.read()
        self.prepare()
        self.encode()
        self.fit_analyzers()

    def complete(self) -> None:
        """Run the second half: the screener for devices and the judgement. Raises ParityError."""
        self.distil_head()
        self.build_artefacts()
        self.score_test_samples()
        self.judge()

    def read(self) -> None:
        """Read the samples, split them by use and leave out the share to trim."""
        settings = self.settings
        self.report("reading", 0.0)
        split = split_samples(self.data, settings, self._progress("reading"))
        generator = torch.Generator().manual_seed(settings.seed)
        self.split = trimmed(split, self.data.modality, settings.data.trim_share, generator)

    def prepare(self) -> None:
        """Fit the preprocessing on the training part and apply it to all parts."""
        split = self.split
        self.preprocessor = fit_preprocessor(self.data.modality, split.train, split.spec)
        self.train = self.preprocessor.prepare(split.train).inputs
        self.held_out = self.preprocessor.prepare_for_engine(split.held_out).inputs
        self.held_out_graph_inputs = self.preprocessor.graph_inputs(self.held_out)
        if split.test is None or split.test_labels is None:
            return
        order = np.random.default_rng(self.settings.seed).permutation(len(split.test))[:MAX_TEST_SAMPLES]
        test, test_labels = split.test[order], split.test_labels[order]
        self.split = replace(split, test=test, test_labels=test_labels)
        prepared = self.preprocessor.prepare_for_engine(test)
        labels = test_labels[prepared.kept]
        if labels.any() and not labels.all():
            self.test, self.test_labels = prepared.inputs, labels

    def encode(self) -> None:
        """Fit the encoder, if the modality has one, and make the vectors that the head learns from."""
        progress = self._progress("encoding")
        self.encoder, self.normals = self.modality.encode(self.train, self.settings, self.generator, progress)

    def fit_analyzers(self) -> None:
        """Fit the analyzers and calibrate them and their fusion on the held-out part."""
        settings = self.settings
        options = AnalysisOptions(
            methods=self.methods,
            fused=settings.fused,
            seed=settings.seed,
            device=settings.device,
            # The held-out part is not trimmed, so it may hold samples like those that were trimmed.
            learn_held_out=settings.data.trim_share == 0,
            effort=settings.effort,
        )
        self.fitted = fit_analysis(
            self.preprocessor,
            self.encoder,
            self.split.train,
            self.split.held_out,
            options,
            self._progress("fitting the analyzers"),
            self.labelled,
        )

    def distil_head(self) -> None:
        """Distil the fused score of the analyzers into the screener's head."""
        self.head = new_head(self.normals.shape[1], self.modality, self.settings)
        self.head_loss = distil(
            self.head,
            self.normals,
            self.split.spec,
            self.modality,
            self.settings,
            self.generator,
            device=pick_device(self.settings.device),
            teacher=self.modality.teacher(self.fitted.without_held_out),
            perturbation=self.modality.perturbation(self.preprocessor, self.split.train),
            progress=self._progress("distilling the head"),
        )

    def build_artefacts(self) -> None:
        """Export, quantise, gate and calibrate the screener. Raises ParityError if the artefacts disagree."""
        modality, analysis = self.modality, self.fitted.analysis
        self.quantisation = modality.quantisation_inputs(self.train, self.head, self.settings)
        screener = modality.screener(
            self.encoder, self.head, analysis, self.train, self.quantisation, self.held_out_graph_inputs
        )
        samples = GateSamples(
            quantisation=self.quantisation,
            held_out=self.held_out,
            test=self.test,
            test_labels=self.test_labels,
            modes=modes_of(self.held_out, self.split.spec),
            graph_inputs=self.held_out_graph_inputs,
        )
        tolerances, input_stage = self.settings.tolerances.model_dump(), modality.input_stage(self.preprocessor)
        self.built = build_artefacts(screener, samples, modality.graphs, tolerances, self.report, input_stage)

    def score_test_samples(self) -> None:
        """Measure the AUROC of each analyzer and of the fused score on the labelled samples, if there are any."""
        split = self.split
        if self.test is None or split.test is None or split.test_labels is None:
            return
        self.report("scoring the labelled part", 0.0)
        analysis = self.fitted.without_held_out
        count = self.modality.max_scored(len(split.test))
        test = split.test[:count]
        labels = split.test_labels[:count][analysis.preprocessor.prepare(test).kept]
        if labels.any() and not labels.all():
            self.test_auroc = {name: auroc(labels, scores) for name, scores in analysis.score(test).items()}

    def judge(self) -> None:
        """Judge the screener and the analysis on held-out normals and corrupted copies of them."""
        self.report("judging", 0.0)
        artefact = next(each for each in self.built.artefacts if each.name == self.built.preferred)
        screener = PreferredScreener(self.preprocessor, artefact, self.built.files)
        self.judgement = judge(
            self.modality,
            self.split,
            self.settings,
            screener,
            self.fitted.without_held_out,
            time.monotonic() - self.started_s,
            self._progress("judging"),
        )

    def sign(self, signing_key: Ed25519PrivateKey, cut_short: Sequence[str], parent: str = "") -> Bundle:
        """Pack everything into a signed bundle.

        `cut_short`: trainings that reached their time limit. `parent`: bundle that this one is a retraining of.
        """
        notes = [f"a training ended early: {note}; a faster machine trains longer" for note in cut_short]
        manifest = Manifest(
            name=self.settings.name or bundle_name(self.data.origin),
            version=self.settings.version or 1,
            created_at=now(),
            modality=self.data.modality,
            input=self.preprocessor.spec,
            artefacts=self.built.artefacts,
            preferred_artefact=self.built.preferred,
            parity=self.built.parity,
            tolerances=self.settings.tolerances.model_dump(),
            parent_bundle_id=parent,
            training=self._facts(notes),
            files={},
        )
        self.report("signing", 1.0)
        return sign(manifest, self._files(), signing_key)

    def _files(self) -> dict[str, bytes]:
        files = {**self.preprocessor.files(), **self.built.files, **self.fitted.analysis.files()}
        files[HEAD_FILE] = save_arrays(self.head.to_arrays())
        if self.encoder is not None:
            files[ENCODER_FILE] = encoder_bytes(self.encoder)
            if examples := self.modality.normal_examples(self.held_out, self.settings):
                files[EXAMPLES_FILE] = npz_bytes(examples)
        else:
            files[REFERENCE_FILE] = npz_bytes({"held_out": self.held_out, "quantisation": self.quantisation})
        return files

    def _facts(self, notes: Sequence[str]) -> dict[str, Any]:
        """Return the manifest's facts about the run, for people; no paths beyond the data's own name."""
        split = self.split
        return {
            "data": Path(self.data.origin).name,
            "train_samples": len(split.train),
            "held_out_samples": len(split.held_out),
            "learned_labels": {"defects": len(self.labelled.defects), "false_alarms": len(self.labelled.false_alarms)},
            "weights": {name: round(weight, 4) for name, weight in self.fitted.analysis.fusion.weights.items()},
            "labelled_samples": 0 if split.test_labels is None else len(split.test_labels),
            **self.built.precision_facts(),
            "head_loss": round(self.head_loss, 6),
            "auroc": {**self.built.auroc, **self.test_auroc},
            "notes": [*split.notes, *notes],
            "judgement": self.judgement.to_json(),
            "settings": self.settings.model_dump(mode="json"),
            "seconds": round(time.monotonic() - self.started_s, 1),
        }

    def _progress(self, stage: str) -> Progress:
        return lambda share: self.report(stage, share)
