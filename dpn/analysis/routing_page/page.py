"""Put data, style and script into one HTML file that needs nothing else.

Answers, questions and paths are text of unknown origin. They reach the page only as JSON that can't end its
script tag, the script makes text nodes of them, and the page's policy lets the browser run nothing but that
script and fetch nothing at all.
"""

import base64
import hashlib
import json
from importlib.resources import files
from string import Template
from typing import Any

SCRIPTS = ("dom", "data", "filters", "picture", "overview", "cards", "viewer", "main")
"""The parts of the page's one script, in order."""
STYLES = ("base", "overview", "cards", "picture", "narrow")
"""The parts of its one style sheet, in order."""
_POLICY = (
    "default-src 'none'; img-src blob: data:; style-src {style}; script-src {script}; base-uri 'none'; "
    "form-action 'none'"
)


def render(data: dict[str, Any]) -> str:
    """Return the page; the same data gives the same text."""
    style = "\n".join(_asset(f"{name}.css") for name in STYLES)
    script = "\n".join(_asset(f"{name}.js") for name in SCRIPTS)
    return Template(_asset("page.html")).substitute(
        policy=_POLICY.format(style=_digest(style), script=_digest(script)),
        style=style,
        data=script_json(data),
        script=script,
    )


def script_json(value: Any) -> str:
    r"""Write JSON that may stand in a script tag: no character of it can end the tag or open a comment.

    >>> script_json("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _asset(name: str) -> str:
    return (files("dpn.analysis.routing_page") / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return the source expression that allows exactly this inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
