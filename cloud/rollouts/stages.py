"""Stages of a rollout: a trial on named devices or a share of the fleet, then waves."""

import hashlib
from collections.abc import Collection, Sequence

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import SettingsError

TRIAL = "trial"
DEFAULT_WAVES = "5,25,100"
DEFAULT_STAGE_S = 3600.0
DEFAULT_STAGE_SAMPLES = 1000


class Stage(BaseModel):
    """Devices that get the bundle in one stage, and how long it lasts at least.

    `percent` of the fleet in [0, 100] besides the named `devices`. The gates are passed at the earliest after `least_s`
    seconds and `least_samples` samples that the new bundle has screened in this stage.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    devices: tuple[str, ...] = ()
    percent: float = Field(default=0.0, ge=0, le=100)
    least_s: float = Field(default=DEFAULT_STAGE_S, ge=0)
    least_samples: int = Field(default=DEFAULT_STAGE_SAMPLES, ge=0)

    def includes(self, device_id: str, bundle_id: str) -> bool:
        """Return whether a device belongs to this stage of the bundle's rollout."""
        return device_id in self.devices or place_in_order(device_id, bundle_id) < self.percent / 100


def place_in_order(device_id: str, bundle_id: str) -> float:
    """Return the place of a device in the order of a bundle's rollout, in [0, 1).

    A hash: the same at each call and on each machine, and another order for each bundle, so that no device is always
    among the first.
    """
    digest = hashlib.sha256(f"{bundle_id}\0{device_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def parse_stages(trial: str, waves: str, *, least_s: float, least_samples: int) -> tuple[Stage, ...]:
    """Return the stages of `--stages` ("trial=DEVICE,DEVICE", "trial=5%" or "") and `--waves` ("10,50,100").

    Raises SettingsError for another text, and unless the waves grow to 100.
    """
    least = {"least_s": least_s, "least_samples": least_samples}
    stages = [_trial(trial, least)] if trial else []
    percents = [_percent(word) for word in waves.split(",")]
    first = stages[0].percent if stages else 0.0
    if percents[-1] != 100 or any(
        later <= earlier for earlier, later in zip([first, *percents], percents, strict=False)
    ):
        raise SettingsError(f"--waves {waves!r}: give growing shares in percent, the last one 100, such as 10,50,100.")
    stages += [Stage(name=f"wave {percent:g} %", percent=percent, **least) for percent in percents]
    return tuple(stages)


def unknown_devices(stages: Sequence[Stage], known: Collection[str]) -> list[str]:
    """Return the named devices that are not among the known ones."""
    return [device_id for stage in stages for device_id in stage.devices if device_id not in known]


def _trial(text: str, least: dict[str, float]) -> Stage:
    name, equals, value = text.partition("=")
    words = [word.strip() for word in value.split(",") if word.strip()]
    if name != TRIAL or not equals or not words:
        raise SettingsError(f"--stages {text!r}: write trial=DEVICE,DEVICE or trial=5%.")
    if len(words) == 1 and words[0].endswith("%"):
        return Stage.model_validate({"name": TRIAL, "percent": _percent(words[0].removesuffix("%")), **least})
    return Stage.model_validate({"name": TRIAL, "devices": tuple(words), **least})


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise SettingsError(f"{text.strip()!r} is not a share: give a number of percent above 0 and up to 100.")
    return value
