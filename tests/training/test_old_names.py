"""A run folder whose model has a name that was given up still loads, and goes on."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from regard.models import build, configure
from regard.training import Run, load_classifier

GOLDEN = Path(__file__).parents[1] / "golden_runs" / "classification"
SIZES = {"in_chans": 1, "num_classes": 10, "embed_dim": 8, "depths": [1, 1], "stem": "small", "img_size": 8}


def test_a_run_of_before_loads(tmp_path):
    run = Run(shutil.copytree(GOLDEN, tmp_path / "run"))
    model = build(configure("sasa_baseline_resnet50", SIZES)).eval()
    save_file(model.state_dict(), run.weights_file)
    metadata = json.loads(run.metadata_file.read_text(encoding="utf-8"))
    metadata["model"] = {"name": "resnet50", "config": {**SIZES, "stages": ["conv"]}}
    run.metadata_file.write_text(json.dumps(metadata), encoding="utf-8")
    recipe, end = run.recipe_file.read_text(encoding="utf-8").split("[model]\n")[0], "[data]\n"
    rest = run.recipe_file.read_text(encoding="utf-8").split(end)[1]
    sizes = "".join(f"{key} = {json.dumps(value)}\n" for key, value in SIZES.items() if key != "num_classes")
    run.recipe_file.write_text(f'{recipe}[model]\nname = "resnet50"\n{sizes}\n{end}{rest}', encoding="utf-8")

    classifier = load_classifier(run.path)
    images = torch.rand(3, 1, 8, 8)
    assert classifier.model(images).equal(model(images))
    assert run.recipe().model.name == "sasa_baseline_resnet50"
    assert run.recipe().model.config().depths == (1, 1)
