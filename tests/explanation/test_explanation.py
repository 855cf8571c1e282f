"""An `Explanation` is shown and saved: overlays, a picture, a page, arrays, notebooks; names of others are escaped."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.explanation.explanation import ClassScore, Explanation, Explanations
from saliency_pipeline.explanation.side_by_side import caption, side_by_side
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.methods.registry import METHODS, find_methods
from saliency_pipeline.saliency.render import overlay
from tests.gallery.test_page import EVIL, Page
from tests.saliency.methods.test_registry import Agnostic, Sampled

EVERY = ["gradcam", "gradcam:layer=conv", "sampled:samples=3", "agnostic"]


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Sampled, Agnostic):
        monkeypatch.setitem(METHODS, kind.name, kind)


def example(name: str = "cat.jpg", targets: int = 2, methods: list[str] = EVERY, size: int = 32) -> Explanation:
    random = np.random.default_rng(0)
    classes = tuple(ClassScore(index, f"class {index}", 0.5 / 2**index) for index in range(5))
    own: dict[str, Method] = {method.canonical: method for method in find_methods(methods)}
    maps = {
        key: random.standard_normal((targets if method.class_specific else 1, 4, 4), np.float32)
        for key, method in own.items()
    }
    residuals = {key: np.full(targets, -0.123, np.float32) for key, method in own.items() if method.complete}
    frame = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
    errors = {key: np.full(targets, 0.042, np.float32) for key, method in own.items() if method.name == "rise"}
    return Explanation(name, frame, classes, classes[:targets], maps, residuals, own, {"Source model": "tiny"}, errors)


def test_a_map_is_found_by_any_of_its_names() -> None:
    explanation = example()
    own = explanation.maps["sampled:absolute=false,noise=0.15,samples=3,stat=mean"]
    for name in ("sampled", "sampled:samples=3", "sampled:absolute=false,noise=0.15,samples=3,stat=mean"):
        np.testing.assert_array_equal(explanation.map(name, 1), own[1])
    np.testing.assert_array_equal(explanation.map(), explanation.maps["gradcam"][0])
    np.testing.assert_array_equal(explanation.map("gradcam:layer=conv"), explanation.maps["gradcam:layer=conv"][0])
    np.testing.assert_array_equal(explanation.map("agnostic", 1), explanation.maps["agnostic"][0])


@pytest.mark.parametrize(
    ("method", "target", "message"),
    [
        ("gradient", 0, "method gradient: not computed; choose from gradcam, gradcam:layer=conv, sampled"),
        ("gradcam", 2, "target 2: use a number from 0 to 1"),
        ("gradcam", -1, "target -1: use a number from 0 to 1"),
        ("nothing at all", 0, "--method nothing at all: unknown; choose from gradcam"),
    ],
)
def test_a_map_that_is_not_there_is_reported(method: str, target: int, message: str) -> None:
    with pytest.raises(SalpipeError) as caught:
        example().overlay(method, target)
    assert str(caught.value).startswith(message)


def test_a_name_of_several_maps_is_reported() -> None:
    explanation = example(methods=["sampled:samples=3", "sampled:samples=4"])
    with pytest.raises(SalpipeError, match="method sampled: several of that name; choose from sampled:absolute=false"):
        explanation.map("sampled")


def test_an_overlay_has_the_resolution_of_the_frame() -> None:
    explanation = example()
    picture = explanation.overlay("gradcam", 1)
    assert picture.size == (32, 32)
    np.testing.assert_array_equal(np.asarray(picture), overlay(explanation.frame, explanation.maps["gradcam"][1]))


def test_captions_name_parameters_that_are_not_the_default_and_residuals() -> None:
    explanation = example()
    assert [caption(explanation, name, 0).split("\n") for name in explanation.maps] == [
        ["gradcam"],
        ["gradcam", "layer=conv"],
        ["sampled", "samples=3", "residual −0.12"],
        ["agnostic"],
    ]


def test_standard_errors_are_shown_and_saved(tmp_path: Path) -> None:
    explanation = example(methods=["rise:masks=20"])
    (name,) = explanation.maps
    assert caption(explanation, name, 1).split("\n") == ["rise", "masks=20", "standard error 4.2%"]
    assert Page(explanation.save(tmp_path / "page.html")).text.count("standard error 4.2% of the range") == 2
    arrays = np.load(explanation.save(tmp_path / "out.npz"))
    np.testing.assert_array_equal(arrays[f"standard_errors/{name}"], explanation.standard_errors[name])


@pytest.mark.parametrize(
    ("methods", "targets", "columns", "rows"),
    [
        (EVERY, 2, 5, 2),
        (EVERY, 1, 5, 1),
        (["gradcam"], 3, 2, 3),
        ([f"sampled:samples={n}" for n in range(1, 9)], 1, 5, 2),
    ],
    ids=["rows of targets", "one row", "one method", "a long row is wrapped"],
)
def test_the_picture_has_a_row_per_target(methods: list[str], targets: int, columns: int, rows: int) -> None:
    picture = side_by_side([example(targets=targets, methods=methods)])
    assert picture.shape[1] == columns * (224 + 12) + 12
    assert picture.shape[0] // (224 + 12) == rows


def test_the_picture_of_several_images_has_their_rows() -> None:
    picture = side_by_side([example("a.jpg", 1), example("b.jpg", 1)])
    assert picture.shape[0] // (224 + 12) == 2


def test_a_large_frame_is_shown_smaller() -> None:
    assert side_by_side([example(size=640, methods=["gradcam"], targets=1)]).shape[1] == 2 * (320 + 12) + 12


@pytest.mark.parametrize("name", ["out.png", "new/out.PNG", "out.html", "out.npz"])
def test_saved_files_are_what_their_ending_says(tmp_path: Path, name: str) -> None:
    explanation, path = example(), tmp_path / name
    assert explanation.save(str(path)) == path
    if path.suffix.lower() == ".png":
        np.testing.assert_array_equal(np.asarray(Image.open(path)), side_by_side([explanation]))
    elif path.suffix == ".html":
        assert "class 0" in Page(path).text
    else:
        arrays = np.load(path)
        assert set(arrays) == {"frame", "targets", *(f"maps/{own}" for own in explanation.maps), RESIDUALS}
        np.testing.assert_array_equal(arrays["frame"], explanation.frame)
        np.testing.assert_array_equal(arrays["targets"], [0, 1])
        np.testing.assert_array_equal(arrays["maps/gradcam"], explanation.maps["gradcam"])


RESIDUALS = "residuals/sampled:absolute=false,noise=0.15,samples=3,stat=mean"


def test_arrays_of_several_images_begin_with_an_axis_of_images(tmp_path: Path) -> None:
    explanations = Explanations([example("a.jpg"), example("b.jpg")])
    arrays = np.load(explanations.save(tmp_path / "two.npz"))
    assert arrays["maps/gradcam"].shape == (2, 2, 4, 4)
    assert arrays["frame"].shape == (2, 32, 32, 3)
    assert np.load(Explanations(explanations[:1]).save(tmp_path / "one.npz"))["frame"].shape == (1, 32, 32, 3)


@pytest.mark.parametrize("name", ["out.jpg", "out", ".png"])
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SalpipeError, match=r"use a name that ends in \.png, \.html or \.npz$"):
        example().save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SalpipeError, match=r"out\.png"):
        example().save(tmp_path / "file" / "out.png")


def test_the_page_shows_every_map_once_and_needs_nothing_else(tmp_path: Path) -> None:
    page = Page(example().save(tmp_path / "page.html"))
    pictures = [image["alt"] for image in page.all("img") if image["alt"]]
    assert pictures == [
        "cat.jpg",
        *("gradcam of cat.jpg", "gradcam of cat.jpg", "sampled of cat.jpg", "agnostic of cat.jpg"),
        *("gradcam of cat.jpg", "gradcam of cat.jpg", "sampled of cat.jpg"),
    ]
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    assert not page.all("script")
    assert not page.all("link", rel="stylesheet")
    for text in ("Explained: class 0 50%", "samples=3", "residual −0.12", "explains no class", "against the class"):
        assert text in page.text


@pytest.mark.parametrize("evil", EVIL)
def test_names_of_others_are_escaped(tmp_path: Path, evil: str) -> None:
    usual, explanation = example(), example(evil)
    object.__setattr__(explanation, "top", (ClassScore(0, evil, 0.5),))
    object.__setattr__(explanation, "targets", (ClassScore(0, evil, 0.5),) * 2)
    pages = [Page(each.save(tmp_path / "page.html")) for each in (usual, explanation)]
    counts = [len(page.all(tag)) for page in pages for tag in ("script", "figure", "h1")]
    assert counts == [0, 7, 1] * 2
    fragment = tmp_path / "fragment.html"
    fragment.write_text(explanation._repr_html_(), encoding="utf-8")
    assert [tag for tag, _ in Page(fragment).elements] == ["figure", "img", "figcaption"]
    assert "\n" not in fragment.read_text(encoding="utf-8")


def test_notebooks_show_one_or_several() -> None:
    assert "cat.jpg: class 0 50%; gradcam, " in example()._repr_html_()
    assert "2 images; gradcam, " in Explanations([example(), example()])._repr_html_()
    assert Explanations()._repr_html_() == "<p>no images</p>"
    assert repr(example(methods=["gradcam"])) == "Explanation(cat.jpg: class 0 50%; gradcam)"
