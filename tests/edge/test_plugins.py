"""Sources that other packages bring."""

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.settings.sources import PluginSettings
from edge.sources import open_source
from edge.sources.health import SourceHealth
from shared.bundle import InputSpec
from shared.errors import DataError, SettingsError
from shared.modality import Modality
from shared.samples import SampleBatch

ROWS = InputSpec(channels=("heat", "load"))


class Counting:
    """A source such as a plug-in might bring."""

    is_paced = False

    def __init__(self, settings: Any, modality: Modality, spec: InputSpec, stop: threading.Event) -> None:
        self.source_id, self.modality, self.health = settings.id, modality, SourceHealth()
        self._count, self._spec = settings.options["count"], spec

    def batches(self) -> Any:
        values = np.ones((self._count, len(self._spec.channels)), dtype=np.float32)
        yield SampleBatch(self.source_id, self.modality, values, np.zeros(self._count), ["counted"] * self._count)


def test_a_plug_in_brings_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "counting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[vedette.sources]\ncounting = counting_plugin:Counting\nbroken = counting_plugin:absent\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "counting_plugin", sys.modules[__name__])

    def opened(plugin: str) -> Any:
        settings = PluginSettings(id="p", kind="plugin", plugin=plugin, options={"count": 3}, bundle=Path("b"))
        return open_source(settings, Modality.TABULAR, ROWS, threading.Event())

    (batch,) = opened("counting").batches()
    assert len(batch) == 3
    with pytest.raises(SettingsError, match=r"no plug-in 'opcua' is installed \(there is broken, counting\)"):
        opened("opcua")
    with pytest.raises(DataError, match="'broken' failed"):
        opened("broken")
