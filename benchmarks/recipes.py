"""What the shipped recipes claim, checked: each is trained as it stands, and its metric and minutes are recorded.

Run: .venv/bin/python benchmarks/recipes.py [NAME ...]
small-images is trained on scikit-learn's digits, written out at 28 × 28 pixels, unless --data names a folder;
performer-finetune starts from the weights of a vit-digits of 1,000 steps, which is trained first, and small-photos from
the run of pretrain-photos, if that was trained in the same call. A claim about
photographs (`--data KIND:NAME` in its command) is checked if the folder of --photos has that data set.
"""

import argparse
import shlex
import tempfile
import time
from pathlib import Path

from peer import save
from regard.data import make_folder
from regard.recipes import Recipe, load_recipe, shipped_recipes
from regard.training import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(shipped_recipes()))
    parser.add_argument("--data", help="a data address for small-images")
    parser.add_argument("--photos", type=Path, default=Path(), help="the folder of the photographs' data sets")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in arguments.names:
            claim = shipped_recipes()[name].claim
            if claim is None:
                continue
            recipe = claimed_recipe(name, claim.command, arguments.photos)
            if name == "small-images":
                address = arguments.data
                if address is None:
                    make_folder("digits", folder / "digits", 28)
                    address = f"folder:{folder / 'digits'}"
                recipe = load_recipe(name, address=address)
            elif name == "small-photos":
                recipe = _from(recipe, folder / "pretrain-photos")
            elif name == "performer-finetune":
                recipe = load_recipe(name, [f"model.weights={_trained_vit(folder)}"])
            _, colon, place = recipe.data.address.partition(":")
            if colon and not Path(place).is_dir():
                print(f"{name:16} left out: {place} is not there (see --photos)")
                continue
            start = time.monotonic()
            summary = train(recipe, folder / name)
            minutes = (time.monotonic() - start) / 60
            found = summary[claim.metric]
            kept = claim.kept_by(found) and minutes <= claim.minutes
            digits = name == "small-images" and not arguments.data
            results.append(
                {"recipe": name, "metric": claim.metric, "claimed": str(claim), "found": round(found, 4)}
                | {"minutes_claimed": claim.minutes, "minutes": round(minutes, 2), "kept": kept}
                | {"data": "digits, 28 px" if digits else recipe.data.address}
            )
            print(f"{name:16} {claim.metric} {found:.4f}, {minutes:.1f} min (claimed: {claim})")
    print(f"saved to {save('recipes', results)}")


def _from(recipe: Recipe, run: Path) -> Recipe:
    """A recipe that starts from a run, where that is there; else from scratch."""
    weights = {"weights": str(run)} if run.is_dir() else {"weights": None}
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=weights)})


def claimed_recipe(name: str, command: str, photos: Path) -> Recipe:
    """The recipe as the claim's command says: `regard train NAME [--data KIND:FOLDER] [--set KEY=VALUE] ...`."""
    words = shlex.split(command)[3:]
    options = list(zip(words[::2], words[1::2], strict=True))
    address = next((value for option, value in options if option == "--data"), None)
    if address is not None:
        kind, _, place = address.partition(":")
        address = f"{kind}:{photos / place}"
    return load_recipe(name, [value for option, value in options if option == "--set"], address=address)


def _trained_vit(folder: Path) -> Path:
    train(load_recipe("vit-digits", ["train.epochs=100"]), folder / "vit")
    return folder / "vit" / "model.safetensors"


if __name__ == "__main__":
    main()
