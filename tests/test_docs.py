"""The documents fit the program: settings load, Python runs, commands parse, links, paths and names exist."""

import functools
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import yaml
from pydantic import BaseModel, ValidationError
from typer.main import get_command

from benchmarks.__main__ import NAMES as BENCHMARKS
from cloud.methods import ANALYZERS
from cloud.settings import CloudSettings
from cloud.training.settings import TrainingSettings
from edge.alarms.sinks import WebhookSink
from edge.settings import AgentSettings
from edge.settings.alarms import WebhookSettings
from shared import cli
from tests.cloud.rest.served import served_api
from tests.documents import BLOCKS, PAGES, ROOT, Block, commands

METHOD_PAGES = [path for path in sorted((ROOT / "docs" / "methods").glob("*.md")) if path.name != "README.md"]
METHOD_SECTIONS = ["When to use it", "Parameters", "Cost", "Evidence", "References"]
LANGUAGES = {"toml", "python", "sh", "json", "yaml", "text"}
WEBHOOK_SECRET = "/etc/vedette/webhook.secret"
SETTINGS: tuple[type[BaseModel], ...] = (AgentSettings, CloudSettings, TrainingSettings)
CODE_PATH = re.compile(r"(?:cloud|edge|shared|tests|benchmarks|docs|deploy|proto|scripts)/[\w./-]+")
BUNDLE_FILES = (".npz", ".safetensors")  # cloud/reference.npz is a file of a bundle
EXAMPLES = re.compile(r"\bmy_")  # files that a contributor would write


def _of(*languages: str) -> Any:
    return pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in languages], ids=str)


def _prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return re.sub(r"^\s*```.*?^\s*```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def _inline_code(page: Path) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", _prose(page))]


def _load_settings(text: str) -> None:
    """Load TOML through the settings class that has its keys. A table of another file's fragment gets a state_dir."""
    values = tomllib.loads(text)
    if "project" in values:
        entry_points = values["project"]["entry-points"]
        used = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "edge").rglob("*.py"))
        assert all(f'"{group}"' in used for group in entry_points), f"no such group of entry points: {entry_points}"
        return
    fitting = [kind for kind in SETTINGS if values.keys() <= kind.model_fields.keys()]
    assert fitting, f"no settings have the keys {', '.join(values)}"
    problems = []
    for kind in fitting:
        required: dict[str, object] = {"state_dir": "state"} if kind is AgentSettings else {}
        try:
            kind.model_validate({**required, **values})
        except ValidationError as error:
            problems.append(str(error))
        else:
            return
    raise AssertionError("\n".join(problems))


def _here_documents(script: str) -> Iterator[tuple[str, str]]:
    """(file name, text) of each here-document of a script."""
    yield from re.findall(r"cat > (\S+) <<'?(?:\w+)'?.*?\n(.*?)^\w+$", script, flags=re.MULTILINE | re.DOTALL)


@functools.cache
def _root_command() -> Any:
    return get_command(cli.build().root)


@functools.cache
def _code() -> str:
    """All code of the project as one text."""
    files = [path for name in ("cloud", "edge", "shared") for path in (ROOT / name).rglob("*.py")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def _check_vedette(words: list[str], *, is_complete: bool) -> None:
    """Parse `vedette WORDS` with the real command line, without running it.

    A complete command also needs the required arguments and options.
    """
    command: Any = _root_command()
    context = click.Context(command, info_name="vedette")
    rest = [word for word in words if word != "..."]
    while rest and hasattr(command, "commands") and rest[0] != "--help":
        if command.invoke_without_command and rest[0].startswith("--"):
            break  # options of the group itself
        name = rest.pop(0)
        found = command.get_command(context, name)
        if found is None and re.fullmatch(r"[A-Z_]+|\[.*", name):
            return  # a placeholder, as in `vedette COMMAND --help`
        assert found is not None, f"vedette {' '.join(words)}: no command {name!r}"
        command = found
        context = click.Context(command, info_name=name, parent=context)
    if hasattr(command, "commands") and not command.invoke_without_command:
        assert not is_complete, f"vedette {' '.join(words)}: name a command"
        return
    if not is_complete and rest and rest[-1].startswith("--"):
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert rest[-1] in known, f"vedette {' '.join(words)}: known options are {', '.join(sorted(known))}"
        return
    values, left, _ = command.make_parser(context).parse_args(rest)
    assert not left, f"vedette {' '.join(words)}: unexpected {left}"
    for parameter in command.params:
        value = values.get(str(parameter.name))
        missing = value is None or value == () or type(value).__name__ == "Sentinel"
        if missing:
            assert not (is_complete and parameter.required), f"vedette {' '.join(words)}: {parameter.name} is missing"
        elif isinstance(value, str) and not _is_free_text(parameter, value):
            parameter.type.convert(value, parameter, context)


def _is_free_text(parameter: click.Parameter, value: str) -> bool:
    """Tell whether any value will do: a path, or a placeholder such as `FILE`."""
    return parameter.type.name in ("path", "file", "filename") or re.fullmatch(r"[A-Z][A-Z_,]*", value) is not None


def _check_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    variables = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    assert set(names) <= targets, f"make {' '.join(words)}: targets are {', '.join(sorted(targets))}"
    for variable in variables:
        name, _, value = variable.partition("=")
        assert name in (ROOT / "Makefile").read_text(encoding="utf-8")
        if name == "ARGS" and names == ["demo"]:
            _check_vedette(["demo", *shlex.split(value)], is_complete=True)
        if name == "ARGS" and names == ["bench"]:
            asked = {word for word in shlex.split(value) if not word.startswith("-")}
            assert asked <= {*BENCHMARKS, "NAME"}, f"make {' '.join(words)}: benchmarks are {', '.join(BENCHMARKS)}"


def _check_command(words: list[str], *, is_complete: bool = True) -> None:
    """Check a command of `vedette` or `make`; others, such as `openssl`, are not this project's."""
    if words[:3] == ["docker", "compose", "exec"]:
        words = words[4:]
    at = next((index for index, word in enumerate(words) if word.endswith("/bin/vedette")), 0)
    if words[at:][:1] == ["vedette"] or at:
        _check_vedette(words[at + 1 :], is_complete=is_complete)
    elif words[:1] == ["make"]:
        _check_make(words[1:])


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_names_its_language(block: Block) -> None:
    assert block.language in LANGUAGES


@_of("toml")
def test_settings_in_a_block_load(block: Block) -> None:
    _load_settings(block.text)


@_of("python")
def test_python_in_a_block_runs(block: Block, tmp_path: Path) -> None:
    if WEBHOOK_SECRET in block.text:
        verified = _verify_webhook(block, tmp_path, body=b'{"event": "test"}', sent=b'{"event": "test"}')
        assert verified
        assert not _verify_webhook(block, tmp_path, body=b'{"event": "tess"}', sent=b'{"event": "test"}')
        return
    if "VEDETTE_API_TOKEN" in block.text:
        _run_with_api(block, tmp_path)
        return
    exec(compile(block.text, str(block), "exec"), {})


def _run_with_api(block: Block, folder: Path) -> None:
    """Run an example of the HTTP API against one that is served."""
    with served_api(folder) as (url, token), pytest.MonkeyPatch.context() as patch:
        patch.setenv("VEDETTE_API", url)
        patch.setenv("VEDETTE_API_TOKEN", token)
        exec(compile(block.text, str(block), "exec"), {})


def test_the_errors_of_the_http_api_are_listed() -> None:
    listed = set(re.findall(r"`urn:vedette:problem:([a-z-]+)`", (ROOT / "docs" / "REST.md").read_text("utf-8")))
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "cloud" / "rest").glob("*.py"))
    raised = set(re.findall(r'Problem\(\s*\d+, "([a-z-]+)"', code)) | {"not-found"}
    assert listed == raised - {"fault"}


def _verify_webhook(block: Block, folder: Path, *, body: bytes, sent: bytes) -> bool:
    """Run the receiver's check on a message that the webhook signed, with a secret file as `openssl` writes it."""
    path = folder / "webhook.secret"
    path.write_text("0123456789abcdef" * 4 + "\n")
    settings = WebhookSettings(id="hook", kind="webhook", url="http://127.0.0.1:9/", secret_file=path)
    headers = WebhookSink(settings).signed_headers("alarm-1", sent)
    names: dict[str, Any] = {"headers": headers, "body": body}
    exec(compile(block.text.replace(WEBHOOK_SECRET, str(path)), str(block), "exec"), names)
    return bool(names["authentic"])


@_of("json", "yaml")
def test_data_in_a_block_parses(block: Block) -> None:
    assert (json.loads if block.language == "json" else yaml.safe_load)(block.text)


@_of("sh")
def test_commands_in_a_block_parse(block: Block) -> None:
    for words in commands(block.text):
        _check_command(words)
    for name, text in _here_documents(block.text):
        if name.endswith(".toml"):
            _load_settings(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_text_parse(page: Path) -> None:
    for code in _inline_code(page):
        if re.match(r"(vedette|make) ", code) and "…" not in code:
            for words in commands(code):
                _check_command(words, is_complete=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page}: {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in _anchors(linked), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_of_the_repository_in_a_page_exist(page: Path) -> None:
    missing = [
        code
        for code in _inline_code(page)
        if CODE_PATH.fullmatch(code)
        and not code.endswith(BUNDLE_FILES)
        and not EXAMPLES.search(code)
        and not (ROOT / code).exists()
    ]
    assert not missing


@pytest.mark.parametrize("page", METHOD_PAGES, ids=lambda page: page.stem)
def test_a_method_page_has_the_sections_of_all(page: Path) -> None:
    text = _prose(page)
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == METHOD_SECTIONS
    assert not re.search(r"^(#{3,} )", text, flags=re.MULTILINE)


@pytest.mark.parametrize("page", METHOD_PAGES, ids=lambda page: page.stem)
def test_constants_and_settings_of_a_method_page_exist(page: Path) -> None:
    sections = {name for kind in SETTINGS for name, field in kind.model_fields.items() if _model(field.annotation)}
    for name in _inline_code(page):
        if re.fullmatch(r"[A-Z][A-Z_]{2,}", name):
            assert re.search(rf"\b{name}\b", _code()), f"{page.name}: no constant {name}"
        elif re.fullmatch(r"[a-z_]+\.[a-z_]+", name) and name.split(".")[0] in sections and not name.endswith(".py"):
            assert any(_has_setting(kind, name) for kind in SETTINGS), f"{page.name}: no setting {name}"


def _model(annotation: Any) -> type[BaseModel] | None:
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, BaseModel)), None)


def _has_setting(kind: type[BaseModel], name: str) -> bool:
    section, _, key = name.partition(".")
    field = kind.model_fields.get(section)
    model = _model(field.annotation) if field is not None else None
    return model is not None and key in model.model_fields


def test_the_index_of_methods_names_every_page_and_every_analyzer() -> None:
    index = ROOT / "docs" / "methods" / "README.md"
    linked = set(re.findall(r"\]\((\w+\.md)\)", index.read_text(encoding="utf-8")))
    assert linked == {page.name for page in METHOD_PAGES}
    assert set(ANALYZERS) <= set(_inline_code(index))


def test_the_index_of_benchmarks_names_every_page() -> None:
    folder = ROOT / "docs" / "benchmarks"
    linked = set(re.findall(r"\]\((\w+\.md)\)", (folder / "README.md").read_text(encoding="utf-8")))
    assert linked == {page.name for page in folder.glob("*.md")} - {"README.md"}


@pytest.mark.parametrize(
    "words",
    [
        "bench adbench --no-such-option",
        "trains readings.csv",
        "bundle inspect",
        "train readings.csv --modality sound --output a.vedette",
        "cloud",
        "cloud publish",
    ],
)
def test_a_wrong_command_is_found(words: str) -> None:
    with pytest.raises((AssertionError, click.ClickException)):
        _check_vedette(words.split(), is_complete=True)


@pytest.mark.parametrize("text", ["no_such_key = 1", "[router]\nforward_p = 1", '[data]\nmissing = "maybe"'])
def test_wrong_settings_are_found(text: str) -> None:
    with pytest.raises(AssertionError):
        _load_settings(text)
