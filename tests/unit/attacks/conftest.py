"""TextAttack must be imported through ``prepare``; without it these tests are left out."""

from __future__ import annotations

import importlib.util

collect_ignore_glob: list[str] = []

if importlib.util.find_spec("textattack") is None:
    collect_ignore_glob.append("test_*.py")
else:
    from eexit_cli.attacks.textattack_env import prepare

    prepare()
