"""`salpipe generate` on data sets of several layouts: selection, splits, crops and groups in the shards."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.summary import inspect as summarize
from saliency_pipeline.shards.verify import verify
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.data.groups import find_groups
from saliency_pipeline.training.setup import split_of
from tests.broken_images import encode
from tests.datasets.archives import tar_bytes, write_tar
from tests.generation.examples import COMMAND, OPTIONS, cuts, photographs

WNIDS = ("n02100735", "n02119789")


def generate(images: Path, *arguments: object) -> Result:
    return CliRunner().invoke(salpipe, ["generate", str(images), *map(str, arguments)])


def done(images: Path, *arguments: object) -> Result:
    result = generate(images, *arguments)
    assert result.exit_code == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ILSVRC2012_img_train.tar of two classes, with Kaggle's boxes for some of its images."""
    root = tmp_path_factory.mktemp("imagenet")
    pieces = [encode(piece, "JPEG") for piece in cuts(10)]
    classes = {
        f"{wnid}.tar": tar_bytes({f"{wnid}_{n}.JPEG": pieces[5 * place + n] for n in range(5)})
        for place, wnid in enumerate(WNIDS)
    }
    write_tar(root / "ILSVRC2012_img_train.tar", classes)
    rows = ["ImageId,PredictionString", f"{WNIDS[0]}_2,{WNIDS[0]} 1 2 30 40 {WNIDS[0]} 5 5 9 9 "]
    (root / "LOC_train_solution.csv").write_text("\n".join(rows) + "\n")
    return root


def test_a_dry_run_explains_nothing(imagenet: Path, tmp_path: Path) -> None:
    result = done(imagenet, "-o", tmp_path / "shards", "--dry-run")
    first, splits, classes, *_ = result.stdout.splitlines()
    assert first == f"{imagenet}: layout ilsvrc, 10 images in 2 classes, 1 shard"
    assert splits == "splits: 10 train"
    assert classes == "classes of 5 images: English setter 5, kit fox 5"
    assert not (tmp_path / "shards").exists()
    outlined = json.loads(done(imagenet, "-o", tmp_path / "shards", "--dry-run", "--json").stdout)
    assert (outlined["images"], outlined["boxes"], outlined["classes"]) == (10, 1, {"English setter": 5, "kit fox": 5})


@pytest.mark.slow
def test_a_tar_is_explained_in_place_and_its_boxes_are_kept(imagenet: Path, tmp_path: Path) -> None:
    target = ("--target", "label", "--jobs", "2")
    done(imagenet, "-o", tmp_path / "shards", *COMMAND, *target, "--split", "60/40", "--no-group-duplicates")
    folder = ShardFolder(tmp_path / "shards")
    assert folder.classes == ("English setter", "kit fox")
    assert folder.keys()[0] == "train/n02100735/n02100735_0.JPEG"
    assert Counter(pair.split for pair in folder) == {0: 6, 1: 4}
    # ImageNet-1k's own numbers for the two classes
    assert {(pair.label, int(pair.targets["gradcam"][0])) for pair in folder} == {(0, 212), (1, 278)}
    for position, piece in enumerate(cuts(10)):
        frame, _ = decode_frame(encode(piece, "JPEG"), int(OPTIONS["size"]))
        np.testing.assert_array_equal(folder[position].image, frame)
    number, row = folder.locate(2)
    assert folder.shard(number).boxes(row).tolist() == [[1, 2, 31, 41], [5, 5, 10, 10]]
    assert folder.shard(0).boxes(0).shape == (0, 4)
    assert folder.provenance["data"] == {"splits": [60, 40], "group_duplicates": False}
    assert verify(tmp_path / "shards", deep=True).problems == ()


def test_classes_and_images_are_sampled(imagenet: Path, tmp_path: Path) -> None:
    arguments = ("-o", tmp_path / "shards", *COMMAND, "--classes", "kit fox", "--per-class", "3")
    done(imagenet, *arguments)
    assert Manifest.read(tmp_path / "shards").header.classes == ("kit fox",)
    assert len(ShardFolder(tmp_path / "shards")) == 3
    assert "(0 written now)" in done(imagenet, *arguments).stdout
    other = generate(imagenet, *arguments, "--seed", "1")
    assert other.exit_code == 1
    assert "selection.seed None -> 1" in other.stderr


def test_a_dry_run_reports_a_conflicting_plan(imagenet: Path, tmp_path: Path) -> None:
    arguments = ("-o", tmp_path / "shards", "--per-class", "2")
    done(imagenet, *arguments, *COMMAND)
    assert "refused" not in done(imagenet, *arguments, *COMMAND, "--dry-run").stderr
    assert json.loads(done(imagenet, *arguments, *COMMAND, "--dry-run", "--json").stdout)["refused"] is None
    refusal = done(imagenet, *arguments, *COMMAND, "--seed", "1", "--dry-run").stderr.splitlines()[-1]
    assert refusal.startswith("salpipe: without --dry-run this would be refused: ")
    assert "holds the shards of another plan (records " in refusal
    for option, value, difference in (
        ("--size", "96", "size 64 -> 96"),
        ("--model", "resnet18", "model test_resnet -> resnet18"),
        ("--method", "gradient", "method ['gradcam'] -> ['gradient']"),
        ("--weights", "default", "weights_sha256"),
        ("--shard-size", "3", "shard-size 4 -> 3"),
    ):
        outlined = done(imagenet, *arguments, *COMMAND, option, value, "--dry-run", "--json").stdout
        assert difference in json.loads(outlined)["refused"]
    (tmp_path / "shards" / "plan.json").write_text("{}")
    assert "damaged or not a plan" in done(imagenet, *arguments, "--dry-run").stderr


def test_options_of_another_plan_are_reported_before_images_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = photographs(tmp_path / "photos", ["a/1.png"])
    done(images, "-o", tmp_path / "shards", *COMMAND)
    assert "another plan" not in done(images, "-o", tmp_path / "shards", *COMMAND, "--dry-run").stderr
    notes = done(images, "-o", tmp_path / "shards", *COMMAND, "--fit", "pad", "--dry-run").stderr
    assert "holds the shards of another plan (fit crop -> pad); choose another output folder" in notes
    monkeypatch.setattr(
        "saliency_pipeline.generation.checks.prepare", lambda *_, **__: pytest.fail("images were listed")
    )
    refused = generate(images, "-o", tmp_path / "shards", *COMMAND, "--fit", "pad")
    assert (refused.exit_code, "(fit crop -> pad)" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "resnet81"], "model 'resnet81' is unknown; did you mean"),
        (["--weights", "missing.pth"], "missing.pth: no such file"),
        (["--weights", "README.md"], "README.md: not a supported kind of weights"),
        (["--model", "test_resnet", "--weights", "other.pth"], "other.pth: does not fit test_resnet"),
        (["--method", "gradcan"], "--method gradcan: unknown"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_misspelt_values_are_reported_before_images_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str, dry: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "README.md").write_text("# Read me")
    torch.save({"a": torch.ones(1)}, tmp_path / "other.pth")
    monkeypatch.setattr(
        "saliency_pipeline.generation.checks.prepare", lambda *_, **__: pytest.fail("images were listed")
    )
    result = generate(tmp_path / "photos", "-o", tmp_path / "shards", *arguments, *dry)
    assert result.exit_code == (2 if "--method" in arguments else 1)
    assert message in result.stderr
    assert not (tmp_path / "shards").exists()


def test_an_unusable_file_of_weights_is_reported_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Read me")
    script = (
        "import sys\nfrom saliency_pipeline.models.files.file_kinds import check_weights\n"
        "try:\n    check_weights('README.md')\nexcept Exception as error:\n    print(error)\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[0].startswith("README.md: not a supported kind of weights")
    assert result.stdout.splitlines()[1] == "False"


def test_the_name_of_a_folder_stays_in_its_line(imagenet: Path, tmp_path: Path) -> None:
    result = done(imagenet, "-o", tmp_path / "two\nlines", *COMMAND, "--classes", "kit fox", "--per-class", "1")
    first, *_ = result.stdout.splitlines()
    assert first == f"'{tmp_path}/two\\nlines': 1 image in 1 shard (1 written now), 0 rejected; complete"


def test_faces_are_cut_out(tmp_path: Path) -> None:
    (tmp_path / "faces" / "Ada_Lovelace").mkdir(parents=True)
    piece = cuts(1)[0]
    (tmp_path / "faces/Ada_Lovelace/1.png").write_bytes(encode(piece, "PNG"))
    row = f"Ada Lovelace\t1\thttp://example.org/1.png\t10,20,50,60\t{0:032x}"
    head = "# PubFig Dataset v1.2 - dev_urls.txt\n#\tperson\timagenum\turl\trect\tmd5sum\n"
    (tmp_path / "faces/dev_urls.txt").write_text(head + row)
    done(tmp_path / "faces", "-o", tmp_path / "shards", *COMMAND, "--margin", "0.25")
    folder = ShardFolder(tmp_path / "shards")
    assert (folder.classes, folder.keys()) == (("Ada Lovelace",), ["Ada Lovelace/1.png"])
    frame, _ = decode_frame(encode(piece[10:70, 0:60], "PNG"), int(OPTIONS["size"]))
    np.testing.assert_array_equal(folder[0].image, frame)
    assert folder.provenance["data"] == {"margin": 0.25}


def test_duplicates_are_left_out_and_a_later_run_sees_them_no_more(tmp_path: Path) -> None:
    images = photographs(tmp_path / "images", [f"{name}/{n}.jpg" for name in ("a", "b") for n in range(4)])
    (images / "b" / "again.jpg").write_bytes((images / "a" / "0.jpg").read_bytes())
    arguments = ("-o", tmp_path / "shards", *COMMAND, "--dedupe", "drop-conflicts")
    result = done(images, *arguments)
    assert "salpipe: duplicates left out (drop-conflicts): 2, images kept: 7" in result.stderr
    keys = ShardFolder(tmp_path / "shards").keys()
    assert len(keys) == 7
    assert not {"a/0.jpg", "b/again.jpg"} & set(keys)
    assert "(0 written now)" in done(images, *arguments).stdout


def test_images_of_one_patient_are_kept_together_in_splits_and_in_the_folds_of_training(tmp_path: Path) -> None:
    names = [f"{('sick', 'well')[n % 2]}/patient{n % 7}-{n}.jpg" for n in range(28)]
    images = photographs(tmp_path / "images", names)
    rule = ("--group-by", "patient[0-9]")
    result = done(images, "-o", tmp_path / "split", *COMMAND, "--split", "50/50", *rule)
    assert "--group-by patient[0-9]: 7 groups" in result.stderr
    splits: dict[str, set[int]] = {}
    for pair in ShardFolder(tmp_path / "split"):
        splits.setdefault(pair.key.split("/")[1].split("-")[0], set()).add(pair.split)
    assert {len(parts) for parts in splits.values()} == {1}

    done(images, "-o", tmp_path / "plain", *COMMAND, *rule)
    pairs = ShardFolder(tmp_path / "plain")
    assert pairs.provenance["data"] == {"group_by": "patient[0-9]", "group_duplicates": False}
    assert find_groups(TrainConfig(search_duplicates=False), pairs).report() == {
        "searched": False,
        "images": 28,
        "groups": 7,
        "by": "patient[0-9]",
    }
    split = split_of(TrainConfig(folds=2, fold=1), pairs)
    train, validation = ({pairs[row].key[:13] for row in part.tolist()} for part in (split.train, split.validation))
    assert not train & validation
    assert "groups     28 images, kept together in splits and folds" in summarize(tmp_path / "plain").as_text()

    refused = generate(images, "-o", tmp_path / "none", *COMMAND, "--group-by", "patient(")
    assert refused.exit_code == 2
    assert "no regular expression (missing ), unterminated subpattern" in refused.stderr


def test_mistakes_are_one_line(imagenet: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (("--classes", "kit foxx"), "did you mean"),
        (("--split", "8/8/8"), "classes have too few images"),
        (("--layout", "kaggel"), "did you mean 'kaggle'?"),
        (("--layout", "kaggle"), "no ILSVRC/Data/CLS-LOC there"),
        (("-o", imagenet / "shards"), "lies inside the image folder"),
    ):
        result = generate(imagenet, "-o", tmp_path / "shards", "--dry-run", *arguments)
        assert (result.exit_code, result.stderr.splitlines()[-1].startswith("salpipe: error: ")) == (1, True)
        assert message in result.stderr.splitlines()[-1]
        assert not (imagenet / "shards").exists()
