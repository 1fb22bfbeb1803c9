"""Command `vedette bench audit`."""

from typing import Annotated, Any

import typer

from cloud.evaluation.command_options import DATA, JSON, OUTPUT, command_line
from cloud.evaluation.result_files import measure_and_write


def audit(
    data: DATA = None,
    runs: Annotated[int, typer.Option(min=10, max=10_000, help="Simulated deployments.")] = 1000,
    audits: Annotated[int, typer.Option(min=1000, max=300_000, help="Audits of a deployment, for the coverage.")] = (
        30_000
    ),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 0,
    json_path: JSON = None,
    output: OUTPUT = None,
) -> None:
    """Simulate deployments: coverage of the bound on missed anomalies, and the upload that max_miss_rate asks for.

    Without --data the p-values are drawn; with a folder of ADBench tables they are measured on these, too.
    """
    from cloud.evaluation.audits.benchmark import AuditBenchmarkOptions, run_audit_benchmark
    from cloud.evaluation.audits.page import audit_page, show_audits
    from cloud.training.progress import shown_progress

    def measure() -> dict[str, Any]:
        folder = "DATA" if data is not None else None
        command = command_line("audit", output, data=folder, runs=runs, audits=audits, seed=seed)
        with shown_progress() as progress:
            return run_audit_benchmark(AuditBenchmarkOptions(runs, audits, data, seed, command), progress)

    show_audits(measure_and_write(measure, json_path, output, audit_page))
