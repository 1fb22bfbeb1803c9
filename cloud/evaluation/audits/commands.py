"""Command `vedette bench audit`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.evaluation.result_files import measure_and_write


def audit(
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", envvar="VEDETTE_BENCH_DATA", help="Folder with ADBench tables. Default: none."
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=10, max=10_000, help="Simulated deployments.")] = 1000,
    audits: Annotated[int, typer.Option(min=1000, max=300_000, help="Audits of a deployment, for the coverage.")] = (
        30_000
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 0,
    json_path: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the result or the error to this file.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="PAGE.md", help="Write the results as a Markdown page.")
    ] = None,
) -> None:
    """Simulate deployments: coverage of the bound on missed anomalies, and the upload that max_miss_rate asks for."""
    from cloud.evaluation.audits.benchmark import AuditBenchmarkOptions, run_audit_benchmark
    from cloud.evaluation.audits.page import audit_page, show_audits
    from cloud.training.progress import shown_progress

    def measure() -> dict[str, Any]:
        parts = ["vedette bench audit"]
        parts += ["--data DATA"] if data is not None else []
        parts += [f"--runs {runs}"] if runs != 1000 else []
        parts += [f"--audits {audits}"] if audits != 30_000 else []
        parts += [f"--seed {seed}"] if seed else []
        parts += [f"--output docs/benchmarks/{output.name}"] if output is not None else []
        options = AuditBenchmarkOptions(runs, audits, data, seed, " ".join(parts))
        with shown_progress() as progress:
            return run_audit_benchmark(options, progress)

    show_audits(measure_and_write(measure, json_path, output, audit_page))
