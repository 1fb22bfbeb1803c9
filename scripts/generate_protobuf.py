"""Generator of the protobuf and gRPC modules beside their `.proto` files; --check fails if any is out of date."""

import argparse
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent / "proto"


def generate(target: Path) -> None:
    """Write the modules of every `.proto` file below ROOT into `target`."""
    sources = sorted(str(path) for path in ROOT.rglob("*.proto"))
    well_known = Path(protoc.__file__).parent / "_proto"
    outputs = [f"--{kind}={target}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    if protoc.main(["protoc", f"-I{ROOT}", f"-I{well_known}", *outputs, *sources]) != 0:
        raise SystemExit("protoc failed: see above")


def stale() -> list[str]:
    """Return the paths of generated modules that are out of date, missing or without a `.proto` file."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*_pb2*.py*")}
    kept = {path.relative_to(ROOT): path.read_bytes() for path in ROOT.rglob("*_pb2*.py*") if path.suffix != ".pyc"}
    return sorted(str(path) for path in fresh.keys() | kept.keys() if fresh.get(path) != kept.get(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a module is out of date")
    if parser.parse_args().check:
        if paths := stale():
            sys.exit(f"out of date, run make proto: {', '.join(paths)}")
    else:
        generate(ROOT)


if __name__ == "__main__":
    main()
