"""A classifier in use: on files, pictures, tensors and data sets."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from regard.data import BadImage, Decoding, InMemoryImages, Preprocessing
from regard.errors import RegardError
from regard.tasks import Classifier, Prediction
from regard.tasks.image_predictor import most_images


class Brightness(nn.Module):
    """Logits that can be worked out by hand: dark is -mean, light is +mean."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        mean = images.mean((1, 2, 3)) * self.scale
        return torch.stack([-mean, mean], 1)


@pytest.fixture
def classifier():
    pre = Preprocessing((8, 8), 1, (0.5,), (0.25,), "bilinear", 1.0)
    return Classifier(Brightness(), ["dark", "light"], pre)


@pytest.fixture
def grey(tmp_path: Path):
    """grey(name, level) -> a file of one grey level."""

    def make(name: str, level: int) -> Path:
        Image.new("L", (12, 10), level).save(tmp_path / name)
        return tmp_path / name

    return make


def probability(level: int) -> float:
    """That a picture of this grey level is light."""
    return torch.sigmoid(torch.tensor(2 * 2.0 * (level / 255 - 0.5) / 0.25)).item()


def test_files_pictures_and_tensors_are_answered_alike(classifier, grey):
    file = grey("a.png", 150)
    answers = classifier.predict([str(file), file, Image.open(file), torch.full((1, 10, 12), 150, dtype=torch.uint8)])
    assert [answer.name for answer in answers] == [str(file), str(file), "images[2]", "images[3]"]
    for answer in answers:
        assert answer.class_names == ("light", "dark")
        assert answer.label == "light"
        torch.testing.assert_close(answer.score, probability(150), rtol=1e-5, atol=0)
        torch.testing.assert_close(sum(answer.probabilities), 1.0, rtol=1e-6, atol=0)
    assert answers[0].top(1) == [("light", answers[0].score)]
    assert [name for name, _ in answers[0].top(7)] == ["light", "dark"]


def test_the_model_is_in_evaluation_mode_and_leaves_no_graph(classifier, grey):
    assert not classifier.model.training
    classifier.predict([grey("a.png", 9)])
    assert classifier.model.scale.grad is None


def test_many_files_go_in_batches_and_keep_their_order(classifier, grey):
    files = [grey(f"{level}.png", level) for level in range(0, 250, 25)]
    scores = [dict(zip(a.class_names, a.probabilities, strict=True))["light"] for a in classifier.predict(files, 4)]
    torch.testing.assert_close(scores, [probability(level) for level in range(0, 250, 25)], rtol=1e-4, atol=1e-6)
    assert classifier.model.batches == [4, 4, 2]


def test_a_bad_file_among_good_ones(classifier, grey, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    files = [grey("a.png", 10), bad, grey("b.png", 240), tmp_path / "none.png", grey("c.png", 20)]
    answers = list(classifier.predict_files(files, batch_size=2))
    assert [type(answer) for answer in answers] == [Prediction, BadImage, Prediction, BadImage, Prediction]
    assert [a.label for a in answers if isinstance(a, Prediction)] == ["dark", "light", "dark"]
    assert [a.name for a in answers if isinstance(a, Prediction)] == [str(files[0]), str(files[2]), str(files[4])]
    assert [answers[1].path, answers[3].path] == [str(bad), str(files[3])]
    with pytest.raises(BadImage, match=r"bad\.png: not an image"):
        classifier.predict(files)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(1, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(8, 8, dtype=torch.uint8)]
)
def test_a_tensor_of_another_kind_is_an_error(classifier, tensor):
    with pytest.raises(RegardError, match=r"uint8 \(1, height, width\)"):
        classifier.predict([tensor])


def test_a_data_set_is_evaluated_by_the_names_of_its_classes(classifier):
    levels = [0, 10, 250, 240, 5]
    images = torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    # In this set 0 means light and 1 dark, the other way round than in the model; the last label is wrong.
    source = InMemoryImages(images, (1, 1, 0, 0, 0), "set")
    found = classifier.evaluate(source, batch_size=2, class_names=["light", "dark"])
    assert found.labels.tolist() == [0, 0, 1, 1, 1]
    assert found.predicted.tolist() == [0, 0, 1, 1, 0]
    assert found.class_names == ("dark", "light")
    assert found.names == tuple(f"set[{i}]" for i in range(5))
    assert found.metrics()["accuracy"] == 0.8

    shards = [classifier.evaluate(source, rank=rank, world_size=2).names for rank in range(2)]
    assert shards == [("set[0]", "set[2]", "set[4]"), ("set[1]", "set[3]")]
    with pytest.raises(RegardError, match="does not know: grey, red; it knows: dark, light"):
        classifier.evaluate(source, class_names=["dark", "grey", "red"])


def test_skipped_images_are_reported(classifier, tmp_path):
    from regard.data.images.folder import FolderImages

    Image.effect_noise((40, 40), 80).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:200])
    source = FolderImages((tmp_path / "good.png", tmp_path / "bad.png"), (1, 1), 1, folder_bytes=0)
    found = classifier.evaluate(source, batch_size=1, on_bad_image="skip")
    assert found.names == (str(tmp_path / "good.png"),)
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith(str(tmp_path / "bad.png"))
    with pytest.raises(BadImage, match=r"bad\.png"):
        classifier.evaluate(source)


def test_files_are_decoded_as_in_training(grey, tmp_path):
    pre = Preprocessing((8, 8), 1, (0.5,), (0.25,), "bilinear", 1.0, Decoding(1.0, 4095))
    classifier = Classifier(Brightness(), ["dark", "light"], pre)
    Image.fromarray(np.full((10, 12), 150 * 16, np.uint16)).save(tmp_path / "12-bits.png")
    level = round(150 * 16 * 255 / 4095)
    for image in (tmp_path / "12-bits.png", Image.open(tmp_path / "12-bits.png")):
        answer = classifier(image)
        assert answer.label == "light"
        assert answer.score == pytest.approx(probability(level), rel=1e-5)
    Image.new("L", (1001, 1000), 150).save(tmp_path / "large.png")
    with pytest.raises(BadImage, match="up to 1 megapixels are read"):
        classifier(tmp_path / "large.png")
    classifier.max_megapixels = 2
    assert classifier(tmp_path / "large.png").label == "light"


def test_classes_are_known_in_every_form_of_unicode():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    pre = Preprocessing((8, 8), 1, (0.5,), (0.25,), "bilinear", 1.0)
    classifier = Classifier(Brightness(), [composed, "tram"], pre)
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    evaluation = classifier.evaluate(InMemoryImages(images, (0, 1), "x"), class_names=["tram", decomposed])
    assert evaluation.labels.tolist() == [1, 0]
    with pytest.raises(RegardError, match=r"it knows: café, tram; 'Tram' and 'tram' differ only by case or spaces"):
        classifier.evaluate(InMemoryImages(images, (0, 1), "x"), class_names=["Tram", decomposed])
    both = Classifier(Brightness(), [composed, decomposed], pre)  # a run of before that has them apart
    assert both.evaluate(InMemoryImages(images, (0, 1), "x")).labels.tolist() == [0, 1]


def test_an_evaluation_takes_fewer_images_at_once_where_they_are_large():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [most_images(side**2, cpu) for side in (8, 64, 224, 518, 2000)] == [256, 256, 20, 3, 1]
    assert [most_images(side**2, gpu) for side in (8, 224, 518)] == [256, 167, 31]
