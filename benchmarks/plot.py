"""The figure: tokens per second, and the wait for the first token, against streams."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from benchmarks.report import FOLDER, OURS, Run, of


def draw(run: Run) -> Path:
    """One line for each server, medians; an SVG beside the results. Returns its path."""
    streams = run.shape.streams
    figure, (rates, waits) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for name, loads in run.loads.items():
        style = {"marker": "o", "linewidth": 2.5 if name == OURS else 1.2, "label": name}
        rates.plot(streams, [run.rate(name, n) for n in streams], **style)
        told = [n for n in streams if any(load.first_token_seconds for load in of(n, loads))]
        waits.plot(told, [run.first_token(name, n) for n in told], **style)
    rates.set(title="Tokens per second, prompts included", ylim=(0, None))
    waits.set(title="Seconds to the first token, median", ylim=(0, None))
    for axes in (rates, waits):
        axes.set(xlabel="streams at once", xticks=streams)
        axes.grid(alpha=0.3)
    rates.legend()
    about = run.about
    figure.suptitle(f"{about['commit']}, {about['date']}, {about['processor']}", fontsize=9)
    path = FOLDER / "results" / f"{about['date'][:10]}-{about['commit']}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path
