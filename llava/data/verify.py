"""Look for what would end or spoil a training run: missing or broken images, unusable text.

`verify` looks at everything; `quick_check` is what a training run does before it loads a model. Shapes: L
tokens of a sample, an image counting as one.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.data.encode import encode_uncut, template_of, training_segments
from llava.data.mixes import source_of
from llava.data.records import Record
from llava.mm_utils import load_image

MISSING, UNREADABLE, TEXT, NOTHING_LEFT, CUT = (
    "image missing",
    "image unreadable",
    "text unusable",
    "nothing left to learn",
    "cut",
)
NOTICES = (CUT,)
"""Kinds of findings that training copes with."""
BATCH = 64
SHOWN = 5
"""How many missing images an error names."""
DECODED = 64
"""How many images `quick_check` decodes."""


@dataclass(frozen=True)
class Finding:
    """Something about one sample."""

    kind: str
    """One of this module's kinds; those in NOTICES are no problem."""
    message: str
    """What was found and where."""
    sample: str = ""
    """The sample's id."""
    origin: str = ""
    """The source of images that the sample belongs to, as `mixes.source_of` names it."""

    @property
    def is_problem(self) -> bool:
        """Whether training would stop at the sample, or learn nothing from it."""
        return self.kind not in NOTICES

    def as_dict(self) -> dict[str, str]:
        """Return the finding's fields."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Checks:
    """What every sample is held against."""

    image_folder: Path | None
    """None leaves images unread."""
    version: str
    """Conversation template of training."""
    tokenizer: PreTrainedTokenizerBase | None = None
    """None leaves lengths unmeasured; the text is still checked for turns and answers."""
    model_max_length: int = 2048
    """Tokens that training keeps of a sample, visual ones included."""
    tokens_per_image: int = 576

    def findings(self, record: Record) -> list[Finding]:
        """Return what is wrong with, or notable about, one sample."""
        found = [*self._image(record), *self._text(record)]
        return [replace(finding, sample=record.id, origin=source_of(record)) for finding in found]

    def _image(self, record: Record) -> Iterator[Finding]:
        if record.image is None or self.image_folder is None:
            return
        path = self.image_folder / record.image
        try:
            if not path.is_file():
                yield Finding(MISSING, f"there is no file {path}")
                return
            load_image(path)
        except OSError as error:  # a name too long, a folder that may not be entered
            yield Finding(UNREADABLE, f"image {path!s:.200} can't be reached ({error.strerror})")
        except ValueError as error:
            yield Finding(UNREADABLE, str(error))

    def _text(self, record: Record) -> Iterator[Finding]:
        has_image = record.image is not None
        try:
            if self.tokenizer is None:
                training_segments(record.conversations, template_of(self.version), has_image=has_image)
                return
            ids, labels = encode_uncut(
                record.conversations, self.tokenizer, version=self.version, has_image=has_image
            )
        except ValueError as error:
            yield Finding(TEXT, str(error))
            return
        widths = (ids == IMAGE_TOKEN_INDEX).long() * (self.tokens_per_image - 1) + 1  # (L,)
        length = int(widths.sum())
        if length <= self.model_max_length:
            return
        is_kept = widths.cumsum(0) - widths < self.model_max_length  # (L,)
        is_learned = labels != IGNORE_INDEX  # (L,)
        size = f"{length} tokens, model_max_length {self.model_max_length}"
        if (is_learned & is_kept).any():
            lost = int((is_learned & ~is_kept).sum())
            yield Finding(CUT, f"{size}: the last {lost} of {int(is_learned.sum())} tokens to learn go")
        else:
            yield Finding(NOTHING_LEFT, f"{size}: every token to learn lies behind the cut")


class _CheckedRecords(Dataset[list[Finding]]):
    """Findings by index, so that a DataLoader spreads the work over processes."""

    def __init__(self, records: Sequence[Record], checks: Checks) -> None:
        self.records = records
        self.checks = checks

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> list[Finding]:
        return self.checks.findings(self.records[index])


def verify(
    records: Sequence[Record], checks: Checks, *, num_workers: int = 0, show_progress: bool = False
) -> list[Finding]:
    """Hold every record against the checks; findings come in the order of the records.

    Args:
        records: the samples.
        checks: what they are held against.
        num_workers: processes that share the work; 0 works in this one.
        show_progress: draw a progress bar on standard error.
    """
    loader = DataLoader(
        _CheckedRecords(records, checks), batch_size=BATCH, num_workers=num_workers, collate_fn=_joined
    )
    with tqdm(total=len(records), unit="sample", disable=not show_progress) as progress:
        found: list[Finding] = []
        for batch in loader:
            found += batch
            progress.update(min(BATCH, len(records) - progress.n))
    return found


def spread(records: Sequence[Record], count: int) -> list[Record]:
    """Choose about `count` records, evenly over a file; a small file is taken whole."""
    if count < 1:
        raise ValueError(f"a sample needs at least one record, got {count}")
    return (
        [records[len(records) * place // count] for place in range(count)]
        if count < len(records)
        else [*records]
    )


def quick_check(records: Sequence[Record], image_folder: str | Path | None, *, version: str) -> None:
    """Demand that every image file exists and that a sample of the records can be used.

    Raises:
        ValueError: files are missing, or a record of the sample can't be read or learned from; the first are
            named with their samples.
    """
    with_image = [record for record in records if record.image is not None]
    folder = _require_image_folder(image_folder, with_image) if with_image else None
    if folder is not None:
        _require_files(with_image, folder)
    chosen = spread(with_image, DECODED) + spread([r for r in records if r.image is None], DECODED)
    found = verify(chosen, Checks(image_folder=folder, version=version))
    if found:
        shown = "\n  ".join(f"sample {finding.sample}: {finding.message}" for finding in found[:SHOWN])
        raise ValueError(
            f"{len(found)} of {len(chosen)} samples tried can't be used:\n  {shown}\n"
            "`python -m llava.data verify` tries all of them"
        )


def _joined(batch: list[list[Finding]]) -> list[Finding]:
    return [finding for found in batch for finding in found]


def _require_image_folder(image_folder: str | Path | None, with_image: Sequence[Record]) -> Path:
    if not image_folder:
        raise ValueError(
            f"--image_folder is missing: {len(with_image)} samples have an image, e.g. {with_image[0].image}"
        )
    return Path(image_folder)


def _require_files(with_image: Sequence[Record], folder: Path) -> None:
    """Demand that every image file is there; asking for many at once hides a network disk's delay."""
    names = {str(record.image): record.id for record in with_image}
    with ThreadPoolExecutor(max_workers=16) as pool:
        absences = pool.map(lambda name: _absence(folder / name), names)
    missing = [(name, absence) for name, absence in zip(names, absences, strict=True) if absence is not None]
    if missing:
        shown = ", ".join(f"{name:.200} (sample {names[name]}{reason})" for name, reason in missing[:SHOWN])
        more = ", ..." if len(missing) > SHOWN else ""
        raise ValueError(
            f"{len(missing)} of {len(names)} images are missing in {folder}: {shown}{more}. "
            "playground/README.md says where each image set comes from."
        )


def _absence(path: Path) -> str | None:
    """Return None for a file that is there, else what is known of the reason beyond its absence."""
    try:
        return None if path.is_file() else ""
    except OSError as error:  # a name too long, a folder that may not be entered
        return f": {error.strerror}"
