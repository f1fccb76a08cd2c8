"""Confidence measures: pure functions of an exit's logits, each with its direction.

Add one: a file with a ``MEASURE`` that satisfies ``core.protocols.Measure``, and a line here. The
file imports torch only inside functions: screens ask a measure for its direction.
"""

from __future__ import annotations

from eexit_cli.core.catalog import Catalog

MEASURES = Catalog(
    "confidence measure",
    {
        "entropy": "eexit_cli.confidence.entropy:MEASURE",
        "max-prob": "eexit_cli.confidence.max_prob:MEASURE",
        "margin": "eexit_cli.confidence.margin:MEASURE",
    },
    aliases={
        "softmax": "margin",
        "max_prob": "max-prob",
        "maximum-probability": "max-prob",
        "softmax-response": "margin",
    },
    plugins="eexit.measures",
    needs=("name", "rises", "bounds", "__call__"),
)

_SPELLINGS = {
    # DL2-CALM's, and FREE's name of the perceptron
    "vanilla_classifier": "linear",
    "MLP": "mlp",
    "meta": "mlp",
    "transformer_MLP_64": "transformer_mlp_64",
    "transformer_MLP_512": "transformer_mlp_512",
    # with hyphens, as option values are written elsewhere
    "vanilla-classifier": "linear",
    "transformer-linear-64": "transformer_linear_64",
    "transformer-linear-512": "transformer_linear_512",
    "transformer-mlp-64": "transformer_mlp_64",
    "transformer-mlp-512": "transformer_mlp_512",
}

CLASSIFIERS = Catalog(
    "confidence classifier",
    {
        "linear": "eexit_cli.confidence.classifiers.linear:build",
        "mlp": "eexit_cli.confidence.classifiers.mlp:build",
        "transformer_linear_64": "eexit_cli.confidence.classifiers.attention:build_linear_64",
        "transformer_linear_512": "eexit_cli.confidence.classifiers.attention:build_linear_512",
        "transformer_mlp_64": "eexit_cli.confidence.classifiers.attention:build_mlp_64",
        "transformer_mlp_512": "eexit_cli.confidence.classifiers.attention:build_mlp_512",
    },
    aliases=_SPELLINGS,
)
"""Networks that learn whether a decoder layer agrees with the last one: ``build(d_model)``."""

DECODER_MEASURES = Catalog(
    "decoder confidence measure",
    {
        "softmax": "eexit_cli.confidence.softmax:build",
        "saturation": "eexit_cli.confidence.saturation:build",
        "linear": "eexit_cli.confidence.classifiers.pointwise:build",
        "mlp": "eexit_cli.confidence.classifiers.pointwise:build",
        "transformer_linear_64": "eexit_cli.confidence.classifiers.incremental:build",
        "transformer_linear_512": "eexit_cli.confidence.classifiers.incremental:build",
        "transformer_mlp_64": "eexit_cli.confidence.classifiers.incremental:build",
        "transformer_mlp_512": "eexit_cli.confidence.classifiers.incremental:build",
    },
    aliases={
        **_SPELLINGS,
        "margin": "softmax",
        "softmax-response": "softmax",
        "softmax_response": "softmax",
        "hidden-state-saturation": "saturation",
    },
)
"""Measures on decoder tokens: ``build()``, or ``build(classifier)`` for those that are trained.

:func:`eexit_cli.confidence.decoder.build_measure` puts name and model together.
"""

EVERY_MEASURE = Catalog(
    "confidence measure",
    {**MEASURES.own, **DECODER_MEASURES},
    aliases={
        **_SPELLINGS,
        "max_prob": "max-prob",
        "maximum-probability": "max-prob",
        "softmax-response": "softmax",
        "softmax_response": "softmax",
        "hidden-state-saturation": "saturation",
    },
    plugins="eexit.measures",
    needs=("name", "rises", "bounds", "__call__"),
)
"""What ``--confidence`` takes before a model is known: classifiers' and decoders' measures."""
