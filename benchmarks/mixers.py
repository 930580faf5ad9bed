"""Token mixers in one encoder, compared by `regard compare` until the answer is known.

Run: .venv/bin/python benchmarks/mixers.py digits
     .venv/bin/python benchmarks/mixers.py signdigits --data PATH --until runs=30
Up to half an hour each, on two cores. digits: the eight mixers on scikit-learn's handwritten digits of 8 × 8 pixels.
signdigits: six of them on photographs of hands, a folder a class, in a ViT of patches of 4 pixels from random weights.
With --out the comparison is kept, and a second call goes on with it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from peer import save
from regard.files import expanded

PHOTOGRAPHS = (
    "--recipe=small-images", "--set=data.val_fraction=0.2", "--set=train.epochs=20", "--threads=1",
    "--mixers=attention,local,performer,fourier,mlp,conv",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["digits", "signdigits"])
    parser.add_argument("--data", help="of signdigits: its folder")
    parser.add_argument("--out", type=expanded, help="the folder of the comparison")
    parser.add_argument("--until", default="answer")
    given = parser.parse_args()
    if given.what == "signdigits" and given.data is None:
        parser.error("signdigits: name its folder with --data")
    what = ["--data=digits", "--mixers=all"] if given.what == "digits" else [f"--data={given.data}", *PHOTOGRAPHS]
    with tempfile.TemporaryDirectory() as temporary:
        out, record = given.out or Path(temporary) / "mixers", Path(temporary) / "record.json"
        what = [] if out.exists() else [*what, f"--until={given.until}"]
        command = [sys.executable, "-m", "regard", "compare", *what, "--jobs=2", f"--out={out}", f"--json={record}"]
        subprocess.run(command, check=True)
        found = record.read_text(encoding="utf-8")
        if given.data:  # where it lies here says nothing elsewhere
            found = found.replace(given.data, Path(given.data).name)
        save("mixers" if given.what == "digits" else "mixers_signdigits", json.loads(found))


if __name__ == "__main__":
    main()
