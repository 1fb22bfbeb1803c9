"""Roles of service processes: one process does all work, or several share it over one PostgreSQL store."""

from enum import StrEnum

from cloud.settings import CloudSettings
from shared.errors import SettingsError


class Role(StrEnum):
    """Work of one service process."""

    ALL = "all"
    INGEST = "ingest"
    ANALYSIS = "analysis"
    CONSOLE = "console"
    TRAINING = "training"

    @property
    def serves_devices(self) -> bool:
        """Whether the process has the ports of devices, and takes turns in housekeeping."""
        return self in (Role.ALL, Role.INGEST)

    @property
    def judges(self) -> bool:
        """Whether the process judges waiting samples."""
        return self in (Role.ALL, Role.ANALYSIS)

    @property
    def serves_people(self) -> bool:
        """Whether the process has the console and the HTTP API."""
        return self in (Role.ALL, Role.CONSOLE)

    @property
    def trains(self) -> bool:
        """Whether the process runs training jobs."""
        return self in (Role.ALL, Role.TRAINING)


def check_role(role: Role, settings: CloudSettings) -> None:
    """Raise SettingsError if other processes cannot share the store."""
    if role is not Role.ALL and not settings.store_url:
        raise SettingsError(
            f"--role {role} needs a store that several processes share, and the store in {settings.data_dir} is a "
            "SQLite file: set store_url to a PostgreSQL database, or leave out --role."
        )
