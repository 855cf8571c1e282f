"""A gallery whose predictions are another network's: shown in place of the source model's, and escaped."""

from pathlib import Path

import pytest

from saliency_pipeline.gallery.cards import Predictions
from saliency_pipeline.gallery.page import show
from saliency_pipeline.shards.reader import ShardFolder
from tests.gallery.test_page import EVIL, Page
from tests.shards import examples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return examples.folder(tmp_path / "shards")


def test_they_are_shown_by_position(folder: Path, tmp_path: Path) -> None:
    def predictions(position: int) -> Predictions:
        return ((f"answer {position}", 0.75), ("other", 0.25))

    keys = ShardFolder(folder).keys()
    gallery = show(folder, tmp_path / "g", keys=[keys[5], keys[2]], predictions=predictions, title="Mine <b>")
    page = Page(gallery.page)
    assert [card["data-key"] for card in page.all("article")] == [keys[5], keys[2]]
    text = page.text
    assert text.index("predicted answer 5 75.0 %") < text.index("predicted answer 2 75.0 %")
    assert text.count("other 25.0 %") == 2
    assert "Mine <b>" in text
    assert not page.all("b", class_="Mine")


def test_a_map_says_what_it_explains_where_that_is_not_the_prediction_shown(folder: Path, tmp_path: Path) -> None:
    def explained(position: int) -> Predictions:
        pair = ShardFolder(folder)[position]
        # the part before a comma names a class on the page
        return ((f"{names[int(pair.targets['gradcam'][0])].partition(',')[0]}, and more", 1.0),)

    names = ShardFolder(folder).provenance["source"]["classes"]
    same = Page(show(folder, tmp_path / "same", method="gradcam", predictions=explained).page).text
    other = Page(
        show(folder, tmp_path / "other", method="gradcam", predictions=lambda _: (("another", 1.0),)).page
    ).text
    nothing = Page(show(folder, tmp_path / "none", method="gradcam", predictions=lambda _: ()).page).text
    assert "explains" not in same
    assert other.count("explains") == nothing.count("explains") == 12


def test_names_are_text(folder: Path, tmp_path: Path) -> None:
    page = Page(show(folder, tmp_path / "g", predictions=lambda i: ((EVIL[i % len(EVIL)], 0.5),)).page)
    for name in EVIL:
        assert " ".join(f"predicted {name}".split()) in page.text
    assert not page.all("img", src="x")
    assert len(page.all("script")) == 1
