"""Settings of an agent, checked before anything starts."""

from edge.settings.agent import (
    AgentSettings,
    DriftSettings,
    LiveViewSettings,
    LogSettings,
    MetricsSettings,
    NormalBufferSettings,
    RouterSettings,
    ScreeningLogSettings,
    SpoolSettings,
    UplinkSettings,
)

__all__ = [
    "AgentSettings",
    "DriftSettings",
    "LiveViewSettings",
    "LogSettings",
    "MetricsSettings",
    "NormalBufferSettings",
    "RouterSettings",
    "ScreeningLogSettings",
    "SpoolSettings",
    "UplinkSettings",
]
