"""Workers of pytest-xdist, forked from one process that has imported libraries and product.

Each worker collects all tests, so it needs the imports of all. They take ten seconds of processor time, here once.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.fork_server import running_server, serve

# Not OpenVINO, which starts threads that a fork lacks, and no plug-in of pytest, which would lose its own assertions.
PRELOADED = (
    "aiosqlite",
    "alembic.command",
    "asyncpg",
    "av",
    "benchmarks",
    "cloud.api",
    "cloud.bench.large_store",
    "cloud.cli",
    "cloud.console",
    "cloud.evaluation.evaluate",
    "cloud.evaluation.plots",
    "cloud.evidence.report",
    "cloud.federation.server_app",
    "cloud.rest",
    "cloud.service.main",
    "cloud.service.people",
    "cloud.training.train",
    "cv2",
    "edge.agent",
    "edge.cli",
    "edge.federated",
    "edge.sources.mqtt",
    "onnx",
    "onnxruntime.quantization",
    "pandas",
    "pyarrow.parquet",
    "scipy.stats",
    "sklearn.ensemble",
    "sklearn.metrics",
    "torch",
)


@contextmanager
def forked_workers(specs: Sequence[Any]) -> Iterator[None]:
    """Let the workers of these specifications (execnet.XSpec) start as forks, while the block lasts."""
    with tempfile.TemporaryDirectory(prefix="vedette-workers-") as folder:
        client = Path(folder) / "python"
        with running_server("tests.forked_workers", client, Path(folder)):
            for spec in specs:
                if spec.popen and not spec.python:
                    spec.python = str(client)
            yield


def _run(arguments: list[str]) -> int:
    """Run `python -u -c CODE`, as execnet starts a worker."""
    main = sys.modules["__main__"] = ModuleType("__main__")
    sys.argv = ["-c"]
    exec(arguments[arguments.index("-c") + 1], main.__dict__)
    return 0


if __name__ == "__main__":
    serve(PRELOADED, _run)
