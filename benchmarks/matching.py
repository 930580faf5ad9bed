"""Matching all layers in one go against transformers' matcher, which goes layer by layer; the assignments are equal.

Run: .venv/bin/python benchmarks/matching.py
"""

import torch
from transformers.loss.loss_for_object_detection import HungarianMatcher

from peer import interleaved, median_ratio, save
from regard.losses import match

# (layers, batch, queries, objects an image)
CASES = [(6, 4, 100, 10), (6, 16, 100, 10), (6, 4, 100, 50), (6, 4, 300, 30)]
CLASSES = 92
TURNS = 31


def main() -> None:
    torch.manual_seed(0)
    peer = HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    results = []
    for layers, batch, queries, objects in CASES:
        logits, boxes = torch.randn(layers, batch, queries, CLASSES), torch.rand(layers, batch, queries, 4) * 0.4 + 0.3
        labels = [torch.randint(CLASSES - 1, (objects,)) for _ in range(batch)]
        targets = [torch.rand(objects, 4) * 0.4 + 0.3 for _ in range(batch)]
        theirs = [{"class_labels": a, "boxes": b} for a, b in zip(labels, targets, strict=True)]

        def ours(logits=logits, boxes=boxes, labels=labels, targets=targets):
            return match(logits, boxes, labels, targets)

        def layer_by_layer(logits=logits, boxes=boxes, theirs=theirs):
            return [peer({"logits": a, "pred_boxes": b}, theirs) for a, b in zip(logits, boxes, strict=True)]

        found, wanted = ours(), layer_by_layer()
        for layer, images in enumerate(wanted):
            for image, (query, target) in enumerate(images):
                torch.testing.assert_close(torch.stack(found.pairs(layer, image)), torch.stack([query, target]))
        seconds = interleaved({"transformers": layer_by_layer, "regard": ours}, repetitions=TURNS)
        ratio = median_ratio(seconds["transformers"], seconds["regard"])
        milliseconds = {name: round(1e3 * sorted(times)[len(times) // 2], 2) for name, times in seconds.items()}
        case = {"layers": layers, "batch": batch, "queries": queries, "objects": objects}
        results.append({**case, "ratio": round(ratio, 2), "median_ms": milliseconds})
        print(f"{layers} layers, batch {batch}, {queries} queries, {objects} objects: {ratio:.1f} times transformers'")
    print(f"saved to {save('matching', results, ('transformers', 'scipy'))}")


if __name__ == "__main__":
    main()
