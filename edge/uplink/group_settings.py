"""Settings of the device's group: checked, kept on disk, and applied while the agent runs."""

from collections.abc import Callable
from pathlib import Path

from edge.disk import disk_error_text
from edge.settings import RouterSettings
from shared.errors import SettingsError
from shared.files import write_durably
from shared.group_settings import GroupSettings
from shared.logs import EventLog, Throttle
from vedette.v1 import fleet_pb2

SETTINGS_FILE = "group_settings.json"
MAX_FILE_BYTES = 4096

log = EventLog("settings")


class FollowedSettings:
    """Router settings in force: the values of the group where it gives some, else those of `edge.toml`.

    `group` are the settings of the group in force. `refusal` is empty, or the reason why newer ones are not in force.
    `on_change` is called with the router settings after each change.
    """

    def __init__(self, state_dir: Path, local: RouterSettings, *, follows: bool = True) -> None:
        """Read the settings of the last run; a damaged file counts as none. Without `follows` the group is refused."""
        self._path, self._local, self._follows = state_dir / SETTINGS_FILE, local, follows
        self._throttle = Throttle(600.0)
        self.on_change: Callable[[RouterSettings], None] = lambda _: None
        self.refusal = ""
        self.group = self._read() if follows else GroupSettings()

    @property
    def router(self) -> RouterSettings:
        """Router settings in force."""
        return self._local.model_copy(update=self.group.given())

    @property
    def in_force(self) -> GroupSettings:
        """Values in force of all settings that a group can have."""
        router = self.router
        return GroupSettings.model_construct(**{name: getattr(router, name) for name in GroupSettings.model_fields})

    def follow(self, message: fleet_pb2.GroupSettings) -> bool:
        """Adopt the settings of the group; return whether anything changed that the service should know. Blocks.

        They are on disk before they are in force. Settings with a value out of range are refused as a whole.
        """
        before = (self.group, self.refusal)
        try:
            wanted = GroupSettings.from_message(message)
            if not self._follows and wanted.given():
                raise SettingsError("group_settings is false in edge.toml.")
            if wanted != self.group:
                write_durably(self._path, wanted.model_dump_json().encode())
                self.group = wanted
                self.on_change(self.router)
                log.info("group_settings_adopted", settings=wanted.words())
            self.refusal = ""
        except SettingsError as error:
            self._refuse(f"refused: {error}")
        except OSError as error:
            self._refuse(f"not stored: {disk_error_text(error, self._path)}")
        return (self.group, self.refusal) != before

    def _refuse(self, reason: str) -> None:
        self.refusal = reason[:400]
        if self._throttle.allow(self.refusal):
            log.error("group_settings_refused", reason=self.refusal, advice="the settings in force stay")

    def _read(self) -> GroupSettings:
        try:
            with self._path.open("rb") as file:
                return GroupSettings.model_validate_json(file.read(MAX_FILE_BYTES))
        except FileNotFoundError:
            return GroupSettings()
        except (OSError, ValueError) as error:
            advice = "the values of edge.toml are in force until the service answers"
            log.warning("group_settings_unreadable", path=self._path, error=error, advice=advice)
            return GroupSettings()
