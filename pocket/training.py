"""The training loop: ends by the clock, saves every minute, and can go on from a GGUF.

Several processes of one thread each train one model, on dialogues of their own: on a machine that
does other work too, waiting for one another once per step is cheaper than once per operation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from pocket.batches import IGNORED, batches
from pocket.model import Pocket, Shape
from pocket.optimizer import Muon
from pocket.tokenizer import word_pieces
from pocket.vocabulary import PIECES

Weights = dict[str, Tensor]

FRESH_DRILLS, USUAL_DRILLS = 0.7, 0.12
LEARNT_LOSS = 0.5  # copying has been learnt when the loss on drills falls below this
FRESH_RATE, FURTHER_RATE = 5e-3, 1e-3
PLATEAU_ENDS, RATE_ENDS = 0.35, 0.02
SAVE_SECONDS = 60
REPORT_STEPS = 50


@dataclass(frozen=True)
class Plan:
    """What one run is to do.

    `drills` is the share of copying exercises in the mix, `rate` the highest learning rate; 0
    means the usual one, which is lower for a model that is trained further.
    """

    minutes: float = 60
    tokens_per_step: int = 3072
    processes: int = 2
    seed: int = 1
    drills: float = USUAL_DRILLS
    rate: float = 0.0


def train(tokenizer: Tokenizer, checkpoint: Path, plan: Plan, start: Weights | None) -> None:
    """Train until the plan's minutes are over, from `start` or from nothing, into `checkpoint`.

    From nothing, copying is drilled first: nearly everything else builds on it.
    """
    meeting_point = checkpoint.with_suffix(".processes").absolute()
    meeting_point.unlink(missing_ok=True)
    arguments = (tokenizer.to_str(), checkpoint, plan, start, f"file://{meeting_point}")
    torch.multiprocessing.spawn(_train_one, args=arguments, nprocs=plan.processes)
    meeting_point.unlink(missing_ok=True)


def _train_one(
    rank: int,
    tokenizer_text: str,
    checkpoint: Path,
    plan: Plan,
    start: Weights | None,
    meeting_point: str,
) -> None:
    """One process of a run. The first one reports and saves."""
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    dist.init_process_group("gloo", meeting_point, rank=rank, world_size=plan.processes)
    tokenizer = Tokenizer.from_str(tokenizer_text)
    PIECES[:] = word_pieces(tokenizer)
    model = Pocket(Shape(vocabulary=tokenizer.get_vocab_size()))
    if start is not None:
        model.load_state_dict(start)
    run = _Run(model, plan, fresh=start is None)
    run.go(tokenizer, Random(f"{plan.seed}.{rank}"), checkpoint if rank == 0 else None)
    dist.destroy_process_group()


class _Run:
    """One pass of the loop, and what it keeps count of."""

    def __init__(self, model: Pocket, plan: Plan, *, fresh: bool) -> None:
        self.model, self.plan = model, plan
        self.parameters = list(model.parameters())
        self.drilling = fresh
        rate = plan.rate or (FRESH_RATE if fresh else FURTHER_RATE)
        matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
        known = {id(p) for p in matrices}
        others = [p for p in self.parameters if id(p) not in known]
        self.rates = [rate, rate * 0.6]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, lr=rate),
            torch.optim.AdamW(others, lr=rate * 0.6, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.began = self.saved = time.monotonic()
        self.done = 0.0  # the part of the time that is over; the same in all processes
        self.steps = self.tokens = 0
        self.losses: list[float] = []

    def go(self, tokenizer: Tokenizer, r: Random, checkpoint: Path | None) -> None:
        drills = lambda: FRESH_DRILLS if self.drilling else self.plan.drills  # noqa: E731
        per_process = self.plan.tokens_per_step // self.plan.processes
        source = batches(tokenizer, r, per_process, drills)
        while self.done < 1:
            self._step(source)
            if self.steps % REPORT_STEPS == 0:
                self._report(print if checkpoint else lambda line: None)
            if checkpoint and time.monotonic() - self.saved > SAVE_SECONDS:
                self._save(checkpoint)
        if checkpoint:
            self._save(checkpoint)

    def _step(self, source: Iterator[tuple[Tensor, Tensor]]) -> None:
        """One update from one batch, in the second half from two."""
        num_batches = 1 if self.done < 0.5 else 2
        loss_sum = 0.0
        for _ in range(num_batches):
            x, y = next(source)
            where = y != IGNORED
            loss = F.cross_entropy(self.model(x, where), y[where])
            (loss / num_batches).backward()
            loss_sum += loss.item()
            self.tokens += x.numel() * self.plan.processes
        self._agree(loss_sum / num_batches)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * schedule(self.done)
            optimizer.step()
            optimizer.zero_grad()
        self.steps += 1

    def _agree(self, loss: float) -> None:
        """Replace gradients, loss and time by their means over all processes."""
        elapsed = (time.monotonic() - self.began) / (60 * self.plan.minutes)
        grads = [p.grad for p in self.parameters if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in grads), torch.tensor([loss, elapsed])])
        dist.all_reduce(flat)
        flat /= self.plan.processes
        *means, facts = flat.split([*(g.numel() for g in grads), 2])
        for grad, mean in zip(grads, means, strict=True):
            grad.copy_(mean.view_as(grad))
        self.losses.append(facts[0].item())
        self.done = facts[1].item()

    def _report(self, write: Callable[[str], None]) -> None:
        loss = sum(self.losses) / len(self.losses)
        rate = self.tokens / (time.monotonic() - self.began)
        write(
            f"step {self.steps}  loss {loss:.4f}  {self.tokens / 1e6:.2f} M tokens  "
            f"{rate:.0f} tokens/s  {100 * self.done:.0f} %{'  drilling' * self.drilling}"
        )
        self.drilling = self.drilling and loss > LEARNT_LOSS and self.done < 0.25
        self.losses.clear()

    def _save(self, checkpoint: Path) -> None:
        """Replace the checkpoint at once, so that it can be exported at any time."""
        unfinished = checkpoint.with_suffix(".new")
        torch.save(self.model.state_dict(), unfinished)
        unfinished.replace(checkpoint)
        self.saved = time.monotonic()


def schedule(done: float) -> float:
    """Warm-up, a plateau, then a cosine down to 2 %; `done` runs from 0 to 1."""
    if done < 0.02:
        return max(done / 0.02, 0.01)
    if done < PLATEAU_ENDS:
        return 1.0
    falling = (done - PLATEAU_ENDS) / (1 - PLATEAU_ENDS)
    return RATE_ENDS + (1 - RATE_ENDS) * (0.5 + 0.5 * math.cos(math.pi * min(falling, 1.0)))
