"""Training process of one job: the same code as `vedette train` and `vedette evaluate`, with progress as JSON lines."""

import dataclasses
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cloud.job_process.limits import limit_resources, lower_priority
from cloud.jobs.messages import Finished, Logged, Progressed, Refused, TrainingStart
from shared.errors import CertificateError, DataError, ParityError, SettingsError
from shared.parent_process import end_with_parent

NICENESS, MAX_FILE_BYTES = 10, 16 * 2**30
REPORT_EVERY_S = 0.5


class Reporter:
    """Writer of messages to the service, at most one of progress each REPORT_EVERY_S within a stage."""

    def __init__(self, descriptor: int) -> None:
        from cloud.training.progress import StageClock

        self._descriptor, self._clock = descriptor, StageClock()
        self._lock = threading.Lock()
        self._sent_s = 0.0

    def progress(self, stage: str, share: float) -> None:
        """Report the share of a stage that is done, 0 to 1."""
        is_new = self._clock.update(stage, share)
        if is_new:
            self.log(f"{stage} begins")
        if is_new or time.monotonic() - self._sent_s >= REPORT_EVERY_S:
            self._sent_s = time.monotonic()
            left_s = self._clock.remaining_s()
            self.send(Progressed(stage=stage, share=min(max(share, 0.0), 1.0), remaining_s=left_s))

    def log(self, text: str) -> None:
        """Report a line for people."""
        self.send(Logged(text=text))

    def send(self, message: Progressed | Logged | Finished | Refused) -> None:
        """Write a message; ends this process if nobody reads."""
        line = message.model_dump_json().encode() + b"\n"
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                os._exit(1)


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    """Data of a job, its settings, and the data to evaluate on; `path` where that is read from."""

    training: Any
    settings: Any
    evaluation: Any = None
    path: Path | None = None


def train(start: TrainingStart, report: Reporter) -> dict[str, Any]:
    """Train, evaluate and write the bundle; return the result for people and programs."""
    from cloud.training.judgement.judge import Judgement
    from cloud.training.judgement.pictures import draw_copies
    from cloud.training.report import summarise
    from cloud.training.train import train_bundle
    from shared.bundle import InputSpec
    from shared.signing_keys import load_signing_key

    key = load_signing_key(start.signing_key)
    prepared = _prepare(start, report)
    pictures: list[str] = []
    folder = start.folder / "report"

    def judged(judgement: Judgement, spec: InputSpec) -> None:
        rate = judgement.figures.resolution.rate
        pictures.extend(path.name for path in draw_copies(judgement.copies, rate, spec, folder))

    bundle = train_bundle(prepared.training, prepared.settings, key, report.progress, judged=judged)
    path = start.folder / "bundle.vedette"
    bundle.save(path)
    summary = summarise(bundle, path, start.folder / start.options.name)
    training = {name: value for name, value in summary["training"].items() if name != "settings"}
    for note in training["notes"]:
        report.log(f"note: {note}")
    evaluation, reason = _evaluate(start, report, bundle, prepared)
    if evaluation is not None:
        pictures = [*evaluation.get("plots", ()), *pictures]
    return {
        "bundle_id": summary["bundle_id"],
        "version": summary["version"],
        "modality": summary["modality"],
        "bundle_bytes": summary["bundle_bytes"],
        "device_bytes": summary["device_bytes"],
        "folder": start.folder.name,
        "training": training,
        "parity": summary["parity"],
        "evaluation": evaluation,
        "no_evaluation": reason,
        "pictures": pictures,
    }


def _prepare(start: TrainingStart, report: Reporter) -> _Prepared:
    """Read the data. Raises DataError, SettingsError."""
    from cloud.job_process.modalities import DEFAULT_MODALITY, job_modality
    from cloud.training.modalities import load_training_data

    options = start.options
    if start.data.stored is not None:
        from cloud.job_process.stored_data import read_stored

        stored = read_stored(start, lambda share: report.progress("reading the store", share))
        settings = _settings(start, stored.window_length, stored.window_stride)
        return _Prepared(stored.training, settings, stored.evaluation, stored.folder)
    assert start.upload is not None
    settings = _settings(start)
    report.progress("reading", 0.0)
    data = load_training_data(start.upload, options.modality or DEFAULT_MODALITY, settings.data)
    split = job_modality(data.modality).split_upload(data, options.seed)
    return _Prepared(split.training, settings, split.evaluation, start.upload)


def _settings(start: TrainingStart, window_length: int = 0, window_stride: int = 0) -> Any:
    """Return the training settings of a job. Raises SettingsError."""
    from cloud.training.effort import effort_settings
    from cloud.training.settings import TrainingSettings

    options = start.options
    effort = effort_settings(options.effort if isinstance(options.effort, str) else f"{options.effort:g}")
    changes = {
        "name": options.name,
        "version": start.version,
        "seed": options.seed,
        "data": {
            "label_column": options.label_column,
            "time_column": options.time_column,
            "mode_column": options.mode_column,
            "columns": options.columns or None,
            "bad_rows": "drop" if options.drop_bad_rows else "",
            "missing": "allow" if options.allow_missing else "",
            "categories": "one_hot" if options.one_hot else "",
            "trim_share": options.trim_share,
        },
        "series": {
            "window_length": window_length or options.window_length,
            "window_stride": window_stride or options.window_stride,
        },
        "judgement": {
            "false_alarms_per_day": options.false_alarms_per_day,
            "samples_per_day": options.samples_per_day,
        },
    }
    image: dict[str, Any] = dict(effort.get("image", {}))
    if options.image_size:
        image |= {"height": options.image_size, "width": options.image_size}
    return TrainingSettings().changed({**effort, **changes, "image": image})


def _evaluate(
    start: TrainingStart, report: Reporter, bundle: Any, prepared: _Prepared
) -> tuple[dict[str, Any] | None, str]:
    """Return the evaluation on labelled data, or the reason why there is none."""
    from cloud.evaluation.evaluate import EvaluationRequest, evaluate_data
    from cloud.evaluation.evaluation_data import read_evaluation_data

    if not bundle.manifest.training["labelled_samples"] and prepared.evaluation is None:
        return None, "The data has no label of an anomaly, so there is nothing to measure detection on."
    try:
        data = prepared.evaluation
        if data is None:
            if prepared.path is None:
                return None, "The normal samples are too few to keep some of them for an evaluation."
            data = read_evaluation_data(prepared.path, bundle.manifest, prepared.settings.data)
        request = EvaluationRequest(
            start.folder / "bundle.vedette",
            start.folder / (prepared.training.origin if prepared.path is None else Path(prepared.path).name),
            prepared.settings.data,
            plots=start.folder / "report",
        )
        return evaluate_data(bundle, data, request, report.progress), ""
    except DataError as error:
        report.log(f"no evaluation: {error}")
        return None, f"The evaluation failed: {error}"


def _in_words(error: Exception, start: TrainingStart) -> str:
    """Return the reason without paths of this machine."""
    text = str(error)
    for folder in (start.upload.parent if start.upload else None, start.folder):
        if folder is not None:
            text = text.replace(f"{folder}/", "").replace(str(folder), "the data")
    return text


def main() -> None:
    """Train as the file in the first argument says; report to the file descriptor in the second."""
    start = TrainingStart.model_validate_json(Path(sys.argv[1]).read_bytes())
    end_with_parent(start.parent_pid)
    lower_priority(NICENESS, start.cores)
    limit_resources(file_bytes=MAX_FILE_BYTES)
    import torch

    torch.set_num_threads(start.cores)
    report = Reporter(int(sys.argv[2]))
    code = 0
    try:
        report.send(Finished(result=train(start, report)))
    except (DataError, SettingsError, ParityError, CertificateError) as error:
        report.send(Refused(reason=_in_words(error, start)))
    except MemoryError:
        report.send(Refused(reason="The memory of the machine was not enough: train on less data."))
    except Exception as error:
        report.log(f"{type(error).__name__}: {error}")
        code = 1
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)  # unloading PyTorch takes long


if __name__ == "__main__":
    main()
