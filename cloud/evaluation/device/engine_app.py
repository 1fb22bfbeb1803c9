"""Throughput of the bare engine, measured by `benchmark_app` of the openvino package on a graph of a bundle."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.errors import EngineError, MissingExtraError

TIMEOUT_S = 300.0


def bare_rate(graph: Path, shape: list[int], seconds: float, hint: str = "throughput") -> float:
    """Return the samples per second of a graph (OpenVINO IR) on inputs of `shape`, in f32 as on devices.

    `hint`: "throughput" runs requests in parallel, "latency" runs one at a time. Raises MissingExtraError if
    `benchmark_app` is not installed and EngineError if it fails.
    """
    app = Path(sys.executable).with_name("benchmark_app")
    if not app.exists():
        raise MissingExtraError("OpenVINO's benchmark_app is not installed: pip install 'vedette[edge]'.")
    with TemporaryDirectory(prefix="vedette-bench-") as folder:
        command = [str(app), "-m", str(graph), "-d", "CPU", "-hint", hint, "-infer_precision", "f32"]
        command += [
            "-shape",
            f"[{','.join(map(str, shape))}]",
            "-inference_only",
            "-t",
            str(max(1, round(seconds))),
        ]
        command += ["-report_type", "no_counters", "-report_folder", folder, "-json_stats"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise EngineError(f"benchmark_app timed out after {TIMEOUT_S:.0f} s on {graph.name}.") from None
        try:
            report = json.loads((Path(folder) / "benchmark_report.json").read_bytes())["execution_results"]
            return (
                shape[0] * int(report["total number of iterations"]) / float(report["total execution time (ms)"]) * 1e3
            )
        except (OSError, ValueError, KeyError):
            errors = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line] or ["no report"]
            raise EngineError(f"benchmark_app failed on {graph.name}: {errors[0].strip()}") from None
