"""What `python -m llava.data verify` found, as a page of text and as JSON."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llava.data.mixes import MIXES, differences
from llava.data.verify import MISSING, UNREADABLE, Finding

BAD_RECORD = "bad record"
SHOWN = 10
"""How many findings of a kind the page names; the JSON names all."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of checking one training file."""

    data_path: str
    num_samples: int
    """Samples in the file, unusable ones included."""
    num_checked: int
    """How many were looked at."""
    counts: Counter[str]
    """Samples per source."""
    findings: Sequence[Finding]
    mix: str | None = None
    """The mix that the file is compared with."""
    is_mix_demanded: bool = False
    """Whether a difference from the mix is a problem."""
    not_checked: Sequence[str] = field(default_factory=list)
    """What was left out, and how to have it."""

    def differs(self) -> dict[str, tuple[int, int]]:
        """Return (found, expected) per source that differs from the mix."""
        return differences(self.counts, self.mix) if self.mix else {}

    def num_problems(self) -> int:
        """Count what has to be put right before training."""
        demanded = len(self.differs()) if self.is_mix_demanded else 0
        return demanded + sum(finding.is_problem for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for a JSON file; `findings` names every sample by its id."""
        return {
            "data_path": self.data_path,
            "samples": self.num_samples,
            "checked": self.num_checked,
            "sources": dict(sorted(self.counts.items())),
            "mix": self.mix,
            "differences": self.differs(),
            "problems": self.num_problems(),
            "findings": [finding.as_dict() for finding in self.findings],
            "not_checked": list(self.not_checked),
        }

    def text(self) -> str:
        """Return a table of sources, then the findings by kind, then the verdict."""
        lines = [f"{self.data_path}: {self.num_samples:,} samples, {self.num_checked:,} checked", ""]
        lines += [*self._table(), ""]
        kinds = Counter(finding.kind for finding in self.findings)
        for kind, count in sorted(kinds.items()):
            lines.append(f"{kind}: {count:,} samples")
            named = [finding for finding in self.findings if finding.kind == kind]
            lines += [f"  {finding.sample}: {finding.message}" for finding in named[:SHOWN]]
            lines += [f"  ... and {count - SHOWN:,} more"] if count > SHOWN else []
        lines += self.not_checked
        problems = self.num_problems()
        return "\n".join([*lines, f"{problems:,} problems" if problems else "no problems"])

    def _table(self) -> list[str]:
        bad = {
            kind: Counter(found.origin for found in self.findings if found.kind == kind)
            for kind in (MISSING, UNREADABLE)
        }
        expected = MIXES[self.mix] if self.mix else {}
        heading = f"{'source':<18}{'samples':>10}{'missing':>10}{'unreadable':>12}"
        rows = [heading + (f"{self.mix + ' mix':>12}{'difference':>12}" if self.mix else "")]
        for source in sorted({*self.counts, *expected}):
            found = self.counts[source]
            row = f"{source:<18}{found:>10,}{bad[MISSING][source]:>10,}{bad[UNREADABLE][source]:>12,}"
            if self.mix:
                row += f"{expected.get(source, 0):>12,}{found - expected.get(source, 0):>+12,}"
            rows.append(row)
        return rows
