"""Sequence of the demo: train, serve, enrol, screen, cut a link, one federated round, summary."""

import os
import time
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape

from cloud.demo.datasets import artery_plan, camera_plan, shuttle_plans
from cloud.demo.evidence import fused_scores, read_decisions, versions
from cloud.demo.layout import DemoFolder, read_json
from cloud.demo.link import Link
from cloud.demo.live import Screen
from cloud.demo.own_data import images_plan, series_plan
from cloud.demo.own_video import video_plan
from cloud.demo.processes import Processes
from cloud.demo.streams import DevicePlan
from cloud.demo.summary import device_summary, read_screening_log, total_summary
from shared.errors import DemoError
from shared.status import AgentStatus

TRAINING_TIMEOUT_S, TRAINING_REPORT_S = 900.0, 10.0
START_TIMEOUT_S = 90.0
DRAIN_TIMEOUT_S = 120.0
ROUND_TIMEOUT_S = 240.0
LINK_IS_CUT_AT, LINK_CUT_SHARE, LINK_CUT_MAX_S = 0.2, 0.15, 15.0
ROUND_STARTS_AT = 0.35
LOCAL_STEPS = 800  # of each device in the round, at effort 1
POLL_S = 0.5
DEMO_USER = "demo"
ROUND_FACTS = ("status", "clients", "seconds", "bundle_before", "bundle_after")
SKIPPED_ROUND = {**dict.fromkeys(ROUND_FACTS), "status": "skipped", "clients": 0}
# About twelve processes share few cores: threads that spin while they wait would slow the others.
_SHARE_THE_PROCESSOR = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "NO_COLOR": "1"}


@dataclass(frozen=True)
class DemoOptions:
    """Options of the user; the devices screen for `seconds`."""

    seconds: float
    headless: bool
    federated: bool
    effort: float
    images: Path | None = None
    series: Path | None = None
    video: Path | None = None


class Demo:
    """One run of the demo in `folder`, which holds state and logs of all parts."""

    def __init__(self, options: DemoOptions, folder: Path) -> None:
        self._options = options
        self._layout = DemoFolder(folder)
        self._plans = _make_plans(options, self._layout.data)
        self._screen = Screen(self._plans, headless=options.headless)
        self._processes = Processes(self._layout.logs, {"VEDETTE_HOME": str(folder / "home"), **_SHARE_THE_PROCESSOR})
        self._service: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}  # from the start of the demo

    def run(self, keep: Callable[[dict[str, Any]], None]) -> None:
        """Run all steps and pass the summary to `keep`; all processes have ended on return."""
        report, started_s = self._screen.print_line, time.monotonic()
        for plan in self._plans:
            report(f"[bold]{plan.device_id}[/]: {escape(plan.about)}")
        report(f"State and logs: {escape(str(self._layout.folder))}")
        with ExitStack() as stack:
            stack.enter_context(self._processes)
            self._train()
            self._seconds["training"] = round(time.monotonic() - started_s, 1)
            self._serve()
            link = stack.enter_context(Link(self._service["address"]))
            self._enrol(link)
            self._seconds["until_all_devices_screen"] = round(time.monotonic() - started_s, 1)
            round_result = self._watch(link)
            self._drain()
            summary = self._summarize(round_result)
            keep(summary)
            self._screen.show_summary(summary)
            self._keep_console()

    def _train(self) -> None:
        """Train the bundles of all devices concurrently."""
        plans = self._bundle_plans()
        self._screen.print_line(f"Training {len(plans)} screeners and their analyzers on this machine ...")
        started_s = reported_s = time.monotonic()
        for plan in plans:
            self._layout.write_training_config(plan, self._options.effort)
            arguments = (str(plan.training_data), "--modality", str(plan.modality))
            files = ("--config", str(self._layout.training_config(plan)), "--output", str(self._layout.bundle(plan)))
            self._processes.start(f"train-{plan.bundle_name}", "train", *arguments, *files)
        waiting = {plan.bundle_name for plan in plans}
        while waiting:
            self._processes.check()
            for name in sorted(waiting):
                if self._processes.has_ended(f"train-{name}"):
                    waiting.remove(name)
                    seconds = time.monotonic() - started_s
                    self._screen.print_line(f"  {name}: signed, parity gate passed after {seconds:.0f} s")
            if waiting and time.monotonic() - reported_s > TRAINING_REPORT_S:
                reported_s = time.monotonic()
                stages = (
                    f"{name}: {self._processes.last_line(f'train-{name}') or 'starting'}" for name in sorted(waiting)
                )
                self._screen.print_line(escape(f"  {reported_s - started_s:3.0f} s  " + " | ".join(stages)))
            if time.monotonic() - started_s > TRAINING_TIMEOUT_S:
                raise DemoError(f"Training took longer than {TRAINING_TIMEOUT_S:.0f} s: see {self._layout.logs}.")
            time.sleep(POLL_S)

    def _serve(self) -> None:
        """Start the service and publish every bundle."""
        self._layout.write_cloud_config()
        self._processes.start("cloud", "cloud", "serve", *self._cloud_option())
        self._wait("the service", lambda: read_json(self._layout.cloud_data / "service.json") is not None)
        self._service = read_json(self._layout.cloud_data / "service.json") or {}
        archives = [str(self._layout.bundle(plan)) for plan in self._bundle_plans()]
        self._processes.run("publish", "cloud", "publish", *archives, *self._cloud_option())
        self._open_console()

    def _open_console(self) -> None:
        """Print a one-time link that signs in as a demo operator; open it where there is a desktop."""
        self._processes.run("user-add", "cloud", "user", "add", DEMO_USER, "--role", "operator", *self._cloud_option())
        made = self._processes.run("user-link", "cloud", "user", "link", DEMO_USER, "--sign-in", *self._cloud_option())
        link = made.split()[-1]
        self._screen.print_line(f"The cloud service is up. Console, signed in as {DEMO_USER}: [link]{link}[/]")
        if not self._options.headless and any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")):
            webbrowser.open(link)

    def _enrol(self, link: Link) -> None:
        """Enrol every device with a one-time token and start its agent; the first one uses `link`."""
        for plan in self._plans:
            address = link.address if plan is self._plans[0] else None
            self._layout.write_edge_config(plan, self._options.seconds, address)
        self._layout.device_ids.write_text("".join(f"{plan.device_id}\n" for plan in self._plans))
        many = ("--many", str(self._layout.device_ids), "--output", str(self._layout.tokens))
        self._processes.run("tokens", "cloud", "token", *many, *self._cloud_option())
        for plan in self._plans:
            token = ("--token-file", str(self._layout.token(plan)))
            self._processes.run(f"enroll-{plan.device_id}", "edge", "enroll", *self._edge_option(plan), *token)
            self._layout.token(plan).unlink()
        for plan in self._plans:
            self._processes.start(plan.device_id, "edge", "run", *self._edge_option(plan))
        self._screen.print_line(f"{len(self._plans)} devices are enrolled and fetch their bundles.")
        if self._options.federated:
            self._start_federation()
        for plan in self._plans:
            self._wait(plan.device_id, partial(self._has_screened, plan))

    def _watch(self, link: Link) -> dict[str, Any]:
        """Show the devices while they screen; cut one link for some time and run a federated round."""
        seconds, first = self._options.seconds, self._plans[0].device_id
        cut_s = LINK_IS_CUT_AT * seconds
        agenda: list[tuple[float, str, Callable[[], None]]] = [
            (cut_s, f"The link of {first} is cut: its spool keeps the samples.", link.cut),
            (
                cut_s + min(LINK_CUT_SHARE * seconds, LINK_CUT_MAX_S),
                f"The link of {first} is restored: its spool drains.",
                link.restore,
            ),
        ]
        if self._options.federated:
            text = "A federated round starts: each telemetry device trains on its own normal samples."
            agenda.append((ROUND_STARTS_AT * seconds, text, self._start_round))
        started_s = time.monotonic()
        with self._screen:
            while (elapsed_s := time.monotonic() - started_s) < seconds or agenda:
                while agenda and elapsed_s >= agenda[0][0]:
                    _, text, act = agenda.pop(0)
                    self._screen.print_line(text)
                    act()
                self._screen.show(self._statuses(), elapsed_s, seconds)
                self._processes.check()
                time.sleep(POLL_S)
        return self._finish_round() if self._options.federated else dict(SKIPPED_ROUND)

    def _start_federation(self) -> None:
        """Start Flower's SuperLink, and a SuperNode for each telemetry device."""
        listen = ("--listen", "127.0.0.1:0")
        self._processes.start("federated-server", "federated", "server", *listen, *self._cloud_option())
        self._wait("the federated server", lambda: read_json(self._layout.federated_server) is not None)
        server = ("--server", str((read_json(self._layout.federated_server) or {})["address"]))
        for plan in self._federated_plans():
            self._processes.start(f"node-{plan.device_id}", "federated", "node", *server, *self._edge_option(plan))

    def _start_round(self) -> None:
        name = self._federated_plans()[0].bundle_name
        steps = max(1, round(LOCAL_STEPS * self._options.effort))
        result = ("--rounds", "1", "--local-steps", str(steps), "--json", str(self._layout.round_result))
        self._processes.start("round", "federated", "run", "--bundle-name", name, *result, *self._cloud_option())

    def _finish_round(self) -> dict[str, Any]:
        """Wait for the round, and until every telemetry device runs its bundle."""
        self._processes.wait("round", ROUND_TIMEOUT_S)
        result = read_json(self._layout.round_result)
        if result is None:
            raise DemoError(f"The federated round left no result: see {self._processes.log('round')}.")
        for plan in self._federated_plans():
            self._wait(plan.device_id, partial(self._runs, plan, result["bundle_after"]))
        self._screen.print_line(
            f"The round took {result['seconds']:.0f} s: {result['bundle_before']} -> {result['bundle_after']}, "
            "trained on the devices, which run it now."
        )
        self._processes.stop(*(f"node-{plan.device_id}" for plan in self._federated_plans()))
        self._processes.stop("federated-server")
        return {name: result[name] for name in ROUND_FACTS}

    def _drain(self) -> None:
        """Wait until every device has screened its stream and has all verdicts, then stop the devices."""
        self._screen.print_line("The streams have ended: the devices send the rest and wait for their verdicts.")
        for plan in self._plans:
            self._wait(plan.device_id, partial(self._has_drained, plan), DRAIN_TIMEOUT_S)
        self._processes.stop(*(plan.device_id for plan in self._plans))

    def _summarize(self, round_result: Mapping[str, Any]) -> dict[str, Any]:
        self._screen.print_line("Scoring all screened samples with the analyzers, to compare edge and cloud ...")
        devices = {}
        for plan in self._plans:
            screened = read_screening_log(self._layout.screening_log(plan))
            status = self._layout.status(plan)
            if status is None or not screened:
                raise DemoError(f"{plan.device_id} left no record of its screening below {self._layout.state(plan)}.")
            bundle = self._layout.open_bundle(plan)
            spec = bundle.manifest.input
            fused = fused_scores(bundle, (plan.stream.values(item.origin, spec) for item in screened))
            decisions = read_decisions(self._layout.cloud_data, plan.device_id)
            devices[plan.device_id] = device_summary(plan, status, screened, spec, decisions, fused)
        return {
            "devices": devices,
            "total": total_summary(devices),
            "federated_round": dict(round_result),
            "seconds": self._seconds,
            "versions": versions(),
        }

    def _keep_console(self) -> None:
        """Keep the console running on a terminal until Ctrl-C."""
        if not self._screen.is_live:
            return
        self._screen.print_line(f"The console stays at {self._service['console_url']} until Ctrl-C.")
        try:
            while True:
                self._processes.check()
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            return

    def _wait(self, name: str, is_done: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until `is_done`; raises DemoError if a process fails, or after `timeout_s` seconds."""
        deadline_s = time.monotonic() + timeout_s
        while not is_done():
            self._processes.check()
            if time.monotonic() > deadline_s:
                raise DemoError(f"{name} was not ready after {timeout_s:.0f} s: see {self._layout.logs}.")
            time.sleep(0.1)

    def _bundle_plans(self) -> list[DevicePlan]:
        """Return one device of each bundle."""
        return list({plan.bundle_name: plan for plan in self._plans}.values())

    def _federated_plans(self) -> list[DevicePlan]:
        return [plan for plan in self._plans if plan.federated]

    def _statuses(self) -> dict[str, AgentStatus]:
        statuses = {plan.device_id: self._layout.status(plan) for plan in self._plans}
        return {name: status for name, status in statuses.items() if status is not None}

    def _has_screened(self, plan: DevicePlan) -> bool:
        status = self._layout.status(plan)
        return status is not None and status.counters.samples_screened > 0

    def _runs(self, plan: DevicePlan, bundle_id: str) -> bool:
        status = self._layout.status(plan)
        return status is not None and status.sources[plan.device_id].bundle_id == bundle_id

    def _has_drained(self, plan: DevicePlan) -> bool:
        status = self._layout.status(plan)
        if status is None:
            return False
        source = status.sources[plan.device_id]
        if source.state == "failed":
            raise DemoError(f"{plan.device_id} could not screen all of its stream: {source.error}")
        if source.state != "ended":
            return False
        return not (status.spool.samples or status.spool.pending or status.verdicts.awaited)

    def _cloud_option(self) -> tuple[str, str]:
        return "--config", str(self._layout.cloud_config)

    def _edge_option(self, plan: DevicePlan) -> tuple[str, str]:
        return "--config", str(self._layout.edge_config(plan))


def _make_plans(options: DemoOptions, folder: Path) -> list[DevicePlan]:
    """Return the devices of this demo after writing their data below `folder`."""
    seconds = options.seconds
    series = series_plan(options.series, folder, seconds) if options.series else artery_plan(folder, seconds)
    return [*shuttle_plans(folder, seconds), series, _camera(options, folder, seconds)]


def _camera(options: DemoOptions, folder: Path, seconds: float) -> DevicePlan:
    if options.video is not None:
        return video_plan(options.video, folder, seconds)
    if options.images is not None:
        return images_plan(options.images, folder, seconds)
    return camera_plan(folder, seconds)
