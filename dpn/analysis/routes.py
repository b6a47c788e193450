"""Which expert each DPE chose, by grade of the question: one row of panels per run with a router."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from dpn.analysis.results import Run, grades
from dpn.analysis.style import LARGE, NORMAL, SMALL, TEXT, expert_colours, new_figure, save, tidy

_NARROWEST_LABEL = 0.09


def route_shares(answers: Sequence[dict[str, Any]], stage: int) -> dict[str, float]:
    """Return the share of each kernel that one DPE chose, over answer lines that have a route."""
    chosen = Counter(row["route"][stage] for row in answers if row["route"])
    total = sum(chosen.values())
    return {kernel: count / total for kernel, count in chosen.items()}


def shares_by_grade(run: Run, stage: int) -> dict[str, dict[str, float]]:
    """Return the kernel shares of one DPE for every grade; under `all` where there are no grades."""
    graded = grades([run])
    if not graded:
        return {"all": route_shares(run.answers, stage)}
    return {
        grade: route_shares([r for r in run.answers if r.get("grade") == grade], stage) for grade in graded
    }


def draw_routes(runs: Sequence[Run], path: Path) -> None:
    """Write the figure for runs whose routes were chosen by a router."""
    kernels = sorted(
        {kernel for run in runs for row in run.answers for kernel in row["route"]}, key=tokens_merged
    )
    stages = max(len(row["route"]) for run in runs for row in run.answers)
    bars = len(shares_by_grade(runs[0], 0))
    figure = new_figure(3.4 * stages + 1.6, (0.52 * bars + 0.75) * len(runs) + 1.3)
    panels = figure.subplots(len(runs), stages, squeeze=False, sharex=True, sharey=True)
    colours = expert_colours(kernels)
    for row, run in zip(panels, runs, strict=True):
        for stage, axes in enumerate(row):
            draw_shares(axes, shares_by_grade(run, stage), colours)
            axes.set_title(f"{run.name}: {_stage_name(run, stage)}", fontsize=NORMAL, color=TEXT, loc="left")
    for axes in panels[-1]:
        axes.set_xlabel("share of the questions, %", fontsize=SMALL + 1, color=TEXT)
    figure.suptitle("Route chosen at each DPE, by grade of the question", fontsize=LARGE, color=TEXT)
    handles = [Patch(facecolor=colours[kernel], label=describe_kernel(kernel)) for kernel in kernels]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(kernels), frameon=False, fontsize=NORMAL
    )
    save(figure, path)


def draw_shares(axes: Axes, shares: dict[str, dict[str, float]], colours: dict[str, str]) -> None:
    """Draw a bar of kernel shares per name."""
    tidy(axes)
    for place, by_kernel in enumerate(shares.values()):
        left = 0.0
        for kernel, colour in colours.items():
            share = by_kernel.get(kernel, 0.0)
            axes.barh(place, 100 * share, left=100 * left, color=colour, height=0.72, edgecolor="white")
            if share > _NARROWEST_LABEL:
                ink = "white" if sum(to_rgb(colour)) < 1.6 else TEXT
                axes.text(
                    100 * (left + share / 2),
                    place,
                    f"{100 * share:.0f}",
                    color=ink,
                    fontsize=SMALL,
                    ha="center",
                    va="center",
                )
            left += share
    axes.set_yticks(range(len(shares)), list(shares))
    axes.set_ylim(len(shares) - 0.5, -0.5)
    axes.set_xlim(0, 100)
    axes.set_xticks([0, 50, 100])


def _stage_name(run: Run, stage: int) -> str:
    layers = (run.reduction or {}).get("layers", [])
    return f"DPE before layer {layers[stage]}" if stage < len(layers) else f"DPE {stage + 1}"


def tokens_merged(kernel: str) -> tuple[int, str]:
    """Order kernels by the number of tokens they merge."""
    rows, columns = kernel.split("x")
    return int(rows) * int(columns), kernel


def describe_kernel(kernel: str) -> str:
    """Say what a kernel keeps, for a legend."""
    merged = tokens_merged(kernel)[0]
    return f"{kernel} (keeps all)" if merged == 1 else f"{kernel} (keeps 1 of {merged})"
