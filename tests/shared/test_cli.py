"""The command `vedette`: its tree, its start, its errors."""

import errno
import inspect
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from shared import cli, errors

COMMANDS = Path(sys.executable).parent / "vedette"
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "errors.md"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMANDS, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
        timeout=60,
    )


def run_code(body: str) -> subprocess.CompletedProcess[str]:
    """Run `vedette` with one extra command that has the given body."""
    program = f"""
        import errno, os, sys, typer
        from shared import cli, errors
        tree = cli.CommandTree()
        tree.root.callback()(cli._options)
        @tree.root.command()
        def trial() -> None:
        {textwrap.indent(body, "    ")}
        cli.build = lambda group: tree
        sys.argv = ["vedette", "trial"]
        cli.main()
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False, timeout=60
    )


def all_errors() -> list[type[errors.VedetteError]]:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    return [kind for kind in kinds if issubclass(kind, errors.VedetteError)]


@pytest.mark.parametrize(
    "command", [["evaluate", "b", "d"], ["bench", "adbench"], ["train", "d", "--modality", "tabular", "--output", "b"]]
)
def test_a_configuration_that_is_absent_ends_the_command_at_once(command: list[str]) -> None:
    program = "import sys; from shared import cli\ntry: cli.main()\nfinally: print('torch' in sys.modules)"
    arguments = [sys.executable, "-c", program, *command, "--config", "nofile"]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    assert ended.stderr == "vedette: nofile: no such file. Give the configuration's path with --config.\n"
    assert ended.stdout == "False\n"
    assert ended.returncode == errors.SettingsError.exit_code


@pytest.mark.parametrize("group", ["edge", "cloud"])
def test_a_part_loaded_alone_has_its_whole_group(group: str) -> None:
    whole, alone = (get_command(cli.build(name).root) for name in ("", group))
    assert vars(alone)["commands"].keys() < vars(whole)["commands"].keys()
    one, other = (vars(tree)["commands"][group].commands for tree in (alone, whole))
    assert one.keys() == other.keys()


def test_an_agent_starts_without_the_commands_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    build = cli.build
    monkeypatch.setattr(cli, "build", lambda group: (asked.append(group), build(group))[1])
    monkeypatch.setattr(sys, "argv", ["vedette", "edge", "--help"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert (asked, caught.value.code) == (["edge"], 0)


def test_help_is_quick_and_complete() -> None:
    started_s = time.monotonic()
    shown = run("--help", NO_COLOR="1", COLUMNS="100")
    assert shown.returncode == 0
    assert "anomaly detection" in shown.stdout
    # Measured 0.5 s; the bound catches the import of a heavy library (torch alone takes 3 s).
    assert time.monotonic() - started_s < 10


def test_every_command_says_what_it_does_and_its_options_too() -> None:
    def check(command: object, path: tuple[str, ...]) -> None:
        assert getattr(command, "help", None), f"{' '.join(path)} has no help"
        for parameter in getattr(command, "params", ()):
            if getattr(parameter, "name", "") not in ("install_completion", "show_completion", "help"):
                assert getattr(parameter, "help", None), f"{' '.join(path)}: {parameter.name} has no help"
        for name, inner in getattr(command, "commands", {}).items():
            check(inner, (*path, name))

    check(get_command(cli.build().root), ("vedette",))


def test_the_heavy_libraries_stay_out_of_the_command_tree() -> None:
    code = """
        import sys
        from shared import cli
        cli.build()
        heavy = {"torch", "openvino", "onnxruntime", "jinja2", "sqlalchemy", "pandas", "sklearn", "flwr", "cv2"}
        print(sorted(heavy & sys.modules.keys()))
    """
    shown = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_version_and_a_command_line_that_cannot_be_parsed() -> None:
    assert re.fullmatch(r"vedette \d+\.\d+\.\d+\n", run("--version").stdout)
    for arguments in (["nonsense"], ["--nonsense"], ["edge", "nonsense"]):
        assert run(*arguments).returncode == 2
    for arguments in (["evalute"], ["edge", "rnu"]):
        assert run(*arguments).stderr.count("Did you mean") == 1


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_is_one_line_and_its_exit_code(
    kind: type[errors.VedetteError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = cli.CommandTree()

    @tree.root.command()
    def trial() -> None:
        raise kind("press.toml: [red]bad[/red] :smile:\n  Do this.")

    monkeypatch.setattr(cli, "build", lambda group: tree)
    monkeypatch.setattr(sys, "argv", ["vedette"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == kind.exit_code
    assert capsys.readouterr().err == "vedette: press.toml: [red]bad[/red] :smile: Do this.\n"


def test_a_long_message_stays_on_one_line() -> None:
    shown = run_code("raise errors.DataError('word ' * 100)")
    assert shown.stderr.count("\n") == 1
    assert "Traceback" not in shown.stderr


def test_exit_codes_are_distinct_and_documented() -> None:
    direct = [kind for kind in all_errors() if kind.__base__ in (errors.VedetteError, Exception)]
    codes = [kind.exit_code for kind in direct]
    assert len(set(codes)) == len(codes)
    assert not {0, 2} & set(codes)
    documentation = DOCUMENTATION.read_text(encoding="utf-8")
    for kind in all_errors():
        assert f"`{kind.__name__}`" in documentation
        assert re.search(rf"^## {kind.exit_code} ", documentation, re.MULTILINE) or kind is errors.SampleRejected
        assert kind.__name__ in (errors.__doc__ or ""), "the tree at the top of errors.py"


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, 10), (errno.EDQUOT, 10), (errno.EROFS, 10), (errno.EADDRINUSE, 11), (errno.EACCES, 1)],
)
def test_what_the_system_refuses_is_one_line_too(number: int, code: int) -> None:
    shown = run_code(f"raise OSError({number}, os.strerror({number}), '/data/spool.db')")
    assert shown.returncode == code
    assert shown.stderr.startswith(f"vedette: /data/spool.db: {os.strerror(number)}.")
    assert shown.stderr.count("\n") == 1


def test_a_real_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        shown = run_code(f"import socket; socket.create_server(('127.0.0.1', {taken.getsockname()[1]}))")
    assert shown.returncode == errors.PortInUseError.exit_code
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(("package", "extra"), [("torch", "cloud"), ("openvino", "edge"), ("flwr.app", "federated")])
def test_an_absent_part_names_its_extra(package: str, extra: str) -> None:
    shown = run_code(f"raise ModuleNotFoundError('No module', name='{package}')")
    assert shown.returncode == errors.MissingExtraError.exit_code
    assert shown.stderr == f"vedette: This needs '{package}': pip install 'vedette[{extra}]'.\n"


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    for body in ("import no_such_module_anywhere", "1 / 0"):
        shown = run_code(body)
        assert shown.returncode == 1
        assert "Traceback" in shown.stderr


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    with subprocess.Popen([COMMANDS, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_an_interrupt_is_no_traceback() -> None:
    # A shell that runs the tests in the background ignores interrupts, and child processes inherit that.
    heed = "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler); "
    shown = run_code(f"{heed}os.kill(os.getpid(), {int(signal.SIGINT)}); time.sleep(5)")
    assert shown.returncode == 130
    assert "Traceback" not in shown.stderr


def test_commands_of_both_sides_share_a_group() -> None:
    tree = cli.CommandTree()
    assert tree.group("bundle") is tree.group("bundle")
    assert isinstance(tree.group("bundle"), typer.Typer)
