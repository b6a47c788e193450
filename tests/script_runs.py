"""Running the shell scripts with an environment of the test's own."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_script(script, *arguments, **variables):
    """Run a script of the repository with PATH, HOME and these variables alone; its output is kept."""
    inherited = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    command = ["bash", str(ROOT / script), *arguments]
    return subprocess.run(command, env=inherited | variables, capture_output=True, text=True, check=False)
