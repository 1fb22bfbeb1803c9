"""Record of samples that end the analysis: it outlives the service, and no two processes share one."""

import os
import subprocess
import sys
import uuid

from cloud.service.crash_record import FOLDER, CrashRecord
from cloud.serving.isolation import Isolation

FAULTY, OTHER = uuid.UUID(int=7), uuid.UUID(int=8)
KILLED = """
import os, sys, uuid
from pathlib import Path
from cloud.service.crash_record import CrashRecord
from cloud.serving.isolation import Isolation
record = CrashRecord(Path(sys.argv[1]))
with Isolation(record.descriptor).under_way([uuid.UUID(text) for text in sys.argv[2:]]):
    os._exit(9)
"""


def kill_service(data_dir, *under_way: uuid.UUID) -> None:
    """Let a process end as a killed service does, with these samples under way."""
    command = [sys.executable, "-c", KILLED, data_dir, *(str(sample_id) for sample_id in under_way)]
    assert subprocess.run(command, check=False).returncode == 9


def test_a_service_that_is_killed_with_its_child_leaves_the_suspects_to_the_next_one(tmp_path):
    kill_service(tmp_path, FAULTY, OTHER)
    kill_service(tmp_path, FAULTY)
    record = CrashRecord(tmp_path)
    assert record.suspects.alone == {FAULTY}
    with Isolation(record.descriptor).under_way([FAULTY]):
        record.note_end()
    record.close()
    record.close()
    again = CrashRecord(tmp_path)
    assert again.suspects.condemned == [FAULTY]
    again.close()


def test_samples_under_way_at_an_ordered_end_are_no_suspects(tmp_path):
    for _ in range(2):
        record = CrashRecord(tmp_path)
        Isolation(record.descriptor).under_way([OTHER]).__enter__()
        record.close()
    record = CrashRecord(tmp_path)
    assert (record.suspects.alone, record.suspects.before) == (set(), set())
    record.close()


def test_processes_of_one_data_directory_have_records_of_their_own(tmp_path):
    first, second = CrashRecord(tmp_path), CrashRecord(tmp_path)
    with Isolation(first.descriptor).under_way([FAULTY]):
        second.note_end()
        assert second.suspects.before == set()
        first.note_end()
    assert first.suspects.before == {FAULTY}
    assert sorted(path.name for path in (tmp_path / FOLDER).glob("*.record")) == ["0.record", "1.record"]
    first.close()
    second.close()


def test_a_damaged_file_and_a_missing_folder_stop_nothing(tmp_path):
    CrashRecord(tmp_path).close()
    (tmp_path / FOLDER / "0.json").write_bytes(b"{")
    (tmp_path / FOLDER / "0.record").write_bytes(b"\xff" * 50)
    record = CrashRecord(tmp_path)
    assert record.suspects.alone == set()
    record.close()
    without = CrashRecord(tmp_path / "missing")
    with Isolation(without.descriptor).under_way([FAULTY]):
        without.note_end()
    assert without.suspects.before == {FAULTY}
    assert os.fstat(without.descriptor).st_nlink == 0, "a temporary file"
    without.close()
