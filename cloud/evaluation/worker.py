"""Worker process of benchmark units: reads one JSON line per unit and writes one JSON line per result.

The runner starts it as `python -P -m cloud.evaluation.worker`. Output of libraries goes to standard error.
"""

import time
import traceback
from pathlib import Path
from typing import Any

from shared.child_process import serve_json_lines


def main() -> None:
    """Compute units until standard input ends."""
    serve_json_lines(answer)


def answer(unit: dict[str, Any]) -> dict[str, Any]:
    """Return the figures and facts of a unit, or its error."""
    from cloud.evaluation.methods import score_unit
    from cloud.training.settings import TrainingSettings
    from shared.errors import VedetteError

    started_s = time.monotonic()
    try:
        settings = TrainingSettings.model_validate(unit["settings"])
        figures, facts = score_unit(unit["benchmark"], Path(unit["path"]), unit["variant"], unit["seed"], settings)
    except VedetteError as error:
        return {"error": str(error)}
    except Exception as error:  # one failing set must not stop the others
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}
    return {"figures": figures, "facts": {**facts, "seconds": round(time.monotonic() - started_s, 1)}}


if __name__ == "__main__":
    main()
