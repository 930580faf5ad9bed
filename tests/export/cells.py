"""Run as a script, without the shape checker's decorators: one group of models through strict export into engines.

Prints a line of JSON a cell: {"cell", "differences": {engine: largest}, "domains", "operations"} or {"cell", "error"}.
"""

import json
import logging
import sys

import onnxruntime
import torch
from torch.export import Dim

from regard.mixers import MIXERS
from regard.models import ViTConfig, build, configure

try:
    import openvino
except ImportError:
    openvino = None


# What a pooling that rounds up asks of a free side is true, and nothing that can be proved.
DEFERRED = {"prefer_deferred_runtime_asserts_over_guards": True}


class Tensors(torch.nn.Module):
    """A detector's outputs as tensors."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        output = self.model(*inputs)
        return (output.logits[-1], output.boxes_cxcywh[-1]) if hasattr(output, "boxes_cxcywh") else (output,)


def cell(name, model, inputs, sizes=None, sides=None):
    """inputs(batch, size) -> arguments. sizes: what is tried, the first at export. sides: free sides, {axis: Dim}."""
    model = Tensors(model).eval()
    sizes = sizes or [None]
    batch = Dim("batch", min=1, max=64)
    try:
        with torch.no_grad():
            arguments = inputs(3, sizes[0])
            dims = tuple(
                {0: batch, **(sides or {})} if one.ndim != 3 else {0: batch, **mask_sides(sides)} for one in arguments
            )
            program = torch.export.export(model, arguments, dynamic_shapes=(dims,), strict=True, **DEFERRED)
            made = torch.onnx.export(program, dynamo=True, verbose=False).model_proto
            operations = sorted({str(node.target) for node in program.graph.nodes if node.op == "call_function"})
            engines = {"onnx": run_onnx(made)} | ({"openvino": run_openvino(made)} if openvino else {})
            worst = dict.fromkeys(engines, 0.0)
            for size, number in ((size, number) for size in sizes for number in (1, 2, 5)):
                torch.manual_seed(number)
                arguments = inputs(number, size)
                wanted = model(*arguments)
                for engine, run in engines.items():
                    for one, found in zip(wanted, run(arguments), strict=True):
                        assert one.shape == found.shape, (engine, one.shape, found.shape)
                        worst[engine] = max(worst[engine], float((one - found).abs().max()))
        domains = sorted({node.domain for node in made.graph.node})
        tell({"cell": name, "differences": worst, "domains": domains, "operations": operations})
    except Exception as error:
        tell({"cell": name, "error": f"{type(error).__name__}: {error}"[:2000]})


def tell(values):
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def mask_sides(sides):
    return {axis - 1: dim for axis, dim in (sides or {}).items()}


def run_onnx(made):
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(arguments):
        found = session.run(None, {name: one.numpy() for name, one in zip(names, arguments, strict=True)})
        return [torch.from_numpy(one) for one in found]

    return run


def run_openvino(made):
    model = openvino.Core().read_model(model=made.SerializeToString(), weights=b"")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda arguments: [
        torch.from_numpy(one.copy()) for one in compiled([a.numpy() for a in arguments]).to_tuple()
    ]


def images(height, width, channels=3):
    return lambda batch, size: (torch.randn(batch, channels, *(size or (height, width))),)


def padded(height, width):
    def inputs(batch, size):
        rows, columns = size or (height, width)
        mask = torch.ones(batch, rows, columns, dtype=torch.bool)
        mask[0, :, columns - 20 :] = False
        mask[-1, rows - 12 :] = False
        return torch.randn(batch, 3, rows, columns), mask

    return inputs


def words(vocabulary, *tokens):
    return lambda batch, _: tuple(torch.randint(vocabulary, (batch, count)) for count in tokens)


def vit(**changes):
    torch.manual_seed(0)
    sizes = {"img_size": (16, 24), "patch_size": 4, "num_classes": 7, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return build(ViTConfig(**sizes | changes))


def detector(name, **changes):
    torch.manual_seed(0)
    return build(configure(name, {"depth": 1, "decoder_depth": 2} | changes))


def one():
    cell("attention, token", vit(), images(16, 24))


def vits():
    for mixer in MIXERS:
        for pool in ("token", "avg"):
            cell(f"{mixer}, {pool}", vit(mixer=mixer, pool=pool), images(16, 24))
        if mixer != "mlp":  # which is built for one number of tokens
            cell(f"{mixer}, another size", vit(mixer=mixer), images(20, 28))
    cell("registers, distilled", vit(pool="distilled", num_registers=1, positions="sine"), images(16, 24))


def large_windows():
    options = {"mixer": "local", "patch_size": 1}
    cell("local, 19 x 23", vit(**options, img_size=(19, 23)), images(19, 23))
    cell("local, a window beyond the grid", vit(**options, mixer_options={"window": 31}), images(16, 24))
    free = {2: Dim("height", min=8, max=256), 3: Dim("width", min=8, max=256)}
    model = vit(**options, positions="sine", img_size=(19, 23))
    cell("local, free sides", model, images(19, 23), [(19, 23), (8, 30)], free)


def others():
    torch.manual_seed(0)
    changes = {"patch_size": 14, "img_size": 28, "embed_dim": 24, "num_heads": 2, "depth": 2, "num_registers": 4}
    cell("DINOv2", build(configure("dinov2_vits14", changes)), images(28, 42))
    for name in ("sasa_resnet26", "sasa_resnet38", "sasa_resnet50"):
        torch.manual_seed(0)
        small = {"num_classes": 5, "embed_dim": 16, "num_heads": 2}
        cell(name, build(configure(name, small)), images(32, 48))
    stem = configure("sasa_resnet14_small", {"stem": "attention", "in_chans": 3, "img_size": 32})
    cell("attention stem", build(stem), images(32, 32))
    cell("FNet", build(configure("fnet_base", {"depth": 1, "embed_dim": 16, "vocab_size": 50})), words(50, 12))
    language = configure("language_mini", {"depth": 2, "mixer": ("attention", "performer")})
    cell("LanguageModel", build(language), words(259, 70))
    cell("Transformer", build(configure("transformer_mini", {"depth": 1, "decoder_depth": 1})), words(259, 12, 7))


def detectors():
    cell("DETR", detector("detr_mini"), images(64, 96))
    cell("DETR, mask", detector("detr_mini"), padded(64, 96))
    cell("DETR, local", detector("detr_mini", mixer="local"), padded(64, 96))
    cell("DN-DETR", detector("dn_detr_mini"), images(64, 96))
    cell("DN-DETR, mask", detector("dn_detr_mini"), padded(64, 96))
    dense = {"cross_attention": "dense", "two_stage": False}
    cell("DN-DETR, dense", detector("dn_detr_mini", **dense), padded(64, 96))


def free_sides():
    free = {2: Dim("height", min=32, max=1024), 3: Dim("width", min=32, max=1024)}
    sizes = [(96, 160), (160, 96), (100, 84)]
    cell("DETR, free sides", detector("detr_mini"), images(96, 160), sizes, free)
    cell("DETR, mask and free sides", detector("detr_mini"), padded(96, 160), sizes, free)
    cell("DN-DETR, free sides", detector("dn_detr_mini"), images(96, 160), sizes, free)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    {name: value for name, value in globals().items() if callable(value)}[sys.argv[1]]()
