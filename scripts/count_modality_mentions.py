"""Count of the modules that branch on the modality outside the packages `modalities`.

    python scripts/count_modality_mentions.py [ROOT] [--show]

A module counts if it names a member of `Modality`, except to declare its own modality, or if it derives the modality
from the rank or dtype of an array or from the image size of an input spec. The packages `modalities`, the enum itself
and generated code are excluded. So are modules that only state the modality of their data: `cloud/bench`, which makes
samples of each kind for its load, and the benchmarks' data sets, each of which is a table or a series by its protocol.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("edge", "cloud", "shared")
OWN_MODULES = tuple(
    f"{package}/modalities/" for package in ("cloud", "cloud/job_process", "cloud/training", "edge", "shared")
)
LOADS = "cloud/bench/"  # makes samples of each kind, as the tests do
DATA_SETS = (
    "cloud/evaluation/drift/streams.py",
    "cloud/evaluation/labels.py",
    "cloud/evaluation/repeats/benchmark.py",
)  # state the modality of a data set, as its protocol does, and branch on none
ENUM = "shared/modality.py"
NAMED = re.compile(r"\bModality\.[A-Z]{3,}\b")
DECLARED = re.compile(r"^(?:modality(?:: Modality)?|name) ?= ?Modality\.[A-Z]+,?$")  # declarations do not branch
SNIFFED = re.compile(
    r"\b(?:inputs|train|test|held_out|ratio)\.ndim\b|\bimage_height\b|\bimage_width\b|\.dtype\s*(?:==|!=|is)\s*(?:np\.)?uint8|\bis_image\b"
)
COMMENT = re.compile(r"#.*")


def mentions(root: Path) -> Iterator[tuple[str, int, str]]:
    """Yield path, line number and line of each mention below `root`."""
    for path in sorted(path for package in PACKAGES for path in (root / package).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        own = name == ENUM or name.startswith(OWN_MODULES) or path.stem.endswith(("_pb2", "_pb2_grpc"))
        if own or name in DATA_SETS or name.startswith(LOADS):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            code = COMMENT.sub("", line).strip()
            if DECLARED.match(code):
                continue
            if NAMED.search(code) or SNIFFED.search(code):
                yield name, number, line.strip()


def counts(root: Path) -> dict[str, int]:
    """Return the number of modules with mentions, by package."""
    modules = {name for name, _, _ in mentions(root)}
    return {package: sum(name.startswith(f"{package}/") for name in modules) for package in PACKAGES}


def main() -> None:
    """Print the counts, and each mention with --show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--show", action="store_true", help="print each mention")
    options = parser.parse_args()
    if options.show:
        for name, number, line in mentions(options.root):
            print(f"{name}:{number}: {line}")
    found = counts(options.root)
    print(", ".join(f"{package} {count}" for package, count in found.items()) + f", total {sum(found.values())}")


if __name__ == "__main__":
    main()
