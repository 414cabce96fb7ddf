"""Whether a model can fit into this machine's memory, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from service.domain.errors import ModelFileError
from service.models.gguf import GgufHeader
from service.settings import EngineSettings

# Interpreters, workers and compute buffers.
SPARE_BYTES = 256 * 1024 * 1024
GPU_DEVICES = ("dev/nvidia0", "dev/nvidiactl", "dev/kfd", "dev/dri/renderD128")


def check_fits(header: GgufHeader, engine: EngineSettings, root: Path = Path("/")) -> None:
    """Raise `ModelFileError`, one sentence with the numbers, where the model cannot fit.

    Compares with all memory that this process may ever have, so that what is merely busy now is
    no reason to refuse. Where there is a GPU it says nothing: what goes there, only a load tells.
    """
    if engine.gpu_layers and any((root / device).exists() for device in GPU_DEVICES):
        return
    limit = memory_limit_bytes(root)
    if limit is None:
        return
    context = min(engine.context_length, header.context_length or engine.context_length)
    cache = header.cache_bytes_per_token * context * engine.slots
    if header.weight_bytes + SPARE_BYTES > limit:
        raise ModelFileError(
            f"{header.path} needs about {_giga(header.weight_bytes + SPARE_BYTES)} of memory and "
            f"this machine has {_giga(limit)}; a smaller model or a stronger quantisation works."
        )
    if header.weight_bytes + cache + SPARE_BYTES > limit:
        raise ModelFileError(
            f"{header.path} needs about {_giga(header.weight_bytes + SPARE_BYTES)} of memory, "
            f"{engine.slots} conversations of {context} tokens {_giga(cache)} more, and this "
            f"machine has {_giga(limit)}; fewer PARLEY_ENGINE__SLOTS or a smaller "
            "PARLEY_ENGINE__CONTEXT_LENGTH work."
        )


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """The machine's memory, or less where a container or unit is limited; None if unknown."""
    known = [
        limit
        for limit in (
            _total_bytes(root / "proc/meminfo"),
            *(_number(path / "memory.max") for path in _own_groups(root)),
            _number(root / "sys/fs/cgroup/memory/memory.limit_in_bytes"),
        )
        if limit is not None
    ]
    return min(known, default=None)


def _own_groups(root: Path) -> list[Path]:
    """This process's control group and those above it (version 2)."""
    base = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return [base]
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    group = base / own.strip("/")
    return [p for p in (group, *group.parents) if p == base or base in p.parents]


def _total_bytes(meminfo: Path) -> int | None:
    try:
        words = meminfo.read_text().split()
    except OSError:
        return None
    return int(words[words.index("MemTotal:") + 1]) * 1024 if "MemTotal:" in words else None


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _giga(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
