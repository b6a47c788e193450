"""A few real photographs, from packages that may be installed, with questions for looking at the answers."""

import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image


class Photo(NamedTuple):
    """A photograph inside a package, and a question about it."""

    package: str
    name: str
    question: str


PHOTOS = (
    Photo("matplotlib", "grace_hopper.jpg", "What is the person wearing?"),
    Photo("skimage", "astronaut", "What is the color of the suit?"),
    Photo("skimage", "chelsea", "Which animal is in the image?"),
    Photo("skimage", "coffee", "What is in the cup?"),
    Photo("skimage", "rocket", "What is in the middle of the image?"),
)


def write_photos(folder: Path) -> list[Path]:
    """Write the photographs that installed packages bring, and `questions.jsonl`; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, paths = [], []
    for photo in PHOTOS:
        image = _LOADERS[photo.package](photo.name)
        if image is None:
            continue
        path = folder / f"{Path(photo.name).stem}.jpg"
        image.convert("RGB").save(path, quality=92)
        paths.append(path)
        lines.append(
            {"question_id": path.stem, "image": path.name, "text": photo.question, "category": "photo"}
        )
    if not paths:
        raise ValueError(
            "--photos found no photograph: it takes them from matplotlib or scikit-image, and neither brings "
            "its sample images here. Run `pip install scikit-image`, or leave --photos out."
        )
    (folder / "questions.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    return paths


def _from_matplotlib(name: str) -> Image.Image | None:
    package = _import("matplotlib")
    if package is None:
        return None
    path = Path(str(package.__file__)).parent / "mpl-data" / "sample_data" / name
    return Image.open(path) if path.is_file() else None


def _from_skimage(name: str) -> Image.Image | None:
    data = _import("skimage.data")
    if data is None:
        return None
    try:
        return Image.fromarray(np.asarray(getattr(data, name)()))
    except OSError:  # some of the pictures are downloaded on first use
        return None


def _import(name: str) -> ModuleType | None:
    """Import a module if its package is installed."""
    is_installed = importlib.util.find_spec(name.split(".", maxsplit=1)[0]) is not None
    return importlib.import_module(name) if is_installed else None


_LOADERS: dict[str, Callable[[str], Image.Image | None]] = {
    "matplotlib": _from_matplotlib,
    "skimage": _from_skimage,
}
