"""The family's door: prompts, lengths, folders that cannot be, and training from a command."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_tiny import write_tiny
from golden.golden_models import write_causal, write_decoder
from transformers import AutoModelForCausalLM, AutoTokenizer

import eexit_cli as eexit
from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.data.pronunciation import prompt_tokenizer
from eexit_cli.families.causal.prompts import PromptBatcher, Prompting, prompting
from eexit_cli.main import main
from eexit_cli.models.causal.architectures import ARCHITECTURES
from eexit_cli.store.models import CAUSAL_TYPES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("causal") / "model"
    write_causal(place)
    return place


@pytest.fixture
def model(folder: Path) -> Any:
    return eexit.load(str(folder), device="cpu", dtype="float64")


def test_a_prompt_is_tokenised_as_a_whole_without_an_end() -> None:
    tokenizer = prompt_tokenizer()
    batcher = PromptBatcher(tokenizer, 32, Prompting("read {source}="))
    batch = batcher(["queue", "it"])
    whole = [
        tokenizer(f"read {word}=", add_special_tokens=False)["input_ids"]
        for word in ("queue", "it")
    ]
    for row, (ids, mask) in enumerate(
        zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ):
        assert ids[mask.bool()].tolist() == whole[row]
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)
    assert not batcher.truncated


def test_what_is_too_long_loses_its_beginning_and_is_counted() -> None:
    tokenizer = prompt_tokenizer()
    batcher = PromptBatcher(tokenizer, 4, Prompting("{source}="))
    rows = batcher.rows(["queue", "it"])
    assert rows[0] == tokenizer("eue=", add_special_tokens=False)["input_ids"]
    assert rows[1] == tokenizer("it=", add_special_tokens=False)["input_ids"]
    assert batcher.truncated == 1
    tokenizer.bos_token = "<pad>"

    def with_start(texts: Any, **others: Any) -> Any:
        return {"input_ids": [[0, *tokenizer.convert_tokens_to_ids(list(text))] for text in texts]}

    batcher.encode = with_start  # type: ignore[method-assign]
    assert batcher.rows(["queue"])[0] == [0, *tokenizer.convert_tokens_to_ids(list("eue="))][:4]


def test_tokens_know_their_characters_in_the_source() -> None:
    batcher = PromptBatcher(prompt_tokenizer(), 32, Prompting("aa {source}="))
    (found,) = batcher.encoded(["ox"])
    assert found.ids == batcher.rows(["ox"])[0]
    assert [
        offset for offset, column in zip(found.offsets, found.columns, strict=True) if column == 0
    ] == [
        (0, 1),
        (1, 2),
    ]
    assert found.columns == [None, None, 0, 0, None]


@pytest.mark.parametrize("template", ["no place for it", "{source} {source}"])
def test_a_template_holds_the_source_once(template: str, model: Any) -> None:
    with pytest.raises(UsageError, match="--prompt-template"):
        prompting(template, None, model.model.config, None, model.tokenizer)


def test_a_chat_needs_a_template_for_it(folder: Path, model: Any) -> None:
    with pytest.raises(UsageError, match="no chat template"):
        eexit.load(str(folder), chat=True)
    tokenizer = model.tokenizer
    tokenizer.chat_template = (
        "{% for m in messages %}a{{ m['content'] }}b{% endfor %}"
        "{% if add_generation_prompt %}c{% endif %}"
    )
    found = prompting("x{source}y", True, model.model.config, None, tokenizer)
    assert PromptBatcher(tokenizer, 9, found).text("QQ") == "axQQybc"


def test_the_users_template_is_before_the_models_and_the_tasks(model: Any) -> None:
    config, tokenizer = model.model.config, model.tokenizer
    assert (
        prompting("Q {source}\\n", None, config, "t{source}", tokenizer).template == "Q {source}\n"
    )
    assert prompting(None, None, config, "t{source}", tokenizer).template == "{source}="
    config.prompt_template = None
    assert prompting(None, None, config, "t{source}", tokenizer).template == "t{source}"
    assert prompting(None, None, config, None, tokenizer).template == "{source}\n"


def test_a_saved_model_is_one_that_transformers_loads(folder: Path, model: Any) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer("queue=", add_special_tokens=False)["input_ids"]])
    out = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
    )
    wanted = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert model.answers(["queue"], model.full()).outputs == [wanted]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_length": 60}, r"--max-length 60 does not fit: the model has 64 positions"),
        ({"max_new_tokens": 64}, "no prompt fits beside them"),
        ({"max_length": 0}, "max_length 0 is outside its range"),
    ],
)
def test_lengths_that_do_not_fit(options: dict[str, int], words: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=words):
        eexit.load(str(folder), **options)


def test_a_long_prompt_is_cut_with_a_count(folder: Path) -> None:
    loaded = eexit.load(str(folder), max_length=4, max_new_tokens=5)
    inputs = loaded.inputs(["queue", "it"], batch_size=2)
    assert inputs.truncated == 1
    assert inputs.lengths == [4, 3]


def test_a_tokenizer_without_padding_gets_one(tmp_path: Path, folder: Path) -> None:
    place = tmp_path / "model"
    shutil.copytree(folder, place)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if not (place / name).is_file():
            continue  # transformers 5 writes one of them
        settings = json.loads((place / name).read_text())
        settings.pop("pad_token", None)
        (place / name).write_text(json.dumps(settings))
    loaded = eexit.load(str(place))
    assert loaded.tokenizer.pad_token_id == loaded.tokenizer.eos_token_id
    before = eexit.load(str(folder))
    words = ["queue", "it", "knight"]
    assert loaded.answers(words).outputs == before.answers(words).outputs


def test_listings_know_the_architectures_without_torch() -> None:
    assert set(CAUSAL_TYPES) == {*ARCHITECTURES, "nested_llama"}


def test_an_architecture_without_a_row_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "bloom", "architectures": ["BloomForCausalLM"]})
    )
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(EexitError, match="'bloom'") as refused:
        eexit.load(str(tmp_path))
    assert "gpt_neox" in str(refused.value.hint)


def test_tensors_that_do_not_fit(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    write_tiny(tmp_path, "llama")
    tensors = load_file(tmp_path / "model.safetensors")
    extra = {**tensors, "model.layers.0.strange.weight": torch.zeros(2)}
    save_file(extra, tmp_path / "model.safetensors")
    with pytest.raises(EexitError, match=r"1 unexpected: model\.layers\.0\.strange\.weight"):
        eexit.load(str(tmp_path))
    tensors.pop("model.norm.weight")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(EexitError, match=r"1 missing: model\.norm\.weight"):
        eexit.load(str(tmp_path))


def test_shards_and_bodies_without_a_head(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import GPT2LMHeadModel

    from eexit_cli.confidence.decoder import build_classifier
    from eexit_cli.models.causal.layouts import load_causal

    whole, sharded, body = tmp_path / "whole", tmp_path / "sharded", tmp_path / "body"
    write_tiny(whole, "gpt2")
    theirs = GPT2LMHeadModel.from_pretrained(whole)
    theirs.save_pretrained(sharded, max_shard_size="60KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    shutil.copytree(whole, body)
    tensors = load_file(whole / "model.safetensors")
    # As GPT-2 was published: without the body's name, with masks among the weights.
    plain = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    plain["h.0.attn.bias"] = torch.ones(1, 1, 4, 4)
    save_file(plain, body / "model.safetensors")
    found = [
        load_causal(place, build_classifier=build_classifier, dtype="float32").state_dict()
        for place in (whole, sharded, body)
    ]
    for other in found[1:]:
        assert all(torch.equal(value, found[0][name]) for name, value in other.items())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--patience", "2"), "--patience is for classifiers"),
        (("--shallow-layer", "1"), "--shallow-layer is for encoder-decoders"),
        (("--exit-layer", "2"), "says nothing without --self-speculative"),
        (("--self-speculative", "--exit-layer", "3"), "Exit layer 3 is outside 1..2"),
        (("--self-speculative", "--threshold", "0.5"), "exclude each other"),
        (("--self-speculative", "--static-layer", "1"), "exclude each other"),
        (("--self-speculative", "--draft-tokens", "0"), "draft-tokens"),
    ],
)
def test_options_that_cannot_be(
    arguments: tuple[str, ...],
    words: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    code = main(["evaluate", "--model", str(folder), "--limit", "2", *arguments])
    told = " ".join(capsys.readouterr().err.split())
    assert code == 2
    assert words in told
    assert not list(tmp_path.iterdir())


def test_self_speculation_of_a_t5_is_refused(tmp_path: Path) -> None:
    write_decoder(tmp_path / "decoder")
    loaded = eexit.load(str(tmp_path / "decoder"))
    with pytest.raises(UsageError, match="Self-speculation is for decoder-only models"):
        loaded.exit_from({"criterion": "self-speculative", "exit_layer": 1})


def test_training_from_scratch_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new model on the bundled task, cut off after a checkpoint, is the uninterrupted one."""
    from safetensors.torch import load_file
    from transformers import Trainer

    monkeypatch.chdir(tmp_path)
    options = [
        *("train", "--model", "layerskip", "--limit", "64", "--validation-limit", "8"),
        *("--num-layers", "3", "--d-model", "16", "--d-ff", "24", "--num-heads", "2"),
        *("--batch-size", "16", "--epochs", "2", "--device", "cpu", "--quiet"),
    ]
    assert main([*options, "--output", "whole"]) == 0
    inner = Trainer.training_step
    steps: list[int] = []

    def until(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(steps) == 6:
            raise KeyboardInterrupt
        steps.append(1)
        return inner(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "training_step", until)
        assert main([*options, "--output", "cut"]) == 130
    assert main([*options, "--output", "cut", "--resume"]) == 0
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["prompt_template"] == "{source}="
    assert config["training"]["strategy"] == "layerskip"
    # Classifiers on the frozen model leave its weights as they are.
    classifiers = [
        *("train", "--model", "layerskip", "--confidence", "linear", "--backbone", "whole"),
        *("--limit", "32", "--validation-limit", "8", "--epochs", "1", "--output", "sure"),
    ]
    assert main([*classifiers, "--quiet"]) == 0
    sure = load_file(tmp_path / "sure" / "model.safetensors")
    assert all(torch.equal(value, sure[name]) for name, value in whole.items())
    assert any(name.startswith("cm_heads.linear.") for name in sure)


def test_the_loss_is_on_the_completion_alone(folder: Path) -> None:
    from eexit_cli.training.batches import Tokenized

    loaded: Any = eexit.load(str(folder))
    batcher = dataclasses.replace(loaded).batcher()
    data = Tokenized.of_prompts(
        batcher, loaded.tokenizer, ["queue", "it"], ["K Y UW", "IH T"], max_target=3
    )
    end = loaded.tokenizer.eos_token_id
    assert data[0]["input_ids"] == batcher.rows(["queue"])[0]
    assert data[1]["labels"] == [*loaded.tokenizer.convert_tokens_to_ids(["IH", "T"]), end]
    # Cut at three tokens, without its end, and counted.
    assert data[0]["labels"] == loaded.tokenizer.convert_tokens_to_ids(["K", "Y", "UW"])
    assert data.cut[1] == ("targets", 1, 3)


def test_operations_are_those_of_the_products_that_run(folder: Path) -> None:
    """torch's own count of the full pass over prompt and output; scores by a second derivation."""
    from torch.utils.flop_counter import FlopCounterMode

    from eexit_cli.families.decoders.costs import encoder_flops, token_flops

    loaded: Any = eexit.load(str(folder), dtype="float64")
    answers = loaded.answers(["queue"], loaded.full())
    decoded = answers.detail
    tokens, prompt = len(decoded.tokens[0]), decoded.source_lengths[0]
    found = token_flops(loaded, decoded, loaded.full().rule) + encoder_flops(loaded, decoded)
    sequence = torch.randint(3, 60, (1, prompt + tokens - 1))
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        loaded.model.body(sequence, use_cache=False)
    layers = loaded.num_layers
    maps = 2 * sum(w.numel() for w in loaded.model.layers.parameters() if w.dim() > 1)
    inner = loaded.model.stack().inner
    # Causal scores and their use: each token with those up to it, 2 products of 2 operations.
    scores = layers * sum(2 * 2 * inner * (at + 1) for at in range(prompt + tokens - 1))
    heads = tokens * 2 * loaded.model.head.weight.numel()
    assert found == maps * (prompt + tokens - 1) + scores + heads
    # torch counts the maps, no fused attention, and the few products of rotary angles.
    assert counted.get_total_flops() == pytest.approx(maps * (prompt + tokens - 1), rel=1e-3)
    # Exits save in proportion: a static layer runs its share of all but the heads.
    static = loaded.exit_from({"static_layer": 1})
    early = loaded.answers(["queue"], static).detail
    work = token_flops(loaded, early, static.rule) + encoder_flops(loaded, early)
    n = prompt + len(early.tokens[0]) - 1
    one = maps // layers * n + sum(2 * 2 * inner * (at + 1) for at in range(n))
    assert work == one + len(early.tokens[0]) * 2 * loaded.model.head.weight.numel()
