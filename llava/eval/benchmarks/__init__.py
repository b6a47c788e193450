"""The benchmarks by name. To add one: a file beside this one, a row below."""

from llava.eval.benchmark import Benchmark
from llava.eval.benchmarks.gqa import Gqa
from llava.eval.benchmarks.pope import Pope
from llava.eval.benchmarks.textvqa import TextVqa

BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in (Gqa(), Pope(), TextVqa())}
