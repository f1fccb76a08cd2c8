"""FLOPs from the shape against torch's own counter."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from eexit_cli.exits.static import StaticExit
from eexit_cli.metrics.flops import EncoderShape, encoder_flops
from eexit_cli.models.encoder.model import MultiExitClassifier, MultiExitConfig

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}


@pytest.mark.parametrize("architecture", ["bert", "albert", "electra"])
@pytest.mark.parametrize("layer", [1, 3, 4])
def test_counted_as_torch_counts(architecture, layer):
    narrow = {"embedding_size": 8} if architecture != "bert" else {}
    config = MultiExitConfig(backbone={"model_type": architecture, **SMALL, **narrow}, num_labels=3)
    model = MultiExitClassifier(config).eval()
    ids = torch.randint(5, 40, (1, 11))
    # The counter does not see inside the fused attention kernel of the CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.infer(ids, criterion=StaticExit(layer))
    shape = EncoderShape.of(model.backbone.config, 3)
    assert encoder_flops(shape, [11], [layer])[0] == pytest.approx(counter.get_total_flops())


def test_the_full_model_pays_one_head():
    shape = EncoderShape(hidden=8, intermediate=16, classes=2)
    both = [
        encoder_flops(shape, [5, 7], [4, 4], every_head=every_head) for every_head in (True, False)
    ]
    assert np.allclose(both[0] - both[1], 3 * shape.head)
