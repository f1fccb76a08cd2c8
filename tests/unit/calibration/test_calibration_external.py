"""Anybody's losses: every format gives the same table, every fault one clear line."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from calibration_tiny import THRESHOLDS, graded_losses

from eexit_cli.calibration.external import falls, read_losses
from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError

LOSSES = graded_losses(30)
LAYERS = np.tile(np.linspace(6, 1, 20), (30, 1))
NAMES = [str(value) for value in THRESHOLDS]


def frame(layers: bool = True, ids: bool = False) -> pd.DataFrame:
    table = pd.DataFrame(LOSSES, columns=NAMES)
    if layers:
        table = table.join(pd.DataFrame(LAYERS, columns=[f"exit_layer_{n}" for n in NAMES]))
    if ids:
        table.insert(0, "id", [f"s{row:03}" for row in range(30)])
    return table


@pytest.fixture
def write(tmp_path):
    def write_one(form: str, **options):
        path = tmp_path / f"losses.{form}"
        if form == "csv":
            frame(**options).to_csv(path, index=False)
        elif form == "parquet":
            frame(**options).to_parquet(path)
        elif form == "npz":
            arrays = {"losses": LOSSES, "thresholds": np.array(THRESHOLDS)}
            if options.get("layers", True):
                arrays["exit_layers"] = LAYERS
            if options.get("ids"):
                arrays["ids"] = np.array([f"s{row:03}" for row in range(30)])
            np.savez(path, **arrays)
        return path

    return write_one


@pytest.mark.parametrize("form", ["csv", "parquet", "npz"])
@pytest.mark.parametrize("layers", [True, False])
@pytest.mark.parametrize("ids", [True, False])
def test_every_format_holds_the_same_table(write, form, layers, ids):
    table = read_losses(write(form, layers=layers, ids=ids))
    assert table.thresholds == THRESHOLDS
    np.testing.assert_allclose(table.losses, LOSSES)
    assert (table.exit_layers is not None) == layers
    if layers:
        np.testing.assert_allclose(table.exit_layers, LAYERS)
    assert table.ids[:2] == (("s000", "s001") if ids else ("1", "2"))


def test_a_bare_matrix_has_columns_by_number(tmp_path):
    path = tmp_path / "losses.npy"
    np.save(path, LOSSES)
    table = read_losses(path)
    assert table.thresholds[0] == "column 1"
    assert table.exit_layers is None
    np.save(tmp_path / "layers.npy", LAYERS)
    np.testing.assert_allclose(read_losses(path, tmp_path / "layers.npy").exit_layers, LAYERS)


def test_a_second_file_of_exit_layers(tmp_path, write):
    path = write("csv", layers=False)
    layers = tmp_path / "layers.parquet"
    pd.DataFrame(LAYERS, columns=NAMES).to_parquet(layers)
    np.testing.assert_allclose(read_losses(path, layers).exit_layers, LAYERS)
    pd.DataFrame(LAYERS, columns=NAMES[::-1]).to_parquet(layers)
    with pytest.raises(UsageError, match="their order differs"):
        read_losses(path, layers)
    pd.DataFrame(LAYERS[:, :3], columns=NAMES[:3]).to_parquet(layers)
    with pytest.raises(UsageError, match=r"shape \(30, 3\)"):
        read_losses(path, layers)
    with pytest.raises(UsageError, match="exit layers of its own"):
        read_losses(write("parquet"), layers)


def test_names_that_are_no_numbers_stay_names(tmp_path):
    path = tmp_path / "losses.csv"
    path.write_text("full,careful,bold\n0,0,1\n0,1,1\n", encoding="utf-8")
    table = read_losses(path)
    assert table.thresholds == ("full", "careful", "bold")
    assert table.losses.tolist() == [[0, 0, 1], [0, 1, 1]]


def test_a_byte_order_mark_and_booleans_are_read(tmp_path):
    path = tmp_path / "losses.csv"
    path.write_text("1,0.5\nTrue,False\nFalse,False\n", encoding="utf-8-sig")
    table = read_losses(path)
    assert table.thresholds == (1.0, 0.5)
    assert table.losses.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("name", ["1.0", "1", "first"])
def test_a_column_is_the_full_model(write, name):
    table = read_losses(write("csv"), full_model=name)
    assert table.full_model
    assert not read_losses(write("csv")).full_model


def test_a_column_called_first_is_that_column(tmp_path):
    path = text(tmp_path, "full,first\n0,0\n0,1\n")
    with pytest.raises(UsageError, match=r"full model, column 'first' of .* is the last"):
        read_losses(path, full_model="first")
    assert read_losses(path, full_model="full").full_model


def test_losses_that_fall_seem_to_stand_the_wrong_way_round():
    assert not falls(LOSSES)
    assert falls(LOSSES[:, ::-1])
    assert not falls(np.zeros((5, 3)))
    assert not falls(LOSSES[:, :1])


def text(tmp_path, content: str):
    path = tmp_path / "losses.csv"
    path.write_text(content, encoding="utf-8")
    return path


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "full_model", "message"),
        [
            ("1,0.5\n0,0\n", "0.7", "no column '0.7' to be the full model"),
            ("a,b\n0,0\n", "full", "no column 'full' to be the full model"),
            ("0.5,1\n0,0\n", "1.0", "'1' of 'losses.csv', is the last: the columns run from eager"),
            ("1,0.5,0.2\n0,0,0\n", "0.5", "column '0.5' of 'losses.csv', is not the first"),
            ("1,0.5\n0,0\n0.5,0\n", "1", "losses are not 0: column '1' of 'losses.csv', row 2"),
            (
                "1,0.5,exit_layer_1,exit_layer_0.5\n0,0,2,6\n",
                None,
                "run from eager to cautious: their mean exit layers rise from 2 to 6",
            ),
        ],
    )
    def test_a_full_model_that_is_none(self, tmp_path, content, full_model, message):
        with pytest.raises(UsageError, match=message) as caught:
            read_losses(text(tmp_path, content), full_model=full_model)
        assert caught.value.hint

    @pytest.mark.parametrize(
        ("value", "repair"),
        [("-0.2", r"max\(0, R\(early\) - R\(full\)\)"), ("3", "Divide"), ("", "Every sample")],
    )
    def test_dropping_rows_is_never_the_repair(self, tmp_path, value, repair):
        with pytest.raises(UsageError) as caught:
            read_losses(text(tmp_path, f"1,0.5\n0,{value}\n0,0\n"))
        assert re.search(repair, caught.value.hint)
        assert "would bias the result" in caught.value.hint

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("1,0.5\n0,2\n0,0\n0,-1\n", r"2 of 3 rows.*rows 1, 3 \(row 1 in column '0.5' has 2\)"),
            ("1,0.5\n0,\n0,0\n", r"1 of 2 rows.*row 1 \(row 1 in column '0.5' has nan\)"),
            ("1,0.5\n0,x\n", "Column '0.5' .* is not numeric"),
            ("1,1\n0,0\n", "the column '1' twice"),
            ("1,0.5\n", "no losses: 0 samples"),
            ("id\na\n", "no column of losses"),
            ("", "is empty"),
            ("0.5,1,0.7\n0,0,0\n", "not in order: 0.5, 1, 0.7"),
            ("1,0.5,exit_layer_1\n0,0,3\n", "'0.5' has no partner"),
            ("1,0.5,exit_layer_1,exit_layer_0.5\n0,0,3,0\n", "exit layers below 1 or NaN: row 1"),
        ],
    )
    def test_csv(self, tmp_path, content, message):
        with pytest.raises(UsageError, match=message):
            read_losses(text(tmp_path, content))

    def test_rows_of_different_length(self, tmp_path):
        with pytest.raises(EexitError, match="not a valid CSV"):
            read_losses(text(tmp_path, "1,0.5\n0,0\n0,0,0\n"))

    def test_not_text(self, tmp_path):
        path = tmp_path / "losses.csv"
        path.write_bytes("1,ü\n0,0\n".encode("latin-1"))
        with pytest.raises(UsageError, match="not UTF-8"):
            read_losses(path)

    def test_no_such_file(self, tmp_path):
        with pytest.raises(MissingArtifactError, match="No file"):
            read_losses(tmp_path / "losses.csv")

    def test_a_folder(self, tmp_path):
        (tmp_path / "x.csv").mkdir()
        with pytest.raises(UsageError, match="is a folder"):
            read_losses(tmp_path / "x.csv")

    @pytest.mark.parametrize("name", ["losses.xlsx", "losses", "losses.pkl"])
    def test_an_unknown_format(self, tmp_path, name):
        with pytest.raises(UsageError, match="no table of losses") as caught:
            read_losses(tmp_path / name)
        assert ".parquet" in caught.value.hint

    @pytest.mark.parametrize("form", ["parquet", "npy", "npz"])
    def test_damaged_files(self, tmp_path, form):
        path = tmp_path / f"losses.{form}"
        path.write_bytes(b"PK\x03\x04 not what it says")
        with pytest.raises(EexitError, match="not a valid"):
            read_losses(path)

    def test_a_cut_array(self, tmp_path):
        path = tmp_path / "losses.npy"
        np.save(path, LOSSES)
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(EexitError, match="not a valid NumPy"):
            read_losses(path)

    @pytest.mark.parametrize("form", ["npy", "npz"])
    def test_pickles_are_not_opened(self, tmp_path, form):
        class Trap:
            def __reduce__(self):
                return (open, (str(tmp_path / "sprung"), "w"))

        path = tmp_path / f"losses.{form}"
        values = np.array([Trap(), 1], dtype=object)
        if form == "npy":
            np.save(path, values, allow_pickle=True)
        else:
            np.savez(path, losses=values)
        with pytest.raises(UsageError, match="Python objects, which are not read"):
            read_losses(path)
        assert not (tmp_path / "sprung").exists()

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"loss": LOSSES}, "has the array 'loss'"),
            ({"thresholds": np.arange(3)}, "has no array 'losses'"),
            ({"losses": LOSSES, "thresholds": np.arange(3)}, "3 thresholds for 20 columns"),
            ({"losses": LOSSES, "thresholds": np.ones(20)}, "'1.0' twice"),
            ({"losses": LOSSES, "ids": np.arange(3)}, "3 ids for 30 samples"),
            ({"losses": LOSSES, "exit_layers": LAYERS[:3]}, r"shape \(3, 20\)"),
            ({"losses": LOSSES.astype(str)}, "not numbers"),
            ({"losses": LOSSES[:, 0]}, r"shape \(30,\)"),
        ],
    )
    def test_arrays(self, tmp_path, arrays, message):
        path = tmp_path / "losses.npz"
        np.savez(path, **arrays)
        with pytest.raises(UsageError, match=message):
            read_losses(path)
