"""A run folder whose model has an old name still loads; whoever types the old name is told the new one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from regard.compare.candidates import variant
from regard.errors import RegardError
from regard.models import build, configure
from regard.recipes import load_recipe
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


def test_typed_it_is_an_error_with_the_new_name():
    with pytest.raises(RegardError, match=r"unknown model 'resnet26'; type 'sasa_baseline_resnet26'"):
        load_recipe("sasa-digits", ["model.name=resnet26"])
    with pytest.raises(RegardError, match=r"^unknown mixer 'resnet26'; type 'sasa_baseline_resnet26'"):
        variant(load_recipe("sasa-digits"), "resnet26", 0)
