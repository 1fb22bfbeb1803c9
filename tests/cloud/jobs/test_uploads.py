"""Uploads of strangers: names, archives and sizes that must not leave their folder, fill the disk or hang a process."""

import asyncio
import json
import os
import re
import stat
import struct
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud.job_process.inspect_upload import inspect
from cloud.jobs.archives import unpack
from cloud.jobs.inspecting import Inspector, read_answer
from cloud.jobs.messages import Inspection, InspectionStart
from cloud.jobs.names import clean_path
from cloud.jobs.options import MAX_COLUMNS
from cloud.jobs.uploads import UploadError, UploadFacts, Uploads
from cloud.training_settings import TrainingJobSettings
from shared.errors import DataError
from shared.images import encode_png
from tests.cloud.console.filled_store import photograph

OWNER = "account:ada"
LIMITS = {"max_files": 100, "max_bytes": 10_000}


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def archive(path: Path, *entries: tuple[str, bytes], mode: int = 0) -> Path:
    """Write a ZIP archive with these files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in entries:
            entry = zipfile.ZipInfo(name)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, mode << 16
            opened.writestr(entry, data)
    return path


def outside(folder: Path) -> list[str]:
    """Files that are not below `folder/here`."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and "here" not in path.parts]


@pytest.mark.parametrize(
    "name",
    [
        "../x.csv",
        "/etc/x",
        "a/../../x",
        "..",
        ".",
        "",
        "a//b",
        ".hidden",
        "a/.git/b",
        "..\\x",
        "C:\\..\\x",
        " x",
        "nul",
    ],
)
def test_a_name_that_leaves_its_folder_is_refused(name: str) -> None:
    with pytest.raises(DataError):
        clean_path(name)


def test_unusual_names_become_plain_ones() -> None:
    assert clean_path("Gute Teile/Bild 1 (2).PNG") == ("Gute Teile", "Bild 1 (2).PNG")
    assert clean_path("a\x00b/c\n;d$(e).csv") == ("a_b", "c__d_(e).csv")
    assert clean_path("größe.csv") == ("größe.csv",)
    with pytest.raises(DataError, match="longer than"):
        clean_path("x" * 101)
    with pytest.raises(DataError, match="deeper than"):
        clean_path("a/" * 7 + "b")


@pytest.mark.parametrize(
    ("entries", "mode", "reason"),
    [
        ([("../../outside.csv", b"1")], 0, "not a path below a folder"),
        ([("/outside.csv", b"1")], 0, "not a path below a folder"),
        ([("link.csv", b"/etc/passwd")], stat.S_IFLNK | 0o777, "is a link or a device"),
        ([("pipe.csv", b"")], stat.S_IFIFO | 0o600, "is a link or a device"),
        ([("bomb.csv", b"0" * 20_000)], 0, "unpacks to more than 10000 bytes"),
        ([(f"{index}.csv", b"0" * 90) for index in range(101)], 0, "more than 100 files"),
        ([("a.csv", b"0" * 9000), ("b.csv", b"0" * 9000)], 0, "unpacks to more than 10000 bytes"),
        ([("a.csv", b"1"), ("a.csv", b"2")], 0, "two files of the archive"),
        ([("a", b"1"), ("a/b.csv", b"2")], 0, "exists|directory"),
        ([], 0, "holds no file"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_hostile_archives_are_refused_and_nothing_lies_outside(
    tmp_path: Path, entries: list[tuple[str, bytes]], mode: int, reason: str
) -> None:
    packed = archive(tmp_path / "here.zip", *entries, mode=mode)
    with pytest.raises((DataError, OSError), match=reason):
        unpack(packed, tmp_path / "a" / "here", **LIMITS)
    assert outside(tmp_path) == [str(packed)]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.csv")) <= LIMITS["max_bytes"]


def test_an_archive_leaves_the_free_bytes_of_the_disk(tmp_path: Path) -> None:
    packed = archive(tmp_path / "here.zip", ("a.csv", b"1"))
    with pytest.raises(DataError, match="nearly full"):
        unpack(packed, tmp_path / "here", **LIMITS, free_bytes=2**60)
    assert sum(path.stat().st_size for path in (tmp_path / "here").rglob("*") if path.is_file()) == 0


def test_an_archive_of_a_million_files_is_refused_without_reading_its_list(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    entry = struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    listed = len(entry) * 1_000_000
    with path.open("wb") as file:
        file.truncate(listed)  # sparse: the list must not be read at all
        file.seek(listed)
        file.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 50, 50, listed, 0, 0))  # and it lies about the number
    with pytest.raises(DataError, match="more than 100 files"):
        unpack(path, tmp_path / "here", **LIMITS)
    with path.open("r+b") as file:  # the same as ZIP64, whose numbers come first
        file.seek(listed)
        file.write(
            struct.pack("<IIQI", 0x07064B50, 0, 0, 1) + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, 47, 0, 0)
        )
    with pytest.raises(DataError, match="more than 100 files"):
        unpack(path, tmp_path / "here", **LIMITS)


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06", b"no archive" * 100, b"PK\x03\x04" + b"\0" * 500])
def test_damaged_archives_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(DataError, match="not a readable ZIP archive"):
        unpack(tmp_path / "x.zip", tmp_path / "here", **LIMITS)


def test_a_changed_byte_in_an_archive_is_found(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", ("a.csv", os.urandom(3000)))
    data = bytearray(path.read_bytes())
    data[1500] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError):
        unpack(path, tmp_path / "here", **LIMITS)


async def test_files_are_streamed_counted_and_bounded(tmp_path: Path) -> None:
    settings = TrainingJobSettings(upload_bytes=1000, upload_files=3, uploads=2, free_bytes=0)
    uploads = Uploads(tmp_path, settings)
    facts = await uploads.create(OWNER)
    assert await uploads.receive(facts, "a/x.csv", chunks(b"x" * 300, b"y" * 300)) == 600
    assert await uploads.size(facts.upload_id) == (600, 1)
    await uploads.receive(facts, "a/x.csv", chunks(b"z"))  # replaces it
    assert await uploads.size(facts.upload_id) == (1, 1)
    with pytest.raises(UploadError, match="more than 1000 bytes") as refused:
        await uploads.receive(facts, "b.csv", chunks(*[b"x" * 300] * 5))
    assert refused.value.is_full
    with pytest.raises(UploadError, match="a file and a folder"):
        await uploads.receive(facts, "a/x.csv/y.csv", chunks(b"1"))
    with pytest.raises(UploadError, match="not a path"):
        await uploads.receive(facts, "../../x.csv", chunks(b"1"))
    assert await uploads.size(facts.upload_id) == (1, 1)
    for name in ("b.csv", "c.csv"):
        await uploads.receive(facts, name, chunks(b"1"))
    with pytest.raises(UploadError, match="More than 3 files"):
        await uploads.receive(facts, "d.csv", chunks(b"1"))
    fresh = Uploads(tmp_path, settings)  # after a restart
    assert (await fresh.size(facts.upload_id))[1] == 3
    assert await fresh.find(facts.upload_id, "account:ben") is None, "another's upload"
    await fresh.seal(facts)
    sealed = await fresh.find(facts.upload_id, OWNER)
    with pytest.raises(UploadError, match="does not change any more"):
        await fresh.receive(sealed, "b.csv", chunks(b"2"))
    await fresh.create(OWNER)
    with pytest.raises(UploadError, match="the largest number"):
        await fresh.create(OWNER)
    await fresh.remove(facts.upload_id)
    assert not (tmp_path / facts.upload_id).exists()


async def test_a_file_that_is_cut_off_or_slow_leaves_nothing(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, TrainingJobSettings(upload_s=0.05, free_bytes=0))
    facts = await uploads.create(OWNER)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.01)

    with pytest.raises(UploadError, match="did not arrive within"):
        await uploads.receive(facts, "x.csv", endless())
    assert await uploads.size(facts.upload_id) == (0, 0)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["upload.json"]


async def test_a_full_disk_refuses_uploads_and_keeps_what_is_there(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, TrainingJobSettings(all_uploads_bytes=500, free_bytes=0))
    facts = await uploads.create(OWNER)
    await uploads.receive(facts, "x.csv", chunks(b"x" * 400))
    with pytest.raises(UploadError, match="all_uploads_bytes") as refused:
        await uploads.receive(facts, "y.csv", chunks(b"x" * 200))
    assert refused.value.is_full
    assert await uploads.size(facts.upload_id) == (400, 1)
    full = Uploads(tmp_path, TrainingJobSettings(free_bytes=2**60))
    with pytest.raises(UploadError, match="nearly full"):
        await full.receive(facts, "y.csv", chunks(b"x"))
    with pytest.raises(UploadError, match="nearly full"):
        await full.create(OWNER)


def make_old(folder: Path) -> None:
    """Set the times of a folder and of all below it to the year 1970."""
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (1, 1))


async def test_unused_uploads_end_an_age_after_their_newest_change_and_used_ones_stay(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, TrainingJobSettings(uploads_hours=1, free_bytes=0))
    used, unused, changed = [await uploads.create(OWNER) for _ in range(3)]
    await uploads.receive(changed, "line/x.csv", chunks(b"x"))
    make_old(tmp_path)
    os.utime(uploads.path(changed.upload_id) / "files" / "line" / "x.csv")
    stray = tmp_path / ("0" * 16)
    stray.mkdir()
    make_old(stray)
    assert set(await uploads.remove_old({used.upload_id})) == {unused.upload_id, stray.name}
    assert {facts.upload_id for facts in await uploads.known()} == {used.upload_id, changed.upload_id}


async def test_an_upload_is_inspected_sealed_and_changed_one_after_the_other(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, TrainingJobSettings(free_bytes=0))
    empty = await uploads.create(OWNER)
    arrived, goes_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"a,b\n"
        arrived.set()
        await goes_on.wait()
        yield b"1,2\n"

    writer = asyncio.create_task(uploads.receive(empty, "x.csv", slow()))
    await arrived.wait()
    with pytest.raises(UploadError, match="still arrive"):
        await uploads.seal(empty)
    with pytest.raises(UploadError, match="still arrive"):
        async with uploads.inspecting(empty, 1):
            pass
    await asyncio.gather(*(uploads.receive(empty, "y.csv", chunks(b"12")) for _ in range(3)))
    assert (await uploads.size(empty.upload_id))[1] == 1, "one name is one file"
    goes_on.set()
    await writer
    async with uploads.inspecting(empty, 1):
        for refused in (uploads.receive(empty, "z.csv", chunks(b"1")), uploads.seal(empty)):
            with pytest.raises(UploadError, match="inspected"):
                await refused
        inspected = await uploads.save_inspection(empty, Inspection(modality="tabular", data="files/x.csv"))
    await uploads.receive(empty, "z.csv", chunks(b"1"))
    with pytest.raises(UploadError, match="has changed"):
        await uploads.seal(inspected)
    inspected = await uploads.save_inspection(empty, Inspection(modality="tabular", data="files/x.csv"))
    await uploads.seal(inspected)
    with pytest.raises(UploadError, match="does not change any more"):
        async with uploads.inspecting(inspected, 1):
            pass
    with pytest.raises(UploadError, match="does not change any more"):
        await uploads.receive(empty, "v.csv", chunks(b"1"))
    stored = await uploads.find(empty.upload_id, OWNER)
    assert stored is not None
    assert stored.sealed
    assert stored.inspection is not None
    assert (await uploads.size(empty.upload_id))[1] == 3


async def test_an_upload_that_is_deleted_takes_no_more_and_is_forgotten(tmp_path: Path) -> None:
    uploads, other = (Uploads(tmp_path, TrainingJobSettings(free_bytes=0)) for _ in range(2))
    facts, second = await uploads.create(OWNER), await uploads.create(OWNER)
    await uploads.receive(second, "x.csv", chunks(b"1"))

    async def body() -> AsyncIterator[bytes]:
        yield b"1"
        await uploads.remove(facts.upload_id)
        yield b"2"

    with pytest.raises(UploadError, match="was deleted"):
        await uploads.receive(facts, "x.csv", body())
    await other.remove(second.upload_id)
    await uploads.create(OWNER)
    assert uploads._usage == {}
    assert len(list(tmp_path.iterdir())) == 1


async def test_a_partial_file_is_deleted_once_it_has_no_writer_for_certain(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, TrainingJobSettings(free_bytes=0))
    facts = await uploads.create(OWNER)
    dead, alive = (uploads.path(facts.upload_id) / f".partial-{name}" for name in ("dead", "alive"))
    for path in (dead, alive):
        path.write_bytes(b"x" * 1000)
    os.utime(dead, (1, 1))
    size_bytes, files = await Uploads(tmp_path, TrainingJobSettings(free_bytes=0)).size(facts.upload_id)
    assert (dead.exists(), alive.exists()) == (False, True), "another process may write it"
    assert (size_bytes, files) == (1000, 0)


def start_for(folder: Path, **changes: int) -> InspectionStart:
    limits = {"max_bytes": 10_000_000, "max_files": 100, "free_bytes": 0, "max_pixels": 10_000_000} | changes
    paths = {name: folder / name for name in ("files", "content", "previews")}
    paths["files"].mkdir(parents=True)
    return InspectionStart(**paths, **limits, parent_pid=os.getpid())


def rows(count: int, header: str = "time,a,b,label") -> bytes:
    lines = [f"2026-01-01 00:{index // 60:02d}:{index % 60:02d},{index % 7},{index % 5},0" for index in range(count)]
    return "\n".join([header, *lines]).encode()


def test_a_table_is_shown_with_types_and_roles_and_the_rows_that_lack(tmp_path: Path) -> None:
    start = start_for(tmp_path)
    (start.files / "press.csv").write_bytes(rows(30))
    found = inspect(start)
    assert [(column.name, column.type, column.role) for column in found.columns] == [
        ("time", "text", "time"),
        ("a", "number", "input"),
        ("b", "number", "input"),
        ("label", "number", "label"),
    ]
    assert (found.modality, found.rows, found.normals, found.data) == ("series", 30, 30, "files/press.csv")
    assert found.head[1] == ("2026-01-01 00:00:01", "1", "1", "0")
    assert found.problem == "30 normal readings, and training needs at least 40: 10 more are needed."


def test_images_in_an_archive_are_counted_by_their_folders_and_drawn_small(tmp_path: Path) -> None:
    start = start_for(tmp_path)
    brick = encode_png(photograph("brick.png")[:64, :64])
    names = [f"line/train/good/{index}.png" for index in range(3)] + ["line/test/scratch/1.png", "line/test/good/1.png"]
    archive(start.files / "line.zip", *((name, brick) for name in names))
    found = inspect(start)
    assert (found.modality, found.normals, found.anomalies, found.data) == ("image", 3, 1, "content/line")
    assert len(found.previews) == 4
    assert all((start.previews / name).stat().st_size > 100 for name in found.previews)
    assert "37 more are needed" in found.problem
    again = start_for(tmp_path / "again", max_pixels=20_000)
    (again.files / "line.zip").write_bytes((start.files / "line.zip").read_bytes())
    with pytest.raises(DataError, match="more than 20000 pixels"):
        inspect(again)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("x.exe", b"MZ", "No file that can be trained on: 1 .exe"),
        ("x.csv", b"", "empty"),
        ("x.parquet", b"PAR1 broken", "x.parquet"),
        ("x.npz", b"PK broken", ""),
        ("x.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "40 more are needed|39 more are needed"),
    ],
)
async def test_wrong_and_broken_files_get_a_sentence_from_a_process_of_their_own(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    uploads = Uploads(tmp_path, TrainingJobSettings(free_bytes=0))
    facts = await uploads.create(OWNER)
    await uploads.receive(facts, name, chunks(data))
    found = await _inspected(uploads, facts)
    assert found.problem
    assert str(tmp_path) not in found.problem
    assert re.search(reason, found.problem), found.problem


async def _inspected(uploads: Uploads, facts: UploadFacts) -> Inspection:
    inspected = await Inspector(uploads).inspect(facts)
    assert inspected.inspection is not None
    return inspected.inspection


async def test_the_answer_of_an_inspection_is_bounded(tmp_path: Path) -> None:
    start = start_for(tmp_path)
    names = [f"{index}{'n' * 2000}" for index in range(MAX_COLUMNS)]
    (start.files / "wide.csv").write_text(f"{','.join(names)}\n" + f"{','.join('1' * MAX_COLUMNS)}\n" * 3)
    found = inspect(start)
    assert {len(column.name) for column in found.columns} == {256}
    many = found.model_copy(update={"notes": tuple(f"{index} {'x' * 1000}" for index in range(200))})
    cut = Inspection.model_validate_json(many.model_dump_json())
    assert len(cut.notes) == 50
    assert cut.notes[-1] == "151 more notes are left out"
    assert {len(note) for note in cut.notes[:-1]} == {400}
    worst = Inspection(
        columns=tuple({"name": "\0" * 999, "type": "number", "role": "unused"} for _ in range(MAX_COLUMNS)),
        head=(("\0" * 99,) * 64,) * 5,
        notes=("\0" * 999,) * 99,
        problem="\0" * 9999,
    )
    answer = tmp_path / "result.json"
    answer.write_text(worst.model_dump_json())
    assert read_answer(answer) == worst
    with answer.open("a") as file:
        file.write(" " * 2**20)
    assert read_answer(answer).problem.startswith("The upload cannot be read")
    for data in ("/etc/passwd", "files/../../x", "upload.json"):
        answer.write_text(json.dumps({"data": data}))
        assert read_answer(answer).problem, data
