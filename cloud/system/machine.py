"""Load of the machine and of this process: processors, memory, disk and GPUs."""

import asyncio
import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

GPU_S, GPU_KEPT_S = 3.0, 10.0
MAX_GPUS = 16
_GPU_QUERY = "name,utilization.gpu,memory.used,memory.total,temperature.gpu"
_MIB = 2**20


class GpuFigures(BaseModel):
    """One GPU as its driver shows it; None for a figure that it does not give."""

    model_config = ConfigDict(frozen=True)

    name: str
    use_share: float | None
    memory_used_bytes: float | None
    memory_bytes: float | None
    temperature_c: float | None


class MachineFigures(BaseModel):
    """Load of the machine that serves the page, and of the process; None for a figure that the system does not give.

    `load` is the average number of running threads over a minute; `process_cores` are those that this process has
    used since the last look.
    """

    model_config = ConfigDict(frozen=True)

    cores: int
    load: float
    memory_bytes: float | None
    memory_free_bytes: float | None
    process_cores: float | None
    process_memory_bytes: float | None
    disk_bytes: float | None
    disk_free_bytes: float | None
    gpus: tuple[GpuFigures, ...]


class Machine:
    """Reader of the figures; `data_dir` lies on the disk that is shown."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._used_s, self._looked_s = _cpu_s(), time.monotonic()
        self._gpus: tuple[float, tuple[GpuFigures, ...]] = (float("-inf"), ())
        self._lock = asyncio.Lock()

    async def figures(self) -> MachineFigures:
        """Return the figures; a driver that does not answer is left out."""
        async with self._lock:
            return await asyncio.to_thread(self._read)

    def _read(self) -> MachineFigures:
        used_s, now_s = _cpu_s(), time.monotonic()
        elapsed_s = now_s - self._looked_s
        cores = (used_s - self._used_s) / elapsed_s if elapsed_s > 0 else None
        self._used_s, self._looked_s = used_s, now_s
        if now_s - self._gpus[0] > GPU_KEPT_S:
            self._gpus = now_s, read_gpus()
        total, free = _memory()
        disk = _disk(self._data_dir)
        return MachineFigures(
            cores=len(os.sched_getaffinity(0)),
            load=os.getloadavg()[0],
            memory_bytes=total,
            memory_free_bytes=free,
            process_cores=cores,
            process_memory_bytes=_process_memory(),
            disk_bytes=disk[0],
            disk_free_bytes=disk[1],
            gpus=self._gpus[1],
        )


def read_gpus() -> tuple[GpuFigures, ...]:
    """Return the GPUs that NVIDIA's driver names; none without it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, f"--query-gpu={_GPU_QUERY}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GPU_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(gpu_of(line) for line in done.stdout.splitlines()[:MAX_GPUS] if line.count(",") >= 4)


def gpu_of(line: str) -> GpuFigures:
    """Return the figures in one line of the driver's table."""
    name, *texts = (part.strip() for part in line.rsplit(",", 4))
    use, used, total, temperature = (_number(text) for text in texts)
    return GpuFigures(
        name=name[:80],
        use_share=use / 100 if use is not None else None,
        memory_used_bytes=used * _MIB if used is not None else None,
        memory_bytes=total * _MIB if total is not None else None,
        temperature_c=temperature,
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return None


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory() -> tuple[float | None, float | None]:
    """Return the memory of the machine and the part that programs may still take, in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None, None
    found = {name: 1024 * float(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest}
    return found.get("MemTotal"), found.get("MemAvailable")


def _process_memory() -> float | None:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return float(pages * resource.getpagesize())


def _disk(folder: Path) -> tuple[float | None, float | None]:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None, None
    return float(usage.total), float(usage.free)
