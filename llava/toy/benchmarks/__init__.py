"""Benchmark files of the small world, in the formats that real benchmarks have.

Where questions are lines of JSON they have two keys more than upstream's: "kind" and "grade" (coarse, medium,
fine). The first three benchmarks are the quickstart's; the others are small, for running every script.
"""

from collections.abc import Callable

from llava.toy.benchmarks.gqa import write_gqa
from llava.toy.benchmarks.mmbench import write_mmbench
from llava.toy.benchmarks.mme import write_mme
from llava.toy.benchmarks.mmmu import write_mmmu
from llava.toy.benchmarks.mmvet import write_mmvet
from llava.toy.benchmarks.pope import write_pope
from llava.toy.benchmarks.scienceqa import write_scienceqa
from llava.toy.benchmarks.seed import write_seed
from llava.toy.benchmarks.textvqa import write_textvqa
from llava.toy.benchmarks.vizwiz import write_vizwiz
from llava.toy.benchmarks.vqav2 import write_vqav2

QUICKSTART: dict[str, Callable[..., None]] = {"gqa": write_gqa, "pope": write_pope, "textvqa": write_textvqa}
"""Folder under the data root -> what writes it, as (folder, seed, count)."""
SMALL: dict[str, Callable[..., None]] = {
    "vqav2": write_vqav2,
    "vizwiz": write_vizwiz,
    "scienceqa": write_scienceqa,
    "MME": write_mme,
    "mmbench": write_mmbench,
    "mm-vet": write_mmvet,
    "MMMU": write_mmmu,
    "seed_bench": write_seed,
}
