"""Writes the figures of README and docs/ from the results of the benchmarks.

Run: make figures
A page holds them between two comments, `<!-- figures: NAME -->` and `<!-- end of figures -->`, and NAME is a function
below. A test holds the pages to the results. Pages that are figures for the most part have a script of their own:
how_many_images.py and photographs_page.py.
"""

import json
import re
import textwrap
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch

import pretraining_page
from how_many_images import markdown as table
from regard import RegardError
from regard.cli.about import OPTIONAL
from regard.compare import Record, markdown
from regard.explain import explain, methods
from regard.mixers import MIXERS
from regard.models import build, configure

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end of figures -->)", flags=re.DOTALL)
EPYC, XEON = "amd-epyc-2-cores", "intel-xeon-processor-2-cores"
Measured = dict[str, Any]


def filled(page: str) -> str:
    """A page with its figures as the results have them. KeyError for a name that is not known."""
    return BLOCK.sub(lambda found: f"{found[1]}{ALL[found[2]]().strip()}\n{found[3]}", page)


def main() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            page.write_text(filled(text), encoding="utf-8")
            print(f"wrote {page.relative_to(ROOT)}")


def record(name: str) -> Measured:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def measured(found: Measured, script: str) -> str:
    """Where, when and by which script."""
    processor = re.sub(r"\((R|TM)\)| Processor", "", found["machine"]["processor"])
    return f"Measured on {found['machine']['cores']} cores ({processor}) on {found['date']} by `benchmarks/{script}`."


def prose(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_on_hyphens=False, break_long_words=False)


def span(values: Iterable[float], digits: int = 1) -> str:
    low, high = min(values := list(values)), max(values)
    texts = [f"{value:.{digits}f}" for value in (low, high)]
    return texts[0] if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"


def photographs() -> str:
    """What `regard train --data PATH --minutes 10` comes to."""
    found = record(f"photographs-{EPYC}")
    rows = []
    for data, what in PHOTOGRAPHS.items():
        runs = [run for run in found["results"].values() if (run["data"], run["way"]) == (data, "chosen")]
        if not runs:
            continue
        winners = sorted({f"`{run['race']['winner']}`" for run in runs})
        names = ("ap", "ap50") if "ap" in runs[0] else ("accuracy",)
        words = {"ap": "AP {:.2f}", "ap50": "AP50 {:.2f}", "accuracy": "accuracy {:.1%}"}
        scores = ", ".join(words[name].format(median(run[name] for run in runs)) for name in names)
        minutes = f"{median(run['wall_seconds'] for run in runs) / 60:.1f}"
        memory = f"{max(run['peak_memory_mb'] for run in runs) / 1024:.1f} GB"
        rows.append([what, " or ".join(winners), scores, minutes, memory, str(len(runs))])
    head = ["photographs", "recipe that won its race", "on held-out images", "minutes", "memory", "seeds"]
    return f"{table(head, rows)}\n\n{measured(found, 'photographs.py')}"


PHOTOGRAPHS = {
    "raccoon": "160 of raccoons, one class",
    "bccd": "292 of blood cells, three classes",
    "signdigits": "1,649 of hands, ten classes",
}


def mixers() -> str:
    """The comparison of eight mixers: its sentence and its table."""
    found = record(f"mixers-{EPYC}")
    own = Record.model_validate(found["results"])
    return f"{markdown(own).strip()}\n\n{prose(measured(found, 'mixers.py'))}"


def mixers_signdigits() -> str:
    """The comparison on photographs of hands."""
    found = record(f"mixers_signdigits-{EPYC}")
    own = Record.model_validate(found["results"])
    return f"{markdown(own).strip()}\n\n{prose(measured(found, 'mixers.py'))}"


def verdicts() -> str:
    """How often each answer is wrong, in the worst of all cases."""
    found = record(f"verdicts-{EPYC}")
    own = found["results"]
    of_two = max(rate for case in own["twins"].values() for what, rate in case.items() if what.startswith("2"))
    of_eight = max(rate for case in own["twins"].values() for what, rate in case.items() if what.startswith("8"))
    covers = [rate for case in own["intervals"]["coverage"].values() for rate in case.values()]
    looks = max(rate for case in own["looks"]["equals come out different"].values() for rate in case.values())
    four = own["looks"]["4 points at 97%"]
    margins = [own[name] for name in own if name.startswith("recommendations")]
    false = max(case["false"] for cases in margins for case in cases.values())
    ap = max(rate for case in own["jackknife"].values() for rate in case.values())
    rows = [
        ["two equal contenders come out different (cases: 15 × 3, 5, 10 seeds)", f"at most {of_two:.1%}"],
        ["any two of eight equal contenders come out different", f"at most {of_eight:.1%}"],
        ["equal contenders come out different, looks at 3, 5, 8, 12 seeds", f"at most {looks:.1%}"],
        [
            "a true difference of 4 points at 97% is found",
            f"{four['found']:.0%}, {four['seeds']:.1f} seeds",
        ],
        ["95% intervals cover the truth on new seeds and new images", f"{min(covers):.1%} to {max(covers):.1%}"],
        ["a recommended contender is worse than another by more than the margin", f"at most {false:.1%}"],
        ["equal detectors come out different, by pseudo-values of AP", f"at most {ap:.1%}"],
    ]
    text = f"""{own["comparisons"]:,} simulated comparisons a case, {own["comparisons"] // 2} of recommendations and of
    detectors. {measured(found, "verdicts.py")}"""
    return f"{table(['how often', 'measured'], rows)}\n\n{prose(text)}"


def scale() -> str:
    """What a forward pass of each mixer alone takes, and from where on it costs less than attention's."""
    found = record(f"scale-{EPYC}")
    own, tokens = found["results"], (196, 784, 3_136, 12_544, 50_176)
    crossed = {one["mixer"]: one["words"] for one in own["crossovers"] if one["step"] == "forward"}
    rows = []
    for curve in own["curves"]:
        if curve["step"] == "forward" and curve["mixer"] != "none":
            at = {point["tokens"]: 1000 * point["median"] for point in curve["points"]}
            slope = f"{curve['slope']['value']:.2f} ({curve['slope']['low']:.2f} to {curve['slope']['high']:.2f})"
            times = [f"{at[number]:,.3g}" if at[number] < 1000 else f"{at[number]:,.0f}" for number in tokens]
            rows.append([curve["mixer"], *times, slope, crossed.get(curve["mixer"], "")])
    head = ["forward, ms", *(f"{number:,} tokens" for number in tokens), "slope at the end", "less than attention"]
    text = f"""Width {own["embed_dim"]}, {own["num_heads"]} heads, one image, {own["threads"]} thread.
    {measured(found, "scale_curves.py")}"""
    return f"{table(head, rows)}\n\n{prose(text)}"


def detr_small() -> str:
    """AP against minutes, beside RT-DETR."""
    found = record(f"detection_small-{EPYC}")
    curves, speed = list(found["results"]["curves"].values()), found["results"]["speed"]
    names = {"dn_detr": "`detr-small`", "rt_detr": "RT-DETR of transformers"}
    minutes, rows, ends = (1, 2, 3, 5, 7, 10), [], {}
    for model, name in names.items():
        runs = [run for run in curves if run["model"] == model]
        at = [
            median(point["ap"] for run in runs for point in run["curve"] if round(point["minutes"]) == m)
            for m in minutes
        ]
        size = f"{name}, {runs[0]['parameters'] / 1e6:.1f} M parameters"
        rows.append([size, *(f"{ap:.2f}" for ap in at), f"{median(run['ap50'] for run in runs):.2f}"])
        ends[model] = ", ".join(f"{run['ap']:.2f}" for run in runs)
    few = {run["model"]: run["ap"] for run in found["results"]["few"].values()}
    pretrained = next(run["ap"] for run in found["results"]["pretrained"].values() if run["scenes"] == 1500)
    small, equal = speed
    text = f"""AP on 300 held-out scenes, from scratch with 1,500 scenes, the median of three seeds. After ten
    minutes the seeds are at {ends["dn_detr"]}, RT-DETR's at {ends["rt_detr"]}. A training step is
    {small["training step"]:.1f} times as fast as RT-DETR's and a prediction of one image
    {small["inference of one"]:.1f} times, fused; with as many parameters, {equal["training step"]:.1f}
    and {equal["inference of one"]:.1f} times. From EfficientNet-Lite0's weights ten minutes come to
    {pretrained:.2f}. With 100 scenes they come to {few["dn_detr"]:.2f}, from those weights to
    {few["dn_detr pretrained"]:.2f}, and with RT-DETR to {few["rt_detr"]:.2f} (one seed each). RT-DETR
    has batches of 16 and images as they are, `detr-small` batches of 8, mosaics and jitter.
    {measured(found, "detection_small.py")}"""
    return f"{table(['minutes', *map(str, minutes), 'AP50 at 10'], rows)}\n\n{prose(text)}"


def detr() -> str:
    found = record(f"detr-{XEON}")
    ratios = {
        word: [row["fp32"] for row in found["results"] if word in row["what"]] for word in ("inference", "training")
    }
    return prose(f"""With the weights of transformers' `detr_resnet50` it predicts {span(ratios["inference"])} times as
    fast as theirs in float32, and trains {span(ratios["training"])} times as fast.
    {measured(found, "detr.py")}""")


def local_attention() -> str:
    found = record(f"local_attention-{XEON}")
    case = {"heads": 8, "head_dim": 32, "side": 56, "embeddings": False}
    rows = [row for row in found["results"]["rows"] if case.items() <= row.items()]
    forward, both = (row["median_ms"]["auto"] for row in rows)
    ratio = {
        peer: span([row["as_fast_as"][f"auto / {peer}"] for row in rows])
        for peer in ("convolution", "blocked", "unfold")
    }
    return prose(f"""A window of 7 and 8 heads of 32 on 56 × 56 pixels take {forward:.1f} ms, {both:.1f} with gradients:
    {ratio["convolution"]} times as fast as a 3 × 3 convolution of as many channels, {ratio["blocked"]}
    times as fast as blocks in plain PyTorch, and {ratio["unfold"]} times as fast as unfolding every
    window. {measured(found, "local_attention.py")}""")


def performer_speed() -> str:
    """Times as fast as exact attention, forward and backward."""
    found = record(f"performer-{XEON}")
    rows = {
        (row["features"], row["tokens"]): row["as_fast_as"]["exact"]
        for row in found["results"]["rows"]
        if row["kind"] == "softmax_positive" and "backward" in row["mode"] and "exact" in row["as_fast_as"]
    }
    tokens = sorted({number for _, number in rows})
    lines = [
        [f"{features} features", *(f"{rows[features, number]:.1f}" for number in tokens)] for features in (128, 256)
    ]
    largest = max(found["results"]["memory"], key=lambda row: row["tokens"])
    head = ["times as fast as exact attention", *(f"{number:,} tokens" for number in tokens)]
    text = f"""Forward and backward. {largest["tokens"]:,} tokens take {largest["regard_mb"]:.0f} MB with
    {largest["features"]} features. {measured(found, "performer.py")}"""
    return f"{table(head, lines)}\n\n{prose(text)}"


def performer_error() -> str:
    found = record(f"performer-{XEON}")
    rows = [
        [
            f"{row['scale']:g}",
            f"{row['mean_of_v']:.3f}",
            *(f"{row[f'{number}_features']:.2g}" for number in (64, 256, 1024)),
        ]
        for row in found["results"]["error"]
    ]
    head = ["scale of q and k", "mean of v", "64 features", "256", "1,024"]
    return f"{table(head, rows)}\n\n{measured(found, 'performer.py')}"


def performer_finetune() -> str:
    found = record(f"recipes-{XEON}")
    own = next(row for row in found["results"] if row["recipe"] == "performer-finetune")
    return prose(f"""The recipe `performer-finetune` begins from a ViT of 1,000 steps and reads
    {own["found"]:.1%} of the held-out digits after {own["minutes"] * 60:.0f} seconds of training.
    {measured(found, "recipes.py")}""")


def near_doubles() -> str:
    found = record(f"near_doubles-{EPYC}")
    rows = [
        [
            name,
            f"{own['images']:,}",
            f"{own['found_of_all']:.1%}",
            str(len(own["named_wrongly"])),
            f"{own['other_pairs_named']} of {own['other_pairs']:,}",
        ]
        for name, own in found["results"].items()
    ]
    head = ["photographs", "images", "planted copies found", "distinct images named", "other pairs named"]
    return f"{table(head, rows)}\n\n{measured(found, 'near_doubles.py')}"


def explain_cost() -> str:
    found = record(f"explain-{XEON}")
    speed, memory = found["results"]["speed"], found["results"]["memory_mb"]
    rows = [
        [f"`{way}`", f"{1.0 if way == 'plain' else speed[way]:.2f}", f"{memory[way]:,.0f} MB"]
        for way in ("plain", "rows", "rollout", "relevance")
    ]
    text = f"""DINOv2 ViT-S/14 at 518 pixels, 1,370 tokens; memory is above that of the loaded model after a plain pass.
    One row of attention over 50,176 tokens of width 384 takes {memory["row"]:,.0f} MB.
    {measured(found, "explain.py")}"""
    return f"{table(['way', 'plain forward passes', 'memory'], rows)}\n\n{prose(text)}"


def is_it_true() -> str:
    """Areas under the deletion curves of each method, and how often it beats chance and the centre."""
    found = record(f"explain-{XEON}")
    measured_on = ("digits", "photographs", "dinov2")
    own = {name: found["results"][name] for name in measured_on if found["results"].get(name)}
    methods_of = next(iter(own.values()))["verdicts"]
    rows = [
        [name if name in ("random", "centre") else f"`{name}`"]
        + [
            f"{one['deletion'][name]:.3f}"
            + (f", {one['verdicts'][name].get('beats both', 0)} of {one['images']}" if name in methods_of else "")
            for one in own.values()
        ]
        for name in ("random", "centre", *methods_of)
    ]
    what = {
        "digits": "ViT on digits",
        "photographs": "ViT on photographs of hands",
        "dinov2": "DINOv2, scikit-learn's two photographs",
    }
    key = "random_head_correlation"
    correlations = [f"{one[key]:.2f}" for one in own.values() if key in one]
    text = f"""The mean area under the deletion curve: less is better. Then how many of the images' maps beat both,
    chance and the centre. After the head's weights became random, the rank correlation of relevance with itself is
    {" and ".join(correlations)} (median; 1 would be a map that ignores the class). {measured(found, "explain.py")}"""
    return f"{table(['map', *(what[name] for name in own)], rows)}\n\n{prose(text)}"


def methods_by_mixer() -> str:
    """Which methods serve a ViT of each mixer, by trying."""
    served = {name: which_serve(name) for name in MIXERS}
    names = [name for name in methods.NAMES if any(name in able for able in served.values())]
    rows = [[f"`{name}`", *("yes" if name in able else "no" for able in served.values())] for name in names]
    return table(["method", *(f"`{mixer}`" for mixer in MIXERS)], rows)


def which_serve(mixer: str) -> set[str]:
    torch.manual_seed(0)
    shape = {"img_size": (8, 8), "patch_size": 2, "num_classes": 3, "embed_dim": 8, "num_heads": 2, "depth": 1}
    model = build(configure("vit_pico_patch2_8", {**shape, "mixer": mixer, "pool": "avg"})).eval()
    image = torch.randn(model.config.in_chans, 8, 8)
    able = set()
    for name in methods.NAMES:
        with suppress(RegardError):
            explain(model, image, method=name, judge=False)
            able.add(name)
    return able


def image_size() -> str:
    found = record("image_size")
    sizes = found["results"]
    parts = ", ".join(f"{name} {own['mb']:.0f}" for name, own in sizes["packages"].items())
    return prose(f"""Its packages take {sizes["mb"]:.0f} MB beside the base image: {parts}.
    {measured(found, "image_size.py")}""")


def fresh_clone() -> str:
    """What a newcomer waits for and downloads."""
    found = record(f"installing-{EPYC}")
    own = found["results"]["fresh_clone"]
    seconds = own["seconds"]
    busy = own["load_before"] > found["machine"]["cores"]
    beside = "Other programs kept all cores busy meanwhile: on a machine of its own it is sooner." if busy else ""
    return prose(f"""From a new clone with nothing installed, `make demo` downloads {own["download_mb"] / 1000:.1f} GB
    and has everything in place after {minutes(seconds["installed"])}, which depends on the connection
    ({own["venv_mb"] / 1000:.1f} GB on the disk). Its page has the first picture after
    {minutes(seconds["first picture"])}, and is whole after {minutes(seconds["whole"])}. {beside}
    {measured(found, "installing.py")}""")


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds > 100 else f"{seconds:.0f} s"


def install_sizes() -> str:
    """On the disk: Regard, what it needs, and PyTorch with and without CUDA."""
    found = record(f"installing-{EPYC}")
    own = found["results"]["sizes_mb"]
    cpu = own["CPU"]
    rows = [
        ["Regard itself", f"{own['regard']:.1f} MB"],
        ["what it needs beside PyTorch", f"{own['others']:,} MB"],
        [f"PyTorch without CUDA ({cpu['wheel']}, a download of {cpu['download_mb']} MB)", f"{cpu['mb']:,} MB"],
        [
            f"or with CUDA (torch-{found['results']['torch']} and NVIDIA's libraries)",
            f"{own['torch'] + own['CUDA']:,} MB",
        ],
        *([f"weights: `{name}`, without what it wants", f"{mb} MB"] for name, mb in own["weights"].items()),
    ]
    text = f"Files as they lie on the disk, without compiled Python. {measured(found, 'installing.py')}"
    return f"{table(['what', 'size'], rows)}\n\n{prose(text)}"


def extras() -> str:
    """Each extra: what it is for, as `regard doctor` says it, and what it adds."""
    found = record(f"installing-{EPYC}")
    adds = found["results"]["sizes_mb"]["extras"]
    rows = [[f"`{extra}`", package, what_for, f"{adds[extra]} MB"] for extra, (package, what_for) in OPTIONAL.items()]
    head = ["extra", "its package", "what it is for", "adds, alone"]
    return f"{table(head, rows)}\n\n{measured(found, 'installing.py')}"


def inference() -> str:
    """Times as fast as the eager float32 model of timm or transformers, on each machine that was measured."""
    tables = [inference_table(record(path.stem)) for path in sorted(RESULTS.glob("inference-*.json"))]
    return "\n\n".join(tables) or "Not measured yet: `benchmarks/inference.py` measures it on your machine."


def inference_table(found: Measured) -> str:
    results = found["results"]
    columns = ("eager fp32", "optimize fp32", "optimize bf16", "onnx fp32", "openvino fp32", "openvino bf16")
    names = [name for name in columns if any(name in row["median_ms"] for row in results["rows"])]
    rows = []
    for row in results["rows"]:
        ms = row["median_ms"][row["peer"]]
        ratios = [row["times_as_fast"].get(name) for name in names]
        cells = [f"{own['median']:.2f}" if own else "" for own in ratios]
        rows.append(
            [
                f"{row['case']}, {row['batch']} at once",
                f"{row['peer'].split()[0]}, {ms:,.0f}" if ms > 100 else f"{row['peer'].split()[0]}, {ms:.3g}",
                *cells,
            ]
        )
    theirs = [own["median"] for row in results["rows"] for name, own in row["against"].items() if "their" in name]
    has = {"amx": "AMX", "avx512_bf16": "AVX-512 BF16"}
    features = " and ".join(word for key, word in has.items() if results["features"][key]) or "neither AMX nor BF16"
    text = f"""Times as fast as the first column's model in float32: medians of {results["turns"]} turns, weights at
    random, {results["threads"]} threads; the processor has {features}. In the same engine our file is
    {span(theirs, 2)} times as fast as the peer's own export. {measured(found, "inference.py")}"""
    return f"{table(['', 'peer, ms', *names], rows)}\n\n{prose(text)}"


def pretraining() -> str:
    """What ten minutes of pre-training are worth."""
    found = record(f"pretraining-{EPYC}")
    return f"{pretraining_page.blocks(found['results'], prose)}\n\n{measured(found, 'pretraining.py')}"


FIGURES: dict[str, Callable[[], str]] = {
    "photographs": photographs,
    "pretraining": pretraining,
    "mixers": mixers,
    "mixers-signdigits": mixers_signdigits,
    "verdicts": verdicts,
    "scale": scale,
    "detr-small": detr_small,
    "detr": detr,
    "local-attention": local_attention,
    "performer-speed": performer_speed,
    "performer-error": performer_error,
    "performer-finetune": performer_finetune,
    "near-doubles": near_doubles,
    "explain-cost": explain_cost,
    "is-it-true": is_it_true,
    "image-size": image_size,
    "fresh-clone": fresh_clone,
    "install-sizes": install_sizes,
    "extras": extras,
    "inference": inference,
}
# Tables that come from the code, not from a measurement.
ALL = {**FIGURES, "methods": methods.table, "methods-by-mixer": methods_by_mixer}

if __name__ == "__main__":
    main()
