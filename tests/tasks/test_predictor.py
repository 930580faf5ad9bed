"""One input, one answer; many, a list. The same image as a path, a Pillow image, an array or a tensor."""

import io
import math
import tempfile
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from regard.data import BadImage, ByteTokenizer, DetectionPreprocessing, Preprocessing
from regard.errors import RegardError
from regard.models import DETROutput, LanguageModel, LanguageModelConfig, build, configure
from regard.tasks import Classifier, Detector, Predictor, Translator, Writer


class Several:
    """Inputs that the run-time type checker does not look into, as it does into a list."""

    def __init__(self, *inputs: object) -> None:
        self.inputs = inputs

    def __iter__(self):
        return iter(self.inputs)


class Linear(nn.Module):
    """Every pixel counts, so that other pixels give other logits."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels * 24 * 24, 3))

    def forward(self, images):
        return images.flatten(1) @ self.weight / 10


class Boxes(Linear):
    """As a detector: three queries, with scores and boxes that depend on every pixel."""

    def forward(self, images, mask):
        out = super().forward(nn.functional.interpolate(images, (24, 24)))
        logits = torch.stack([out, out.flip(1), out.roll(1, 1)], 1)
        return DETROutput(logits[None], (logits[..., [0, 1, 2, 0]] / 3).sigmoid()[None])


def classifier(channels: int = 3) -> Classifier:
    half = (0.5,) * channels
    return Classifier(
        Linear(channels), ["ant", "bee", "cat"], Preprocessing((24, 24), channels, half, half, "bilinear", 0.9)
    )


def detector(channels: int = 3) -> Detector:
    half = (0.5,) * channels
    return Detector(Boxes(channels), ("ant", "bee"), (1, 2), DetectionPreprocessing(24, 40, channels, half, half))


def ask(one, images, **options):
    """All three queries of a detector, whatever their scores."""
    return one(images, **options, **({"threshold": 0.0} if isinstance(one, Detector) else {}))


def content(answer):
    """What was predicted, without the image's name."""
    if hasattr(answer, "probabilities"):
        return answer.class_names, answer.probabilities
    return answer.image_size, answer.boxes_xyxy.tolist(), answer.labels.tolist(), answer.scores.tolist()


@pytest.fixture
def stored(tmp_path: Path):
    """stored(array) -> the path of a PNG that holds it."""

    def save(array: np.ndarray) -> Path:
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
        Image.fromarray(array).save(file)
        return file

    return save


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("make", [classifier, detector])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_image_as_path_picture_array_and_tensor(make, channels, stored):
    array = noise(31, 47, 3) if channels == 3 else noise(31, 47)
    file, tensor = stored(array), torch.from_numpy(np.atleast_3d(array)).permute(2, 0, 1)
    one = make(channels)
    kinds = [file, str(file), Image.open(file), array, tensor]
    alone = [ask(one, image) for image in kinds]
    assert content(alone[0]) == content(alone[1]) == content(alone[2]) == content(alone[3]) == content(alone[4])
    assert [answer.name for answer in alone] == [str(file), str(file), "image", "image", "image"]
    together = ask(one, kinds)
    assert [answer.name for answer in together] == [str(file), str(file), "images[2]", "images[3]", "images[4]"]
    assert len({str(content(answer)) for answer in together}) == 1
    prepared = [one.prepare(image) for image in kinds]
    assert all(torch.equal(prepared[0], other) for other in prepared)


@pytest.mark.parametrize("make", [classifier, detector])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(31, 47), (31, 47, 1), (31, 47, 3), (31, 47, 4)])
def test_an_array_is_brought_to_the_models_channels_as_its_file_is(make, channels, shape, stored):
    """Grey is repeated, colours become grey, transparency is laid over white."""
    array = noise(*shape)
    file = stored(array[..., 0] if shape[2:] == (1,) else array)
    one = make(channels)
    assert content(ask(one, array)) == content(ask(one, file))
    assert content(ask(one, array[::-1, ::-1])) != content(ask(one, file))


@pytest.mark.parametrize("make", [classifier, detector])
def test_a_list_a_tuple_and_a_generator_are_many(make):
    one, images = make(), [noise(30 + number, 40, 3) for number in range(5)]
    wanted = [content(ask(one, image)) for image in images]
    for many in (images, tuple(images), (image for image in images), map(np.asarray, images)):
        found = ask(one, many, batch_size=1)
        assert isinstance(found, list)
        assert [content(answer) for answer in found] == wanted
    assert one.predict(images[:1])[0].name == "images[0]"
    assert one([]) == one(()) == one(iter(())) == []


def test_a_generator_is_read_one_batch_at_a_time():
    read = []

    def images():
        for number in range(5):
            read.append(number)
            yield noise(24, 24, 3)

    class Watch(Linear):
        def forward(self, batch):
            seen.append((len(batch), len(read)))
            return super().forward(batch)

    one, seen = classifier(), []
    one.model = Watch(3)
    assert len(one(images(), batch_size=2)) == 5
    assert seen == [(2, 2), (2, 4), (1, 5)]


@pytest.mark.parametrize("make", [classifier, detector])
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (noise(31, 47, 3) / 255, r"^image: an array must be uint8 \(height, width\) or .*, got float64 \(31, 47, 3\)$"),
        (noise(31, 47) > 9, "an array must be uint8 .*, got bool"),
        (noise(31, 47, 2), r"an array must be uint8 .* 1, 3 or 4 channels\), got uint8 \(31, 47, 2\)"),
        (noise(3, 31, 47), r"an array must be uint8 .*, got uint8 \(3, 31, 47\)"),
        (noise(2, 31, 47, 3), r"an array must be .*, got uint8 \(2, 31, 47, 3\); for a batch, give list\(batch\)$"),
        (np.zeros((0, 5), np.uint8), r"^image: has no pixels: \(0, 5\)$"),
        (torch.rand(3, 5, 7), r"^image: a tensor must be uint8 \(3, height, width\), got torch.float32 \(3, 5, 7\)$"),
        (torch.zeros(1, 5, 7, dtype=torch.uint8), r"a tensor must be uint8 \(3, .* got torch.uint8 \(1, 5, 7\)"),
        (torch.zeros(2, 3, 5, 7, dtype=torch.uint8), r"a tensor .* \(2, 3, 5, 7\); for a batch, give list\(batch\)$"),
        (torch.zeros(3, 0, 7, dtype=torch.uint8), r"^image: has no pixels: \(3, 0, 7\)$"),
        (
            {"image": "a.png"},
            r"^predict: give a path, a Pillow image, a uint8 array .*, or a list of them, not a dict$",
        ),
        (Several([noise(5, 7)]), r"^images\[0\]: give a path, a Pillow image, a uint8 array .*, not a list$"),
        (
            Several(noise(5, 7), None),
            r"^images\[1\]: give a path, .* a uint8 tensor \(channels, height, width\), not a NoneType$",
        ),
        ([noise(5, 7), noise(5, 7) / 2], r"^images\[1\]: an array must be uint8"),
    ],
)
def test_anything_else_is_one_line_that_says_what_is_allowed(make, image, message):
    with pytest.raises(RegardError, match=message) as caught:
        make().predict(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_has_at_least_one_input(size):
    for one, inputs in ((classifier(), [noise(5, 7)]), (detector(), [noise(5, 7)]), (translator(), ["vier"])):
        with pytest.raises(RegardError, match=rf"^batch_size is {size}; it must be at least 1$"):
            one(inputs, batch_size=size)


@pytest.fixture
def as_users_have_it():
    """Without the tests' checks of types: what a user gets who gives a wrong one. The next test sets them anew."""
    jaxtyping.config.update("jaxtyping_disable", True)


@pytest.mark.parametrize("wrong", [True, 1.5, "8", None, [2]])
def test_a_batch_size_is_a_number(wrong, as_users_have_it):
    for one, inputs in (
        *((make(), given) for make in (classifier, detector) for given in (noise(5, 7), [noise(5, 7)])),
        (translator(), ["vier"]),
    ):
        with pytest.raises(RegardError, match=r"^batch_size is .*; it must be an integer of at least 1$"):
            one(inputs, batch_size=wrong)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan"), "0.5", None, True])
def test_a_threshold_is_a_fraction(wrong, as_users_have_it):
    for image in (noise(5, 7), [noise(5, 7)]):
        with pytest.raises(RegardError, match=r"^threshold is .*; it must be a number between 0 and 1$"):
            detector()(image, threshold=wrong)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"temperature": "hot"}, "temperature is 'hot'; it must be a number"),
        ({"temperature": float("nan")}, "temperature must be above 0 and finite, got nan"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens is 2.5; it must be an integer"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": "all"}, "top_p is 'all'; it must be a number"),
        ({"top_p": 2}, "top_p must be above 0 and at most 1"),
    ],
)
def test_what_a_writer_takes(given, told, as_users_have_it):
    with pytest.raises(RegardError, match=told):
        writer()("The", **given)


@pytest.mark.parametrize("given", [{"beam_size": 0}, {"beam_size": True}, {"beam_size": 2, "length_penalty": "long"}])
def test_what_a_translator_takes(given, as_users_have_it):
    with pytest.raises(RegardError, match=f"{list(given)[-1]} is .*; it must be"):
        translator()("vier", **given)


@pytest.mark.parametrize("wrong", [3, None, b"The", 2.5])
def test_a_text_is_a_str(wrong, as_users_have_it):
    for call in (writer(), translator(), writer().generate):
        with pytest.raises(RegardError, match=r"must be a str|give a str"):
            call(wrong)


@pytest.mark.parametrize("make", [classifier, detector])
def test_a_file_may_be_open_or_its_bytes(make, stored, as_users_have_it):
    file = stored(noise(31, 47, 3))
    data, one = file.read_bytes(), make()
    written = io.BytesIO()
    written.write(data)
    pipe = io.BufferedReader(Unseekable(data))
    with file.open("rb") as opened, tempfile.NamedTemporaryFile() as other:
        other.write(data)
        kinds = [opened, io.BytesIO(data), written, other, pipe, data, bytearray(data), memoryview(data), Like(file)]
        wanted = content(ask(one, file))
        for kind in kinds[:-5]:
            assert content(ask(one, kind)) == wanted
        # In a batch of the same size: some processors round a batch in another way than one image.
        together = ask(one, [file] * len(kinds))
        assert [content(answer) for answer in ask(one, kinds)] == [content(answer) for answer in together]
        assert torch.equal(one.prepare(data), one.prepare(file))
    assert one(data).name == "image"
    assert one([data])[0].name == "images[0]"


class Unseekable(io.RawIOBase):
    def __init__(self, data: bytes) -> None:
        self.rest = data

    def readable(self):
        return True

    def readinto(self, buffer):
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size


class Like:
    """A path of another library."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.mark.parametrize("make", [classifier, detector])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (b"", "^image: "),
        (b"no image", "^image: not an image"),
        (io.BytesIO(b"\x89PNG\r\n"), "^image: "),
        (io.StringIO("text"), "^image: the file gives text; open it with mode 'rb'$"),
        (noise(3, 31, 47), r"give image\.transpose\(1, 2, 0\)$"),
        (torch.zeros(31, 47, 3, dtype=torch.uint8), r"give image\.permute\(2, 0, 1\)$"),
        (torch.zeros(3, 5, 7, dtype=torch.uint8, device="meta"), "^image: a tensor must hold its values itself"),
        (torch.zeros(3, 5, 7, dtype=torch.uint8).to_sparse(), "^image: a tensor must hold its values itself"),
        (noise(31, 47).astype(object), "an array must be uint8 .*, got object"),
        (np.uint8(3), "^predict: give a path"),
        (np.array(3, np.uint8), "an array must be uint8"),
        (3, "^predict: give a path"),
        (None, "^predict: give a path"),
    ],
)
def test_what_is_no_image_after_all(make, given, told, as_users_have_it):
    with pytest.raises(RegardError, match=told) as caught:
        make()(given)
    assert "\n" not in str(caught.value)


def test_a_closed_file_and_one_cut_short(stored, as_users_have_it):
    file = stored(noise(31, 47, 3))
    with file.open("rb") as closed:
        pass
    cut = io.BytesIO(file.read_bytes()[:400])
    for given in (closed, Image.open(cut), cut, cut.getvalue()):
        with pytest.raises(RegardError, match=r"^image: "):
            classifier()(given)


@pytest.mark.parametrize("make", [classifier, detector])
def test_a_path_alone_is_one_file(make, tmp_path):
    with pytest.raises(BadImage, match=r"none\.png: No such file"):
        make()(str(tmp_path / "none.png"))


def translator() -> Translator:
    sizes = {"src_vocab": 259, "tgt_vocab": 259, "embed_dim": 16, "num_heads": 2, "depth": 1, "decoder_depth": 1}
    return Translator(build(configure("transformer_mini", sizes)), ByteTokenizer(), 5)


def writer() -> Writer:
    return Writer(
        LanguageModel(LanguageModelConfig(vocab_size=259, context=12, embed_dim=16, num_heads=2, depth=1)),
        ByteTokenizer(),
    )


def test_one_text_has_one_translation_and_many_a_list():
    one = translator()
    assert one("vier").source == "vier"
    assert one("vier") == one.predict("vier") == one(["vier"])[0]
    texts = ["vier", "acht", "x"]
    for many in (texts, tuple(texts), iter(texts)):
        assert [answer.source for answer in one(many, beam_size=2)] == texts
    assert one([]) == one(iter(())) == []
    for wrong, message in [
        ({"a": "b"}, "^predict: give a str, or a list of them, not a dict$"),
        (Several("a", None), "^predict: text 2 of 2 must be a str, not a NoneType$"),
        ("", "^predict: text 1 of 1 is empty$"),
    ]:
        with pytest.raises(RegardError, match=message):
            one.predict(wrong)


def test_a_writer_is_called_with_one_prompt_or_many():
    one = writer()
    assert one("The", seed=7) == one(["The"], seed=7)[0] == one.generate("The", seed=7)
    assert one(["The", "A"], seed=7, max_new_tokens=4) == [
        one.generate(prompt, seed=7, max_new_tokens=4) for prompt in ("The", "A")
    ]
    assert one([]) == []
    with pytest.raises(TypeError, match="temprature"):
        one("The", temprature=0)
    with pytest.raises(RegardError, match=r"^prompt: give a str, or a list of them, not a dict$"):
        one({})
    with pytest.raises(RegardError, match=r"^prompt 2: must be a str, not a NoneType$"):
        one(Several("The", None))


@pytest.mark.parametrize("make", [classifier, detector, translator, writer])
def test_every_predictor_moves_and_returns_itself(make):
    one = make()
    assert isinstance(one, Predictor)
    assert one.device == torch.device("cpu")
    assert one.to("meta") is one
    assert one.device == torch.device("meta")
    assert not one.model.training


def test_a_prediction_shows_itself_in_a_notebook():
    from regard.tasks import Prediction

    shown = Prediction("a<b>.png", ("x&y", *"abcdef"), (0.625, *[0.0625] * 6))._repr_html_()
    assert "<caption>a&lt;b&gt;.png</caption>" in shown
    assert "<td>x&amp;y</td><td>62.5%</td>" in shown
    assert shown.count("<tr>") == 5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_said_by_every_predictor(bad, as_users_have_it):
    """Of weights that are finite too, if they are too large; no class, no text and no figure is made of them."""
    for one in (classifier(), detector()):
        one.model.weight.data.fill_(bad)
        one.source = "runs/a"
        with pytest.raises(RegardError, match=r"^runs/a: images\[0\]: the model answers with numbers that are no"):
            one([noise(24, 24)])
    for one, call in ((translator(), "vier"), (writer(), "The")):
        one.source = "runs/a"
        for parameter in one.model.parameters():
            parameter.data.fill_(bad)
        with pytest.raises(RegardError, match=r"^runs/a: decoding: the model answers with numbers that are not finite"):
            one(call)
    evaluation = one.evaluate("The text")
    assert evaluation.not_finite == ("the text",)
    assert not math.isfinite(evaluation.metrics()["loss"])
