"""Images scaled down and kept as text, every one once."""

import base64
import hashlib
import io
from pathlib import Path, PurePath
from typing import Any

from PIL import Image

_QUALITY = 80
_NAMED = 5
_SHOWN = 200
"""Characters of a path that a message repeats."""


class Pictures:
    """The images of a page; answers name them by number."""

    def __init__(self, folder: Path, side: int) -> None:
        """Take images from below a folder and scale their longer side down to `side` pixels."""
        self.folder = folder
        self.side = side
        self._numbers: dict[str, int] = {}
        self._sources: list[Path | bytes] = []

    def add(self, image: str | bytes, where: str) -> int:
        """Give the number of an image: a path below the folder, or the bytes of an image file.

        Raises:
            ValueError: a path that leads out of the folder; `where` says which answer has it.
        """
        if isinstance(image, bytes):
            key, source = hashlib.sha256(image).hexdigest(), image
        else:
            path = PurePath(image)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(
                    f"{where}: image {image!r:.200} leads out of --image_folder; it isn't opened"
                )
            key, source = image, self.folder / path
        if key not in self._numbers:
            self._numbers[key] = len(self._sources)
            self._sources.append(source)
        return self._numbers[key]

    def embed(self) -> list[dict[str, Any]]:
        """Read all images and return what the page holds of each.

        Raises:
            ValueError: images that are missing, named with how many there are, or one that can't be read.
        """
        absent = [source for source in self._sources if isinstance(source, Path) and not _is_file(source)]
        if absent:
            named = ", ".join(map(str, absent[:_NAMED])) + (", ..." if len(absent) > _NAMED else "")
            raise ValueError(
                f"{len(absent)} of {len(self._sources)} images are missing ({named}): --image_folder must be "
                "what the answers' image paths start at, the --data_root of the evaluation"
            )
        names = {number: key for key, number in self._numbers.items()}
        return [
            self._embed(source, names[number] if isinstance(source, Path) else "inside the question file")
            for number, source in enumerate(self._sources)
        ]

    def _embed(self, source: Path | bytes, name: str) -> dict[str, Any]:
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
                size = opened.size
                image = opened if opened.mode == "RGB" else opened.convert("RGB")
                image.thumbnail((self.side, self.side))
                file = io.BytesIO()
                image.save(file, "WEBP", quality=_QUALITY)
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            place = f"{len(source)} bytes of a question file" if isinstance(source, bytes) else source
            raise ValueError(f"image {place} can't be read ({error}): replace the file") from error
        data = base64.b64encode(file.getvalue()).decode("ascii")
        return {"path": name, "width": size[0], "height": size[1], "type": "image/webp", "data": data}


def _is_file(path: Path) -> bool:
    """Say whether there is a file; a path that can't be one (too long, say) is named."""
    try:
        return path.is_file()
    except OSError as error:
        raise ValueError(
            f"image {path!s:.{_SHOWN}}: no such file can be there ({error.strerror}); the answers' image "
            "paths must be those of the evaluation"
        ) from error
