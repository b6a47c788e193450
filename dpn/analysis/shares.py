"""Fig. 3: which experts were chosen, per benchmark and difficulty of the question."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.patches import Patch

from dpn.analysis.arms import Arm
from dpn.analysis.render import Table
from dpn.analysis.results import Result, grades, mean
from dpn.analysis.routes import describe_kernel, draw_shares, tokens_merged
from dpn.analysis.style import LARGE, NORMAL, SMALL, TEXT, expert_colours, new_figure, save

ALL = "all DPEs"


class Share(NamedTuple):
    """How often the experts were chosen for one part of a benchmark."""

    benchmark: str
    grade: str
    """"" for the whole benchmark."""
    questions: int
    routes: int
    """Distinct routes, in the seed with the fewest and ..."""
    most_routes: int
    """... with the most of them."""
    by_stage: dict[str, list[dict[str, float]]]
    """`all DPEs`, then every DPE -> share of each kernel, one entry per seed."""

    @property
    def label(self) -> str:
        return f"   {self.grade}" if self.grade else self.benchmark

    def mean(self, stage: str) -> dict[str, float]:
        """Average over seeds."""
        seeds = self.by_stage[stage]
        kernels = {kernel for seed in seeds for kernel in seed}
        return {kernel: mean(seed.get(kernel, 0.0) for seed in seeds) for kernel in kernels}


def shares_of(arm: Arm) -> list[Share]:
    """Return the shares of every benchmark, and of its grades where there are several.

    Raises:
        ValueError: no answer has a route.
    """
    found = []
    for benchmark in arm.benchmarks:
        results = arm.results(benchmark)
        graded = [
            grade for grade in grades(arm.runs) if any(grade in _grades_of(result) for result in results)
        ]
        for grade in ["", *(graded if len(graded) > 1 else [])]:
            seeds = [_routed(result, grade) for result in results]
            if all(seeds):
                found.append(_share(arm, benchmark, grade, seeds))
    if not found:
        raise ValueError(f"run {arm.key!r} has no answers with a route; fig3 shows routes")
    return found


def _grades_of(result: Result) -> set[str]:
    return {row["grade"] for row in result.answers if "grade" in row}


def _routed(result: Result, grade: str) -> list[tuple[str, ...]]:
    """Return the routes of a grade's questions, of all where it is ""."""
    rows = (row for row in result.answers if row["route"] and (not grade or row.get("grade") == grade))
    return [tuple(row["route"]) for row in rows]


def _share(arm: Arm, benchmark: str, grade: str, seeds: Sequence[Sequence[tuple[str, ...]]]) -> Share:
    layers = (arm.runs[0].reduction or {}).get("layers", [])
    by_stage = {ALL: [_counted([kernel for route in routes for kernel in route]) for routes in seeds]}
    for stage in range(len(seeds[0][0])):
        name = f"before layer {layers[stage]}" if stage < len(layers) else f"DPE {stage + 1}"
        by_stage[name] = [_counted([route[stage] for route in routes]) for routes in seeds]
    distinct = [len(set(routes)) for routes in seeds]
    return Share(benchmark, grade, len(seeds[0]), min(distinct), max(distinct), by_stage)


def _counted(kernels: Sequence[str]) -> dict[str, float]:
    return {kernel: count / len(kernels) for kernel, count in Counter(kernels).items()}


def kernels_of(shares: Sequence[Share]) -> list[str]:
    """Return the experts that occur, the one that keeps most first."""
    found = {
        kernel for share in shares for seeds in share.by_stage.values() for seed in seeds for kernel in seed
    }
    return sorted(found, key=tokens_merged)


def draw_fig3(arms: Sequence[Arm], path: Path, *, mark: str = "") -> None:
    """Write the figure: a row of panels per run, all DPEs together and each on its own."""
    shares = {arm.key: shares_of(arm) for arm in arms}
    every = [share for listed in shares.values() for share in listed]
    stages = max((list(share.by_stage) for share in every), key=len)
    colours = expert_colours(kernels_of(every))
    heights = [0.34 * len(listed) + 0.8 for listed in shares.values()]
    figure = new_figure(3.0 * len(stages) + 1.8, sum(heights) + 1.1)
    panels = figure.subplots(
        len(arms), len(stages), squeeze=False, sharex=True, sharey="row", height_ratios=heights
    )
    for row, (name, listed) in zip(panels, shares.items(), strict=True):
        for axes, stage in zip(row, stages, strict=True):
            if stage not in listed[0].by_stage:
                axes.set_visible(False)
                continue
            bars = {f"{number}": share.mean(stage) for number, share in enumerate(listed)}
            draw_shares(axes, bars, colours)
            axes.set_yticks(range(len(listed)), [share.label for share in listed])
            axes.set_title(
                f"{name}: {stage}" if stage == ALL else stage, fontsize=NORMAL, color=TEXT, loc="left"
            )
    for axes in panels[-1]:
        axes.set_xlabel("share of the choices, %", fontsize=SMALL + 1, color=TEXT)
    title = f"{mark}Experts chosen, by benchmark and grade of the question"
    figure.suptitle(title, fontsize=LARGE, color=TEXT)
    handles = [Patch(facecolor=colour, label=describe_kernel(kernel)) for kernel, colour in colours.items()]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=NORMAL
    )
    save(figure, path)


def share_sheets(arms: Sequence[Arm], *, mark: str = "") -> list[Table]:
    """Return a table per run: percent of the choices, mean over seeds and their range."""
    return [_sheet(arm, mark) for arm in arms]


def _sheet(arm: Arm, mark: str) -> Table:
    shares = shares_of(arm)
    kernels, stages = kernels_of(shares), list(shares[0].by_stage)
    return Table(
        title=f"{mark}Fig. 3, {arm.key}: experts chosen, % of the choices",
        groups=(
            ("", ("benchmark", "grade", "questions", "distinct routes")),
            *((stage, tuple(kernels)) for stage in stages),
        ),
        rows=tuple(
            (
                share.benchmark,
                share.grade or "all",
                str(share.questions),
                _range(share.routes, share.most_routes),
                *(_cell(share, stage, kernel) for stage in stages for kernel in kernels),
            )
            for share in shares
        ),
        notes=(
            f"{len(arm.runs)} seed(s): mean, and the least and most of them where they differ. Kernels are "
            "rows x columns of visual tokens that become one",
        ),
    )


def _cell(share: Share, stage: str, kernel: str) -> str:
    values = [100 * seed.get(kernel, 0.0) for seed in share.by_stage[stage]]
    shown = f"{mean(values):.1f}"
    spread = "" if max(values) - min(values) < 0.05 else f" ({min(values):.1f} to {max(values):.1f})"
    return shown + spread


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"


def to_dict(arms: Sequence[Arm]) -> dict[str, Any]:
    """Return the shares of every run and seed, at full precision."""
    return {arm.key: [share._asdict() for share in shares_of(arm)] for arm in arms}
