"""A small victim with random weights and a real tokenizer; shared by the attacks' tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from eexit_cli.attacks.budget import Budget
from eexit_cli.attacks.encoder_victim import EncoderVictim
from eexit_cli.confidence.entropy import MEASURE as ENTROPY
from eexit_cli.core.progress import SilentProgress
from eexit_cli.exits.patience import PatienceExit
from eexit_cli.exits.threshold import ThresholdExit
from eexit_cli.models.batching import TextBatcher
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig

NOUNS = "film movie plot actor scene story music ending"
ADJECTIVES = (
    "great awful boring lovely clever dull sharp slow warm cold bright dark funny sad happy long "
    "short"
)
STOP_WORDS = "the a of and is it was very not this"
WORDS = f"{NOUNS} {ADJECTIVES} {STOP_WORDS}".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"

TEXTS = [
    "The film was great and the plot is clever.",
    "A dull movie, a boring story and an awful ending!",
    "lovely music warm scene bright actor",
    "This is not a sad story , it is a funny film .",
    "happy happy film film happy sharp",
    "unbelievably slow",
    "the of and is",
    "Cold dark plot; very long scene. The actor was sharp, the music lovely, the ending short.",
]


def wordpiece(*, lower_case: bool = True, capitals: bool = False) -> Any:
    """A BERT-like tokenizer: whole words, letters and their continuations."""
    words = [*WORDS, *([word.capitalize() for word in WORDS] if capitals else [])]
    letters = LETTERS + (LETTERS.upper() if capitals else "")
    pieces = [*SPECIAL, *words, *letters, *(f"##{letter}" for letter in letters), *".,;!'-"]
    pieces = list(dict.fromkeys([*pieces, "##ful", "##ly", "believ"]))
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=48,
    )


def byte_bpe() -> Any:
    """A RoBERTa-like tokenizer: every word is one piece, with and without a space before it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>"])}
    merges: list[tuple[str, str]] = []
    for piece in alphabet:
        vocabulary.setdefault(piece, len(vocabulary))
    # Words after a space come first, or their letters would join before the mark does.
    for start in ("Ġ", ""):
        for word in WORDS:
            built = ""
            for letter in start + word:
                if built:
                    merges.append((built, letter))
                built += letter
                vocabulary.setdefault(built, len(vocabulary))
    backend = Tokenizer(models.BPE(vocabulary, list(dict.fromkeys(merges)), unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(
        # By position: tokenizers 0.23 renamed them.
        ("</s>", vocabulary["</s>"]),
        ("<s>", vocabulary["<s>"]),
        add_prefix_space=False,
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=64,
    )


def sentencepiece() -> Any:
    """An ALBERT-like tokenizer: a mark before each word, the first one included."""
    pieces = ["<pad>", "<unk>", "[CLS]", "[SEP]", "▁", *(f"▁{word}" for word in WORDS)]
    pieces += [*LETTERS, *".,;!", "ful", "ly"]
    scores = [(piece, -1.0 - 0.01 * index) for index, piece in enumerate(dict.fromkeys(pieces))]
    backend = Tokenizer(models.Unigram(scores, unk_id=1))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=48,
    )


TOKENIZERS = {"wordpiece": wordpiece, "byte_bpe": byte_bpe, "sentencepiece": sentencepiece}


def classifier(
    tokenizer: Any,
    *,
    seed: int = 0,
    classes: int = 2,
    layers: int = 4,
    family: str = "deebert",
    backbone: str = "bert",
) -> MultiExitClassifier:
    """Random weights, large enough for exits that differ from text to text."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "model_type": backbone,
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }
    if backbone == "distilbert":
        settings |= {"dim": 16, "n_layers": layers, "n_heads": 2, "hidden_dim": 32}
    if backbone in ("albert", "electra"):
        settings["embedding_size"] = 8
    model = MultiExitClassifier(
        MultiExitConfig(backbone=settings, family=family, pooling="mean", num_labels=classes)
    )
    with torch.no_grad():
        model.word_embeddings.weight.mul_(50)
        for linear in model.modules():
            if isinstance(linear, torch.nn.Linear):
                linear.weight.mul_(8)
        for head in model.classifiers:
            head.weight.mul_(6)
    return model.eval().requires_grad_(False)


def save_classifier(
    folder: Path,
    exit_defaults: dict[str, Any],
    *,
    names: Sequence[str] = ("negative", "positive"),
    task: str | None = None,
    layers: int = 5,
    seed: int = 0,
) -> Path:
    """A model folder of :func:`classifier`."""
    tokenizer = wordpiece()
    model = classifier(tokenizer, layers=layers, classes=len(names), seed=seed)
    model.config.task = task
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    model.config.exit_defaults = exit_defaults
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


ENTROPY_EXIT = {"criterion": "threshold", "confidence": "entropy", "threshold": 0.55}


class Listens(SilentProgress):
    """Keeps the lines that a person would read."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def message(self, text: str) -> None:
        self.heard.append(text)


def victim_for(
    tokenizer: Any = None,
    *,
    limit: int | None = None,
    threshold: float = 0.55,
    patience: int | None = None,
    **model_options: Any,
) -> EncoderVictim:
    tokenizer = tokenizer or wordpiece()
    criterion: Any = ThresholdExit(ENTROPY, threshold)
    if patience is not None:
        criterion = PatienceExit(patience)
    return EncoderVictim(
        classifier(tokenizer, **model_options),
        TextBatcher(tokenizer, tokenizer.model_max_length),
        criterion,
        Budget(limit),
    )
