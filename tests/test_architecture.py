"""Architecture rules: imports, memory of a device, generated code, packaging, module length."""

import ast
import functools
import importlib.util
import json
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from tests.scheduling import LONGEST, WAITING

ROOT = Path(__file__).parents[1]


PROBES = """
import contextlib, io, json, sys, traceback
results = {}
for name, code in json.load(sys.stdin).items():
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(code, {})
        results[name] = (printed.getvalue().strip(), "")
    except BaseException:
        results[name] = ("", traceback.format_exc())
print(json.dumps(results))
"""


@functools.cache
def run_python(*names: str) -> dict[str, tuple[str, str]]:
    """Return the output and the error of each of these pieces of CODE, run one after the other in a new interpreter."""
    codes = {name: textwrap.dedent(CODE[name]) for name in names}
    done = subprocess.run(
        [sys.executable, "-c", PROBES],
        input=json.dumps(codes),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return {name: (output, error) for name, (output, error) in json.loads(done.stdout).items()}


def output_of(name: str) -> str:
    """Return the output of a piece of CODE; fail with its error. Modules that earlier ones loaded stay loaded."""
    (names,) = (names for names in INTERPRETERS if name in names)
    output, error = run_python(*names)[name]
    assert not error, error
    return output


@functools.cache
def syntax_of(top: str) -> dict[Path, list[ast.AST]]:
    """Return the nodes of the syntax tree of each module of a package, read once for all rules."""
    return {path: list(ast.walk(ast.parse(path.read_bytes()))) for path in (ROOT / top).rglob("*.py")}


def agent_modules() -> list[str]:
    """Return all modules of the agent except those that train."""
    paths = [path.relative_to(ROOT).with_suffix("") for path in sorted((ROOT / "edge").rglob("*.py"))]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if not name.startswith("edge.federated")]


def test_the_command_line_loads_no_numpy_before_an_agent_has_set_its_threads() -> None:
    assert output_of("threads of an agent") == "False True 1"


def test_the_command_tree_is_built_without_the_packages_of_training() -> None:
    loaded = output_of("command tree").split()
    assert not {"torch", "sklearn", "pandas", "scipy", "numpy", "onnx", "sqlalchemy", "fastapi"} & set(loaded)


def test_the_agent_starts_without_torch_or_anything_of_the_cloud() -> None:
    assert importlib.util.find_spec("edge.agent") is not None
    loaded = output_of("agent").split()
    assert not {"torch", "cloud", "pandas", "sklearn", "scipy", "matplotlib", "sqlalchemy", "cv2"} & set(loaded)


def test_the_wire_protocol_loads_nothing_of_the_python_api() -> None:
    assert output_of("wire protocol") == ""


def test_the_python_api_names_the_missing_package_on_a_device() -> None:
    assert "pip install 'vedette[train]'" in output_of("missing package")


def test_no_module_of_the_agent_loads_torch() -> None:
    output_of("modules of the agent")


FITTING = {
    "cloud.training",
    "cloud.evaluation",
    "shared.diffusion.distillation",
    "shared.diffusion.training",
    "nncf",
    "onnx",
    "openvino",
    "onnxruntime",
    "sklearn",
}


NOT_SERVING = {
    "api",
    "bench",
    "cli",
    "demo",
    "evaluation",
    "federation",
    "job_process",
    "methods",
    "metrics",
    "outputs",
    "retraining",
    "table_options",
    "training",
}


def test_contracts_cover_every_module_of_the_service() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    modules = {
        path.stem for path in (ROOT / "cloud").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    wanted = {f"cloud.{name}" for name in modules - NOT_SERVING - {"__init__"}}
    named = [
        set(each["source_modules"])
        for each in contracts
        if "the service" in each["name"] and each["type"] == "forbidden"
    ]
    assert named == [wanted, wanted]


def service_modules() -> list[str]:
    """Return all modules that the service's process loads before it opens its first bundle."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for top in ("service", "serving", "console", "rest", "store")
        for path in sorted((ROOT / "cloud" / top).rglob("*.py"))
        if "migrations" not in path.parts
    ]
    return [name for name in names if name not in LOADED_WITH_A_BUNDLE | WITH_RAY]


LOADED_WITH_A_BUNDLE = {
    "cloud.serving.adaptive_depth",
    "cloud.serving.analysis",
    "cloud.serving.device",
    "cloud.serving.encoding",
    "cloud.serving.explanations",
    "cloud.serving.frames",
    "cloud.serving.precision",
    "cloud.serving.scoring",
}
WITH_RAY = {"cloud.serving.replicas.deployment", "cloud.serving.replicas.front"}  # in processes of their own


def shared_modules() -> list[str]:
    """Return all modules at the top of `shared`, and the preprocessing."""
    names = ["shared." + path.stem for path in sorted((ROOT / "shared").glob("*.py")) if path.stem != "__init__"]
    return [*names, "shared.preprocessing"]


CODE = {
    "threads of an agent": """
        import os, pathlib, sys
        from shared.cli import build
        from shared.errors import SettingsError
        os.environ.pop("OPENBLAS_NUM_THREADS", None)
        build()
        loaded_early = "numpy" in sys.modules
        from edge.cli import run
        try:
            run(pathlib.Path("nowhere.toml"))
        except SettingsError:
            print(loaded_early, "numpy" in sys.modules, os.environ["OPENBLAS_NUM_THREADS"])
    """,
    "command tree": "import sys; from shared.cli import build; build(); print(*sys.modules)",
    "agent": "import sys, edge.agent; print(*{name.partition('.')[0] for name in sys.modules})",
    "modules of the agent": f"""
        import importlib, sys
        for name in {agent_modules()!r}:
            importlib.import_module(name)
            assert "torch" not in sys.modules, name
            assert "cloud" not in sys.modules, name
    """,
    "shared modules": f"""
        import importlib, sys
        for name in {shared_modules()!r}:
            importlib.import_module(name)
            heavy = {{"torch", "cloud", "edge", "openvino", "onnxruntime", "cv2", "scipy"}} & sys.modules.keys()
            assert not heavy, (name, heavy)
    """,
    "wire protocol": """
        import sys
        import vedette
        from vedette.v1 import detection_pb2, sample_pb2
        print(*sorted({"torch", "cloud", "sklearn", "scipy"} & sys.modules.keys()))
        assert {"Detector", "VectorDetector"} <= set(dir(vedette)) and not hasattr(vedette, "detector")
    """,
    "service": f"""
        import importlib, sys
        for name in {service_modules()!r}:
            importlib.import_module(name)
        print(*sorted(({FITTING!r} | {{"torch"}}) & sys.modules.keys()))
    """,
    "judging": f"""
        import sys
        import cloud.serving.analysis
        print(*sorted({FITTING!r} & sys.modules.keys()))
    """,
    "missing package": """
        import sys
        sys.modules["sklearn"] = None
        try:
            from vedette import Detector
        except ImportError as error:
            print(error)
    """,
}

# What an interpreter runs later may load more than what it runs before. No check passes because of an earlier one:
# each forbids modules, and earlier code can only add modules.
INTERPRETERS = (
    ("command tree", "threads of an agent"),
    ("agent", "modules of the agent"),
    ("shared modules", "wire protocol", "service", "judging", "missing package"),
)


def test_the_service_starts_without_anything_that_fits() -> None:
    assert output_of("service") == ""


def test_judging_loads_no_training_run() -> None:
    """Analyzers bring the training loop of their own `fit`; distillation, export and evaluation stay out."""
    assert set(output_of("judging").split()) <= {"shared.diffusion.training"}


def test_shared_modules_load_neither_torch_nor_an_engine() -> None:
    output_of("shared modules")


def test_imports_run_downwards_only() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout


def test_the_generated_protobuf_modules_are_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate_protobuf.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_package_is_installed() -> None:
    """A folder without `__init__.py` would work from a checkout and be missing from an installation."""
    for top in ("edge", "cloud", "shared", "proto/vedette"):
        for path in (ROOT / top).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path.parent


def test_every_data_file_is_installed() -> None:
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = setup["tool"]["setuptools"]["package-data"]["*"]
    for top in ("edge", "cloud", "shared", "proto/vedette"):
        packages = [path.parent for path in (ROOT / top).rglob("__init__.py")]
        installed = {path for package in packages for pattern in patterns for path in package.glob(pattern)}
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert path in installed, f"{path}: no pattern of package-data names it"


@pytest.mark.parametrize("top", ["edge", "cloud", "shared"])
def test_modules_are_short_enough_to_be_read(top: str) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / top).rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > 420} == {}


@pytest.mark.parametrize("top", ["edge", "cloud", "shared"])
def test_functions_are_short_enough_to_be_read(top: str) -> None:
    """Signature and docstring do not count: options of commands have long declarations."""
    long = {}
    for path, nodes in syntax_of(top).items():
        for node in nodes if "migrations" not in path.parts else []:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[min(ast.get_docstring(node) is not None, len(node.body) - 1)]
                if (length := node.end_lineno - first.lineno + 1) > 45:
                    long[f"{path}: {node.name}"] = length
    assert long == {}


def test_errors_derive_from_one_tree() -> None:
    """An exception class of another root would reach the user as a traceback."""
    roots = re.compile(r"^class \w+\((Exception|ValueError|RuntimeError|OSError)\)", re.MULTILINE)
    for top in ("edge", "cloud", "shared"):
        for path in (ROOT / top).rglob("*.py"):
            found = roots.search(path.read_text(encoding="utf-8"))
            assert found is None or path.name == "errors.py", f"{path}: {found.group() if found else ''}"


def test_public_class_names_are_unique_in_the_product() -> None:
    """Two classes of one name are mistaken for each other in imports, searches and the schema of the API."""
    modules: dict[str, set[str]] = {}
    for top in ("edge", "cloud", "shared"):
        for path, nodes in syntax_of(top).items():
            for node in nodes:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    modules.setdefault(node.name, set()).add(str(path.relative_to(ROOT)))
    assert {name: found for name, found in modules.items() if len(found) > 1} == {}


def test_the_scheduler_names_files_that_exist() -> None:
    names = [str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")]
    assert set(LONGEST) <= set(names)
    assert [begin for begin in WAITING if not any(name.startswith(begin) for name in names)] == []
