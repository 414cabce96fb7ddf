"""What earlier services called their settings. Reads no environment: settings.py does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from service.domain.errors import ConfigurationError

# What earlier services called a setting: the group and field that it is here.
OLDER_NAMES: Mapping[str, tuple[str, str]] = {
    "MODEL_PATH": ("model", "name"),
    "MODEL_DIR": ("model", "name"),
    "MODEL_NAME": ("model", "served_name"),
    "N_CTX": ("engine", "context_length"),
    "N_THREADS": ("engine", "threads"),
    "N_GPU_LAYERS": ("engine", "gpu_layers"),
    "MAX_TOKENS_HARD_CAP": ("chat", "max_tokens"),
    "PORT": ("api", "port"),
    "LLM_MODEL_NAME": ("model", "name"),
    "LLM_DEVICE": ("engine", "gpu_layers"),
    "LLM_MODEL_CACHE_DIR": ("model", "directory"),
    "LLM_LOG_LEVEL": ("log", "level"),
    "LLM_MAX_CONVERSATION_LENGTH": ("chat", "max_exchanges"),
}
_DEVICES = {"cpu": "0", "cuda": "-1", "auto": "-1"}


def to_value(variable: str, text: str) -> str:
    """What the variable of an earlier service says, in our words. Raises `ConfigurationError`."""
    if variable == "LLM_LOG_LEVEL":
        return text.lower()
    if variable == "LLM_DEVICE":
        if text.lower() not in _DEVICES:
            raise ConfigurationError(f"LLM_DEVICE={text} is not accepted: cpu, cuda or auto is.")
        return _DEVICES[text.lower()]
    if variable == "MODEL_DIR":
        return _only_model_in(Path(text))
    return text


def _only_model_in(folder: Path) -> str:
    """The one GGUF file of a folder. Raises `ConfigurationError` where there isn't just one."""
    files = sorted(folder.glob("*.gguf")) if folder.is_dir() else []
    if len(files) != 1:
        found = ", ".join(file.name for file in files[:5]) or "none"
        raise ConfigurationError(
            f"MODEL_DIR={folder} must be a folder with one GGUF file in it; there is {found}. "
            "MODEL_PATH names a file."
        )
    return str(files[0])
