"""From a classifier and its exit criterion to one flat ONNX graph.

The leave condition is the criterion's own ``step``, traced from layer to layer like the layers
themselves, and the finished graph is compared with both before anybody gets it.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eexit_cli.core.errors import EexitError, UsageError
from eexit_cli.core.protocols import ExitCriterion, RowState
from eexit_cli.models.encoder.backbones import additive
from eexit_cli.models.encoder.model import MultiExitClassifier
from eexit_cli.models.onnx.runtime import package, session

OPSET = 17
"""The first with LayerNormalization, which every runtime since 2022 reads."""

KNOBS = {"threshold": torch.float32, "patience": torch.int64}
"""Attributes of criteria that are one number, and its type in the graph."""

NEVER = 1 << 30
"""A patience that no model has."""

LARGEST = 2**31 - 1
"""Bytes that a protobuf may have."""

CLOSE = 1e-4
"""The graph's logits may differ from torch's by this share of the largest of them."""


@dataclass(frozen=True)
class Flat:
    """A graph without branches.

    Its outputs are ``hidden_0`` to ``hidden_L``, ``logits_1`` to ``logits_L`` and, with a criterion
    that looks at its input, ``leave_1`` to ``leave_{L-1}`` and, where the criterion's answer is not
    the exit's logits, ``answer_1`` to ``answer_L``.

    Attributes:
        model: an ``onnx.ModelProto``; batch and length are free.
        layers: L, those of a fixed exit where the criterion is one.
        knob: name of the scalar input that turns the criterion; None where there is none.
    """

    model: Any
    layers: int
    knob: str | None


def flat_graph(model: MultiExitClassifier, criterion: ExitCriterion | None) -> Flat:
    """Export a classifier.

    Args:
        model: float32, on the CPU; it comes back in the mode that it had.
        criterion: None, or one that does not look at its input, needs no branches.

    Raises:
        UsageError: other weights than float32 on the CPU, or two gigabytes of them.
        EexitError: ``eexit[onnx]`` is not installed, or the graph does not do what the model does.
    """
    package("onnx")
    weight = next(model.parameters())
    if weight.dtype != torch.float32 or weight.device.type != "cpu":
        raise UsageError(
            f"An ONNX graph is made of float32 weights on the CPU, these are {weight.dtype} on "
            f"{weight.device.type}".replace("torch.", ""),
            hint="Use --device cpu --dtype float32",
        )
    if sum(value.numel() * 4 for value in model.parameters()) > LARGEST:
        raise UsageError(
            "The model's weights take more than the two gigabytes that one ONNX file may have",
            hint="Choose a smaller backbone",
        )
    layers = model.num_exits
    if criterion is not None and not getattr(criterion, "reads_input", True):
        layers, criterion = _fixed_layer(criterion, model), None
    with _in_eval_mode(model), torch.no_grad():
        program = _Program(model, criterion, layers).eval()
        graph = _exported(program)
        _drop_unread(graph, program.knob)
        _state_shapes(graph, program)
        flat = Flat(graph, layers, program.knob)
        _compare(flat, program)
    return flat


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Each of its modules then returns to its own mode, whatever the exporter did to it."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class _Program(nn.Module):
    """What is traced: the full pass and every step of the criterion."""

    def __init__(
        self, model: MultiExitClassifier, criterion: ExitCriterion | None, layers: int
    ) -> None:
        super().__init__()
        self.model, self.criterion, self.layers = model, criterion, layers
        self.knob = _knob(criterion)
        # RoBERTa's table has one row, and its tokenizer tells no segments.
        self.segments = getattr(model.backbone.config, "type_vocab_size", 0) > 1
        state: RowState = {}
        if criterion is not None:
            criterion.step(1, torch.zeros(1, model.num_classes), state)
        self.answers = "answer" in state

    @property
    def inputs(self) -> list[str]:
        segments = ["token_type_ids"] if self.segments else []
        return ["input_ids", "attention_mask", *segments, *([self.knob] if self.knob else [])]

    @property
    def outputs(self) -> list[str]:
        names = ["hidden_0"]
        for layer in range(1, self.layers + 1):
            names += [f"hidden_{layer}", f"logits_{layer}"]
            names += [f"answer_{layer}"] if self.answers else []
            names += [f"leave_{layer}"] if self.criterion and layer < self.layers else []
        return names

    def example(self, rows: int, tokens: int) -> dict[str, Tensor]:
        """Inputs of which the last row is padded; every segment and many tokens occur."""
        config = self.model.backbone.config
        ids = torch.arange(rows * tokens).view(rows, tokens) * 7919 % config.vocab_size
        mask = torch.ones_like(ids)
        mask[-1, (tokens + 1) // 2 :] = 0
        pad = getattr(config, "pad_token_id", None) or 0
        # The padding token among the others would be counted as padding by some.
        ids = ids.masked_fill(ids == pad, (pad + 3) % config.vocab_size)
        ids = torch.where(mask.bool(), ids, pad)
        batch = {"input_ids": ids, "attention_mask": mask}
        if self.segments:
            batch["token_type_ids"] = (torch.arange(tokens) > tokens // 2).long() * mask
        return batch

    def turned_by(self, setting: Any) -> Tensor:
        """A value of the knob, as the graph takes it."""
        assert self.knob is not None
        return torch.tensor(setting, dtype=KNOBS[self.knob])

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.inputs, values, strict=True))
        model, ids, kept = self.model, given["input_ids"], given["attention_mask"]
        rule = _turned(self.criterion, self.knob, given[self.knob]) if self.knob else self.criterion
        hidden = model.adapter.embed(
            model.backbone,
            input_ids=ids,
            token_type_ids=given.get("token_type_ids"),
            inputs_embeds=None,
        )
        mask = additive(kept, hidden.dtype)
        # Layers share what follows from the inputs' shape alone, so that one of them can run
        # without those before it: a tensor of that shape stands for the first hidden states.
        aux = model.adapter.aux(model.backbone, ids.unsqueeze(-1))
        outputs, state = [hidden], RowState()
        for index in range(self.layers):
            hidden = model.adapter.run_layer(model.backbone, index, hidden, mask, aux)
            logits = model.exit_logits(index, hidden, kept)
            outputs += [hidden, logits]
            if rule is not None:
                leave = rule.step(index + 1, logits, state)
                outputs += [state["answer"]] if self.answers else []
                outputs += [leave] if index + 1 < self.layers else []
        return tuple(outputs)


def _knob(criterion: ExitCriterion | None) -> str | None:
    """The number of a criterion that can be an input of the graph."""
    return next((name for name in KNOBS if hasattr(criterion, name)), None)


def _turned(criterion: ExitCriterion | None, knob: str, value: Any) -> Any:
    """The same criterion with this value, which may be a tensor."""
    if knob == "patience" and isinstance(value, Tensor):
        # Patience 0 is the full model, by an `if` that no graph holds.
        value = torch.where(value > 0, value, NEVER)
    turned = copy.copy(criterion)
    setattr(turned, knob, value)
    return turned


def _fixed_layer(criterion: ExitCriterion, model: MultiExitClassifier) -> int:
    blank, state = torch.zeros(1, model.num_classes), RowState()
    layers = range(1, model.num_exits)
    return next((at for at in layers if bool(criterion.step(at, blank, state))), model.num_exits)


def _entropy_terms(graph: Any, p: Any) -> Any:
    """-p ln p, and 0 where p is 0: torch's ``entr``, which the exporter does not know."""
    # A logarithm of 0 would make the product NaN.
    least = graph.op("Constant", value_t=torch.tensor(torch.finfo(torch.float32).tiny))
    return graph.op("Neg", graph.op("Mul", p, graph.op("Log", graph.op("Max", p, least))))


def _exported(program: _Program) -> Any:
    import onnx

    values = [*program.example(3, 8).values()]
    if program.knob is not None:
        value = getattr(program.criterion, program.knob)
        values.append(program.turned_by(value))
    free = {name: {0: "batch", 1: "tokens"} for name in program.inputs if name != program.knob}
    torch.onnx.register_custom_op_symbolic("aten::special_entr", _entropy_terms, OPSET)
    try:
        # The trace warns of every size that it turns into a number; the comparison below tells
        # whether one was wrong. Of torch's exporters this one needs no further package.
        with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="eexit-") as folder:
            warnings.simplefilter("ignore")
            path = Path(folder) / "model.onnx"
            torch.onnx.export(
                program,
                tuple(values),
                path,
                input_names=program.inputs,
                output_names=program.outputs,
                dynamic_axes=free,
                opset_version=OPSET,
                dynamo=False,
            )
            return onnx.load(path)
    except torch.onnx.errors.OnnxExporterError as error:
        raise EexitError(
            f"This model or its exit cannot be an ONNX graph: {str(error).splitlines()[0]}",
            hint="Choose another backbone or another exit",
        ) from error
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::special_entr", OPSET)


def _drop_unread(model: Any, knob: str | None) -> None:
    """Inputs that no node reads are asked of nobody."""
    read = {name for node in model.graph.node for name in node.input}
    if knob is not None and knob not in read:
        raise EexitError(
            f"The exit's {knob} does not reach the ONNX graph", hint="Choose another exit"
        )
    kept = [value for value in model.graph.input if value.name in read]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    # Shapes between the nodes were guessed from the example.
    del model.graph.value_info[:]


def _state_shapes(model: Any, program: _Program) -> None:
    """Write the shapes of reshaped tensors down where the exporter computes them.

    Each layer of BERT computes four of them from the sizes of its input: a hundred small nodes, a
    tenth of the time of an int8 file. Two passes tell which numbers are fixed and which are those
    of the tensor itself; the comparison that follows is on other sizes.
    """
    import onnx

    nodes = [node for node in model.graph.node if node.op_type == "Reshape"]
    names = sorted({name for node in nodes for name in node.input})
    probe = onnx.ModelProto.FromString(model.SerializeToString())
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    run = session(probe, "the exported graph")
    first, second = (_probed(run, program, names, *sizes) for sizes in ((3, 5), (2, 7)))
    for at, node in enumerate(nodes):
        data, shape = node.input
        stated = [
            # 0 is the tensor's own size at this place, -1 what is left.
            one if one == other else 0 if own else -1
            for one, other, own in zip(
                first[shape].tolist(),
                second[shape].tolist(),
                _own_sizes(first[data].shape, first[shape], second[data].shape, second[shape]),
                strict=True,
            )
        ]
        if stated.count(-1) < 2:
            name = f"shape_{at}"
            value = torch.tensor(stated).numpy()
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
            node.input[1] = name


def _probed(run: Any, program: _Program, names: list[str], rows: int, tokens: int) -> Any:
    feed = _feed(run, program.example(rows, tokens))
    if program.knob is not None:
        feed[program.knob] = program.turned_by(getattr(program.criterion, program.knob)).numpy()
    return dict(zip(names, run.run(names, feed), strict=True))


def _own_sizes(one: Any, shape: Any, other: Any, other_shape: Any) -> list[bool]:
    """At which places of a shape stands the tensor's own size there, both times?"""
    return [
        at < len(one) and one[at] == shape[at] and other[at] == other_shape[at]
        for at in range(len(shape))
    ]


def _feed(run: Any, batch: dict[str, Tensor]) -> dict[str, Any]:
    asked = {value.name for value in run.get_inputs()}
    return {name: value.numpy() for name, value in batch.items() if name in asked}


def _compare(flat: Flat, program: _Program) -> None:
    """Run the graph, and the model and its criterion beside it, on shapes of no example.

    Raises:
        EexitError: they differ.
    """
    run = session(flat.model, "the exported graph")
    knob, criterion = flat.knob, program.criterion
    settings: list[Any] = [None]
    if knob is not None:
        value = getattr(criterion, knob)
        settings = [value, value + 1 if KNOBS[knob] == torch.int64 else value / 2]
    for rows, tokens in ((1, 5), (4, 11)):
        batch = program.example(rows, tokens)
        feed = _feed(run, batch)
        for setting in settings:
            if knob is not None:
                feed[knob] = program.turned_by(setting).numpy()
            found = dict(zip(program.outputs, run.run(program.outputs, feed), strict=True))
            _check(found, batch, program, _turned(criterion, knob, setting) if knob else criterion)


def _check(
    found: dict[str, Any], batch: dict[str, Tensor], program: _Program, criterion: Any
) -> None:
    expected, state = program.model(**batch).logits, RowState()
    scale = max(1.0, float(expected.abs().max()))
    for layer in range(1, program.layers + 1):
        logits = torch.from_numpy(found[f"logits_{layer}"])
        wanted = expected[:, layer - 1]
        if logits.shape != wanted.shape or float((logits - wanted).abs().max()) > CLOSE * scale:
            raise _differs(f"the logits of layer {layer}")
        if criterion is None:
            continue
        # On the graph's own logits: a threshold between theirs and torch's is no fault.
        leave = criterion.step(layer, logits, state)
        if layer < program.layers and not bool((leave.numpy() == found[f"leave_{layer}"]).all()):
            raise _differs(f"who leaves after layer {layer}")
        if program.answers and not torch.allclose(
            state["answer"], torch.from_numpy(found[f"answer_{layer}"]), rtol=0, atol=CLOSE
        ):
            raise _differs(f"the answer of layer {layer}")


def _differs(what: str) -> EexitError:
    return EexitError(
        f"The ONNX graph is not the model: {what} differ",
        hint="Choose another backbone or another exit; this one cannot be exported",
    )
