"""A detector that learned to find a planted square: the relevance of its box lies on the square."""

import pytest
import torch
from tests_of_explain import pooled_detr

from regard.explain.object_queries import explain_box
from regard.losses import SetPredictionLoss, xyxy_of
from regard.losses.boxes import iou

SIDE, TOKEN = 40, 4


def scenes(count, generator):
    """Noise with one square in one of three colours; its sides are two or three tokens, and so are its place's."""
    images = 0.5 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    labels = torch.randint(0, 3, (count,), generator=generator)
    tokens = torch.randint(2, 4, (count,), generator=generator)
    boxes = torch.empty(count, 4)
    for number, size in enumerate((TOKEN * tokens).tolist()):
        x, y = (TOKEN * torch.randint(0, (SIDE - size) // TOKEN + 1, (2,), generator=generator)).tolist()
        images[number, :, y : y + size, x : x + size] *= 0.3
        images[number, labels[number], y : y + size, x : x + size] += 3
        boxes[number] = torch.tensor([x + size / 2, y + size / 2, size, size]) / SIDE
    return images, labels, boxes


def trained(steps, generator):
    model = pooled_detr(norm="pre", embed_dim=32, num_heads=4, depth=1, num_queries=1, dropout=0.0, decoder_depth=2)
    optimizer, criterion = torch.optim.AdamW(model.train().parameters(), lr=5e-3), SetPredictionLoss(3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=max(steps, 1), pct_start=0.1)
    for _ in range(steps):
        images, labels, boxes = scenes(32, generator)
        loss = criterion(*model(images), list(labels[:, None]), list(boxes[:, None])).total
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
    return model.eval()


def looked_at(model, images, labels, boxes):
    """For each image: the map's mass in the object's box beside the box's area, whether the class is right, the IoU."""
    found = []
    for image, label, box in zip(images, labels, boxes, strict=True):
        seen = torch.zeros(image.shape, dtype=torch.uint8)
        one = explain_box(model, image, seen, class_names=("0", "1", "2"), method="relevance")
        left, upper, right, lower = (xyxy_of(box) * SIDE / TOKEN).round().int().tolist()
        share = one.map[upper:lower, left:right].sum() / one.map.sum()
        overlap = iou(torch.tensor([one.box_xyxy]), xyxy_of(box)[None] * SIDE)
        found.append((share / box[2:].prod(), one.target.startswith(str(int(label))), overlap))
    return [torch.tensor(column, dtype=torch.float32) for column in zip(*found, strict=True)]


@pytest.mark.slow
def test_relevance_lies_on_the_object_that_is_found():
    generator = torch.Generator().manual_seed(1)
    model, shown = trained(200, generator), scenes(20, generator)
    times, right, overlap = looked_at(model, *shown)
    assert right.mean() > 0.9
    assert overlap.mean() > 0.3
    assert times.median() >= 5
    assert (times >= 3).float().mean() >= 0.9
    # Without training bright tokens stand out as well, in some colours; in most scenes that is not enough.
    untrained, *_ = looked_at(trained(0, generator), *shown)
    assert (untrained >= 3).float().mean() < 0.6
