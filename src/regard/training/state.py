"""The state that a run resumes from: `state/step-N/`, and `state/latest`, which names the one that is whole."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel

from regard.errors import RegardError, one_line
from regard.files import flush, write_json, write_whole


@dataclass
class Progress:
    """How far a run is. Order, augmentation and every other draw follow from the seed and the step."""

    step: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0
    """Without evaluations and saving."""
    samples: int = 0
    """Images, or sequences."""
    skipped: list[str] = field(default_factory=list)
    """Those that could not be read, each once."""
    best: float | None = None
    best_step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    """The last evaluation's."""
    evaluated_step: int = 0


class State:
    """Saves and loads the states of one run folder."""

    def __init__(self, run: Path, accelerator: Accelerator, average: AveragedModel | None) -> None:
        self.folder = run / "state"
        self.accelerator = accelerator
        self.average = average

    @property
    def latest(self) -> Path | None:
        """The last state that was saved in full."""
        pointer = self.folder / "latest"
        return self.folder / pointer.read_text(encoding="utf-8").strip() if pointer.exists() else None

    def save(self, progress: Progress) -> None:
        """Writes a new folder, flushes it, and only then moves the pointer: a run killed at any moment can resume.

        On a full disk the former state stays in force, and the RegardError says so.
        """
        accelerator = self.accelerator
        former, folder = self.latest, self.folder / f"step-{progress.step}"
        if former == folder:
            return
        try:
            if accelerator.is_main_process:
                shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
                folder.mkdir(parents=True)
            accelerator.wait_for_everyone()
            accelerator.save_state(str(folder))
            if accelerator.is_main_process:
                if self.average is not None:
                    averages = {name: tensor.contiguous() for name, tensor in self.average.state_dict().items()}
                    save_file(averages, folder / "average.safetensors")
                write_json(folder / "progress.json", asdict(progress))
                for file in folder.iterdir():
                    flush(file)
                flush(folder)
                write_whole(self.folder / "latest", lambda path: path.write_text(f"{folder.name}\n", encoding="utf-8"))
        except (OSError, RuntimeError, SafetensorError, RegardError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            kept = "there is no earlier state" if former is None else f"{former} is whole and can be resumed"
            raise RegardError(f"{folder}: could not be saved: {one_line(error)}; {kept}") from error
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            for other in self.folder.glob("step-*"):  # the former one, and what a killed run left
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)

    def load(self) -> Progress:
        """Puts the latest state into model, optimiser and average, and says how far it was: step 0 without one."""
        folder = self.latest
        if folder is None:
            return Progress()
        try:
            self.accelerator.load_state(str(folder))
            if self.average is not None:
                self.average.load_state_dict(load_file(folder / "average.safetensors"))
            return Progress(**json.loads((folder / "progress.json").read_text(encoding="utf-8")))
        except (
            OSError,
            EOFError,
            RuntimeError,
            ValueError,
            TypeError,
            KeyError,
            UnpicklingError,
            SafetensorError,
        ) as error:
            what = "is cut short or damaged, or does not match this model"
            raise RegardError(f"{folder}: {what}: {one_line(error)}") from error
