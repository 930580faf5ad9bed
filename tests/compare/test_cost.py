"""What is timed and weighed for the tasks on text."""

import pytest

import regard.compare.cost
from regard.compare.cost import measure, measure_here
from regard.errors import RegardError
from regard.tasks import create_task
from regard.training import Run


@pytest.mark.parametrize("name", ["pairs_run", "recurrent_run", "text_run"])
def test_a_batch_of_the_runs_own_is_measured(name, request, monkeypatch):
    monkeypatch.setattr(regard.compare.cost, "REPETITIONS", 3)
    run = request.getfixturevalue(name)
    before = (run / "model.safetensors").read_bytes()
    found = measure_here(run)
    assert found.batch_size == 7
    assert 0 < found.seconds_per_sample < 10
    assert found.peak_memory_mb >= 0
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["pairs_run", "text_run"])
def test_inference_is_the_forward_of_the_loss_alone(name, request):
    task = create_task(Run.open(request.getfixturevalue(name)).recipe())
    model = task.build_model()
    infer, loss, size = regard.compare.cost._with_a_batch(task, model, regard.compare.cost.torch.device("cpu"))
    shapes = []
    model.register_forward_hook(lambda _, inputs, output: shapes.append((len(inputs[0]), output.requires_grad)))
    infer()
    assert shapes == [(size, False)]
    loss().backward()
    assert shapes == [(size, False), (size, True)]
    assert any(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
def test_the_cost_of_pairs_in_a_process_of_its_own(pairs_run):
    found = measure(pairs_run)
    assert found.batch_size == 7
    assert 0 < found.seconds_per_sample < 10


@pytest.mark.slow
def test_data_that_is_gone_is_one_line(pairs_run, tmp_path):
    copy = tmp_path / "run"
    copy.mkdir()
    for file in ("recipe.toml", "metadata.json", "model.safetensors"):
        (copy / file).write_bytes((pairs_run / file).read_bytes())
    text = (copy / "recipe.toml").read_text(encoding="utf-8")
    (copy / "recipe.toml").write_text(text.replace("words.tsv", "gone.tsv"), encoding="utf-8")
    with pytest.raises(RegardError, match=r"measuring its cost failed: .*no such file") as caught:
        measure(copy)
    assert "\n" not in str(caught.value)
