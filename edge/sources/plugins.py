"""Sources that other packages bring: an entry point in the group `vedette.sources` names what opens one.

It is called as `open_source(settings, modality, spec, stop)`, with `settings.options` as configured, and returns what
`edge.sources.base.Source` describes. It runs in the agent's process with all its rights: install what you trust.
"""

import threading
from importlib.metadata import EntryPoint, entry_points

from edge.settings.sources import PluginSettings
from edge.sources.base import Source
from shared.bundle import InputSpec
from shared.errors import DataError, SettingsError, VedetteError
from shared.modality import Modality

GROUP = "vedette.sources"


def find_plugin(settings: PluginSettings) -> EntryPoint:
    """Return the entry point of a plug-in, not loaded. Raises SettingsError if it is not installed."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    if settings.plugin not in found:
        raise SettingsError(
            f"Source {settings.id!r}: no plug-in {settings.plugin!r} is installed (there is "
            f"{', '.join(sorted(found)) or 'none'}): install the package that brings it."
        )
    return found[settings.plugin]


def open_plugin(settings: PluginSettings, modality: Modality, spec: InputSpec, stop: threading.Event) -> Source:
    """Open the source of a plug-in. Raises SettingsError if it is not installed, DataError if it fails."""
    point = find_plugin(settings)
    try:
        source: Source = point.load()(settings, modality, spec, stop)
    except VedetteError:
        raise
    except Exception as error:  # of code that is not ours: it ends this source alone
        raise DataError(f"Source {settings.id!r}: plug-in {settings.plugin!r} failed: {error!r}.") from error
    return source
