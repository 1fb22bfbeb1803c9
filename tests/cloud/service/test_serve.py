"""The service as a process of its own."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import httpx
import pytest

from cloud.service.data_dir import prepare
from cloud.store.registry import publish_to
from tests.cloud.accounts.forms import fill, sign_in_by_form
from tests.cloud.service.harness import enrol, message
from tests.cloud.service.served import Served, call, run, write_settings
from vedette.v1 import detection_pb2, sample_pb2

THREE_AT_ONCE = """
import os, sys
from pathlib import Path
from cloud.service.data_dir import prepare

children = []
for _ in range(3):
    children.append(os.fork())
    if not children[-1]:
        prepare(Path(sys.argv[1]))
        os._exit(0)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


@pytest.mark.system
async def test_a_service_killed_between_acknowledgement_and_verdict_judges_after_its_next_start(tmp_path, biopsies):
    config = write_settings(tmp_path, biopsies.key)
    sent = [message(values, bundle_id=biopsies.bundle.manifest.bundle_id) for values in biopsies.normal[:40]]
    async with Served(config) as served:
        device = await enrol((await asyncio.to_thread(call, "token", "press-07", "--config", config)).stdout)
        await publish_to(served.data_dir, biopsies.bundle, biopsies.key.public_key())
        results = await device.submit(sent)
        judging = served.analysis_pid
        served.process.kill()  # the analysis has yet to be loaded, which takes longer than this line
        served.process.wait()
        async with asyncio.timeout(60):
            while Path(f"/proc/{judging}").exists():
                await asyncio.sleep(0.05)
        assert {result.status for result in results} == {detection_pb2.SUBMIT_STATUS_ACCEPTED}
        await device.close()
    async with Served(config) as served:
        device.address = served.facts["address"]
        verdicts = await device.verdicts(len(sent), timeout_s=60)
        assert verdicts.keys() == {sample.sample_id for sample in sent}
        assert sample_pb2.DECISION_UNDECIDED not in {verdict.decision for verdict in verdicts.values()}
        assert {result.status for result in await device.submit(sent)} == {detection_pb2.SUBMIT_STATUS_DUPLICATE}
        await device.close()


@pytest.mark.system
async def test_a_running_service_from_start_to_end(tmp_path, biopsies):
    config = write_settings(tmp_path, biopsies.key)
    archive = tmp_path / "biopsy.vedette"
    biopsies.bundle.save(archive)
    async with Served(config) as served:
        assert json.loads(served.get("health"))["status"] == "ready"
        device = await enrol((await asyncio.to_thread(call, "token", "press-07", "--config", config)).stdout)
        watching = asyncio.create_task(device.events(1))
        await asyncio.sleep(0.3)
        published = await asyncio.to_thread(run, "publish", archive, "--config", config)
        assert published.stdout.strip() == biopsies.bundle.manifest.bundle_id, published.stderr
        (event,) = await watching
        assert event.bundle_changed.bundle_name == "biopsy"
        await device.submit([message(biopsies.normal[0], bundle_id=published.stdout.strip())])
        await device.verdicts(1)
        async with asyncio.timeout(60):  # the child may be late with its part
            while 'vedette_verdicts_total{decision="normal"} 1.0' not in (page := served.get("metrics")):
                await asyncio.sleep(0.2)
        assert 'vedette_samples_total{status="accepted"} 1.0' in page
        assert "libtorch" not in Path(f"/proc/{served.process.pid}/maps").read_text()  # the child's alone
        assert "libtorch" in Path(f"/proc/{served.analysis_pid}/maps").read_text()
        await check_sign_in(served)
        assert "press-07" in (await asyncio.to_thread(call, "devices", "--config", config)).stdout
        rollout = await asyncio.to_thread(call, "rollout", "biopsy", "--config", config)
        assert published.stdout.strip() in rollout.stdout
        second = run("serve", "--config", config)
        assert (second.returncode, second.stderr.count("\n")) == (10, 1)
        assert "another service runs" in second.stderr

        stream = device.detection.Watch(detection_pb2.WatchRequest())  # an open one does not hold up the end
        await stream.read()
        served.process.send_signal(signal.SIGTERM)
        started_s = time.monotonic()
        assert await asyncio.to_thread(served.process.wait, 10) == 0
        assert time.monotonic() - started_s < 5, served.log.read_text()
        assert not (served.data_dir / "service.json").exists()
        assert "Traceback" not in served.log.read_text()
        await device.close()


async def check_sign_in(served: Served) -> None:
    """Make the first account by the link in the log, sign in by the form, and open the page."""
    password = "correct horse battery"
    (link,) = re.findall(r"event=no_account .*link=(\S+)", served.log.read_text())
    async with httpx.AsyncClient(base_url=served.facts["console_url"], follow_redirects=True) as client:
        assert "Sign in" in (await client.get("/", headers={"Accept": "text/html"})).text
        made = await fill(client, link, name="ada", password=password, again=password)
        assert "Review" in made.text
    async with httpx.AsyncClient(base_url=served.facts["console_url"], follow_redirects=True) as client:
        assert "Review" in (await sign_in_by_form(client, "ada", password)).text
        secret = client.cookies["vedette-session"]
    assert (password in served.log.read_text(), secret in served.log.read_text()) == (False, False)


@pytest.mark.system
@pytest.mark.parametrize("port", ["listen", "enrolment_listen", "console_listen"])
def test_a_port_in_use_is_one_line_and_its_own_exit_code(tmp_path, biopsies, port):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = write_settings(tmp_path, biopsies.key, **{port: f"127.0.0.1:{taken.getsockname()[1]}"})
        done = call("serve", "--config", config)
    assert done.returncode == 11
    last = done.stderr.splitlines()[-1]
    assert "another process listens there" in last
    assert port in last
    assert "Traceback" not in done.stderr


def test_commands_report_errors_in_one_line(tmp_path, biopsies):
    config = write_settings(tmp_path, biopsies.key)
    unknown = tmp_path / "unknown.toml"
    unknown.write_text("data_dirr = 'x'\n")
    intact, damaged = tmp_path / "intact.vedette", tmp_path / "damaged.vedette"
    data = bytearray(biopsies.bundle.archive())
    intact.write_bytes(data)
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    prepare(tmp_path / "data")
    assert call("migrate", "--config", config).returncode == 0
    cases = [
        (("serve", "--config", unknown), 3, "data_dir"),
        (("serve", "--config", tmp_path / "none.toml"), 3, "no such file"),
        (("token", "../x", "--config", config), 3, "not a device id"),
        (("token", "press-07", "--config", config), 3, "start it first"),
        (("publish", intact, damaged, "--config", config), 5, "Fetch it again"),
        (("rollout", "biopsy", "--config", config), 5, "publish"),
        (("devices", "--revoke", "nobody", "--config", config), 3, "nobody"),
    ]
    for arguments, exit_code, expected in cases:
        done = (run if arguments[0] == "publish" else call)(*arguments)  # one of them as a process
        assert done.returncode == exit_code, done.stderr
        assert done.stderr.count("\n") == 1
        assert expected in done.stderr
        assert done.stdout == ""


def test_bundles_are_published_beside_the_current_one(tmp_path, biopsies):
    config = write_settings(tmp_path, biopsies.key)
    prepare(tmp_path / "data")
    archives = []
    for version in (1, 2, 3):
        archives.append(tmp_path / f"{version}.vedette")
        archives[-1].write_bytes(biopsies.version(version).archive())
    ids = []
    for chosen, option in ((archives[:1], ()), (archives[1:], ("--keep-current",))):
        done = call("publish", *chosen, *option, "--config", config)
        assert done.returncode == 0, done.stderr
        ids += done.stdout.split()
    third, second, first = call("rollout", "biopsy", "--config", config).stdout.splitlines()
    assert (third[0], second[0], first[0]) == (" ", " ", "*")
    assert [id_ in line for id_, line in zip(ids, (first, second, third), strict=True)] == [True] * 3
    changed = call("rollout", "biopsy", "--to", ids[2], "--config", config).stdout.splitlines()
    assert [line[0] for line in changed] == ["*", " ", " "]


def test_settings_in_force_are_printed(tmp_path, biopsies):
    done = call("serve", "--print-config", "--config", write_settings(tmp_path, biopsies.key))
    assert tomllib.loads(done.stdout)["listen"] == "127.0.0.1:0"
    printed = tmp_path / "printed.toml"
    printed.write_text(done.stdout)
    assert call("serve", "--print-config", "--config", printed).stdout == done.stdout
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_data_directory_that_cannot_be_written_is_one_line(tmp_path, biopsies):
    (tmp_path / "data").mkdir(mode=0o500)
    done = call("serve", "--config", write_settings(tmp_path, biopsies.key))
    assert done.returncode == 10


def test_making_the_directory_ready_at_the_same_time_makes_one_authority(tmp_path):
    done = subprocess.run([sys.executable, "-c", THREE_AT_ONCE, str(tmp_path / "data")], timeout=60)
    assert done.returncode == 0
    assert prepare(tmp_path / "data").certificate
