"""What reaches the terminal: names that cannot act on it, in any encoding, whoever reads; one line for each fault."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from regard.cli.main import main
from regard.cli.terminal import plain, plain_text, quiet_and_encodable

RUN = Path(__file__).parents[1] / "golden_runs" / "classification"
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
# A colour, a title, a line break, a turn of the direction of writing, a byte that is not UTF-8.
NAMES = ("\x1b[31mred", "\x1b]0;title\x07", "a\nb", "\u202egnp", "caf\udce9", "\x9b31m", "[red]a", "日本")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("caf\udce9", "caf\\udce9"),
        ("\x9b31m", "\\x9b31m"),
        ("日本 é 👩‍👧", "日本 é 👩‍👧"),
        ("C:\\new", "C:\\new"),
    ],
)
def test_a_name_is_plain_text(name, told):
    assert plain(name) == told
    assert plain_text(f"{name}\n") == f"{told}\n".replace("\\n", "\n").replace("\\t", "\t") or "new" in name


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_no_name_acts_on_the_terminal(regard, tmp_path, name):
    """In tables, in what is said of files and runs, and in what is said of the command line itself."""
    folder = tmp_path / "in"
    folder.mkdir()
    file = folder / f"{name}.png"
    Image.effect_noise((12, 12), 90).save(folder / "a.png")
    (folder / "a.png").rename(file)
    (folder / f"{name}-bad.png").write_bytes(b"no image")
    for told in (
        regard("predict", RUN, folder),
        regard("predict", RUN, folder, "-o", tmp_path / name),
        regard("evaluate", tmp_path / name),
        regard("data", "check", f"folder:{tmp_path / name}"),
        regard("train", name),
        regard("predict", RUN, file, "--device", name),
        regard(name),
        regard("predict", f"--{name}"),
        regard("predict", RUN, "--top", name),
        regard("predict", RUN, "--weights", name),
    ):
        assert told.status in (1, 2), told
        assert not ACTS.search(told.out + told.err), told
        assert "Traceback" not in told.err
    whole = json.loads(regard("predict", RUN, file, "--json").out)
    assert [Path(row["file"]).name for row in whole] == [file.name]
    assert json.loads((tmp_path / name / "predictions.json").read_text(encoding="utf-8")) == whole


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_encoding_can_tell_every_name(monkeypatch, tmp_path, encoding):
    file = tmp_path / "日é\udcff.png"
    Image.effect_noise((12, 12), 90).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(file)
    for option in ("--json", "--csv", "--top=2"):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
        arguments = ["regard", "predict", str(RUN), str(file), option]
        for name, value in {"stdout": out, "stderr": err, "argv": arguments}.items():
            monkeypatch.setattr(sys, name, value)
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        assert err.buffer.getvalue() == b""
        told = out.buffer.getvalue().decode(encoding)
        if option == "--json":
            assert json.loads(told)[0]["file"] == str(file)
        else:
            assert ("日é" if encoding == "utf-8" else "\\u65e5") in told


def run(arguments: list[str], **named: object) -> subprocess.CompletedProcess[str]:
    """`data list`, for one, does not wait for torch."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    command = [sys.executable, "-m", "regard", *arguments]
    return subprocess.run(command, env=env, stderr=subprocess.PIPE, text=True, check=False, **named)


def test_nobody_needs_to_read_to_the_end():
    read, write = os.pipe()
    os.close(read)
    told = run(["data", "list"], stdout=write)
    os.close(write)
    assert (told.returncode, told.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="is a device of Linux")
def test_a_full_disk_is_one_line():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        told = run(["data", "list"], stdout=full)
    assert (told.returncode, told.stderr) == (1, "error: No space left on device\n")


def test_a_process_may_have_no_stdout():
    told = run(["data", "list"], preexec_fn=lambda: os.close(1))
    assert (told.returncode, told.stderr) == (0, "")


def test_warnings_and_logs_are_one_line_without_a_traceback(capsys):
    before = warnings.formatwarning, logging.lastResort
    with quiet_and_encodable():
        assert warnings.formatwarning("a\x1b[2J\nb", UserWarning, "file", 3) == "warning: a\\x1b[2J\\nb\n"
        logger = logging.getLogger("of-somebody-else")
        logger.propagate = False  # as if nobody, such as this test's own machinery, listened
        try:
            raise OSError("gone")
        except OSError:
            logger.exception("writing failed:\n%s", "\x1b[31mx")
        logging.getLogger("huggingface_hub.file_download").warning("Retrying in 1 s")
    assert capsys.readouterr().err == "writing failed:\\n\\x1b[31mx\n"
    assert (warnings.formatwarning, logging.lastResort) == before
