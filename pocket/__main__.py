# ruff: noqa: PLC0415 - each verb imports only what it needs: checking must work without torch
"""`python -m pocket`: train, write the GGUF, ask it the held-out questions.

python -m pocket                       everything from nothing, 60 minutes of training
python -m pocket train --init service/models/pocket.gguf --minutes 90
python -m pocket export                the present checkpoint, also while training runs
python -m pocket check service/models/pocket.gguf
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

WORK = Path("build/pocket")
WANTED = 0.92  # share of the held-out checks that a shipped file passes


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.verb == "check":
        return _check(chosen.model, chosen)
    chosen.work.mkdir(parents=True, exist_ok=True)
    model: Path = chosen.work / "pocket.gguf"
    if chosen.verb in ("all", "train"):
        _train(chosen)
    if chosen.verb in ("all", "export"):
        _export(chosen.work, model)
    return _check(model, chosen) if chosen.verb == "all" else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pocket",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "verb", nargs="?", default="all", choices=["all", "train", "export", "check"]
    )
    parser.add_argument("model", nargs="?", type=Path, help="the GGUF to check")
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoint and GGUF go here")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--init", type=Path, help="a Pocket GGUF or checkpoint to start from")
    parser.add_argument("--drills", type=float, help="share of copying exercises")
    parser.add_argument("--rate", type=float, default=0.0, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="one per core")
    parser.add_argument("--thinking", action="store_true", help="check with thinking on")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--every", type=int, default=1, help="check only every n-th case")
    parser.add_argument("--show", type=int, default=2, help="failures to print per behaviour")
    return parser


def _train(chosen: argparse.Namespace) -> None:
    import torch

    from pocket import gguf_file, tokenizer, training

    start = None
    if chosen.init is not None and chosen.init.suffix == ".gguf":
        start = gguf_file.read(chosen.init)
    elif chosen.init is not None:
        start = torch.load(chosen.init, map_location="cpu")
    plan = training.Plan(
        minutes=chosen.minutes,
        processes=chosen.processes,
        seed=chosen.seed,
        rate=chosen.rate,
        drills=training.USUAL_DRILLS if chosen.drills is None else chosen.drills,
    )
    training.train(tokenizer.load(), chosen.work / "pocket.pt", plan, start)


def _export(work: Path, model: Path) -> None:
    import torch

    from pocket import gguf_file, tokenizer

    gguf_file.write(torch.load(work / "pocket.pt", map_location="cpu"), tokenizer.load(), model)
    print(f"{model}: {model.stat().st_size / 1e6:.2f} MB")


def _check(model: Path | None, chosen: argparse.Namespace) -> int:
    from pocket.check import Chat, grade_all, print_table

    if model is None:
        sys.exit(
            "python -m pocket check needs the path of a GGUF, such as build/pocket/pocket.gguf"
        )
    chat = Chat(model, thinking=chosen.thinking, temperature=chosen.temperature)
    passed = print_table(grade_all(chat, every=chosen.every, show=chosen.show))
    return 0 if passed >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
