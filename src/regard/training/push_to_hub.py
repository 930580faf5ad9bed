"""A run on the Hugging Face hub, with its card."""

import shutil
import tempfile
from pathlib import Path

from regard.errors import RegardError, one_line
from regard.training.model_card import model_card
from regard.training.run import Run
from regard.weights.hub import quiet_client

# What prediction, evaluation and a reader need; not the state to resume from, nor the steps' log.
FILES = ("model.safetensors", "best.safetensors", "metadata.json", "recipe.toml", "summary.json", "report.html")


def push_run(path: Path, repo: str, *, private: bool = False, license: str | None = None) -> str:
    """Uploads a run's files and its card to OWNER/NAME, and returns the address. RegardError where that fails."""
    from huggingface_hub import HfApi

    if repo.count("/") != 1 or not all(repo.split("/")):
        raise RegardError(f"{repo}: a repository of the hub is OWNER/NAME")
    run = Run.open(path)
    card = model_card(run, repo, license=license)
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            if (run.path / name).is_file():
                shutil.copy(run.path / name, folder)
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        api = HfApi()
        try:
            with quiet_client():
                api.create_repo(repo, private=private, exist_ok=True)
                message = f"{run.path.name}, trained with Regard"
                api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
        except Exception as error:  # the hub's errors, those of HTTP, and the system's
            raise RegardError(
                f"hf-hub:{repo}: cannot be pushed: {one_line(error)}; `hf auth login` says who you are"
            ) from None
    return f"https://huggingface.co/{repo}"
