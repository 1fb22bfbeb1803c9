"""Option `--effort` of training commands: a share of the training steps, or a named effort."""

from typing import Any

from shared.errors import SettingsError

FIRST_LOOK = "first-look"
FIRST_LOOK_SIDE_PIXELS = 256
FIRST_LOOK_NOTE = (
    "first-look: 5 % of the training steps, and images of at most "
    f"{FIRST_LOOK_SIDE_PIXELS} x {FIRST_LOOK_SIDE_PIXELS} pixels, so small defects may be missed. "
    "Train without it before you rely on the result."
)
_FIRST_LOOK: dict[str, Any] = {"effort": 0.05, "image": {"max_pixels": FIRST_LOOK_SIDE_PIXELS**2}}


def effort_settings(text: str) -> dict[str, Any]:
    """Return the training settings of an effort such as "0.2" or "first-look"; empty if none is given.

    Raises SettingsError for any other text.
    """
    if text == FIRST_LOOK:
        return dict(_FIRST_LOOK)
    if not text:
        return {}
    try:
        effort = float(text)
    except ValueError:
        effort = 0.0
    if not 0.0 < effort <= 1.0:
        raise SettingsError(f"--effort {text}: give a number above 0 and up to 1, such as 0.2, or {FIRST_LOOK}.")
    return {"effort": effort}
