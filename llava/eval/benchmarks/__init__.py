"""The benchmarks by name. To add one: a file beside this one, a row below."""

from llava.eval.benchmark import Benchmark
from llava.eval.benchmarks.gqa import Gqa
from llava.eval.benchmarks.mmbench import MmBench
from llava.eval.benchmarks.mme import Mme
from llava.eval.benchmarks.mmmu import Mmmu
from llava.eval.benchmarks.mmvet import MmVet
from llava.eval.benchmarks.pope import Pope
from llava.eval.benchmarks.scienceqa import ScienceQa
from llava.eval.benchmarks.seed import Seed
from llava.eval.benchmarks.textvqa import TextVqa
from llava.eval.benchmarks.vizwiz import VizWiz
from llava.eval.benchmarks.vqav2 import Vqav2

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Gqa(),
        Vqav2(),
        ScienceQa(),
        TextVqa(),
        Mme(),
        MmBench(),
        MmVet(),
        Mmmu(),
        Seed(),
        Pope(),
        VizWiz(),
    )
}
