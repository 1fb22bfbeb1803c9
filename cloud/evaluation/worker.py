"""A process that computes benchmark units: one JSON line in for each, one JSON line out.

Started by the runner as `python -P -m cloud.evaluation.worker`. What libraries print goes to standard error.
"""

import time
import traceback
from pathlib import Path
from typing import Any

from shared.child_process import serve_json_lines


def main() -> None:
    """Answer units until standard input ends."""
    serve_json_lines(_answer)


def _answer(unit: dict[str, Any]) -> dict[str, Any]:
    """The unit's figures and facts, or the error that it ended in."""
    from cloud.evaluation.methods import score_unit
    from cloud.training.settings import TrainingSettings
    from shared.errors import VedetteError

    started_s = time.monotonic()
    try:
        settings = TrainingSettings.model_validate(unit["settings"])
        figures, facts = score_unit(unit["benchmark"], Path(unit["path"]), unit["variant"], unit["seed"], settings)
    except VedetteError as error:
        return {"error": str(error)}
    except Exception as error:  # a set that breaks a method must not stop the others
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
    return {"figures": figures, "facts": {**facts, "seconds": round(time.monotonic() - started_s, 1)}}


if __name__ == "__main__":
    main()
