"""TextAttack must be imported through ``prepare``."""

from __future__ import annotations

from eexit_cli.attacks.textattack_env import prepare

prepare()
