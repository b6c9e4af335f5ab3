"""The host's memory and the run's disk: how much is left. A container's own limit counts, where it has one."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
_MEMINFO, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class HostMemory:
    """Bytes of the host's memory, or of what its container may take of it."""

    available: float
    limit: float


def host_memory(meminfo: Path = _MEMINFO, group: Path = _GROUP) -> HostMemory | None:
    """The host's memory as Linux tells it; None elsewhere."""
    try:
        text = meminfo.read_text()
    except OSError:
        return None
    sizes = {name: 1024.0 * int(kib) for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    available, limit = sizes["MemAvailable"], sizes["MemTotal"]
    try:
        most = (group / "memory.max").read_text().strip()
        used = float((group / "memory.current").read_text())
        cached = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    except OSError:  # no such limit
        return HostMemory(available, limit)
    if most != "max" and float(most) < limit:
        given_back = float(cached[1]) if cached else 0.0
        return HostMemory(min(available, float(most) - used + given_back), float(most))
    return HostMemory(available, limit)


def resident_memory() -> float | None:
    """Bytes of this process in memory; None where Linux does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def free_disk(path: Path) -> float:
    """Bytes that may still be written below `path`, or where it will be made."""
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    return float(found.f_bavail * found.f_frsize)
