"""Fixtures and options of all tests: an empty home folder, no settings from outside, one thread each."""

import contextlib
import gc
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.webhook import SECRET, Hook

# Numeric libraries read these at import, here and in every child process: many small models on few cores run fastest
# on one thread each, and add up in a fixed order.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# A fork must not run the handlers of gRPC, which a worker may have loaded: they sometimes abort the child.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# A worker keeps large libraries loaded, and walks through all their objects whenever it looks for garbage. Fewer
# collections save 4 % of the processor time.
gc.set_threshold(20_000, 20, 100)

_SLOW_MACHINE = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("here", deadline=None, max_examples=60, suppress_health_check=_SLOW_MACHINE)
settings.register_profile("ci", settings.get_profile("here"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--long`."""
    parser.addoption("--long", action="store_true", help="also run the tests marked long, as `make test-long` does")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip long tests unless asked for; start whole systems first, since they take longest and mostly wait."""
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long") is not None:
                item.add_marker(pytest.mark.skip(reason="long: make test-long"))
    items.sort(key=lambda item: item.get_closest_marker("system") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(config: pytest.Config, specs: Sequence[Any]) -> None:
    """Fork the workers from one process that has imported what they need."""
    from tests.forked_workers import forked_workers

    stack = contextlib.ExitStack()
    stack.enter_context(forked_workers(specs))
    config.add_cleanup(stack.close)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run files that wait beside files that compute."""
    from tests.scheduling import WaitBesideCompute

    return WaitBesideCompute(config, log)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Restore the handlers of Vedette's log, which commands that run in this process replace."""
    logger = logging.getLogger("vedette")
    handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty VEDETTE_HOME for each test; settings in the environment of whoever runs the tests do not count."""
    for name in os.environ:
        if name.startswith("VEDETTE_"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home") / "vedette"
    monkeypatch.setenv("VEDETTE_HOME", str(home))
    return home


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    return path
