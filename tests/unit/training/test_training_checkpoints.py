"""The workspace beside the output: nothing overwritten, nothing half-written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.training.checkpoints import Workspace, storage_errors


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "model")


def _fake_model(folder: Path, text: str = "{}") -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(text, encoding="utf-8")


def test_an_output_with_a_model_is_refused_and_untouched(workspace: Workspace) -> None:
    _fake_model(workspace.output, '{"mine": 1}')
    with pytest.raises(UsageError, match="already holds a model"):
        workspace.check(resume=False)
    with pytest.raises(UsageError, match="is finished"):
        workspace.check(resume=True)
    assert (workspace.output / "config.json").read_text(encoding="utf-8") == '{"mine": 1}'
    assert not workspace.path.exists()


def test_other_files_are_refused_an_empty_folder_is_fine(workspace: Workspace) -> None:
    workspace.output.mkdir()
    assert workspace.check(resume=False) is None
    (workspace.output / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="not empty"):
        workspace.check(resume=False)


def test_resumption_needs_something_and_beginning_needs_nothing(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="has not begun"):
        workspace.check(resume=True)
    workspace.claim({"epochs": 2})
    with pytest.raises(UsageError, match="unfinished") as caught:
        workspace.check(resume=False)
    assert "--resume" in (caught.value.hint or "")
    workspace.remember(run="r1")
    workspace.claim({"epochs": 3})  # a second claim does not forget
    unfinished = workspace.check(resume=True)
    assert unfinished is not None
    assert unfinished.settings == {"epochs": 2}
    assert unfinished.notes == {"run": "r1"}


def test_a_damaged_state_is_said(workspace: Workspace) -> None:
    workspace.claim({})
    (workspace.path / "training.json").write_text('{"settings": {', encoding="utf-8")
    with pytest.raises(EexitError, match="damaged"):
        workspace.check(resume=True)


def test_a_finished_stage_keeps_its_weights_and_drops_its_checkpoints(workspace: Workspace) -> None:
    workspace.claim({})
    model = nn.Linear(3, 2)
    assert not workspace.load_finished("ramps", model)
    (workspace.stage("ramps") / "checkpoint-7").mkdir(parents=True)
    workspace.finish_stage("ramps", model)
    assert [item.name for item in workspace.stage("ramps").iterdir()] == ["finished.safetensors"]
    other = nn.Linear(3, 2)
    assert workspace.load_finished("ramps", other)
    assert torch.equal(other.weight, model.weight)
    with pytest.raises(EexitError, match="do not fit"):
        workspace.load_finished("ramps", nn.Linear(4, 2))


def test_the_output_appears_at_once_or_not_at_all(workspace: Workspace) -> None:
    workspace.claim({})

    def publish_on_a_full_disk() -> None:
        with workspace.publishing() as folder:
            _fake_model(folder)
            assert not workspace.output.exists()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space"):
        publish_on_a_full_disk()
    parent = workspace.output.parent
    assert [item.name for item in parent.iterdir()] == ["model.training"]
    with workspace.publishing() as folder:
        (folder / "config.json").write_text("{}", encoding="utf-8")
    assert (workspace.output / "config.json").is_file()
    with workspace.publishing() as folder:  # killed after publishing, resumed: our own is replaced
        (folder / "config.json").write_text("[]", encoding="utf-8")
    assert (workspace.output / "config.json").read_text(encoding="utf-8") == "[]"
    workspace.remove()
    assert [item.name for item in parent.iterdir()] == ["model"]


def test_what_appeared_meanwhile_is_not_replaced(workspace: Workspace) -> None:
    workspace.claim({})

    def publish_beside_another() -> None:
        with workspace.publishing() as folder:
            _fake_model(folder)
            _fake_model(workspace.output, "theirs")

    with pytest.raises(UsageError, match="has appeared"):
        publish_beside_another()
    assert (workspace.output / "config.json").read_text(encoding="utf-8") == "theirs"


def test_writers_errors_become_the_systems(tmp_path: Path) -> None:
    full = SafetensorError("Error while serializing: I/O error: No space left (os error 28)")
    with pytest.raises(OSError, match="No space left") as caught, storage_errors(tmp_path):
        raise full
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path)
    torch_full = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 5 vs 3")
    with pytest.raises(OSError), storage_errors(tmp_path):  # noqa: PT011
        raise torch_full
    for other in (SafetensorError("invalid header"), RuntimeError("shapes")):
        with pytest.raises(type(other)), storage_errors(tmp_path):
            raise other


def test_a_real_writer_fails_as_expected(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(FileNotFoundError), storage_errors(tmp_path):
        save_file({"a": torch.zeros(2)}, tmp_path / "missing" / "a.safetensors")
