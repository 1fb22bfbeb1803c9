"""Command of comparisons: `vedette cloud compare FIRST SECOND` and `vedette cloud compare list | show | cancel`."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cloud.outputs import failure_as_json, write_json
from cloud.service.command_options import Config
from shared.cli import CommandTree

if TYPE_CHECKING:
    from cloud.settings import CloudSettings
    from cloud.store import Store
    from cloud.store.comparisons import AskedSamples

T = TypeVar("T")
LISTED = 50


class CompareAction(StrEnum):
    """Action on stored comparisons."""

    LIST = "list"
    SHOW = "show"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Words:
    """Request of the command: an action, with the number of a comparison; or two bundles."""

    action: CompareAction | None = None
    number: int = 0
    bundles: tuple[str, str] = ("", "")


def add_commands(tree: CommandTree) -> None:
    """Add the command to the tree."""
    tree.group("cloud").command(
        epilog="Examples: [bold]vedette cloud compare press press-4-0badcafe --config cloud.toml[/bold], "
        "[bold]vedette cloud compare press press-4-0badcafe --labelled --json FILE[/bold], "
        "[bold]vedette cloud compare list[/bold], [bold]vedette cloud compare show 3[/bold]"
    )(compare)


def compare(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FIRST SECOND | list | show NUMBER | cancel NUMBER",
            help="Two bundles by id, or by name for its current bundle; or an action on earlier comparisons.",
        ),
    ],
    samples: Annotated[
        int | None, typer.Option(min=1, max=2000, help="Largest number of stored samples to judge. Default: 500.")
    ] = None,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="Only labelled samples, at most half of them of each kind.")
    ] = False,
    since: Annotated[
        str,
        typer.Option("--from", metavar="TIME", help="Only judged, or labelled, from this date or RFC 3339 time on."),
    ] = "",
    until: Annotated[
        str, typer.Option("--to", metavar="TIME", help="Only judged, or labelled, before this date or time.")
    ] = "",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Put it into the queue of the service, and end.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.")] = None,
    config: Config = None,
) -> None:
    """Compare two bundles of one name on the same stored samples.

    Verdicts and devices do not change. A running service judges the samples when no sample of a device waits; without
    one this command does.
    """
    from cloud.moments import parse_moment
    from cloud.store.comparisons import AskedSamples, SampleChoice
    from shared.errors import SettingsError

    with failure_as_json(json_path):
        asked_for = _words(words)
        if asked_for.action is not None:
            if samples is not None or labelled or since or until or no_wait:
                raise SettingsError("Choices of samples and --no-wait belong to a new comparison: give two bundles.")
            result = _act(config, asked_for)
        else:
            choice = SampleChoice.LABELLED if labelled else SampleChoice.NEWEST
            times = [parse_moment(text) if text else None for text in (since, until)]
            asked = AskedSamples(choice, samples or 500, *times)
            result = _compare(config, asked_for.bundles, asked, no_wait=no_wait)
        write_json(json_path, result)


def _words(words: list[str]) -> Words:
    """Return what the words ask for; raises SettingsError."""
    from shared.errors import SettingsError

    if words == [CompareAction.LIST]:
        return Words(CompareAction.LIST)
    if words[0] in (CompareAction.SHOW, CompareAction.CANCEL) and len(words) == 2:
        number = words[1]
        if not (number.isascii() and number.isdecimal() and len(number) < 19):
            raise SettingsError(f"{number[:60]!r} is no number of a comparison: vedette cloud compare list shows them.")
        return Words(CompareAction(words[0]), int(number))
    if len(words) != 2:
        raise SettingsError("Write two bundles, each by its id or name, or one of: list, show NUMBER, cancel NUMBER.")
    return Words(bundles=(words[0], words[1]))


def _act(config: Path | None, words: Words) -> dict[str, Any]:
    """List, show or cancel comparisons, print them, and return them as JSON values."""
    import time

    from cloud.comparison.report import ComparisonItem, comparison_item
    from cloud.service.comparing import read, unknown
    from cloud.service.comparison_text import list_lines, result_lines
    from cloud.store.comparisons import cancel, comparison_page

    async def work(store: "Store", settings: "CloudSettings") -> dict[str, Any]:
        if words.action is CompareAction.LIST:
            async with store.reading() as connection:
                found = await comparison_page(connection, size=LISTED)
            _print(list_lines(found))
            items = [ComparisonItem.model_validate(comparison_item(item)) for item in found]
            return {"comparisons": [item.model_dump(mode="json") for item in items]}
        if words.action is CompareAction.CANCEL:
            cancelled = await cancel(store, words.number, actor=store.actor, now_s=time.time())
            if cancelled is None:
                raise unknown(words.number)
        result = await read(store, words.number)
        _print(result_lines(result.comparison, result.judged))
        return result.as_json()

    return _in_service(config, work)


def _compare(config: Path | None, bundles: tuple[str, str], asked: "AskedSamples", *, no_wait: bool) -> dict[str, Any]:
    """Start a comparison, show its progress and its result, and return it as JSON values."""
    import time

    from cloud.service.comparing import bundle_id_of, failure_of, follow, read, runner_here
    from cloud.service.comparison_text import result_lines, shown_progress
    from cloud.service.data_dir import service_runs
    from cloud.store.comparisons import start

    async def work(store: "Store", settings: "CloudSettings") -> dict[str, Any]:
        async with store.reading() as connection:
            first, second = [await bundle_id_of(connection, text) for text in bundles]
        is_served = service_runs(settings.store) is not False
        runner = None if no_wait or is_served else runner_here(store, settings)
        started = await start(store, first, second, asked, actor=store.actor, now_s=time.time())
        number = started.number
        if no_wait:
            later = "" if is_served else " once a service runs"
            typer.echo(f"Comparison {number} waits for its turn{later}. Next: vedette cloud compare show {number}")
            return (await read(store, number)).as_json()
        try:
            with shown_progress() as show:
                result = await follow(store, number, show, runner)
        except asyncio.CancelledError:
            if runner is None:
                typer.echo(f"Comparison {number} goes on. Next: vedette cloud compare show {number}", err=True)
            raise
        _print(result_lines(result.comparison, result.judged))
        if (failure := failure_of(result)) is not None:
            raise failure
        return result.as_json()

    return _in_service(config, work)


def _in_service(config: Path | None, work: "Callable[[Store, CloudSettings], Awaitable[T]]") -> T:
    from cloud.service.data_dir import migrate_existing, start_wait_s
    from cloud.settings import CloudSettings
    from cloud.store import open_store

    settings = CloudSettings.load(config)
    migrate_existing(settings.store, start_wait_s(config))

    async def inside() -> T:
        _cancel_on_signals()
        async with open_store(settings.store) as store:
            return await work(store, settings)

    try:
        return asyncio.run(inside())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _cancel_on_signals() -> None:
    """Make SIGTERM and SIGHUP cancel the present task, as asyncio does on Ctrl-C; an ignored SIGHUP stays ignored."""
    task = asyncio.current_task()
    if task is None or threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        return

    def cancel_once() -> None:
        if not task.cancelling():  # a second signal must not interrupt the clean-up
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, cancel_once)


def _print(lines: list[str]) -> None:
    for line in lines:
        typer.echo(line)
