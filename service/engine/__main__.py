"""The engine's process: `python -m service.engine --model-name NAME --model-path PATH …`.

The main thread is the IO thread. The engine thread loads the model and then runs the loop; the
socket appears when the model has answered once. Exit codes: 0 drained, 2 the model or a setting
is no good (starting again won't help), 70 broken.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from service import log, metrics
from service.core_files import forbid_core_files
from service.domain.errors import ConfigurationError, ModelFileError
from service.domain.model import Mode
from service.engine import library
from service.engine.adapters import to_lora_file
from service.engine.draft_model import check_draft
from service.engine.embedding.embedder import Embedder
from service.engine.embedding.intake import VectorIntake
from service.engine.embedding.vectors import VectorModel
from service.engine.embedding.work import VectorWork
from service.engine.engine import EXIT_BROKEN, EXIT_DRAINED, Engine
from service.engine.grammar.compiler import Compiler
from service.engine.intake import Intake
from service.engine.kv.cache import create_cache
from service.engine.kv.recall import Recall
from service.engine.llama import LlamaRunner, create_runner
from service.engine.planning.attempts import Attempts
from service.engine.planning.records import Records
from service.engine.sight import give_sight
from service.engine.status import StatusPipe
from service.engine.tokenizer import Tokenizer
from service.ipc.messages import PROTOCOL_VERSION, Hello
from service.ipc.server import Server
from service.settings import EngineSettings, Settings, load_settings

EXIT_UNUSABLE = 2
_HEARTBEAT_SECONDS = 1.0
# Sizes that have been used for this long are not what the system kills an engine for.
_PROVEN_SECONDS = 30.0
# The workers need this long to pass the last words on before the service's own deadline.
_LAST_WORDS_SECONDS = 3.0

_log = log.get_logger(__name__)


class EngineProcess:
    """Two threads and what they share, from the command line to the exit code."""

    def __init__(
        self, arguments: argparse.Namespace, settings: Settings, status: StatusPipe
    ) -> None:
        self._arguments = arguments
        self._settings = settings
        self._status = status
        self._server = Server()
        self._engine: Engine | None = None
        self._intake: Intake | VectorIntake | None = None
        self._embedder: Embedder | None = None
        self._attempts: Attempts | None = None
        self._ready_at = 0.0
        self._draining = False
        self._exit_code = EXIT_BROKEN

    def run(self) -> int:
        """Serve until told to stop, or broken. Main thread."""
        self._watch_signals()
        self._server.every(_HEARTBEAT_SECONDS, self._beat)
        thread = threading.Thread(target=self._work, name="engine", daemon=True)
        thread.start()
        self._server.run()
        return self._exit_code

    # --- the engine thread -------------------------------------------------------------------
    def _work(self) -> None:
        try:
            self._exit_code = self._load_then_run()
        except ModelFileError as error:
            _log.error("model_refused", reason=error.message)
            self._status.failed(error.message)
            self._exit_code = EXIT_UNUSABLE
        except Exception:  # noqa: BLE001 - the process's edge
            _log.exception("engine_failed")
        finally:
            if self._attempts is not None:
                self._attempts.ended()
            self._server.stop()

    def _load_then_run(self) -> int:
        started = time.monotonic()
        name, path = self._arguments.model_name, Path(self._arguments.model_path)
        if self._arguments.mode is not Mode.CHAT:
            return self._make_vectors(VectorModel(path, name, self._arguments.mode), started)
        records = Records(self._settings.state_dir / "engine", path, self._status.calibrating)
        self._attempts = records.attempts
        runner = create_runner(
            self._with_draft(path),
            path,
            name,
            self._status.progress,
            records,
            self._arguments.adapter,
        )
        sight = give_sight(runner, self._settings.model.mmproj, path)
        try:
            runner.warm_up()
            seconds = time.monotonic() - started
            metrics.MODEL_LOAD_SECONDS.labels(name).set(seconds)
            metrics.MODEL_LOADED.labels(name).set(1)
            directory = self._settings.state_dir / "parked"
            cache = create_cache(runner, self._settings.engine, directory)
            engine = Engine(runner, self._server, self._settings.engine, cache=cache)
            compiler = Compiler(runner.create_matcher, engine.inbox)
            compiler.start()
            recall = Recall(runner, cache, sight)
            tokenizer = Tokenizer(runner, compiler, self._server, recall)
            thread = tokenizer.start()
            _settle_memory()
            self._server.call(lambda: self._open(runner, engine, tokenizer, seconds))
            exit_code = engine.run()
            metrics.MODEL_LOADED.labels(name).set(0)
            if exit_code == EXIT_DRAINED:
                tokenizer.stop()
                thread.join()
        finally:
            if sight is not None:
                sight.close()
            runner.close()
        return exit_code

    def _with_draft(self, path: Path) -> EngineSettings:
        """The settings, with the draft model's file from the command line: for another model than
        the one that it was chosen for, only if it is of use there."""
        settings, arguments = self._settings.engine, self._arguments
        if arguments.draft_model and arguments.draft_for not in (None, arguments.model_name):
            try:
                library.start()
                check_draft(path, Path(arguments.draft_model))
            except ModelFileError as error:
                _log.warning("draft_model_unused", reason=error.message)
                return settings.model_copy(update={"draft_model": None})
        return settings.model_copy(update={"draft_model": arguments.draft_model})

    def _make_vectors(self, model: VectorModel, started: float) -> int:
        work = VectorWork.load(model, self._settings, self._server, self._status.progress)
        try:
            seconds = time.monotonic() - started
            metrics.MODEL_LOAD_SECONDS.labels(model.name).set(seconds)
            metrics.MODEL_LOADED.labels(model.name).set(1)
            thread = work.start()
            _settle_memory()
            self._server.call(lambda: self._open_vectors(work, seconds))
            exit_code = work.embedder.run()
            metrics.MODEL_LOADED.labels(model.name).set(0)
            if exit_code == EXIT_DRAINED:
                work.stop()
                thread.join()
        finally:
            work.close()
        return exit_code

    # --- the IO thread -----------------------------------------------------------------------
    def _open_vectors(self, work: VectorWork, load_seconds: float) -> None:
        self._embedder, self._intake = work.embedder, work.intake
        hello = Hello(PROTOCOL_VERSION, os.getpid(), work.info)
        self._server.listen(Path(self._arguments.socket), hello, work.intake)
        _log.info("engine_ready", model=work.info.name, load_seconds=round(load_seconds, 3))
        self._status.ready(load_seconds)

    def _open(
        self, runner: LlamaRunner, engine: Engine, tokenizer: Tokenizer, load_seconds: float
    ) -> None:
        self._engine = engine
        self._intake = Intake(engine, tokenizer, self._server)
        hello = Hello(PROTOCOL_VERSION, os.getpid(), runner.info)
        self._server.listen(Path(self._arguments.socket), hello, self._intake)
        _log.info("engine_ready", model=runner.info.name, load_seconds=round(load_seconds, 3))
        self._ready_at = time.monotonic()
        self._status.ready(load_seconds, notice=runner.notice, degraded=runner.degraded)

    def _beat(self) -> None:
        metrics.RESIDENT_MEMORY.labels("engine").set(_resident_bytes())
        now = time.monotonic()
        if self._embedder is not None:
            self._status.heartbeat(*self._embedder.pulse(now))
        engine = self._engine
        if engine is None:
            return
        engine.gauges.tick(now)
        if self._attempts is not None and now - self._ready_at >= _PROVEN_SECONDS:
            self._attempts.worked()
        self._status.heartbeat(
            engine.gauges.num_steps,
            len(engine.scheduler.running),
            len(engine.scheduler.waiting),
            now - engine.turn_started if engine.turn_started else 0.0,
        )

    def _watch_signals(self) -> None:
        readable, writable = socket.socketpair()
        readable.setblocking(False)
        writable.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, _noted)
        signal.set_wakeup_fd(writable.fileno())
        self._wakeup = (readable, writable)
        self._server.watch(readable, self._stop)

    def _stop(self) -> None:
        """First time: finish what runs. Second time, or while loading: go now. SIGUSR1: finish
        what runs, however long it takes."""
        if self._wakeup[0].recv(1)[0] == signal.SIGUSR1:
            if self._intake is not None and not self._draining:
                _log.info("engine_draining")
                self._intake.drain(math.inf)
            return
        if self._intake is None or self._draining:
            _log.info("engine_stopped_at_once")
            if self._attempts is not None:
                self._attempts.ended()
            self._server.close()
            os._exit(EXIT_DRAINED)
        self._draining = True
        seconds = max(0.0, self._settings.drain_seconds - _LAST_WORDS_SECONDS)
        _log.info("engine_draining", seconds=seconds)
        self._intake.drain(time.monotonic() + seconds)


def _noted(_number: int, _frame: object) -> None:
    """The wakeup descriptor carries the signal to the loop."""


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _settle_memory() -> None:
    """Give back what loading has left over. Nothing of what is there now will ever be garbage: keep
    the collector away from it."""
    gc.collect()
    gc.freeze()
    library.give_back_memory()


def _end_process(arguments: threading.ExceptHookArgs) -> None:
    """A thread died of what it did not expect: the process is not whole any more."""
    name = arguments.thread.name if arguments.thread else "unknown"
    _log.error("thread_died", thread=name, exc_info=arguments.exc_value)
    os._exit(EXIT_BROKEN)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m service.engine", description=__doc__)
    parser.add_argument("--id", type=int, default=1, help="number that the supervisor gave")
    parser.add_argument("--model-name", required=True)
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--mode", type=Mode, choices=list(Mode), default=Mode.CHAT)
    parser.add_argument(
        "--adapter", type=to_lora_file, action="append", default=[], help="PATH=SCALE of a LoRA"
    )
    parser.add_argument("--draft-model", help="file of a small model that goes ahead")
    parser.add_argument("--draft-for", help="the model that must be able to use it")
    parser.add_argument("--socket", required=True, help="unix socket to listen on")
    parser.add_argument("--status-fd", type=int, default=None, help="where to report")
    return parser.parse_args(arguments)


def main(command_line: list[str] | None = None) -> int:
    """Run one engine; returns the exit code."""
    arguments = _parse(command_line)
    forbid_core_files()
    status = StatusPipe(arguments.status_fd)
    try:
        settings = load_settings()
    except ConfigurationError as error:
        sys.stderr.write(error.message + "\n")
        status.failed(error.message)
        return EXIT_UNUSABLE
    log.configure(settings.log, role="engine")
    library.use_one_heap()
    threading.excepthook = _end_process
    return EngineProcess(arguments, settings, status).run()


if __name__ == "__main__":
    sys.exit(main())
