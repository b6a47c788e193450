"""The paper's Tables 1 to 4 as printed, as data: what its columns are, and whose numbers its rows hold.

Numbers are kept as text, so that what was printed can be printed again: "*" behind one marks bold, "~" before
it "about", "-" is an empty cell. The paper doesn't name its protocols; the labels are those that its numbers
agree with (docs/paper_notes.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dpn.analysis.results import POINTS, mean

ABSENT = "-"
TEXT_ONLY = "text"
"""In place of numbers: a row that the paper's text speaks of and its tables don't have."""
_REPORTED = "reported"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table."""

    key: str
    """Name in this module: the benchmark's or the kind's, or both as in `gqa_flops`."""
    title: str
    kind: str = "score"
    """score, average (of the table's scores), gflops, flops_ratio (percent of dense), tokens, speed."""
    benchmark: str = ""
    """Name of the benchmark in `llava.eval`; "" for what is over all of the table's."""
    protocol: str = ""
    """Label of `llava.eval` that the paper's numbers may be compared with."""
    is_ours: bool = False
    """The paper doesn't have this column."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table."""

    key: str
    """Name on the command line."""
    name: str
    """Name as printed."""
    size: str
    """Column "Params" of Table 1, "Layers" of Table 3; "" elsewhere."""
    baseline: str
    """Row that this one is tested against; "" where the paper only reported this row."""
    values: Mapping[str, str]
    """Column -> number as printed; empty for a row that only the paper's text speaks of."""
    other_protocols: Mapping[str, str] = field(default_factory=dict)
    """Column -> label, for numbers that were measured under another protocol than their column."""

    @property
    def is_reported(self) -> bool:
        """Whether the paper took the numbers from others, and the model isn't part of this repository."""
        return not self.baseline

    def number(self, column: str) -> float | None:
        """Return what was printed as a number; None for an empty cell."""
        text = self.values.get(column, ABSENT).strip("*~")
        return None if text == ABSENT else float(text)

    def printed(self, column: str) -> str:
        """Return what was printed without the mark of bold."""
        return self.values.get(column, ABSENT).rstrip("*")

    def is_bold(self, column: str) -> bool:
        """Say whether the paper marks the cell as the best."""
        return self.values.get(column, "").endswith("*")


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table of the paper."""

    name: str
    caption: str
    size_title: str
    """Heading of `Row.size`; "" where the table has no such column."""
    columns: tuple[Column, ...]
    averaged: tuple[str, ...]
    """Columns that its average is over."""
    rows: tuple[Row, ...]

    def row(self, key: str) -> Row:
        """Return the row of that name."""
        return next(row for row in self.rows if row.key == key)

    def recomputed_average(self, key: str) -> float | None:
        """Average a row's printed numbers, MME's points as a twentieth; None where one is missing."""
        return average_of(self.row(key), self.averaged)


def average_of(row: Row, columns: tuple[str, ...], **instead: float) -> float | None:
    """Average some printed numbers of a row, MME's points as a twentieth; `instead` replaces single ones."""
    numbers = {column: instead.get(column, row.number(column)) for column in columns}
    present = {column: number for column, number in numbers.items() if number is not None}
    if len(present) < len(columns):
        return None
    return mean(number / POINTS.get(column, 1.0) for column, number in present.items())


_BENCHMARKS = {
    "gqa": ("GQA", "gqa_testdev_balanced"),
    "scienceqa": ("SQA-I", "scienceqa_test"),
    "textvqa": ("VQA-T", "textvqa+ocr"),
    "vqav2": ("VQAv2", "vqav2-test-dev"),
    "mme": ("MME", "mme"),
    "mmvet": ("MM-Vet", "mmvet+judge_gpt-4-0613"),
    "mmbench": ("MMB", "mmbench_dev_server"),
    "mmmu": ("MMMU", "mmmu_val"),
    "seed": ("SEED-I", "seed_image"),
    "pope": ("POPE", "pope_mean_f1"),
    "vizwiz": ("VizWiz", "vizwiz-test"),
}


def _scores(names: str) -> tuple[Column, ...]:
    found = ((name, *_BENCHMARKS[name]) for name in names.split())
    return tuple(
        Column(key=name, title=title, benchmark=name, protocol=label) for name, title, label in found
    )


def _rows(columns: tuple[Column, ...], text: str) -> tuple[Row, ...]:
    """Read lines "key | name | size | baseline | numbers of the paper's own columns"."""
    keys = [column.key for column in columns if not column.is_ours]
    rows = []
    for line in text.strip().splitlines():
        key, name, size, baseline, printed = (part.strip() for part in line.split("|"))
        numbers = {} if printed == TEXT_ONLY else dict(zip(keys, printed.split(), strict=True))
        others = OTHER_PROTOCOLS.get(key, {}).items()
        rows.append(
            Row(
                key=key,
                name=name,
                size=size,
                baseline="" if baseline == _REPORTED else baseline,
                values=numbers,
                other_protocols={column: label for column, label in others if column in numbers},
            )
        )
    return tuple(rows)


OTHER_PROTOCOLS = {
    "fastv-r0.5": {"textvqa": "textvqa-noocr"},
    "fastv-r0.6": {"textvqa": "textvqa-noocr"},
    "llava-hr": {"seed": "seed_all"},
}
"""Row -> column -> label of numbers that don't belong in their column (docs/paper_notes.md)."""
_RATIO = Column(key="flops_ratio", title="FLOPs, % of dense", kind="flops_ratio", is_ours=True)
_AVERAGE = Column(key="average", title="Average", kind="average")

_COLUMNS_1 = (
    *_scores("gqa scienceqa textvqa vqav2 mme mmvet mmbench mmmu seed pope"),
    Column(key="average", title="AVG", kind="average"),
    Column(key="gflops", title="FLOPs, G", kind="gflops"),
    _RATIO,
    Column(key="speed", title="Speed, samples/s", kind="speed"),
)
_ROWS_1 = """
idefics      | I-80B               | 65B    | reported   | 45.2  -     -     60.0  -     -     54.5  -     -     -     -     -      -
instructblip | InstructBLIP        | 14B    | reported   | 49.5  63.1  50.7  -     1212  25.6  -     -     -     78.9  -     -      -
vila         | VILA                | 7B     | reported   | 62.3  68.2  64.4  79.9  1533  34.9  68.9  -     -     85.5  -     -      -
qwen-vl      | Qwen-VL             | 10B    | reported   | 59.3  67.1  63.8  78.8  1487  -     38.2  -     -     -     -     -      5.3
moe-llava    | MoE-LLaVA           | 2.7Bx4 | reported   | 62.5  67.4  64.6  51.4  1423  34.3  65.2  -     -     86.3  62.9  -      6.1
llava        | LLaVA 1.5           | 7B     | llava      | 62.0  66.8  58.2  78.5  1510  31.1  62.1  35.3  66.2  85.9  65.0  2986   9.3
roe          | RoE-LLaVA           | 7B     | reported   | 61.4  68.4  56.8  80.3* 1522* 31.9  64.3  -     -     86.1  65.2  2039   9.8
fastv-r0.5   | FastV (K=3, R=0.5)  | 7B     | llava      | 60.4  68.6* 45.5  75.8  1510  32.4* 63.8  35.2  65.3  85.0  63.4  1431   10.8
fastv-r0.6   | FastV (K=3, R=0.6)  | 7B     | llava      | 59.1  68.5  44.7  75.1  1496  30.2  63.8  36.3  64.4  83.7  62.5  1192   12.3
dpn          | DPN-LLaVA           | 7B     | llava      | 63.2* 67.7  57.9* 79.3  1469  28.7  65.8* 36.8* 68.4* 87.7* 65.5* 1137*  12.7*
llava-hr     | LLaVA-HR            | 7B     | llava-hr   | 64.2  67.9  67.1  81.9  1547  31.5  65.0  35.3* 64.2  87.6  67.8  5429   5.0
roe-hr       | RoE-LLaVA-HR        | 7B     | reported   | 62.5  67.4  64.6  80.9  1558* 30.0  64.6  -     -     88.1  67.0  4940   5.0
dpn-hr       | DPN-LLaVA-HR        | 7B     | llava-hr   | 63.9* 69.3* 65.8* 81.5* 1471  32.2* 64.8* 34.6  70.4* 88.2* 67.4* 3257*  7.1*
llava-hr-x   | LLaVA-HR-X          | 13B    | llava-hr-x | 65.2  69.7  70.9* 82.9  1487* 40.3* 64.5  36.6* 71.7  88.8  69.4  10522  2.8
dpn-hr-x     | DPN-LLaVA-HR-X      | 13B    | llava-hr-x | 64.6  71.0* 70.1  82.9* 1473  38.4  66.3* 34.4  71.7* 90.9* 69.7* 5892*  4.1*
"""  # noqa: E501
_COLUMNS_2 = (
    Column(key="tokens", title="#Token", kind="tokens"),
    *_scores("vqav2 gqa pope vizwiz textvqa mmmu mmbench mme"),
    _AVERAGE,
    _RATIO,
)
_ROWS_2 = """
mlp           | MLP             | | mlp | 576  78.5  62.0  85.9  50.0  58.20  35.2  64.3  1510  63.43
average_pool  | Average-Pooling | | mlp | 144  76.2  61.6  86.8  48.0  56.55  34.7  64.3  1443  62.34
resampler     | Resampler       | | mlp | 144  75.1  58.4  84.7  51.9  -      -     63.1  -     -
c_abstractor  | C-Abstractor    | | mlp | 144  74.6  59.2  84.6  49.2  -      -     63.1  -     -
pixel_shuffle | Pixel-Shuffle   | | mlp | 144  76.2  60.1  85.9  48.8  -      -     64.0  -     -
ldp_v2        | LDP-v2          | | mlp | 144  77.3  61.1  86.1  47.6  -      -     66.2  -     -
prumerge_plus | PruMerge+       | | mlp | ~144 76.8  -     84.0  -     57.10  -     60.9  1462  -
token_packer  | TokenPacker     | | mlp | 144  77.9  61.8  87.0  52.0* 57.16  35.9  65.1  1450  63.68
dpn           | Ours            | | mlp | ~232 79.3* 63.2* 87.7* 51.7  57.93* 36.8* 65.8* 1469* 64.48*
"""
_COLUMNS_3 = (*_scores("gqa textvqa seed pope mmmu mmbench"), _AVERAGE, _RATIO)
_ROWS_3 = """
pre-pooling     | pre-pooling                     |         | static-2x2 | text
random          | random pooling                  | 8,16,24 | static-2x2 | text
static-2x1      | static 2x1 pooling              | 8,16,24 | static-2x2 | 62.34  57.39  66.6   87.1  34.7  64.4  62.08
static-1x2      | static 1x2 pooling              | 8,16,24 | static-2x2 | 62.12  57.70  67.43  87.8  34.6  63.6  62.20
static-2x2      | static 2x2 pooling              | 8,16,24 | static-2x2 | 63.03  57.57  67.43  87.7  33.4  65.0  62.36
dynamic-2x2-4x4 | dynamic 2x2, 4x4 pooling        | 8,16,24 | static-2x2 | 60.72  54.94  62.33  86.4  34.6  59.3  59.72
early           | dynamic 1x2, 2x2 pooling, early | 4,8,12  | static-2x2 | 59.86  53.92  63.02  85.7  34.4  60.2  59.52
dpn             | dynamic 1x2, 2x2 pooling        | 8,16,24 | static-2x2 | 63.17* 57.93* 68.36* 87.7  36.8* 65.8* 63.29*
"""  # noqa: E501


def _with_flops(names: str) -> tuple[Column, ...]:
    """Put a column with the FLOPs ratio behind every score, as in Table 4."""
    return tuple(
        column
        for score in _scores(names)
        for column in (
            score,
            Column(
                key=f"{score.key}_flops",
                title=f"{score.title} FR, %",
                kind="flops_ratio",
                benchmark=score.benchmark,
            ),
        )
    )


_COLUMNS_4 = (
    *_with_flops("gqa textvqa pope mmmu"),
    _AVERAGE,
    Column(key="average_flops", title="Average FR, %", kind="flops_ratio"),
)
_ROWS_4 = """
baseline | Baseline       | | baseline | 62     100 58.2  100 85.9 100  35.2  100 60.3  100
no-loss  | + DPE          | | baseline | 63.17  50  58.4  47  87.9 48.4 35.1  40  61.1  46
dpn      | + Routing Loss | | baseline | 63.17* 39* 57.93 36* 87.7 35*  36.8* 44  61.4* 38.5*
"""

TABLES = {
    table.name: table
    for table in (
        PaperTable(
            name="table1",
            caption="Comparison with existing efficient MLLMs",
            size_title="Params",
            columns=_COLUMNS_1,
            averaged=("gqa", "scienceqa", "textvqa", "vqav2", "mme", "mmvet", "mmbench", "pope"),
            rows=_rows(_COLUMNS_1, _ROWS_1),
        ),
        PaperTable(
            name="table2",
            caption="Comparison with existing projector-based acceleration methods",
            size_title="",
            columns=_COLUMNS_2,
            averaged=("vqav2", "gqa", "pope", "vizwiz", "textvqa", "mmmu", "mmbench", "mme"),
            rows=_rows(_COLUMNS_2, _ROWS_2),
        ),
        PaperTable(
            name="table3",
            caption="Comparison of static pyramid networks with DPN",
            size_title="Layers",
            columns=_COLUMNS_3,
            averaged=("gqa", "textvqa", "seed", "pope", "mmmu", "mmbench"),
            rows=_rows(_COLUMNS_3, _ROWS_3),
        ),
        PaperTable(
            name="table4",
            caption="Ablation study of DPN on LLaVA",
            size_title="",
            columns=_COLUMNS_4,
            averaged=("gqa", "textvqa", "pope", "mmmu"),
            rows=_rows(_COLUMNS_4, _ROWS_4),
        ),
    )
}
"""The tables by the name that the command line knows."""


def printed_number(table: str, row: str, column: str) -> float:
    """Return a printed number that must be there.

    Raises:
        ValueError: the cell is empty.
    """
    number = TABLES[table].row(row).number(column)
    if number is None:
        raise ValueError(f"{table}, row {row}: nothing is printed under {column}")
    return number
