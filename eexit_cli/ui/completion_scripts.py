"""The scripts in ``completions/``: what each shell sources to complete ``eexit``.

Regenerate them with ``python -m eexit_cli.ui.completion_scripts completions``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FILES = {
    "bash": "eexit.bash",
    "zsh": "_eexit",
    "fish": "eexit.fish",
    "powershell": "eexit.ps1",
}
"""Shell -> file name, as each shell's own conventions have it."""


def generate(shell: str) -> str:
    """The script for a shell, as the program itself prints it.

    Args:
        shell: a key of :data:`FILES`.
    """
    done = subprocess.run(
        [sys.executable, "-m", "eexit_cli"],
        env={**os.environ, "_EEXIT_COMPLETE": f"source_{shell}"},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip("\n") + "\n"


def write_all(folder: Path) -> list[Path]:
    """Write every script below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for shell, name in FILES.items():
        path = folder / name
        path.write_text(generate(shell), encoding="utf-8")
        paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write_all(Path(sys.argv[1] if len(sys.argv) > 1 else "completions")):
        print(written)
