"""Source models: predictions, names and classes, and the caller's state, which is not changed."""

import dataclasses
import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from torch import nn

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.preprocessing import Preprocessing
from saliency_pipeline.models.source import build
from saliency_pipeline.models.source import source as source_module
from saliency_pipeline.models.source.source import SourceModel, check_source, class_names, load_source
from saliency_pipeline.models.source.weights import state_sha256

TINY = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def embedded() -> SourceModel:
    return load_source()


def frame(image: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
    """An image (H, W, 3) uint8 as a network's input (1, 3, size, size), by torch's own resizing."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    scale = preprocessing.size / min(pixels.shape[2:])
    shape = [max(preprocessing.size, round(side * scale)) for side in pixels.shape[2:]]
    pixels = nn.functional.interpolate(pixels, shape, mode=preprocessing.interpolation, antialias=True)
    top, left = [(side - preprocessing.size) // 2 for side in shape]
    pixels = pixels[:, :, top : top + preprocessing.size, left : left + preprocessing.size]
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (preprocessing.mean, preprocessing.std))
    return (pixels - mean) / std


def test_the_embedded_model_is_ready_to_use(embedded: SourceModel) -> None:
    assert (embedded.name, embedded.weights) == ("efficientnet_lite0", "embedded")
    assert embedded.preprocessing == Preprocessing(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
    assert len(embedded.classes) == len(embedded.wnids) == 1000
    assert (embedded.wnids[281], embedded.classes[281]) == ("n02123045", "tabby, tabby cat")
    assert not embedded.module.training
    assert all(not p.requires_grad and p.dtype == torch.float32 for p in embedded.module.parameters())
    assert embedded.weights_sha256 == state_sha256(embedded.module)


@pytest.mark.parametrize(
    ("photo", "expected"),
    [(skimage.data.chelsea, {281, 282, 283, 284, 285}), (skimage.data.coffee, {504, 967, 968})],
    ids=["cat", "espresso in a cup"],
)
def test_the_embedded_model_knows_what_it_sees(
    embedded: SourceModel, photo: Callable[[], np.ndarray], expected: set[int]
) -> None:
    with torch.no_grad():
        logits = embedded.module(frame(photo(), embedded.preprocessing))
    best = logits[0].topk(5).indices.tolist()
    assert best[0] in expected
    assert len(expected & set(best)) >= 2


@pytest.mark.usefixtures("empty_cache")
def test_embedded_weights_that_do_not_fit_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build.read_state_dict
    monkeypatch.setattr(build, "read_state_dict", lambda path: dict(list(whole(path).items())[:-1]))
    with pytest.raises(SalpipeError, match=r"efficientnet_lite0: .* does not fit timm's tf_efficientnet_lite0"):
        load_source()


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ("282", 282),
        (" 0 ", 0),
        ("n02123045", 281),
        ("N02123045", 281),
        ("tiger cat", 282),
        ("Tiger_Cat", 282),
        ("tabby", 281),
        ("tabby, tabby cat", 281),
        ("maillot", 638),
        ("tank suit", 639),
    ],
)
def test_a_class_is_found_by_index_wnid_and_name(embedded: SourceModel, given: str, index: int) -> None:
    assert embedded.class_index(given) == index


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1000", "class 1000: efficientnet_lite0 has classes 0 to 999"),
        ("-1", "classes 0 to 999"),
        ("espreso", "did you mean espresso, "),
        ("crane", "2 classes have that name; give one of n02012849, n03126707"),
        ("", "not one of efficientnet_lite0's 1000 classes"),
    ],
)
def test_a_class_that_is_not_one_is_named(embedded: SourceModel, given: str, message: str) -> None:
    with pytest.raises(SalpipeError, match=message) as caught:
        embedded.class_index(given)
    assert "\n" not in str(caught.value)


def test_what_is_not_imagenet_has_numbered_classes() -> None:
    assert class_names(3) == (("class 0", "class 1", "class 2"), ())


def test_a_background_class_stands_before_imagenet() -> None:
    names, wnids = class_names(1001)
    thousand, ids = class_names(1000)
    assert (names[0], wnids[0]) == ("background", "")
    assert (names[1:], wnids[1:]) == (thousand, ids)


@pytest.mark.parametrize("count", [11221, 11821, 21841, 21842, 21843])
def test_larger_imagenets_have_their_synsets(count: int) -> None:
    names, wnids = class_names(count)
    assert len(names) == count == len(set(wnids))
    assert "tabby, tabby cat" in names
    assert names[wnids.index("n02123045")] == "tabby, tabby cat"


def test_random_weights_are_the_same_every_time_and_leave_the_callers_state_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = load_source(TINY, "none")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    torch.manual_seed(8)
    second = load_source(TINY, "none")
    assert first.weights == "none"
    assert first.weights_sha256 == second.weights_sha256 == state_sha256(second.module)


def test_the_callers_default_dtype_does_not_reach_the_network(embedded: SourceModel) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        source = load_source()
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in source.module.parameters()} == {torch.float32}
    assert source.weights_sha256 == embedded.weights_sha256


def test_the_check_of_the_output_leaves_nothing_that_stops_autograd() -> None:
    module = load_source("test_vit.r160_in1k", "none").module
    image = torch.zeros(1, 3, 160, 160, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(image).sum(), image)
    assert gradient.shape == image.shape


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", "torchvision/googlenet", "test_vit.r160_in1k"])
def test_logits_are_one_tensor(name: str) -> None:
    source = load_source(name, "none")
    size = source.preprocessing.size
    with torch.no_grad():
        logits = source.module(torch.zeros(2, 3, size, size))
    assert logits.shape == (2, len(source.classes))


def test_torchvision_says_how_its_images_are_prepared() -> None:
    source = load_source("torchvision/squeezenet1_1", "none")
    assert source.name == "torchvision/squeezenet1_1"
    assert source.preprocessing == Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")


def test_timm_has_another_network_of_the_embedded_ones_name() -> None:
    source = load_source("timm/efficientnet_lite0", "none")
    assert source.name == "timm/efficientnet_lite0"
    assert source.preprocessing.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet5O", "model 'resnet5O' is unknown; did you mean resnet50, .*'salpipe models PATTERN'"),
        ("resnet18.a9_in1k", "did you mean resnet18.a"),
        ("torchvision/resnt18", "did you mean torchvision/resnet18"),
        ("", "model '' is unknown"),
        ("torchvision/fcn_resnet50", "torchvision/fcn_resnet50: not a float network that classifies"),
        ("torchvision/r3d_18", "torchvision/r3d_18: not a float network that classifies single images"),
        ("vit_small_patch14_dinov2.lvd142m", "gives features, not class scores"),
        ("vit_base_patch32_clip_224.openai", "gives an embedding of 512 numbers, not class scores"),
        ("vit_base_patch16_sapiens2", r"takes \(3, 1024, 768\) inputs"),
    ],
)
@pytest.mark.parametrize("weights", ["default", "none"])
def test_what_cannot_be_a_source_is_refused_in_one_line(name: str, weights: str, message: str) -> None:
    with pytest.raises(SalpipeError, match=message) as caught:
        load_source(name, weights)
    assert "\n" not in str(caught.value)


class Broken(nn.Module):
    """Returns its function of a batch."""

    def __init__(self, output: Callable[[torch.Tensor], object]) -> None:
        super().__init__()
        self.output = output

    def forward(self, images: torch.Tensor) -> object:
        return self.output(images)


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: {"out": x}, "does not return one score per class"),
        (lambda x: x, "does not return one score per class"),
        (lambda x: x[:, 0, 0, :0], "does not return one score per class"),
        (lambda x: x @ x[:, :, :2], r"cannot classify one 160x160 image \(.*\)"),
    ],
)
def test_networks_without_plain_logits_are_refused(
    monkeypatch: pytest.MonkeyPatch, output: Callable[[torch.Tensor], object], message: str
) -> None:
    monkeypatch.setattr(build, "_network", lambda library, bare: Broken(output))
    with pytest.raises(SalpipeError, match=f"{TINY}: {message}"):
        load_source(TINY, "none")


def test_a_cached_description_needs_no_network(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_source(TINY, "none")
    monkeypatch.setattr(source_module, "_load", lambda *_: pytest.fail("the network was built"))
    again = load_source(TINY, "none")
    assert {**vars(again), "build": None} == {**vars(first), "build": None}


@pytest.mark.parametrize("change", [{"classes": [None]}, {"wnids": {}}, {"name": 1}, {"weights": None}, {"more": 1}])
def test_a_cached_description_of_another_kind_is_made_again(empty_cache: Path, change: dict[str, object]) -> None:
    first = load_source(TINY, "none")
    (entry,) = (empty_cache / "networks").glob("source-*")
    body = json.dumps(json.loads(entry.read_bytes()[32:]) | change).encode()
    entry.write_bytes(hashlib.sha256(body).digest() + body)
    again = load_source(TINY, "none")
    assert {**vars(again), "build": None} == {**vars(first), "build": None}


def test_a_file_of_weights_is_known_from_any_folder(
    empty_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(load_source(TINY, "none").module.state_dict(), tmp_path / "weights.pth")
    monkeypatch.chdir(tmp_path)
    first = load_source(TINY, "weights.pth")
    monkeypatch.setattr(source_module, "_load", lambda *_: pytest.fail("the network was built"))
    assert load_source(TINY, "weights.pth").weights_sha256 == first.weights_sha256
    assert load_source(TINY, "weights.pth").file == tmp_path / "weights.pth"


@pytest.mark.parametrize("kind", ["missing", "pipe", "endless"])
def test_a_file_of_weights_that_is_none_any_more_is_named(empty_cache: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pth"
    torch.save(load_source(TINY, "none").module.state_dict(), path)
    load_source(TINY, str(path))
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "endless":
        path.touch()
        os.truncate(path, 2**40)  # hashing it would take half an hour
    with pytest.raises(SalpipeError, match=r"weights\.pth: (no such file|a device or pipe|not a supported kind)"):
        load_source(TINY, str(path))


def test_weights_that_were_replaced_after_all_are_an_error_once(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_source(TINY, "none")
    load = source_module._load
    with monkeypatch.context() as patch:
        patch.setattr(source_module, "_load", lambda *names: dataclasses.replace(load(*names), weights_sha256="other"))
        with pytest.raises(SalpipeError, match=f"{TINY}: its weights were replaced; run the same command again"):
            load_source(TINY, "none").module  # noqa: B018
    assert load_source(TINY, "none").module is not None


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet5O", "default", "model 'resnet5O' is unknown; did you mean resnet50"),
        ("resnet5O", "none", "is unknown"),
        (TINY, "absent.pth", "absent.pth: no such file"),
        (TINY, "text.pth", "text.pth: not a supported kind of weights"),
        (TINY, "other.pth", f"other.pth: does not fit {TINY}: 77 missing"),
        ("botnet50ts_256", "default", "no pretrained weights of it exist"),
        ("vit_small_patch14_dinov2.lvd142m", "none", "gives features, not class scores"),
        ("folder", "default", "model 'folder' is unknown"),
    ],
)
def test_what_cannot_be_loaded_is_known_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, weights: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pth").write_text("# Read me")
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(source_module, "_load", lambda *_: pytest.fail("it was loaded"))
    monkeypatch.setattr(build, "hub_file", lambda *_: pytest.fail("it was downloaded"))
    with pytest.raises(SalpipeError, match=message):
        check_source(name, weights)


@pytest.mark.parametrize(("name", "weights"), [("efficientnet_lite0", "default"), (TINY, "none"), (TINY, "default")])
def test_what_can_be_loaded_passes_the_check(name: str, weights: str) -> None:
    check_source(name, weights)


@pytest.mark.usefixtures("empty_cache")
def test_notes_on_a_file_are_kept_with_the_prepared_model(tmp_path: Path) -> None:
    state = load_source(TINY, "none").module.state_dict()
    torch.save({f"model.{key}": value for key, value in state.items()}, tmp_path / "last.ckpt")
    first, again = (load_source(TINY, str(tmp_path / "last.ckpt")) for _ in range(2))
    assert first.notes == again.notes == (f"last.ckpt: prefix 'model.' removed from the names of {len(state)} tensors",)


def test_remedies_for_a_data_sets_class_offer_no_index(embedded: SourceModel) -> None:
    with pytest.raises(SalpipeError, match="1000 classes; give a WordNet id or another name"):
        embedded.class_named("qqqqqqqq")
