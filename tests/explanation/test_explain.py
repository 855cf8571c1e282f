"""`explain` and `Explainer`: maps of the engine for images of every kind, networks that are kept, errors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

import saliency_pipeline
from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.explanation import explain as module
from saliency_pipeline.explanation.explain import Explainer, explain
from saliency_pipeline.explanation.explanation import Explanation, Explanations
from saliency_pipeline.saliency.methods.registry import METHODS
from tests.saliency.networks import Tiny, own_explainer, own_source

SIZE, CLASSES = 32, 7
BOTH = ["gradcam", "gradient"]
PREPROCESSING = {"size": SIZE, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(own_source(Tiny(CLASSES), SIZE, CLASSES))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "coffee <1>.png"
    Image.fromarray(data.coffee()[:200, :240]).save(path)
    return path


def same(one: Explanation, other: Explanation) -> None:
    np.testing.assert_array_equal(one.frame, other.frame)
    assert one.top == other.top
    assert one.targets == other.targets
    assert list(one.maps) == list(other.maps)
    for name, maps in one.maps.items():
        np.testing.assert_allclose(maps, other.maps[name], rtol=1e-4, atol=1e-6)


def test_the_maps_are_those_of_the_engine(explainer: Explainer, photo: Path) -> None:
    explanation = explainer.explain(photo, BOTH, target="top:2")
    engine = own_explainer(Tiny(CLASSES), SIZE, CLASSES, tuple(BOTH), batch=1)
    expected = engine.with_target(module.Target("predicted", 2)).explain(explanation.frame[None])
    assert explanation.maps["gradcam"].shape == (2, SIZE // 2, SIZE // 2)
    assert explanation.maps["gradient"].shape == (2, SIZE, SIZE)
    for name in BOTH:
        np.testing.assert_allclose(explanation.maps[name], expected.maps[name][0], rtol=1e-4, atol=1e-6)
    assert [each.index for each in explanation.top] == expected.prediction_class[0].tolist()
    np.testing.assert_allclose([each.score for each in explanation.top], expected.prediction_score[0], rtol=1e-5)
    assert explanation.targets == explanation.top[:2]
    assert explanation.prediction == explanation.top[0]
    assert explanation.prediction.name == f"class {explanation.prediction.index}"


def test_all_kinds_of_images_give_the_same_explanation(explainer: Explainer, photo: Path) -> None:
    opened = Image.open(photo)
    pixels = np.asarray(opened)
    kinds = [str(photo), opened, pixels, pixels / 255, torch.from_numpy(pixels.copy()).permute(2, 0, 1)]
    first = explainer.explain(photo)
    explanations = explainer.explain(kinds)
    assert isinstance(explanations, Explanations)
    assert [each.name for each in explanations] == [photo.name, *["image"] * 4]
    for each in explanations:
        same(each, first)


def test_a_list_stays_a_list(explainer: Explainer, photo: Path) -> None:
    assert isinstance(explainer.explain([photo]), Explanations)
    assert explainer.explain([]) == ()
    assert isinstance(explainer.explain((photo,)), Explanations)


def test_any_class_can_be_explained(explainer: Explainer, photo: Path) -> None:
    predicted = explainer.explain(photo, target=f"top:{CLASSES}")
    last = predicted.targets[-1]
    for target in (last.index, str(last.index), last.name):
        (own,) = explainer.explain(photo, target=target).targets
        assert own.index == last.index
        assert own.score == pytest.approx(last.score)
    assert sum(each.score for each in predicted.targets) == pytest.approx(1)


def test_networks_are_kept_for_other_methods_and_targets(
    explainer: Explainer, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = explainer.explain(photo, "gradcam")
    both = explainer.explain(photo, BOTH)
    monkeypatch.setattr(module, "Engine", lambda *_: pytest.fail("prepared again"))
    same(explainer.explain(photo, "gradcam"), first)
    same(explainer.explain(photo, BOTH), both)
    assert len(explainer.explain(photo, "gradcam", target="top:3").targets) == 3
    assert list(explainer.explain(photo, METHODS["gradcam"]()).maps) == ["gradcam"]


def test_images_are_compared_with_each_other_or_not_at_all(explainer: Explainer, photo: Path) -> None:
    method = "expected-gradients:samples=3"
    one, two = explainer.explain([photo, data.cat()], method)
    assert one.map().shape == (SIZE, SIZE)
    assert list(one.residuals) == list(two.residuals) == list(one.maps)
    with pytest.raises(SalpipeError, match="--method expected-gradients: needs other images to compare with; explain"):
        explainer.explain(photo, method)


def test_a_few_networks_are_kept(photo: Path) -> None:
    explainer = Explainer(own_source(Tiny(CLASSES), SIZE, CLASSES))
    for layer in ("conv", "norm", "act", ["conv", "act"], None):
        explainer.explain(photo, "gradcam", layer=layer)
    assert len(explainer._engines) == module._KEPT


def test_several_layers_give_a_map_each(explainer: Explainer, photo: Path) -> None:
    explanation = explainer.explain(photo, BOTH, layer=["act", "conv"])
    assert list(explanation.maps) == ["gradcam:layer=act", "gradcam:layer=conv", "gradient"]
    assert explanation.facts["Layer"] == "conv, act"
    for layer in ("act", "conv"):
        alone = explainer.explain(photo, "gradcam", layer=layer)
        own = explanation.maps[f"gradcam:layer={layer}"]
        np.testing.assert_allclose(own, alone.maps["gradcam"], rtol=1e-3, atol=1e-5)


def test_size_and_fit_decide_the_frame(photo: Path) -> None:
    source = own_source(Tiny(CLASSES), SIZE, CLASSES)
    explanation = Explainer(source, size=48, fit="pad").explain(photo)
    assert explanation.frame.shape == (48, 48, 3)
    assert (explanation.frame[0] == 128).all()
    assert explanation.map().shape == (24, 24)


def test_the_same_image_has_the_same_maps(explainer: Explainer, photo: Path) -> None:
    once, twice = (explainer.explain([photo, data.cat()], BOTH)[0] for _ in range(2))
    for name in BOTH:
        np.testing.assert_array_equal(once.maps[name], twice.maps[name])


def test_the_last_model_by_name_is_kept(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module._kept.cache_clear()
    options = {"model": "test_resnet", "weights": "none", "size": 64}
    first = saliency_pipeline.explain(photo, **options)
    monkeypatch.setattr(module, "load_source", lambda *_: pytest.fail("loaded again"))
    same(explain(photo, **options), first)
    module._kept.cache_clear()


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ("nowhere.jpg", {}, "nowhere.jpg: No such file or directory; use an image file"),
        (".", {}, ".: Is a directory; use an image file"),
        ("/dev/zero", {}, "/dev/zero: Not a regular file; use an image file"),
        (__file__, {}, f"{Path(__file__).name}: not an image that can be read"),
        (np.zeros((3, 8, 8)), {}, "image: an array of shape (3, 8, 8)"),
        (data.cat(), {"method": "nothing at all"}, "--method nothing at all: unknown; choose from gradcam"),
        (data.cat(), {"method": []}, "--method: no method is requested"),
        (data.cat(), {"target": "tabby"}, "--target: class 'tabby': not one of tiny's 7 classes"),
        (data.cat(), {"target": 7}, "--target: class 7: tiny has classes 0 to 6"),
        (data.cat(), {"target": "top:8"}, "--target top:8: the source model has 7 classes"),
        (data.cat(), {"target": "label"}, "--target label: the images have no labels"),
        (data.cat(), {"layer": "nowhere"}, "--layer nowhere: is no layer of this network"),
    ],
)
def test_errors_are_one_line(explainer: Explainer, images: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(SalpipeError) as caught:
        explainer.explain(images, **options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_network_without_a_layer_on_a_grid_has_maps_of_pixels(photo: Path) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, CLASSES))
    explainer = Explainer(own_source(flat, SIZE, CLASSES))
    explanation = explainer.explain(photo, ["gradient", "edges"])
    assert [maps.shape for maps in explanation.maps.values()] == [(1, SIZE, SIZE)] * 2
    with pytest.raises(SalpipeError, match="Sequential has no layer whose output lies on a grid"):
        explainer.explain(photo, ["gradient", "gradcam"])


def test_ones_own_network_is_explained(explainer: Explainer, photo: Path) -> None:
    network = Tiny(CLASSES)
    settings = {"input_size": (3, SIZE, SIZE), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
    names = [f"class {index}" for index in range(CLASSES)]
    own = explain(photo, BOTH, model=network, preprocessing=settings, classes=names)
    same(own, explainer.explain(photo, BOTH))
    network.pretrained_cfg = settings
    same(Explainer(network).explain(photo, BOTH), own)
    with pytest.raises(SalpipeError, match="Tiny: "):
        explain(photo, model=Tiny(CLASSES))
    with pytest.raises(OptionError, match="--weights none: the model is no name and brings its weights"):
        explain(photo, model=network, weights="none")
    with pytest.raises(OptionError, match="model test_resnet: has its own preprocessing and classes; leave them out"):
        explain(photo, model="test_resnet", classes=names)


@pytest.mark.parametrize("size", [0, -1, True])
def test_an_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(OptionError, match="--size"):
        Explainer(own_source(Tiny(CLASSES), SIZE, CLASSES), size=size)


def _in_place(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return Tiny.forward(network, images.mul_(2))


def _without_gradients(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return Tiny.forward(network, images)


def _one_at_a_time(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    if len(images) > 1:
        raise RuntimeError("only one image")
    return Tiny.forward(network, images)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (_in_place, r"^model 'Odd': fails while it is explained at .*test_explain\.py:\d+ \(RuntimeError: .*in-?place"),
        (_without_gradients, r"^Odd: has no gradients; leave torch\.no_grad\(\) and detach\(\) out of its forward$"),
        (
            _one_at_a_time,
            r"^model 'Odd': fails while it is explained at .*test_explain\.py:\d+ \(RuntimeError: only",
        ),
    ],
)
def test_a_network_that_cannot_be_explained_is_refused_in_one_line(photo: Path, forward, message: str) -> None:
    network = type("Odd", (Tiny,), {"forward": forward})(CLASSES)
    with pytest.raises(SalpipeError, match=message) as caught:
        explain(photo, "gradient", model=network, preprocessing=PREPROCESSING)
    assert "\n" not in str(caught.value)


def test_scores_that_are_not_finite_are_refused(photo: Path) -> None:
    network = Tiny(CLASSES)
    next(network.parameters()).data.fill_(torch.nan)
    with pytest.raises(SalpipeError, match="the scores of Tiny are not finite; check its weights"):
        explain(photo, model=network, preprocessing=PREPROCESSING)


@pytest.mark.parametrize("image", [None, b"bytes", 3, (name for name in "ab")])
def test_objects_that_are_no_image_are_refused(explainer: Explainer, image: object) -> None:
    with pytest.raises(SalpipeError, match=r"^image: an object of type .*; use a path, an image of Pillow, or"):
        explainer.explain(image)


def test_an_image_that_pillow_cannot_read_is_refused(explainer: Explainer, photo: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(photo.read_bytes()[:5000])
    with Image.open(damaged) as image, pytest.raises(SalpipeError, match=r"^image: damaged or closed \("):
        explainer.explain(image)


def test_an_image_that_is_too_large_is_refused_without_an_option_of_others(
    explainer: Explainer, tmp_path: Path
) -> None:
    Image.new("1", (12000, 12000)).save(tmp_path / "large.png")
    with pytest.raises(SalpipeError, match=r"more than the limit of 128000000; use a smaller copy$"):
        explainer.explain(tmp_path / "large.png")


@pytest.mark.parametrize("model", [3, None, nn.Linear])
def test_objects_that_are_no_model_are_refused(model: object) -> None:
    with pytest.raises(OptionError, match=r"^model: is .*; give a name, a SourceModel or an nn.Module"):
        Explainer(model)


@pytest.mark.parametrize("ending", ["png", "html", "npz"])
def test_no_explanations_cannot_be_saved(explainer: Explainer, tmp_path: Path, ending: str) -> None:
    with pytest.raises(SalpipeError, match="there are no images to save"):
        explainer.explain([]).save(tmp_path / f"none.{ending}")


def test_the_mode_of_the_caller_does_not_matter(photo: Path) -> None:
    network = Tiny(CLASSES)
    expected = explain(photo, BOTH, model=network, preprocessing=PREPROCESSING)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            same(explain(photo, BOTH, model=network, preprocessing=PREPROCESSING), expected)


@pytest.mark.parametrize("method", ["gradcam", "layercam"])
def test_only_fused_maps_have_several_layers(explainer: Explainer, photo: Path, method: str) -> None:
    fused = "layercam:fuse=max,layer=conv+act"
    assert list(explainer.explain(photo, fused).maps) == [fused]
    with pytest.raises(SalpipeError, match=r"--layer conv\+act: is no layer of this network"):
        explainer.explain(photo, f"{method}:layer=conv+act")
