"""What every test needs: offline, one thread, no user's settings."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings

# Times mean nothing on a machine that does other things as well.
settings.register_profile("eexit", deadline=None)
settings.load_profile("eexit")

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in [name for name in os.environ if name.startswith("EEXIT_")]:
    del os.environ[_name]


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """Two cores and several test processes: more threads only wait for each other."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)
