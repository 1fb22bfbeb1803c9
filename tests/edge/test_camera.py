"""Video files and live streams, over real sockets: frames pass the gates, lost connections come back, faults show."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.operation.inspection import status_lines
from edge.settings.sources import CameraSettings
from edge.sources import open_source
from shared.bundle import Bundle, InputSpec
from shared.errors import DataError
from shared.modality import Modality
from shared.samples import SampleBatch
from shared.signing_keys import public_pem
from shared.status import ObservedStatus
from shared.videos import probe
from tests.cases import case
from tests.edge.device import Device
from tests.edge.network_camera import picture
from tests.edge.video_files import video, without_codec

IMAGES = InputSpec(image_height=32, image_width=32)
HEIGHT, WIDTH = 48, 64


def settings_of(url: str | Path, **more: Any) -> CameraSettings:
    return CameraSettings(id="door", kind="camera", url=str(url), bundle=Path("b"), **more)


def source_of(url: str | Path, stop: threading.Event | None = None, **more: Any) -> Any:
    return open_source(settings_of(url, **more), Modality.IMAGE, IMAGES, stop or threading.Event())


def all_of(found: Iterator[SampleBatch]) -> tuple[list[np.ndarray], list[str]]:
    batches = list(found)
    return [pixels for batch in batches for pixels in batch.values], [o for batch in batches for o in batch.origins]


def test_a_file_gives_all_its_frames_in_order(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4", [picture(20 + 10 * index) for index in range(12)])
    pixels, origins = all_of(source_of(path, batch_size=5).batches())
    assert origins == [f"clip.mp4:{number}" for number in range(12)]
    assert [round(float(frame.mean()) / 10) for frame in pixels] == [2 + index for index in range(12)]
    assert pixels[0].shape == (HEIGHT, WIDTH, 3)


def test_stride_region_and_masks_select_the_screened_pixels(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4", [picture(20, square_at=8)] * 9)
    region = {"left": 4, "top": 8, "width": 32, "height": 32}
    mask = {"left": 8, "top": 16, "width": 16, "height": 16}
    source = source_of(path, frame_stride=4, region=region, masks=[mask])
    pixels, origins = all_of(source.batches())
    assert origins == ["clip.mp4:0", "clip.mp4:4", "clip.mp4:8"]
    assert pixels[0].shape == (32, 32, 3)
    assert (pixels[0][8:24, 4:20] == 128).all()  # the square is under the mask
    assert pixels[0][:, 24:].max() < 60
    assert source.health.skipped == 6


def test_a_region_beyond_the_picture_is_a_clear_error(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4", [picture(20)] * 3)
    with pytest.raises(DataError, match="reaches beyond the picture of 64 x 48 pixels"):
        list(source_of(path, region={"left": 60, "top": 0, "width": 10, "height": 10}).batches())


def test_the_motion_gate_passes_moving_frames_and_some_still_ones(tmp_path: Path) -> None:
    still, moving = [picture(90)] * 50, [picture(90, square_at=4 + index) for index in range(0, 40, 8)]
    path = video(tmp_path / "clip.mp4", still + moving)
    _, origins = all_of(source_of(path, motion_share=0.02, still_after_s=1.0).batches())
    numbers = [int(origin.rpartition(":")[2]) for origin in origins]
    assert numbers == [0, 25, *range(50, 55)]  # at 25 frames a second one still frame each second


def test_a_brighter_lamp_is_no_motion(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4", [picture(60 + 2 * index) for index in range(20)])
    _, origins = all_of(source_of(path, motion_share=0.02).batches())
    assert origins == ["clip.mp4:0"]


@pytest.mark.parametrize("data", [b"", b"no video at all" * 99, b"\x00\x00\x00\x18ftypmp42" + bytes(500)])
def test_a_file_that_is_no_video_is_one_clear_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"clip\.mp4: (cannot be opened|holds no video)"):
        list(source_of(path).batches())
    with pytest.raises(DataError, match="no such video file"):
        source_of(tmp_path / "gone.mp4")


def test_a_truncated_file_gives_its_readable_frames(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.ts", [picture(20 + index, square_at=index) for index in range(40)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    pixels, _ = all_of(source_of(path).batches())
    assert 5 < len(pixels) < 40


@pytest.mark.parametrize("live", [False, True])
def test_a_stream_without_a_known_codec_fails_its_source_only(tmp_path: Path, live: bool) -> None:
    path = without_codec(tmp_path / "clip.mp4")
    if not live:
        with pytest.raises(DataError, match=r"clip\.mp4: .*no known codec"):
            list(source_of(path).batches())
        return
    stop = threading.Event()
    source = source_of(f"file://{path}", stop)  # FFmpeg opens it as any other address
    thread = threading.Thread(target=lambda: list(source.batches()), daemon=True)
    thread.start()
    deadline_s = time.monotonic() + 20
    while not source.health.reconnects and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert source.health.state == "disconnected"
    stop.set()
    assert "no known codec" in source.health.detail
    thread.join(10)
    assert not thread.is_alive()


def test_the_truncated_video_of_the_cases_fails_its_source_only() -> None:
    path = case("09-truncated-video") / "cut_406.mp4"
    with pytest.raises(DataError, match="no known codec"):
        list(source_of(path).batches())
    with pytest.raises(DataError, match="not a readable video"):
        probe(path)


def test_a_video_without_a_readable_frame_says_so(tmp_path: Path) -> None:
    path = video(tmp_path / "clip.mp4", [picture(90)] * 5)
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    with pytest.raises(DataError, match="holds no frame that can be decoded"):
        list(source_of(path).batches())
    with pytest.raises(DataError, match="holds no readable frame"):
        probe(path)


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


class NetworkCamera:
    """A camera that streams in a process of its own."""

    def __init__(self, url: str, kind: str, *size: int) -> None:
        program = str(Path(__file__).with_name("network_camera.py"))
        command = [sys.executable, program, url, kind, *map(str, size)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)

    def order(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def cut(self) -> None:
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdin is not None
        self._process.stdin.close()


@pytest.fixture
def cameras() -> Iterator[Callable[..., NetworkCamera]]:
    """Makes cameras, and ends what is left of them."""
    made: list[NetworkCamera] = []

    def make(url: str, kind: str = "mpegts", *size: int) -> NetworkCamera:
        made.append(NetworkCamera(url, kind, *size))
        return made[-1]

    yield make
    for camera in made:
        camera.cut()


class Watched:
    """Batches of a live source, collected on a thread of its own."""

    def __init__(self, url: str, **more: Any) -> None:
        self.stop = threading.Event()
        self.source = source_of(url, self.stop, **more)
        self.batches: list[SampleBatch] = []
        self._thread = threading.Thread(target=self._gather, daemon=True)
        self._thread.start()

    def _gather(self) -> None:
        for batch in self.source.batches():
            self.batches.append(batch)

    @property
    def goes_on(self) -> bool:
        return self._thread.is_alive()

    @property
    def frames(self) -> list[np.ndarray]:
        return [pixels for batch in self.batches for pixels in batch.values]

    def until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, self.source.health
            time.sleep(0.02)

    def end(self) -> None:
        self.stop.set()
        self._thread.join(5)
        assert not self._thread.is_alive()


Cameras = Callable[..., NetworkCamera]


def test_a_stream_that_is_cut_is_found_again_and_says_so(cameras: Cameras) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    first = cameras(f"{url}?listen=1")
    watched = Watched(url, stall_timeout_s=2.0)
    watched.until(lambda: len(watched.frames) > 5)
    assert watched.source.health.state == "running"
    first.cut()
    watched.until(lambda: watched.source.health.state == "disconnected")
    before = len(watched.frames)
    cameras(f"{url}?listen=1")
    watched.until(lambda: len(watched.frames) > before + 5)
    assert watched.source.health.state == "running"
    assert watched.source.health.reconnects >= 1
    moments = np.concatenate([batch.captured_at_s for batch in watched.batches])
    assert (np.diff(moments) >= 0).all()
    watched.end()


def test_a_stream_that_stalls_is_given_up_in_time() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    watched = Watched(f"tcp://127.0.0.1:{server.getsockname()[1]}", open_timeout_s=0.5, stall_timeout_s=0.5)
    accepted = [server.accept()[0]]  # and never sends a byte
    watched.until(lambda: watched.source.health.reconnects >= 1)
    assert watched.source.health.state == "disconnected"
    accepted.append(server.accept()[0])
    watched.end()
    for connection in (*accepted, server):
        connection.close()


def test_rtsp_is_read_and_a_rate_skips_frames(cameras: Cameras) -> None:
    url = f"rtsp://127.0.0.1:{free_port()}/door"
    watched = Watched(url, options={"rtsp_flags": "listen", "listen_timeout": "20"}, rate_per_s=4.0)
    cameras(url, "rtsp")
    watched.until(lambda: len(watched.frames) >= 4)
    started_s, before = time.monotonic(), len(watched.frames)
    watched.until(lambda: len(watched.frames) >= before + 8)
    assert time.monotonic() - started_s > 1.2  # eight frames at four a second
    assert watched.source.health.skipped > 8
    watched.end()


def test_a_live_source_ends_in_its_time_and_reads_no_further(cameras: Cameras) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    cameras(f"{url}?listen=1")
    watched = Watched(url, stop_after_s=3.0)
    watched.until(lambda: len(watched.frames) > 3)
    reader = next(thread for thread in threading.enumerate() if thread.name == "camera-door" and thread.is_alive())
    watched.until(lambda: not watched.goes_on)
    reader.join(5)
    assert not reader.is_alive()
    assert not watched.stop.is_set()


def test_a_long_file_of_which_nothing_passes_can_be_stopped(tmp_path: Path) -> None:
    path, stop = video(tmp_path / "clip.mp4", [picture(90)] * 20), threading.Event()
    source = source_of(path, stop, loop=True, frame_stride=20, batch_size=4096)
    threading.Timer(0.5, stop.set).start()
    started_s = time.monotonic()
    assert list(source.batches()) == []
    assert time.monotonic() - started_s < 5


def test_a_camera_that_freezes_is_unwell_until_it_moves_again(cameras: Cameras) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    camera = cameras(f"{url}?listen=1")
    watched = Watched(url, frozen_after_s=0.5)
    watched.until(lambda: len(watched.frames) > 3)
    camera.order("still")
    watched.until(lambda: watched.source.health.state == "frozen")
    camera.order("moving")
    watched.until(lambda: watched.source.health.state == "running")
    watched.end()


def test_a_camera_that_changes_its_resolution_goes_on(cameras: Cameras) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    first = cameras(f"{url}?listen=1")
    watched = Watched(url)
    watched.until(lambda: len(watched.frames) > 3)
    first.cut()
    cameras(f"{url}?listen=1", "mpegts", 96, 128)
    watched.until(lambda: any(frame.shape == (96, 128, 3) for frame in watched.frames))
    watched.end()


def test_garbage_on_the_line_ends_nothing() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    watched = Watched(f"tcp://127.0.0.1:{server.getsockname()[1]}", open_timeout_s=1.0, stall_timeout_s=1.0)
    for seed in range(2):
        connection, _ = server.accept()
        with connection:
            connection.sendall(np.random.default_rng(seed).bytes(300_000))
    watched.until(lambda: watched.source.health.reconnects >= 2)
    assert not watched.frames
    watched.end()
    server.close()


@pytest.mark.system
def test_an_agent_screens_a_file_to_its_end_while_a_dead_camera_is_sought(
    tmp_path: Path, images: Bundle, signing_key: Ed25519PrivateKey
) -> None:
    images.save(tmp_path / "wall.bundle")
    (tmp_path / "key.pem").write_bytes(public_pem(signing_key.public_key()))
    clip = video(tmp_path / "clip.mp4", [picture(128)] * 20)
    dead = f"rtsp://user:secret@127.0.0.1:{free_port()}/door"
    common = {"kind": "camera", "bundle": tmp_path / "wall.bundle"}
    sources = [{"id": "clip", "url": str(clip), **common}, {"id": "dead", "url": dead, **common}]
    settings = {
        "bundle_key": tmp_path / "key.pem",
        "sources": sources,
        "router": {"mode": "edge_only"},
    }
    device = Device(tmp_path / "device", settings)
    try:
        device.start()
        device.until(lambda: device.counters().get("samples_screened", 0) == 20)
        device.until(lambda: device.status()["sources"]["dead"]["reconnects"] >= 1)
        status = device.status()
        assert status["sources"]["clip"]["state"] == "ended"
        assert status["sources"]["dead"]["health"] == "disconnected"
        assert "Connection refused" in status["sources"]["dead"]["error"]
        assert any("dead" in problem for problem in status["problems"])
        assert any("disconnected" in line for line in status_lines(ObservedStatus(**status, live=True)))
        assert device.terminate() == 0, device.text()
        assert "secret" not in device.text() + str(status)
    finally:
        device.close()


def test_secrets_of_an_address_are_not_logged() -> None:
    source = source_of("rtsp://user:sec@ret@127.0.0.1:9/door")
    assert source.name == "rtsp://127.0.0.1:9/door"
    assert source.health.state == "connecting"
    assert not source.health.is_well
