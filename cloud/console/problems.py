"""Problems of a page in words."""

import logging

from shared.errors import VedetteError

_log = logging.getLogger(__name__)


def problem_words(error: Exception) -> str:
    """Return a problem as pages show it; log an unexpected one with its traceback."""
    if isinstance(error, VedetteError):
        return str(error)
    _log.error("console page failed", exc_info=error)
    return f"The console failed ({type(error).__name__}): see the service's log."
