"""The page and the contact sheet: complete, self-contained, escaped, light."""

import base64
import dataclasses
import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.gallery.page import show
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import MapShape, ShardHeader, ShardRows
from saliency_pipeline.shards.shard import Shard
from tests.shards import examples

EVIL = [
    '<script>document.title = "broken"</script>',
    '"><img src=x onerror=alert(1)>',
    "a\nb\r\n'c' & \"d\"",
    "{{ 7 * 7 }}{% raw %}",
    "</script><!--",
    "javascript:alert(1)",
]


class Page(HTMLParser):
    """Every element of a page with its attributes, and the text outside scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_bytes().decode("utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.raw: list[str] = []
        self.inside = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        (self.raw if self.inside in ("script", "style") else self.words).append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            present
            for name, present in self.elements
            if name == tag and all(present.get(key.rstrip("_")) == value for key, value in attributes.items())
        ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return examples.folder(tmp_path / "my shards")


def shard(path: Path, head: ShardHeader, rows: ShardRows) -> Path:
    """One shard file by itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return examples.write(path, head, rows)


def evil(path: Path) -> Path:
    """A shard whose keys, classes and provenance are full of markup."""
    names = [*EVIL, "\ud800"]
    source = {"model": EVIL[0], "classes": [EVIL[1]] * 20, "layer": EVIL[4], "weights": {"no": "text"}}
    head = examples.header(
        classes=tuple(names),
        provenance={"source": source, "settings": {"target": EVIL[2]}, "resolved": {"precision": 16}},
    )
    rows = dataclasses.replace(examples.rows(len(EVIL)), keys=EVIL, labels=np.arange(len(EVIL)))
    rows.labels[-1] = len(names) - 1
    return shard(path, head, rows)


def test_the_page_shows_every_image_and_what_is_known_of_it(folder: Path, tmp_path: Path) -> None:
    gallery = show(folder, tmp_path / "deep" / "gallery")
    assert gallery.images == 12
    assert sorted(path.name for path in gallery.page.parent.iterdir()) == ["contact-sheet.png", "gallery.html"]
    page, data = Page(gallery.page), ShardFolder(folder)
    assert {card["data-key"] for card in page.all("article")} == set(data.keys())
    # one photo, and an overlay for gradcam and the two targets of the gradient
    assert len(page.all("img", class_="photo")) == 12
    assert Counter(each["data-view"] for each in page.all("img", class_="overlay")) == {"0": 12, "1": 12, "2": 12}
    assert [each for each in page.all("img") if not each.get("alt")] == []
    for pair in data:
        assert pair.key in page.text
        assert f"source {pair.prediction_class[0]} {100 * pair.prediction_score[0]:.1f} %" in page.text
        for method, targets in pair.targets.items():
            for target in targets.tolist():
                if target != pair.prediction_class[0]:
                    assert f"explains source {target}" in page.text, method
    for fact in ("my shards", "Images 12", "Classes 3", "Source model tiny", "Method gradcam, gradient-simonyan"):
        assert fact in page.text
    assert "12 of 12 images" in page.text


def test_pictures_are_those_of_the_shard(tmp_path: Path) -> None:
    rows = examples.rows(1)
    rows.images[:] = (200, 40, 10)
    rows.maps["gradcam"][:] = 0
    path = shard(tmp_path / "shard.h5", examples.header(), rows)
    page = Page(show(path, tmp_path / "g", method="gradcam").page)
    photo, overlay = (picture(each) for each in page.all("img"))
    np.testing.assert_allclose(photo.mean(axis=(0, 1)), [200, 40, 10], atol=4)
    assert photo.shape == overlay.shape == (24, 24, 3)
    assert overlay.mean() < photo.mean()


def picture(image: dict[str, str | None]) -> np.ndarray:
    kind, _, data = (image["src"] or "").partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        return np.asarray(image).astype(float)


@pytest.mark.parametrize("make", [examples.folder, evil], ids=["plain", "evil"])
def test_nothing_outside_the_page_is_referred_to(tmp_path: Path, make: object) -> None:
    page = Page(show(make(tmp_path / "shards"), tmp_path / "g").page)
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in {"src", "href", "srcset", "action", "formaction", "data", "poster", "xlink:href", "background"}:
                assert (value or "").startswith("data:"), f"<{tag} {name}={value!r:.60}>"
            assert not name.startswith("on"), f"<{tag} {name}>"
    code = " ".join(page.raw)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttpRequest|import\(", code)
    assert {tag for tag, _ in page.elements}.isdisjoint({"iframe", "object", "embed", "base", "form", "audio", "video"})
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert "default-src 'none'" in (policy["content"] or "")


def test_markup_in_names_is_only_text(tmp_path: Path) -> None:
    page = Page(show(evil(tmp_path / "<b>" / "shard.h5"), tmp_path / "g").page)
    plain = Page(show(examples.folder(tmp_path / "plain"), tmp_path / "h").page)
    assert [card["data-key"] for card in page.all("article")] == EVIL
    assert len(page.all("script")) == len(page.all("style")) == 1
    # the same script, to the letter: no name is written into it
    assert page.raw[-1] == plain.raw[-1]
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements} | {"fieldset", "select", "option"}
    assert "{{ 7 * 7 }}{% raw %}" in page.text
    assert "49" not in page.text.replace("49.", "")


def test_the_page_can_be_used_without_seeing_it(folder: Path, tmp_path: Path) -> None:
    page = Page(show(folder, tmp_path / "g").page)
    assert page.all("html", lang="en")
    frames = page.all("button", class_="frame")
    assert len(frames) == 12
    assert all(each["aria-label"] for each in frames)
    assert page.all("input", type="search")[0]["aria-label"]
    assert page.all("span", role="status")


def filters(page: Page) -> list[str]:
    """The values of the class filter, whichever form it has."""
    return [each["value"] or "" for each in page.all("input", name="group")]


def test_the_class_filter_counts_what_is_shown(folder: Path, tmp_path: Path) -> None:
    page = Page(show(folder, tmp_path / "g").page)
    labels = [pair.class_name or "(unlabeled)" for pair in ShardFolder(folder)]
    for name, images in Counter(labels).items():
        assert f"{name} {images}" in page.text
    assert len(filters(page)) == 1 + len(set(labels))
    assert Counter(card["data-group"] for card in page.all("article")).total() == 12


def test_many_classes_are_filtered_by_a_list(tmp_path: Path) -> None:
    rows = dataclasses.replace(examples.rows(20), labels=np.arange(20))
    head = examples.header(classes=tuple(f"kind {i}" for i in range(20)))
    page = Page(show(shard(tmp_path / "s.h5", head, rows), tmp_path / "g").page)
    assert filters(page) == []
    assert len(page.all("select", name="group")) == 1
    assert "kind 19 (1)" in page.text


def test_without_labels_the_prediction_is_filtered_by(tmp_path: Path) -> None:
    rows = dataclasses.replace(examples.rows(6), labels=np.full(6, -1))
    rows.prediction_class[:, 0] = [3, 3, 3, 3, 7, 7]
    page = Page(show(shard(tmp_path / "s.h5", examples.header(classes=()), rows), tmp_path / "g").page)
    assert "source 3 4" in page.text
    assert "source 7 2" in page.text
    assert "unlabeled" in page.text


def test_odd_maps_are_marked(tmp_path: Path) -> None:
    rows = examples.rows(3)
    rows.maps["gradcam"][0] = 0
    rows.maps["gradcam"][1] = 2
    rows.maps["gradcam"][2, 0, 0, 0] = np.nan
    page = Page(show(shard(tmp_path / "s.h5", examples.header(), rows), tmp_path / "g", method="gradcam").page)
    assert page.text.count("the map is zero everywhere") == 1
    assert page.text.count("the map is constant") == 1
    assert page.text.count("values that were not finite became 0") == 1
    assert "the source model was trained on this image" not in page.text


def test_images_of_the_source_models_training_are_marked(tmp_path: Path) -> None:
    rows = dataclasses.replace(examples.rows(3), seen=np.array([True, False, True]))
    rows.maps["gradcam"][0] = 0
    page = Page(show(shard(tmp_path / "s.h5", examples.header(), rows), tmp_path / "g", method="gradcam").page)
    assert page.text.count("the source model was trained on this image") == 2
    assert page.text.count("the map is zero everywhere") == 1
    assert "the map is constant" not in page.text


def test_signed_maps_get_a_legend_of_their_own(tmp_path: Path) -> None:
    rows = examples.rows(2)
    rows.maps["gradcam"] = np.abs(rows.maps["gradcam"])
    path = shard(tmp_path / "s.h5", examples.header(), rows)
    assert "low high" in Page(show(path, tmp_path / "g", method="gradcam").page).text
    assert "against the class for it" in Page(show(path, tmp_path / "g", method="gradient-simonyan").page).text


def test_one_method_alone(folder: Path, tmp_path: Path) -> None:
    page = Page(show(folder, tmp_path / "g", method="gradcam").page)
    assert len(page.all("img")) == 24
    assert [each["data-targets"] for each in page.all("option") if "data-targets" in each] == ["1"]
    assert all("hidden" in each for each in page.all("label", class_="control")[-4:-2])
    with pytest.raises(SalpipeError, match=r"no maps of 'lime'; it holds gradcam, gradient-simonyan"):
        show(folder, tmp_path / "g", method="lime")


def test_methods_with_parameters_are_switched_and_explain_their_own_number_of_classes(tmp_path: Path) -> None:
    smooth = "smoothgrad:noise=0.15,samples=25,seed=0,stat=mean"
    recorded = {"eigencam": {"class_agnostic": True}, "captum:DeepLift": {"signed": True}, smooth: {}, "gradcam": {}}
    path = examples.of_methods(tmp_path / "s.h5", recorded, count=2, targets=2)
    page = Page(show(path, tmp_path / "g").page)
    assert page.text.count("explains no class") == 2
    assert "class -1" not in page.text
    assert "Methods 4" in page.text
    # number of the first view and of views; the names are sorted
    options = [(each["value"], each["data-targets"]) for each in page.all("option") if "data-targets" in each]
    assert options == [("0", "2"), ("2", "1"), ("3", "2"), ("5", "2")]
    assert len(page.all("img", class_="overlay")) == 2 * 7
    assert page.text.count("against the class for it") == 2
    alone = Page(show(path, tmp_path / "g", method="smoothgrad:stat=mean").page)
    assert f"Method {smooth}" in alone.text
    assert len(alone.all("img", class_="overlay")) == 4


@pytest.mark.parametrize(
    "provenance",
    [
        {},
        {"source": None},
        {"source": {"classes": "abc"}},
        {"source": {"classes": [1, None]}, "settings": {"target": ["x"]}, "resolved": []},
    ],
    ids=str,
)
def test_provenance_may_say_nothing(tmp_path: Path, provenance: dict[str, object]) -> None:
    rows = examples.rows(2)
    rows.prediction_class[:] = [[1_000_000, 1, -1, -1, -1], [-1] * 5]
    rows.prediction_score[:] = np.nan
    page = Page(show(shard(tmp_path / "s.h5", examples.header(provenance=provenance), rows), tmp_path / "g").page)
    assert "predicted class 1000000 0.0 %" in page.text
    assert page.text.count("predicted") >= 1
    assert "Source model" not in page.text


def test_shards_without_maps_are_refused(tmp_path: Path) -> None:
    rows = dataclasses.replace(examples.rows(2), maps={}, targets={})
    path = shard(tmp_path / "s.h5", examples.header(maps={}), rows)
    with pytest.raises(SalpipeError, match="holds no saliency maps"):
        show(path, tmp_path / "g")


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_only_the_images_shown_are_read(tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = examples.folder(tmp_path / "s", (30, 30), encoding)
    read, original = [], Shard.images

    def counted(self: Shard, rows: list[int]) -> np.ndarray:
        read.extend(rows)
        return original(self, rows)

    monkeypatch.setattr(Shard, "images", counted)
    assert show(folder, tmp_path / "g", count=5).images == len(read) == 5


def test_the_same_arguments_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    one, two = (show(folder, tmp_path / name, count=7, random=True, seed=5) for name in "ab")
    assert one.page.read_bytes() == two.page.read_bytes()
    assert one.contact_sheet.read_bytes() == two.contact_sheet.read_bytes()
    other = show(folder, tmp_path / "b", count=7, random=True, seed=6)
    assert other.page.read_bytes() != one.page.read_bytes()
    assert len(list((tmp_path / "b").iterdir())) == 2


def photographs(path: Path, count: int, size: int) -> Path:
    """A shard of frames cut out of photographs, as heavy as JPEG files of such frames are."""
    from skimage import data

    random = np.random.default_rng(0)
    frames = []
    for i in range(count):
        photo = (data.astronaut(), data.coffee(), data.chelsea())[i % 3]
        y, x = (int(random.integers(0, length - size + 1)) for length in photo.shape[:2])
        frames.append(photo[y : y + size, x : x + size])
    base = examples.rows(count)
    maps = {
        "gradcam": random.random((count, 1, 7, 7), np.float32),
        "gradient": random.random((count, 2, size, size), np.float32),
    }
    targets = {"gradcam": base.targets["gradcam"], "gradient": base.targets["gradient-simonyan"]}
    rows = dataclasses.replace(base, images=np.stack(frames), maps=maps, targets=targets)
    shapes = {"gradcam": MapShape(1, 7, 7), "gradient": MapShape(2, size, size)}
    return shard(path, examples.header(size=size, maps=shapes), rows)


@pytest.mark.slow
def test_a_page_of_48_photographs_is_light(tmp_path: Path) -> None:
    gallery = show(photographs(tmp_path / "s.h5", 48, 256), tmp_path / "g")
    assert gallery.images == 48
    assert gallery.page.stat().st_size < 4_500_000
    assert show(tmp_path / "s.h5", tmp_path / "g", method="gradcam").page.stat().st_size < 2_500_000


@pytest.mark.parametrize("count", [1, 2, 12])
def test_the_contact_sheet_shows_every_image(folder: Path, tmp_path: Path, count: int) -> None:
    with Image.open(show(folder, tmp_path / "g", count=count).contact_sheet) as sheet:
        assert sheet.format == "PNG"
        assert sheet.mode == "RGB"
        assert sheet.width * sheet.height > count * 2 * 160 * 160
        assert np.asarray(sheet).std() > 20


def test_an_output_that_cannot_be_written_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SalpipeError, match="cannot write"):
        show(folder, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(SalpipeError, match="no such file or folder"):
        show(tmp_path / "nothing", tmp_path / "g")


def test_an_image_that_is_asked_for_in_vain_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SalpipeError):
        show(folder, tmp_path / "g", keys=["nowhere.jpg"])
    assert not (tmp_path / "g").exists()
