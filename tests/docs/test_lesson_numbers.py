"""The numbers of the lesson's JavaScript are those of the package: models, maps, matching, features, costs."""

import base64
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
ROOM = ROOT / "docs" / "gen" / "lesson"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node")
WHOLE = ["attention", "local", "performer"]


@pytest.fixture(scope="module")
def scripts():
    """Reads docs/gen/NAME.py as a module."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs" / "gen"))
        yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(ROOT / "docs" / "gen")):
            del sys.modules[name]


@pytest.fixture
def javascript(tmp_path):
    """javascript(code, given): the code's `answer`. It was handed `given`, and may `load` modules."""

    def run(code, given):
        (tmp_path / "given.json").write_text(json.dumps(given), encoding="utf-8")
        code = f"""
            import {{ readFileSync, writeFileSync }} from "node:fs";
            const given = JSON.parse(readFileSync("given.json", "utf-8"));
            const load = (name) => import({json.dumps(ROOM.as_uri())} + "/" + name);
            {code}
            const plain = (_, value) => ArrayBuffer.isView(value) ? Array.from(value) : value;
            writeFileSync("answer.json", JSON.stringify(answer, plain));
        """
        (tmp_path / "check.mjs").write_text(code, encoding="utf-8")
        done = subprocess.run([NODE, "check.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "answer.json").read_text(encoding="utf-8"))

    return run


@pytest.fixture(scope="module")
def models(scripts):
    return scripts("lesson_models").load_models()


@pytest.fixture(scope="module")
def digits(scripts):
    images, _ = scripts("lesson_models").held_out()
    return images[:6]


def carried(scripts, small):
    page = scripts("lesson_page")
    return {"about": small.about(), "bytes": base64.b64encode(page.halves(small)).decode()}


def pixels(images):
    return (images.double() / 255).flatten(1).tolist()


@pytest.mark.parametrize("mixer", WHOLE)
def test_logits_are_those_of_pytorch(mixer, scripts, models, digits, javascript):
    small = models[mixer]
    found = javascript(
        """
        const { modelOf } = await load("load.js"), { forward } = await load("vit.js");
        const model = modelOf(given.about, Buffer.from(given.bytes, "base64"));
        const answer = given.images.map((pixels) => forward(model, pixels).logits);
        """,
        {**carried(scripts, small), "images": pixels(digits)},
    )
    with torch.no_grad():
        expected = small.vit()(small.prepared(digits))
    assert expected.std() > 0.5
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("mixer", WHOLE)
def test_rows_relevance_and_rollout_are_those_of_python(mixer, scripts, models, digits, javascript):
    from regard.explain.maps import head_rows, relevance, rollout, traced
    from regard.explain.sites import sites

    small = models[mixer]
    found = javascript(
        """
        const { modelOf } = await load("load.js"), vit = await load("vit.js");
        const model = modelOf(given.about, Buffer.from(given.bytes, "base64")), query = vit.headQuery(model);
        const answer = given.images.map((pixels) => {
          const trace = vit.forward(model, pixels);
          return {
            relevance: vit.relevance(model, trace, 3),
            rollout: vit.rollout(model, trace, query, 0, model.depth),
            heads: [0, 1, 2, 3].map((head) => vit.rowOf(model, trace, query, 2, head)),
            mean: vit.rowOf(model, trace, query, 2, -1),
            token: vit.rowOf(model, trace, vit.only(trace.tokens, 20), 1, 3),
          };
        });
        """,
        {**carried(scripts, small), "images": pixels(digits)},
    )
    model, images = small.vit().double(), small.prepared(digits).double()
    with torch.no_grad():
        trace = traced(model, images, sites(model))
        of_heads = head_rows(model, trace, 2)[0]
        expected = {
            "relevance": relevance(model, images, lambda output: output[:, 3])[0],
            "rollout": rollout(model, images)[0],
            "heads": of_heads,
            "mean": of_heads.mean(1),
            "token": model.blocks[1].mixer.mixing_matrix(trace.layers[1].x, grid=model.grid)[:, 3, 20],
        }
    for name, numbers in expected.items():
        mine = torch.tensor([one[name] for one in found], dtype=torch.float64)
        torch.testing.assert_close(
            mine, numbers.double(), atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_retrieval_is_attention_with_a_temperature(javascript):
    from regard.ops import attention, attention_weights

    query, temperature = [0.3, -0.7], 0.2
    found = javascript(
        """
        const { FILMS, retrieve } = await load("retrieval.js");
        const keys = FILMS.map((film) => [film[1], film[2]]), values = FILMS.map((film) => film[3]);
        const answer = { keys, values, ...retrieve(given.query, keys, values, given.temperature) };
        """,
        {"query": query, "temperature": temperature},
    )
    q, k, v = (
        torch.tensor(numbers, dtype=torch.float64).reshape(1, 1, -1, size)
        for numbers, size in ((query, 2), (found["keys"], 2), (found["values"], 1))
    )
    weights = attention_weights(q, k, scale=1 / temperature).flatten()
    torch.testing.assert_close(torch.tensor(found["weights"], dtype=torch.float64), weights)
    assert found["value"] == pytest.approx(attention(q, k, v, scale=1 / temperature).item())


def test_operations_and_bytes_are_those_of_the_package(javascript):
    from regard.layers import Grid
    from regard.mixers import create_mixer

    sides = [4, 14, 37, 64]
    found = javascript(
        """
        const { matrixBytes, OPERATIONS } = await load("costs.js");
        const counts = Object.entries(OPERATIONS).map(([name, count]) => [name, given.sides.map(count)]);
        const answer = { counts: Object.fromEntries(counts), bytes: given.sides.map(matrixBytes) };
        """,
        {"sides": sides},
    )
    assert set(found["counts"]) == {"attention", "local", "performer", "fourier", "mlp"}
    for name, counts in found["counts"].items():
        for side, count in zip(sides, counts, strict=True):
            grid = Grid(side, side)
            with torch.device("meta"):
                mixer = create_mixer(name, 768, num_heads=12, grid=grid)
            assert count == mixer.flops(grid), (name, side)
    matrices = [torch.empty(12, side**2, side**2, device="meta") for side in sides]
    assert found["bytes"] == [one.numel() * one.element_size() for one in matrices]


def test_random_features_are_those_of_the_package(javascript):
    from regard.ops import favor_features

    torch.manual_seed(3)
    x, projection = torch.randn(7, 5, dtype=torch.float64), torch.randn(11, 5, dtype=torch.float64)
    found = javascript(
        """
        const { favorFeatures } = await load("favor.js");
        const [x, projection] = [given.x, given.projection].map((one) => Float64Array.from(one.flat()));
        const answer = [true, false].map((isQuery) => favorFeatures(x, projection, 5, isQuery));
        """,
        {"x": x.tolist(), "projection": projection.tolist()},
    )
    for is_query, numbers in zip((True, False), found, strict=True):
        expected = favor_features(x[None, None], projection, is_query=is_query)[0, 0]
        torch.testing.assert_close(torch.tensor(numbers, dtype=torch.float64).reshape(7, 11), expected)


def test_random_directions_are_orthogonal_in_blocks_and_as_long_as_gaussian_ones(javascript):
    rows = javascript(
        """
        const { orthogonalProjection } = await load("favor.js");
        const answer = [orthogonalProjection(1024, 12, 1), orthogonalProjection(1024, 12, 2)];
        """,
        {},
    )
    first, second = (torch.tensor(one, dtype=torch.float64).reshape(1024, 12) for one in rows)
    for block in first.split(12):
        products = block @ block.T
        torch.testing.assert_close(products, products.diag().diag(), atol=1e-9, rtol=0)
    assert first.square().sum(1).mean().item() == pytest.approx(12, rel=0.05)
    assert first.mean().abs() < 0.05
    assert not torch.allclose(first, second)


@pytest.mark.parametrize("count", [8, 64])
def test_the_error_of_random_features_is_that_of_the_package(count, scripts, models, digits, javascript):
    from regard.ops import attention_weights, favor_weights

    small = models["attention"]
    found = javascript(
        """
        const { modelOf } = await load("load.js"), { forward } = await load("vit.js");
        const { errors, estimate } = await load("features.js"), { orthogonalProjection } = await load("favor.js");
        const model = modelOf(given.about, Buffer.from(given.bytes, "base64"));
        const { qkv, matrix } = forward(model, given.images[1]).layers[2];
        const projection = orthogonalProjection(given.count, model.dim / model.heads, 5);
        const answer = { projection, ...errors(model, qkv, matrix, estimate(model, qkv, projection)) };
        """,
        {**carried(scripts, small), "images": pixels(digits), "count": count},
    )
    model = small.vit().double()
    with torch.no_grad():
        x = model.intermediates(small.prepared(digits[1:2]).double(), ["blocks.2.mixer_input"])["blocks.2.mixer_input"]
        q, k, v = model.blocks[2].mixer.heads(x)
        exact = attention_weights(q, k) @ v
        projection = torch.tensor(found["projection"], dtype=torch.float64).reshape(count, -1)
        estimate = favor_weights(q, k, projection=projection) @ v
        mean = v.mean(2, keepdim=True).expand_as(v)
    assert found["features"] == pytest.approx(((estimate - exact).norm() / exact.norm()).item(), rel=1e-5)
    assert found["mean"] == pytest.approx(((mean - exact).norm() / exact.norm()).item(), rel=1e-5)


@pytest.mark.parametrize("mixer", ["fourier", "mlp", "attention", "local"])
def test_how_far_a_change_spreads(mixer, scripts, models, digits, javascript):
    from regard.mixers import Fourier

    after = digits[:1].clone()
    after[0, 0, 2, 5] = 255 - after[0, 0, 2, 5]
    found = javascript(
        """
        const { modelOf } = await load("load.js"), { spread } = await load("token_mixing.js");
        const models = {};
        for (const one of given.models) models[one.about.mixer] = modelOf(one.about, Buffer.from(one.bytes, "base64"));
        const answer = spread(models, given.mixer, ...given.images);
        """,
        {
            "models": [carried(scripts, small) for small in models.values()],
            "mixer": mixer,
            "images": pixels(torch.cat([digits[:1], after])),
        },
    )
    small = models["mlp" if mixer == "fourier" else mixer]
    model = small.vit().double()
    own = Fourier(model.config.embed_dim, ortho=True) if mixer == "fourier" else model.blocks[0].mixer
    with torch.no_grad():
        images = small.prepared(torch.cat([digits[:1], after])).double()
        x = model.intermediates(images, ["blocks.0.mixer_input"])["blocks.0.mixer_input"]
        before, then = own(x, grid=model.grid)
    expected = (then - before).norm(dim=1)[model.grid.prefix :]
    assert expected.max() > 0.1
    torch.testing.assert_close(torch.tensor(found, dtype=torch.float64), expected, atol=1e-5, rtol=0)


def test_costs_and_assignment_are_those_of_the_package(javascript):
    from scipy.optimize import linear_sum_assignment

    from regard.losses.matching import MatchingCosts, cost_matrix

    generator = torch.Generator().manual_seed(1)
    cases = []
    for objects in (1, 2, 3, 5, 8):
        for queries in (objects, objects + 4):
            centres, sizes = torch.rand(2, objects + queries, 2, generator=generator).unbind(0)
            boxes = torch.cat([centres, 0.05 + 0.5 * sizes], dim=1).double()
            logits = 2 * torch.randn(queries, 4, generator=generator).double()
            labels = torch.randint(0, 3, (objects,), generator=generator)
            cases.append((boxes[:objects], labels, boxes[objects:], logits))
    weights = {"label": 1.5, "l1": 5.0, "giou": 2.0}
    found = javascript(
        """
        const { assignment, costMatrix, greedy, total } = await load("matching.js");
        const answer = given.cases.map(({ objects, predictions }) => {
          const cost = costMatrix(objects, predictions, given.weights);
          const chosen = assignment(cost), least = total(cost, chosen);
          return { cost, chosen, least, greedy: total(cost, greedy(cost)) };
        });
        """,
        {
            "weights": weights,
            "cases": [
                {
                    "objects": [
                        {"box": box, "label": label} for box, label in zip(boxes.tolist(), labels.tolist(), strict=True)
                    ],
                    "predictions": [
                        {"box": box, "chances": chances}
                        for box, chances in zip(predicted.tolist(), logits.softmax(-1).tolist(), strict=True)
                    ],
                }
                for boxes, labels, predicted, logits in cases
            ],
        },
    )
    for (boxes, labels, predicted, logits), mine in zip(cases, found, strict=True):
        expected = cost_matrix(
            logits[None, None], predicted[None, None], labels[None], boxes.float()[None], MatchingCosts(**weights)
        )[0, 0]
        torch.testing.assert_close(torch.tensor(mine["cost"], dtype=torch.float32), expected, atol=1e-5, rtol=1e-5)
        _, columns = linear_sum_assignment(mine["cost"])
        assert mine["chosen"] == columns.tolist()
        assert mine["greedy"] >= mine["least"] - 1e-12
    assert any(mine["greedy"] > mine["least"] + 1e-3 for mine in found)


def test_an_assignment_of_random_numbers_is_that_of_scipy(javascript):
    from scipy.optimize import linear_sum_assignment

    generator = torch.Generator().manual_seed(2)
    costs = [torch.randn(rows, rows + more, generator=generator) for rows in range(1, 10) for more in (0, 1, 5)]
    found = javascript(
        'const { assignment } = await load("matching.js"); const answer = given.costs.map(assignment);',
        {"costs": [cost.tolist() for cost in costs]},
    )
    assert found == [linear_sum_assignment(cost.numpy())[1].tolist() for cost in costs]


def test_curves_of_deletion_are_those_of_python(scripts, models, digits, javascript):
    from regard.explain.faithfulness import Judge, centre_map
    from regard.explain.target import target_of

    small = models["local"]
    model, image = small.vit(), small.prepared(digits[2])
    with torch.no_grad():
        judge = Judge(model, image, target_of(model, model(image[None]), 4))
    orders = [torch.randperm(64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    found = javascript(
        """
        const { modelOf } = await load("load.js"), deletion = await load("deletion.js");
        const model = modelOf(given.about, Buffer.from(given.bytes, "base64"));
        const whole = (curve) => { for (;;) { const { done, value } = curve.next(); if (done) return value; } };
        const curves = given.orders.map((order) => whole(deletion.deletionCurve(model, given.images[2], order, 4)));
        const answer = { curves, areas: curves.map(deletion.area), centre: deletion.centreMap(8),
          random: deletion.randomOrders(64, 3), order: deletion.orderOf([0.1, 5, -2, 3]) };
        """,
        {**carried(scripts, small), "images": pixels(digits), "orders": [order.tolist() for order in orders]},
    )
    for order, curve, own in zip(orders, found["curves"], found["areas"], strict=True):
        expected = judge._curves(order, insertion=False)["mean"].deletion
        torch.testing.assert_close(torch.tensor(curve), torch.tensor(expected), atol=1e-5, rtol=0)
        assert own == pytest.approx(torch.trapezoid(torch.tensor(expected), dx=1 / 16).item(), abs=1e-5)
    torch.testing.assert_close(torch.tensor(found["centre"]), centre_map(judge.grid).flatten())
    assert [sorted(order) for order in found["random"]] == [list(range(64))] * 8
    assert len({order[0] for order in found["random"]}) == 8
    assert found["order"] == [1, 3, 0, 2]


def test_the_verdict_is_that_of_python(javascript):
    from regard.explain.faithfulness import Faithfulness

    random = [0.4, 0.5, 0.45, 0.55, 0.5, 0.4, 0.45, 0.6]
    spread = torch.tensor(random, dtype=torch.float64)
    cases = [(deletion, centre) for deletion in (0.2, 0.39, 0.401, 0.41, 0.5) for centre in (0.1, 0.205, 0.3, 0.45)]
    found = javascript(
        """
        const { verdict } = await load("deletion.js");
        const answer = given.cases.map(([deletion, centre]) => verdict(deletion, given.random, centre));
        """,
        {"cases": cases, "random": random},
    )
    rest = {"insertion": 0.0, "centre_insertion": 0.0, "measured": "", "fractions": (), "curves": {}}
    expected = [
        Faithfulness(
            deletion=deletion,
            random=spread.mean().item(),
            deviation=spread.std(correction=0).item(),
            centre_deletion=centre,
            passes=0,
            shared_passes=0,
            **rest,
        ).verdict
        for deletion, centre in cases
    ]
    assert len(set(expected)) == 3
    assert found == expected
