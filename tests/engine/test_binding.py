"""What an engine's process holds in memory of the libraries: what it uses of them."""

from __future__ import annotations

import json
import subprocess
import sys

from service.engine.binding import version

# Chat formats, templates, a cache on disk, a database; colourful tracebacks.
UNUSED = (
    "llama_cpp.llama",
    "llama_cpp.llama_chat_format",
    "jinja2",
    "diskcache",
    "sqlite3",
    "rich",
)

ASK = (
    "import json, sys; import service.engine.__main__; import llama_cpp.llama_cpp as llama; "
    f"print(json.dumps([[n for n in {UNUSED} if n in sys.modules], llama.llama_n_ctx.__name__]))"
)


def test_an_engine_takes_the_bindings_functions_and_nothing_that_only_its_python_api_needs() -> (
    None
):
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    unused, function = json.loads(done.stdout)
    assert unused == []
    assert function == "llama_n_ctx"


def test_the_binding_tells_which_version_it_is() -> None:
    assert version().count(".") == 2


def test_whoever_wants_the_bindings_python_api_still_gets_it() -> None:
    ask = (
        "import service.engine; import llama_cpp; from llama_cpp import Llama; "
        "print(Llama.__module__, llama_cpp.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["llama_cpp.llama", version()]
