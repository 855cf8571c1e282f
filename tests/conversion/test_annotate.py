"""Data sets of COCO and FiftyOne: masks by hand and by pycocotools, JSON that the tools read."""

import contextlib
import io
import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.conversion.annotate import annotate
from saliency_pipeline.conversion.fiftyone import ZERO, field_names
from saliency_pipeline.conversion.masks import Cut, box_of, run_lengths
from saliency_pipeline.errors import OptionError, SalpipeError
from tests.conversion.examples import KEYS, SMOOTHGRAD, tree
from tests.shards.examples import SIZE


def test_cuts_by_hand():
    ramp = np.arange(100, dtype=np.float32).reshape(10, 10)
    np.testing.assert_array_equal(Cut.parse("threshold=0.4").mask(ramp, 10), ramp >= 0.4 * 99)
    np.testing.assert_array_equal(Cut.parse("percentile=90").mask(ramp, 10), ramp > np.percentile(ramp, 90))
    assert Cut.parse("percentile=90").mask(ramp, 10).sum() == 10
    two = np.where(ramp % 10 < 5, 1.0, 3.0).astype(np.float32)
    np.testing.assert_array_equal(Cut.parse("otsu").mask(two, 10), two == 3)
    # values below 0 count as 0
    np.testing.assert_array_equal(
        Cut.parse("percentile=50").mask(np.array([[-5, 1], [-3, 2]], np.float32), 2), [[False, True], [False, True]]
    )


def test_otsu_separates_best():
    """Otsu's threshold has the greatest variance between its two classes, of all 255."""
    values = np.random.default_rng(0).gamma(2, size=(24, 24)).astype(np.float32)
    levels = np.rint(values.astype(np.float64) * (255 / values.max())).astype(np.uint8).ravel()

    def between(mask):
        share = mask.mean()
        return share * (1 - share) * (levels[mask].mean() - levels[~mask].mean()) ** 2

    best = max(between(levels > level) for level in range(levels.min(), levels.max()))
    assert between(Cut("otsu").mask(values, 24).ravel()) == pytest.approx(best)


@pytest.mark.parametrize("cut", ["threshold=0.4", "otsu", "percentile=90"])
@pytest.mark.parametrize("values", [0.0, 3.0, -2.0])
def test_a_map_that_marks_nothing_has_no_mask(cut, values):
    assert not Cut.parse(cut).mask(np.full((7, 5), values, np.float32), 20).any()


@pytest.mark.parametrize(
    "text", ["threshold", "threshold=0", "threshold=1.5", "percentile=101", "otsu=3", "0.4", "nan"]
)
def test_other_cuts_are_refused(text):
    with pytest.raises(OptionError, match="use threshold=T with T above 0 up to 1, otsu, or percentile=P up to 100"):
        Cut.parse(text)


@given(arrays(bool, (9, 9)))
def test_run_lengths_are_those_of_pycocotools(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    own = run_lengths(mask)
    assert coco_mask.frPyObjects(own, 9, 9)["counts"] == encoded["counts"]
    if mask.any():
        assert box_of(mask) == coco_mask.toBbox(encoded).tolist()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools with NumPy 2
@pytest.mark.parametrize("cut", ["threshold=0.4", "otsu", "percentile=90"])
def test_pycocotools_reads_the_same_masks(shards, tmp_path, cut):
    result = annotate(shards.path, tmp_path / "coco", "coco", cut=cut, method="gradcam")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(result.file))
    assert len(coco.getImgIds()) == len(shards)
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == [*shards.classes, "unlabeled"]
    masks = 0
    for position, pair in enumerate(shards):
        (image,) = coco.loadImgs([position + 1])
        assert (image["key"], image["width"], image["height"]) == (pair.key, SIZE, SIZE)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "coco" / image["file_name"])), pair.image)
        annotations = {each["rank"]: each for each in coco.loadAnns(coco.getAnnIds(imgIds=[position + 1]))}
        for rank, values in enumerate(pair.maps["gradcam"]):
            enlarged = cv2.resize(values, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
            if not enlarged.any():
                assert rank not in annotations
                continue
            one = annotations[rank]
            own = Cut.parse(cut).mask(values, SIZE)
            if cut == "threshold=0.4":
                np.testing.assert_array_equal(own, enlarged >= 0.4 * float(enlarged.max()))
            np.testing.assert_array_equal(coco.annToMask(one), own)
            assert (one["area"], one["bbox"]) == (own.sum(), box_of(own))
            assert one["category_id"] == (pair.label + 1 or len(shards.classes) + 1)
            assert one["target"] == pair.targets["gradcam"][rank]
            assert one["target_name"] == f"source {one['target']}"
            masks += 1
    assert masks == result.annotations > len(shards)


def test_coco_masks_are_of_one_method(shards, tmp_path):
    with pytest.raises(SalpipeError, match="masks are cut from the maps of one method; choose one of edges, gradcam"):
        annotate(shards.path, tmp_path / "coco", "coco")
    assert not (tmp_path / "coco").exists()


def test_fiftyone_has_classes_and_heat_maps(shards, tmp_path):
    result = annotate(shards.path, tmp_path / "fiftyone", "fiftyone")
    folder = tmp_path / "fiftyone"
    samples = json.loads((folder / "samples.json").read_bytes())["samples"]
    metadata = json.loads((folder / "metadata.json").read_bytes())
    # without a version FiftyOne reads the samples as they are
    assert "version" not in metadata
    assert metadata["info"]["provenance"] == shards.provenance
    fields = field_names(shards)
    assert fields["gradcam"] == ["gradcam_target_1", "gradcam_target_2"]
    assert result.annotations == len(KEYS) * 5 == len(KEYS) * sum(map(len, fields.values()))
    for pair, sample in zip(shards, samples, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / sample["filepath"])), pair.image)
        label = sample.get("ground_truth", {"label": None})
        assert label["label"] == pair.class_name
        assert sample["prediction"]["label"] == f"source {pair.prediction_class[0]}"
        assert np.float32(sample["prediction"]["confidence"]) == pair.prediction_score[0]
        assert sample["tags"] == [["train"], ["validation"], ["test"], []][pair.split]
        for method, names in fields.items():
            for name, values in zip(names, pair.maps[method], strict=True):
                assert sample[name]["_cls"] == "Heatmap"
                levels = np.asarray(Image.open(sample[name]["map_path"])).astype(float)
                share = (levels - ZERO) / 127 if method == SMOOTHGRAD else levels / 255
                scale = np.abs(values).max()
                np.testing.assert_allclose(share * scale, values, atol=scale / 250)


def test_the_same_call_writes_the_same_files_and_another_is_refused(shards, tmp_path):
    annotate(shards.path, tmp_path / "coco", "coco", method="edges")
    before = tree(tmp_path / "coco")
    annotate(shards.path, tmp_path / "coco", "coco", method="edges")
    assert tree(tmp_path / "coco") == before
    with pytest.raises(SalpipeError, match="holds the export of other shards, or with other options"):
        annotate(shards.path, tmp_path / "coco", "coco", method="edges", cut="otsu")


def test_the_command_restricts_images_as_for_a_gallery(shards, tmp_path):
    def show(*arguments):
        return CliRunner().invoke(salpipe, ["show", str(shards.path), "-o", str(tmp_path / "out"), *arguments])

    result = show("--to", "coco", "--method", "edges", "--class", "cat", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == sum(shards.labels == 0)
    for arguments in ((), ("--to", "fiftyone")):
        refused = show(*arguments, "--cut", "otsu")
        assert refused.exit_code == 2
        assert "--cut otsu: needs --to coco" in refused.output
