"""Reads a file of `regard export` with NumPy, Pillow and the engine alone: python reader.py model.onnx IMAGE..."""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps

Run = Callable[[np.ndarray], dict[str, Any]]


def open_model(file: str) -> tuple[Run, dict[str, Any]]:
    """(run, contract): `run(pixels)` gives the outputs by name, and the contract says what they mean."""
    if str(file).endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        contract = json.loads(session.get_modelmeta().custom_metadata_map["regard"])
        names, entry = [one.name for one in session.get_outputs()], session.get_inputs()[0].name
        return lambda pixels: dict(zip(names, session.run(None, {entry: pixels}), strict=True)), contract
    import openvino

    model = openvino.Core().read_model(str(file))
    contract = json.loads(model.get_rt_info("regard").value)
    precision = {"bf16": "bf16"}.get(contract["precision"], "f32")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    names = [one.names for one in compiled.outputs]  # an output may have several

    def infer(pixels: np.ndarray) -> dict[str, Any]:
        values = compiled([pixels]).to_tuple()
        return {name: value for own, value in zip(names, values, strict=True) for name in own}

    return infer, contract


def read(file: str, pre: dict[str, Any]) -> Image.Image:
    """An image as a Pillow image, grey or RGB; upright, white under transparency, deep pixels brought to 8 bits."""
    image = ImageOps.exif_transpose(Image.open(file))
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        values, decoding = np.asarray(image, np.float64), pre.get("decoding", {})
        white = decoding.get("integer_white", 65535)
        if image.mode == "F":
            white = decoding.get("float_white") or (1 if values.max() <= 1 else 255)
        image = Image.fromarray(np.minimum(np.rint(values * (255 / white)), 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode in ("1", "L") else image.convert("RGB")
    return image.convert("L" if pre["channels"] == 1 else "RGB")


def prepared(image: Image.Image, pre: dict[str, Any]) -> Image.Image:
    """The image in the size that the model takes: a detector's keeps its aspect."""
    width, height = image.size
    if "shortest" in pre:
        unit = pre.get("divisor", 1)
        scale = min(pre["shortest"] / min(image.size), pre["longest"] / max(image.size)) / unit
        size = [max(round(side * scale), 1) * unit for side in image.size]
        return image if list(image.size) == size else image.resize(size, Image.Resampling.BILINEAR)
    rows, columns = pre["img_size"]
    how, kind = Image.Resampling[pre["interpolation"].upper()], pre.get("resize", "crop")
    if (height, width) == (rows, columns):
        return image
    if kind == "squash":
        return image.resize((columns, rows), how)
    if kind == "letterbox":
        scale = min(rows / height, columns / width)
        return image.resize((max(round(width * scale), 1), max(round(height * scale), 1)), how)
    scale = max(rows / height, columns / width) / pre["crop_fraction"]
    image = image.resize((max(round(width * scale), columns), max(round(height * scale), rows)), how)
    left, top = round((image.width - columns) / 2), round((image.height - rows) / 2)
    return image.crop((left, top, left + columns, top + rows))


def answer(run: Run, contract: dict[str, Any], file: str) -> Any:
    """The class and its probability; the classes of several; or a list of (class, score, box in pixels)."""
    pre, names = contract["preprocessing"], contract["class_names"]
    image = read(file, pre)
    small = prepared(image, pre)
    pixels = np.asarray(small).reshape(1, small.height, small.width, pre["channels"])
    if contract["input"]["kind"] == "float":
        mean, std = (np.array(pre[key], np.float32) for key in ("mean", "std"))
        pixels = ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
        if "img_size" in pre:  # the bars of a letterbox have the mean colour, which is 0 by now
            spare = [side - own for side, own in zip(pre["img_size"], pixels.shape[2:], strict=True)]
            pixels = np.pad(pixels, ((0, 0), (0, 0), *((gap // 2, gap - gap // 2) for gap in spare)))
    batch = contract["input"]["batch"] or 1  # a file of a fixed batch gets it full
    found = run(np.repeat(pixels, batch, 0))
    if "boxes_xyxy" in found:
        scale = np.array([image.width / small.width, image.height / small.height] * 2)
        count = int(found["num_detections"][0])
        rows = zip(found["labels"][0][:count], found["scores"][0], found["boxes_xyxy"][0] * scale, strict=False)
        return [(names[label], float(score), [float(side) for side in box]) for label, score, box in rows]
    probabilities = found["probabilities"][0]
    if "calibration" in contract:
        least = contract["calibration"]["thresholds"]
        return [(name, float(p)) for name, p in zip(names, probabilities, strict=True) if p >= least[name]]
    best = int(probabilities.argmax())
    return names[best], float(probabilities[best])


if __name__ == "__main__":
    run, contract = open_model(sys.argv[1])
    for file in sys.argv[2:]:
        print(json.dumps([file, answer(run, contract, file)]))  # noqa: T201
