"""Command `vedette score`."""

import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud.outputs import check_output_path, failure_as_json, write_json
from cloud.table_options import DATES, DECIMAL, DELIMITER, ENCODING, TIME_COLUMN
from shared.cli import CommandTree
from shared.errors import SettingsError

if TYPE_CHECKING:
    from cloud.api.inputs import TableOptions
    from cloud.api.scores import SampleScore
    from shared.bundle import Manifest

MAX_REASONS = 5
PROGRESS_ROWS = 16


def add_commands(tree: CommandTree) -> None:
    """Add the score command to the tree."""
    tree.root.command(
        epilog="Examples:  vedette score pump.vedette readings.csv --output scores.csv  |  "
        "vedette score camera.vedette photos/ --output scores.parquet --false-alarm-rate 0.001  |  "
        "vedette score pump.vedette new.parquet --method knn --json summary.json"
    )(score)


def score(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle archive to score with.")],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="A table, a series, an image or video file, or a folder of them.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="File for one row per sample: .csv or .parquet."),
    ] = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help='"fused", the name of an analyzer, or "screener" (the device\'s).')
    ] = "fused",
    false_alarm_rate: Annotated[
        float, typer.Option(metavar="RATE", help="Largest p-value that is anomalous, above 0 and below 1.")
    ] = 0.01,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the summary or the error to this file.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="PUBLIC.pem", help="Trusted public key; by default that of your signing key."),
    ] = None,
    label_column: Annotated[str, typer.Option(help="Column of labels; it is not an input.")] = "",
    time_column: TIME_COLUMN = "",
    delimiter: DELIMITER = "auto",
    decimal: DECIMAL = "auto",
    encoding: ENCODING = "auto",
    dates: DATES = "auto",
    device: Annotated[str, typer.Option(help='Device of the analyzers: "auto", "cpu" or "cuda".')] = "auto",
) -> None:
    """Score every sample: score, p-value, decision and the largest contributions, one row each.

    A sample that cannot be read or judged is a row with the decision "undecided" and a reason. Without --output, only
    the summary is printed.
    """
    table = {"delimiter": delimiter, "decimal": decimal, "encoding": encoding, "dates": dates}
    request = ScoreRequest(
        bundle, data, output, method, false_alarm_rate, key, label_column, time_column, table, device
    )
    with failure_as_json(json_path):
        check_output_path(output, "--output")
        summary = score_to_file(request)
    write_json(json_path, summary)
    typer.echo(summary["conclusion"])


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Arguments of `vedette score`; `table`: values of `TableSettings` by key."""

    bundle: Path
    data: Path
    output: Path | None
    method: str
    false_alarm_rate: float
    key: Path | None
    label_column: str
    time_column: str
    table: dict[str, str]
    device: str


def score_to_file(request: ScoreRequest) -> dict[str, Any]:
    """Score the data, write the rows, and return the summary as JSON values.

    Raises VedetteError if the bundle or the data cannot be used or the file cannot be written.
    """
    from cloud.api.inputs import open_input
    from cloud.api.score_file import open_score_file
    from cloud.api.scores import SampleScorer
    from cloud.serving.analysis import Analysis
    from cloud.training.progress import shown_progress
    from shared.bundle import Bundle
    from shared.home import trusted_key

    options = _table_options(request)
    rows = open_score_file(request.output) if request.output is not None else nullcontext()
    bundle = Bundle.open(request.bundle, [trusted_key(request.key)])
    manifest = bundle.manifest
    tally = _Tally()
    with shown_progress() as progress:
        progress("opening the bundle", 0.0)
        analysis = Analysis.load(bundle, request.device)
        scorer = SampleScorer(analysis, request.method, request.false_alarm_rate, bundle)
        samples = open_input(request.data, manifest.modality, manifest.input, options)
        started_s = time.monotonic()
        with rows as file:
            for done, result in enumerate(scorer.score(samples.blocks), start=1):
                tally.count(result)
                if file is not None:
                    file.write(result)
                if done % PROGRESS_ROWS == 0:
                    progress("scoring", done / samples.count)
    return _summary(request, manifest, tally, time.monotonic() - started_s)


@dataclass(frozen=True, slots=True)
class _Tally:
    """Counts of decisions, and of the reasons for undecided samples."""

    decisions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def count(self, result: "SampleScore") -> None:
        self.decisions[result.decision] += 1
        if result.reason:
            self.reasons[result.reason] += 1


def _table_options(request: ScoreRequest) -> "TableOptions":
    """Return how to read a table; raises SettingsError that names the option with a wrong value."""
    from pydantic import ValidationError

    from cloud.api.inputs import TableOptions
    from shared.tables.settings import TableSettings

    try:
        return TableOptions(request.label_column, request.time_column, TableSettings.model_validate(request.table))
    except ValidationError as error:
        problem = error.errors()[0]
        raise SettingsError(f"--{problem['loc'][0]}: {problem['msg']} (is {problem['input']!r}).") from None


def _summary(request: ScoreRequest, manifest: "Manifest", tally: _Tally, seconds: float) -> dict[str, Any]:
    """Return the result of the command as JSON values."""
    counts = tally.decisions
    summary = {
        "status": "ok",
        "bundle": manifest.bundle_id,
        "data": request.data.name,
        "modality": str(manifest.modality),
        "method": request.method,
        "false_alarm_rate": request.false_alarm_rate,
        "samples": sum(counts.values()),
        "anomalous": counts["anomalous"],
        "normal": counts["normal"],
        "undecided": counts["undecided"],
        "reasons": dict(tally.reasons.most_common(MAX_REASONS)),
        "seconds": round(seconds, 2),
        "output": None if request.output is None else str(request.output),
    }
    return {**summary, "conclusion": _conclusion(summary)}


def _conclusion(summary: dict[str, Any]) -> str:
    """Return one sentence: samples decided anomalous, the false-alarm rate, and samples that could not be judged."""
    total, found, rate = summary["samples"], summary["anomalous"], summary["false_alarm_rate"]
    judged = total - summary["undecided"]
    expected = judged * rate
    text = (
        f"{found} of {total} samples are anomalous at a false-alarm rate of {100 * rate:g} % "
        f"(chance alone gives about {expected:.3g}), "
    )
    if not summary["undecided"]:
        return f"{text}and every sample could be judged."
    first = next(iter(summary["reasons"]), "")
    return f"{text}and {summary['undecided']} could not be judged: {first.rstrip('.')}."
