"""What all tests share: a home folder of their own, no settings from outside, and one thread each."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Read when the numeric libraries are first imported, here and in every process that a test starts: many small models
# on few cores run fastest on one thread each, and their sums always in one order.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

_SLOW_MACHINE = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("here", deadline=None, max_examples=60, suppress_health_check=_SLOW_MACHINE)
settings.register_profile("ci", settings.get_profile("here"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole systems first: they take longest and mostly wait, so on several cores the rest fits beside them."""
    items.sort(key=lambda item: item.get_closest_marker("system") is None)


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty VEDETTE_HOME for each test; settings in the environment of whoever runs the tests do not count."""
    for name in os.environ:
        if name.startswith("VEDETTE_"):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home") / "vedette"
    monkeypatch.setenv("VEDETTE_HOME", str(home))
    return home
