"""What each token mixer costs as images grow, alone: `regard scale` from 49 to 50,176 tokens, forward and training.

Run: .venv/bin/python benchmarks/scale_curves.py [--seconds 1800] [--threads N] [--out FOLDER]
Half an hour unless --seconds says otherwise; below that the largest sizes of attention are left out.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from peer import save
from regard.files import expanded
from regard.reading import read_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=expanded, help="the folder of the page")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        record = Path(temporary) / "scale.json"
        command = [sys.executable, "-m", "regard", "scale", "--step=both", f"--seconds={given.seconds:g}"]
        command += [f"--threads={given.threads}"] if given.threads else []
        command += [f"--out={given.out}"] if given.out else []
        subprocess.run([*command, f"--json={record}"], check=True)
        save("scale", read_json(record))


if __name__ == "__main__":
    main()
