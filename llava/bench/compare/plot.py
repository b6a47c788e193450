"""The figure of a comparison: time against FLOPs. One colour and marker per method."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from llava.bench.plot import QUIET, TEXT, new_figure, save

MARKERS = "osD^vP*X<>ph"


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Write a grid of panels: a row per batch; prefill, then whole runs with every length of answers."""
    cases = {(case["batch"], case["answer"]): case["rows"] for case in document["cases"]}
    batches, answers = (list(dict.fromkeys(key[side] for key in cases)) for side in (0, 1))
    rows = [row for case in document["cases"] for row in case["rows"]]
    style = styles([row["method"] for row in rows])
    figure = new_figure(3.6 * (1 + len(answers)), 3.4 * len(batches) + 0.9)
    panels = figure.subplots(len(batches), 1 + len(answers), squeeze=False)
    for line, batch in zip(panels, batches, strict=True):
        prefill = cases[batch, answers[0]]
        _panel(line[0], prefill, "prefill", f"prefill, batch {batch}", style)
        for axes, answer in zip(line[1:], answers, strict=True):
            case = cases.get((batch, answer))
            if case is None:  # not measured yet
                axes.set_axis_off()
                continue
            _panel(axes, case, "end_to_end", f"end-to-end, batch {batch}, answers of {answer}", style)
    _finish(figure, panels[0][0], document)
    save(figure, path)


def styles(methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give every method a colour and a marker; dense is black."""
    others = [method for method in dict.fromkeys(methods) if method != "dense"]
    palette = colormaps["tab10" if len(others) <= 10 else "tab20"]
    found: dict[str, dict[str, Any]] = {"dense": {"color": TEXT, "marker": "o"}}
    for index, method in enumerate(others):
        marker = MARKERS[(index + 1) % len(MARKERS)]
        found[method] = {"color": to_hex(palette(index % palette.N)), "marker": marker}
    return found


def _panel(
    axes: Axes, rows: Sequence[Mapping[str, Any]], phase: str, title: str, style: Mapping[str, dict[str, Any]]
) -> None:
    """Draw time over FLOPs, both relative to dense; on the line nothing but FLOPs costs time."""
    axes.plot([0, 1], [0, 1], "--", color=QUIET, linewidth=1, zorder=1, label="time = FLOPs")
    for method in dict.fromkeys(row["method"] for row in rows):
        own = sorted(
            (row for row in rows if row["method"] == method), key=lambda row: row["flops_share"]["full"]
        )
        times = [row["phases"][phase]["over_dense"] for row in own]
        axes.errorbar(
            [row["flops_share"]["full"] for row in own],
            [time["median"] for time in times],
            yerr=[
                [time["median"] - time["low"] for time in times],
                [time["high"] - time["median"] for time in times],
            ],
            markersize=5,
            linewidth=0.8,
            elinewidth=1,
            label=method,
            **style[method],
        )
    axes.set_title(title, loc="left", fontsize=9, color=TEXT)
    lowest = min(min(row["flops_share"]["full"], row["phases"][phase]["over_dense"]["low"]) for row in rows)
    axes.set(xlim=(max(0, lowest - 0.06), 1.06), ylim=(max(0, lowest - 0.06), None))
    axes.set_xlabel("FLOPs / dense (full)", fontsize=8)
    axes.set_ylabel("time / dense", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _finish(figure: Figure, panel: Axes, document: Mapping[str, Any]) -> None:
    """Put one legend and the conditions below all panels."""
    contract = document["contract"]
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    shape = document["shape"]
    figure.suptitle(
        f"{contract['device']}, {contract['dtype']}, {contract['clock']} clock, decoder "
        f"{shape['hidden_size']} x {shape['num_layers']}, {shape['visual']} + {shape['text']} tokens; "
        f"bars: quartiles",
        fontsize=8,
        color=QUIET,
    )
