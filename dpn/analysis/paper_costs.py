"""The paper's FLOPs recomputed: which token counts give its numbers, and what routes cost."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from dpn.analysis.paper import TABLES, printed_number
from dpn.flops import count_flops

TOKENS, TOKENS_HR = 576, 1024
"""Visual tokens of LLaVA-1.5 at 336 pixels, and of LLaVA-HR."""


class Size(NamedTuple):
    """A decoder's sizes."""

    hidden_size: int
    intermediate_size: int
    layers: int


SIZES = {"7B": Size(4096, 11008, 32), "13B": Size(5120, 13824, 40)}
_AFTER = (8, 8, 8, 8)
"""Layers per stage with a DPE after the 8th, 16th and 24th layer (section 5.2)."""
_BEFORE = (7, 8, 8, 9)
"""The same with a DPE in the place of these layers (sections 4.1, 4.4)."""
_SHOWN = ((1, 1, 1), (2, 2, 2), (4, 1, 1), (4, 1, 4), (4, 2, 1), (2, 4, 4), (4, 4, 4))
"""Routes of the table: by what every DPE divides the tokens."""


def gflops(tokens: Sequence[float], size: str = "7B", ffn_matrices: int = 2) -> float:
    """Count Eq. 8 of one token count per layer, in 10^9."""
    hidden, intermediate, _ = SIZES[size]
    sizes = {"hidden_size": hidden, "intermediate_size": intermediate}
    return count_flops(tokens, **sizes, ffn_matrices=ffn_matrices) / 1e9


def dense(tokens: float, size: str = "7B", ffn_matrices: int = 2) -> float:
    """Count Eq. 8 with the same tokens in every layer, in 10^9."""
    return gflops([tokens] * SIZES[size].layers, size, ffn_matrices)


def fastv(tokens: float, dropped: float, first: int = 3, ffn_matrices: int = 2) -> float:
    """Count FastV, which drops a share of the tokens behind its first layers, in 10^9."""
    rest = SIZES["7B"].layers - first
    return gflops([tokens] * first + [tokens * (1 - dropped)] * rest, ffn_matrices=ffn_matrices)


def fastv_fits() -> Iterator[str]:
    """Describe all settings with which both FastV rows come out as printed, rounded or cut off."""
    stated = {dropped: printed_number("table1", f"fastv-r{dropped}", "gflops") for dropped in (0.5, 0.6)}
    for tokens, first, matrices in product(range(300, 701), range(5), (2, 3)):
        counted = {dropped: fastv(tokens, dropped, first, matrices) for dropped in stated}
        if all(-0.5 <= counted[dropped] - number < 1 for dropped, number in stated.items()):
            yield f"{tokens} tokens, K = {first}, {matrices} matrices"


def route_tokens(route: Sequence[int], layers: Sequence[int], tokens: int = TOKENS) -> list[float]:
    """Return the tokens of every layer on a route, given what every DPE divides them by."""
    counts: list[float] = [tokens]
    for divisor in route:
        counts.append(counts[-1] / divisor)
    return [count for count, number in zip(counts, layers, strict=True) for _ in range(number)]


def tokens_for(target: float, leading: int = 0) -> float:
    """Return the tokens behind the first `leading` full layers with which all cost `target` GFLOPs."""
    low, high = 0.0, float(TOKENS)
    rest = SIZES["7B"].layers - leading
    for _ in range(60):
        middle = (low + high) / 2
        is_too_much = gflops([TOKENS] * leading + [middle] * rest) > target
        low, high = (low, middle) if is_too_much else (middle, high)
    return low


def route_table() -> str:
    """Return the rows of a Markdown table: GFLOPs, share of dense and mean tokens at both places."""
    lines = []
    for route in _SHOWN:
        cells = [", ".join(map(str, route))]
        for layers in (_AFTER, _BEFORE):
            tokens = route_tokens(route, layers)
            share = 100 * gflops(tokens) / dense(TOKENS)
            cells += [f"{gflops(tokens):.1f}", f"{share:.1f}", f"{sum(tokens) / len(tokens):.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cost_numbers() -> dict[str, Any]:
    """Return what the page says about FLOPs, by the names that its template uses."""
    stated = {row.key: row.number("gflops") or 0.0 for row in TABLES["table1"].rows}
    claimed = printed_number("table2", "dpn", "tokens")
    at_claim = gflops([TOKENS] * 8 + [(claimed * 32 - 8 * TOKENS) / 24] * 24)
    behind = tokens_for(stated["dpn"], leading=8)
    return {
        "flops": stated,
        "flops_dense": dense(TOKENS),
        "flops_dense_3": dense(TOKENS, ffn_matrices=3),
        "flops_hr": dense(TOKENS_HR),
        "flops_hr_x": dense(TOKENS_HR, "13B"),
        "fastv_512": {5: fastv(512, 0.5), 6: fastv(512, 0.6)},
        "fastv_576": {5: fastv(TOKENS, 0.5), 6: fastv(TOKENS, 0.6)},
        "fastv_too_low": 100 * (1 - fastv(512, 0.5) / fastv(TOKENS, 0.5)),
        "fastv_fits": "; ".join(fastv_fits()),
        "left": {
            key: 100 * stated[key] / stated[of]
            for key, of in (
                ("roe", "llava"),
                ("dpn", "llava"),
                ("roe-hr", "llava-hr"),
                ("dpn-hr", "llava-hr"),
                ("dpn-hr-x", "llava-hr-x"),
            )
        },
        "saved": 100 - 100 * stated["dpn"] / stated["llava"],
        "route_table": route_table(),
        "uniform_tokens": tokens_for(stated["dpn"]),
        "later_tokens": behind,
        "mean_tokens": (8 * TOKENS + 24 * behind) / 32,
        "claimed_tokens": claimed,
        "claimed_flops": at_claim,
        "claimed_left": 100 * at_claim / dense(TOKENS),
        "claimed_share": 100 * claimed / TOKENS,
        "floor": 100 * gflops(route_tokens((4, 4, 4), _AFTER)) / dense(TOKENS),
    }
