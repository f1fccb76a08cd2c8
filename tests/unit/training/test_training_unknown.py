"""What a vocabulary cannot write is told before a training, refused, or added to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_decoders import random_decoder, save_decoder
from training_tiny import LETTERS, SPECIAL, Listener, write_backbone

from eexit_cli.config import EvaluateConfig, TrainConfig
from eexit_cli.core.errors import UsageError
from eexit_cli.data.pronunciation import SYMBOLS, pronunciation_tokenizer
from eexit_cli.families.seq2seq.model import load_decoder
from eexit_cli.pipelines.evaluate import run_evaluation
from eexit_cli.pipelines.train import run_training
from eexit_cli.training.unknown import changed, grow_embeddings, grown, report, spelling

PHONEMES = ["K AE T", "D AO G", "B ER D"]


def test_the_share_is_that_of_tokens_and_the_missing_are_named() -> None:
    tokenizer = pronunciation_tokenizer()
    # c a t 2 | d é: seven tokens without the end, of which two are unknown.
    found = spelling(tokenizer, ["cat 2", "dé", "o"])
    assert found.unknown == pytest.approx(2 / 7)
    assert found.missing == ("2", "é")
    assert spelling(tokenizer, PHONEMES).unknown == 0


@pytest.mark.parametrize(
    ("unknown", "of", "outcome"), [(0, 100, "nothing"), (1, 99, "a line"), (24, 96, "an error")]
)
def test_a_line_from_one_percent_an_error_from_twenty(unknown: int, of: int, outcome: str) -> None:
    found = spelling(pronunciation_tokenizer(), ["9" * unknown + "a" * of])
    assert found.unknown == pytest.approx(unknown / (unknown + of))
    if outcome == "an error":
        with pytest.raises(UsageError, match=r"20 % of the tokens .* lacks 9") as caught:
            report("targets", found, "another backbone")
        assert caught.value.hint == "another backbone"
    else:
        line = report("targets", found, "")
        assert (line is None) is (outcome == "nothing")
        assert line is None or line.startswith("1 % of the tokens of the training targets")


def test_control_characters_do_not_reach_the_screen() -> None:
    line = report("sources", spelling(pronunciation_tokenizer(), ["\x1b" + 40 * "a"]), "")
    assert line is not None
    assert "U+001B" in line
    assert "\x1b" not in line


def test_characters_are_added_only_where_targets_then_come_back() -> None:
    tokenizer = pronunciation_tokenizer()
    size = len(SYMBOLS)
    # Read alone: always.
    larger = grown(tokenizer, ["3 may", "17 june"], PHONEMES)
    assert len(larger) == size + 3
    assert spelling(larger, ["3 may", "17 june"]).unknown == 0
    assert len(tokenizer) == size
    # Symbols with spaces between are how this tokenizer writes.
    larger = grown(tokenizer, ["a"], ["2 0 2 4"])
    assert larger.decode(larger("2 0 2 4")["input_ids"], skip_special_tokens=True) == "2 0 2 4"
    # It would write 2 0 2 4 - 0 5: never right.
    assert grown(tokenizer, ["a"], ["2024-05"]) is None
    assert len(grown(tokenizer, ["a8"], ["2024-05"])) == size + 1
    assert grown(tokenizer, ["a"], PHONEMES) is None


def test_targets_that_come_back_otherwise_are_told() -> None:
    tokenizer = pronunciation_tokenizer()
    line = changed(tokenizer, [*PHONEMES, "dog"])
    assert line is not None
    assert line.startswith("25 % of the targets")
    assert line.endswith("'dog' becomes 'd o g'")
    assert changed(tokenizer, [*PHONEMES, " K  AE T "]) is None


@pytest.mark.parametrize("tied", [True, False])
def test_old_rows_stay_and_new_ones_look_like_them(tied: bool) -> None:
    model = random_decoder(classifiers=(), tied_head=tied)
    before, head = model.shared.weight.detach().clone(), model.lm_head.weight.detach().clone()
    old = len(before)
    grow_embeddings(model, old + 500, torch.Generator().manual_seed(1))
    after = model.shared.weight
    assert after.shape == (old + 500, before.shape[1])
    assert torch.equal(after[:old], before)
    assert torch.equal(model.lm_head.weight[:old], head)
    assert model.lm_head.weight.shape == after.shape
    assert (model.lm_head.weight is after) is tied
    assert model.encoder.embed_tokens.weight is after
    assert model.decoder.embed_tokens.weight is after
    assert model.config.vocab_size == old + 500
    new = after[old:]
    # 500 draws: their mean is within 5 standard errors, their spread within a fifth.
    error = before.std(dim=0) / 500**0.5
    assert ((new.mean(dim=0) - before.mean(dim=0)).abs() < 5 * error).all()
    assert torch.allclose(new.std(dim=0), before.std(dim=0), rtol=0.2)


def _pairs(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = [f"{source},{target}" for source, target in rows]
    path.write_text("\n".join(["source,target", *lines]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        model="calm",
        backbone=str(save_decoder(tmp_path / "given", classifiers=())),
        epochs=0.2,
        max_target_length=8,
        output=tmp_path / "mine",
        results_dir=tmp_path / "results",
        device="cpu",
    )


def test_dates_cannot_be_trained_on_a_vocabulary_without_digits(
    config: TrainConfig, tmp_path: Path
) -> None:
    rows = [(f"{day} may {1980 + day}", f"{1980 + day}-05-{day:02d}") for day in range(1, 29)]
    data = _pairs(tmp_path / "dates.csv", rows)
    with pytest.raises(UsageError, match="100 % of the tokens of the training targets") as caught:
        run_training(replace(config, data_file=data))
    assert "--backbone" in (caught.value.hint or "")
    assert config.output is not None
    assert not config.output.exists()
    assert not (tmp_path / "mine.training").exists()


def test_a_vocabulary_that_grew_is_the_finished_models(config: TrainConfig, tmp_path: Path) -> None:
    """Digits to read and, with spaces between them, to write; classifiers keep what there is."""
    rows = [(f"{n}x{LETTERS[n % 26]}", " ".join(f"{7 * n:03d}")) for n in range(60)]
    data = _pairs(tmp_path / "numbers.csv", rows)
    listener = Listener()
    run_training(replace(config, data_file=data), progress=listener)
    assert (
        "Vocabulary: 10 characters of the training texts added (0 1 2 3 4 5 6 7 8 9), now 79 tokens"
    ) in listener.messages
    loaded = load_decoder(TrainConfig(model=str(config.output), device="cpu"))
    assert len(loaded.tokenizer) == loaded.model.config.vocab_size == len(SYMBOLS) + 10
    ids: list[int] = loaded.tokenizer("4 2")["input_ids"]
    assert loaded.tokenizer.unk_token_id not in ids
    options: dict[str, Any] = {"model": str(config.output), "latency_samples": 0}
    result = run_evaluation(
        EvaluateConfig(**options, results_dir=tmp_path / "results", device="cpu")
    )
    assert result.document["metrics"]["samples"] == 6
    frozen = replace(config, data_file=data, confidence="linear", output=tmp_path / "sure")
    with pytest.raises(UsageError, match="unknown to the vocabulary"):
        run_training(frozen)


@pytest.mark.parametrize(("known", "outcome"), [("abc", "an error"), (LETTERS, "a line")])
def test_a_classifier_says_what_it_cannot_read(tmp_path: Path, known: str, outcome: str) -> None:
    backbone = write_backbone(tmp_path / "backbone", layers=2)
    from transformers import BertTokenizerFast

    pieces = [*SPECIAL, *known, *(f"##{letter}" for letter in known)]
    (backbone / "tokenizer.json").unlink()
    (backbone / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizerFast(str(backbone / "vocab.txt")).save_pretrained(backbone)
    rows = [f"{'zebra abc' * (1 + n // 2) if n else 'o ¢'},{'ab'[n % 2]}" for n in range(20)]
    data = tmp_path / "texts.csv"
    data.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    config = TrainConfig(
        backbone=str(backbone),
        data_file=data,
        epochs=0.2,
        output=tmp_path / "mine",
        results_dir=tmp_path / "results",
        device="cpu",
    )
    listener = Listener()
    if outcome == "an error":
        with pytest.raises(UsageError, match="of the training texts are unknown"):
            run_training(config, progress=listener)
        assert not (tmp_path / "mine").exists()
        return
    config = replace(config, data_file=_few_unknown(tmp_path))
    run_training(config, progress=listener)
    assert any("% of the tokens of the training texts are unknown" in t for t in listener.messages)


def _few_unknown(folder: Path) -> Path:
    """One unknown piece among eleven."""
    path = folder / "few.csv"
    rows = [f"{'abcde' + LETTERS[n]} {'fghi'} ¢,{'ab'[n % 2]}" for n in range(20)]
    path.write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return path
