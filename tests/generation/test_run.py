"""Contents of shards, compared with the library's functions called one image at a time."""

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import saliency_pipeline
from saliency_pipeline.datasets.folder import read_folder
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.run import generate
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.models.source.source import load_source
from saliency_pipeline.progress import Progress
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.targets import Target
from saliency_pipeline.settings import from_table
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.shards.schema import SINGLE_COLOR
from saliency_pipeline.shards.shard import Shard
from saliency_pipeline.shards.summary import inspect
from saliency_pipeline.shards.verify import verify
from saliency_pipeline.subsets.duplicates import marked
from tests.generation.conftest import BROKEN, NAMES
from tests.generation.examples import OPTIONS, flat, kept, photographs, run, temporaries

CLASSES = ("cat", "dog", "owl")
SPLITS = {"train": 0, "validation": 1, "test": 2}
ROUNDING = 2.0**-11
"""Of float16 and of float32 sums in another order, relative to a map's maximum."""

ORDER = [
    "test/dog/8.webp",
    *(f"train/cat/{number}.jpg" for number in (1, 2, 9, 10, 11)),
    *(f"train/dog/{number}.png" for number in (3, 20)),
    *(f"validation/cat/{number}.jpg" for number in (4, 5)),
    *(f"validation/owl/{number}.JPEG" for number in (6, 7)),
]


def explainer(methods: tuple[str, ...] = ("gradcam",), target: Target | None = None) -> Explainer:
    """The engine of `OPTIONS`, built here."""
    source = load_source(OPTIONS["model"], OPTIONS["weights"]).with_size(OPTIONS["size"])
    layer = choose_layer(source.module, OPTIONS["size"])
    return Explainer(source, [layer], find_methods(methods), target or Target("predicted"), 4, Placement())


def assert_same_maps(shard: Shard, method: str, expected: np.ndarray) -> None:
    maps = shard.maps(method)
    assert maps.shape == expected.shape
    assert np.abs(maps).max() > 0
    peak = np.abs(expected).max(axis=(2, 3), keepdims=True)
    assert (np.abs(maps - expected) <= ROUNDING * peak).all()


def shards(folder: Path) -> list[Shard]:
    return [Shard(path) for path in sorted(folder.glob("shard-*.h5"))]


def test_keys_labels_and_splits_are_those_of_the_folders_in_natural_order(finished: Path) -> None:
    folder = ShardFolder(finished)
    assert sorted(ORDER) == sorted(NAMES)
    assert folder.keys() == ORDER
    assert folder.classes == CLASSES
    for pair in folder:
        split, name, _ = pair.key.split("/")
        assert (pair.class_name, pair.split) == (name, SPLITS[split])


def test_frames_are_the_decoded_files_and_the_files_are_identified(images: Path, finished: Path) -> None:
    interpolation = ShardFolder(finished).provenance["source"]["interpolation"]
    for shard in shards(finished):
        for row, key in enumerate(shard.keys):
            data = (images / key).read_bytes()
            frame, size = decode_frame(data, 64, interpolation=interpolation)
            np.testing.assert_array_equal(shard.images([row])[0], frame)
            assert shard.source_sha256[row].tobytes() == hashlib.sha256(data).digest()
            assert tuple(shard.source_sizes[row]) == size


def test_predictions_and_maps_are_those_of_the_stored_frames(finished: Path) -> None:
    engine = explainer()
    for shard in shards(finished):
        expected = engine.explain(shard.images())
        classes, scores = shard.predictions
        np.testing.assert_array_equal(classes, expected.prediction_class)
        np.testing.assert_allclose(scores, expected.prediction_score, atol=1e-6)
        np.testing.assert_array_equal(shard.targets("gradcam"), classes[:, :1])
        assert_same_maps(shard, "gradcam", expected.maps["gradcam"])


def test_provenance_says_how_the_maps_were_made(finished: Path) -> None:
    provenance = ShardFolder(finished).provenance
    source = load_source("test_resnet", "none")
    p = source.preprocessing
    assert provenance["source"] == {
        "model": "test_resnet",
        "weights": "none",
        "weights_sha256": source.weights_sha256,
        "size": 64,
        "mean": list(p.mean),
        "std": list(p.std),
        "interpolation": p.interpolation,
        "classes": list(source.classes),
    }
    assert provenance["methods"] == {"gradcam": find_methods(["gradcam"])[0].describe()}
    assert from_table(GenerateConfig, provenance["settings"]) == GenerateConfig(**OPTIONS, device="cpu")
    resolved = provenance["resolved"]
    assert [layer["name"] for layer in resolved["layers"]] == [choose_layer(source.module, 64).name]
    assert (resolved["backend"], resolved["precision"], resolved["batch_size"]) == ("torch", "fp32", 2)
    for name in ("torch", "timm", "h5py"):
        assert provenance["versions"][name] == version(name)


def test_manifest_receipts_and_rejects_account_for_every_image(finished: Path) -> None:
    manifest = Manifest.read(finished)
    assert [entry.name for entry in manifest.shards] == [f"shard-{i:05d}.h5" for i in range(4)]
    # The broken files are planned like all others, and leave a gap.
    assert [entry.images for entry in manifest.shards] == [3, 4, 3, 2]
    lines = [json.loads(line) for line in (finished / "rejects.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == BROKEN
    assert all(line["reason"].startswith("not an image") for line in lines)
    assert manifest.rejects == len(lines)
    rejected = []
    for entry in manifest.shards:
        path = finished / entry.name
        assert (entry.bytes, entry.sha256) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        receipt = json.loads((finished / "receipts" / f"{path.stem}.json").read_text())
        assert receipt["plan"] == manifest.header.plan
        assert receipt["shard"] == vars(entry)
        rejected += receipt["rejects"]
    assert rejected == lines
    assert verify(finished, deep=True).problems == ()
    assert temporaries(finished) == []


def test_the_report_says_how_the_run_ended(images: Path, tmp_path: Path) -> None:
    first, second = run(images, tmp_path / "shards"), run(images, tmp_path / "shards")
    for report, written in ((first, 4), (second, 0)):
        assert (report.images, report.rejects, report.shards, report.written) == (12, 2, 4, written)
        assert (report.layers, report.backend, report.precision) == (("layer4",), "torch", "fp32")
        assert report.complete
    assert first.images_per_second > 0
    assert second.images_per_second == 0


@pytest.mark.parametrize("options", [{}, {"fit": "pad", "encoding": "jpeg"}])
def test_images_of_one_color_are_flagged_and_noted_once(tmp_path: Path, options: dict[str, str]) -> None:
    images = flat(tmp_path / "images", 5)
    for name in ("2.jpg", "7.png"):
        Image.new("RGB", (90, 60), "white").save(images / name)
    notes: list[str] = []
    progress, output = Progress(), tmp_path / "shards"
    progress.note = notes.append
    report = run(images, output, progress=progress, **options)
    assert (report.images, report.rejects, report.single_color) == (6, 0, 2)
    assert [note for note in notes if "one color" in note] == [
        "2 images of one color everywhere, with nothing on it to explain: stored with bit 8 of saliency/<method>/flag"
    ]
    flags = np.concatenate([shard.flags("gradcam")[:, 0] for shard in shards(output)])
    assert (flags & SINGLE_COLOR != 0).tolist() == [False, True, False, False, False, True]
    # A run that finds everything done still tells.
    assert run(images, output, **options).single_color == 2
    assert inspect(output).single_color == 2


def test_the_same_plan_gives_the_same_bytes_in_another_folder(images: Path, finished: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "shards")
    assert kept(tmp_path / "shards") == kept(finished)


def test_maps_of_jpeg_shards_are_those_of_the_stored_jpegs(images: Path, finished: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "shards", encoding="jpeg", jpeg_quality=60)
    engine, changed = explainer(), 0
    for shard, raw in zip(shards(tmp_path / "shards"), shards(finished), strict=True):
        frames = shard.images()
        assert np.abs(frames.astype(int) - raw.images()).mean() < 12
        changed += int((frames != raw.images()).sum())
        assert_same_maps(shard, "gradcam", engine.explain(frames).maps["gradcam"])
    assert changed > 0
    assert verify(tmp_path / "shards", deep=True).problems == ()


def test_a_flat_folder_is_unlabeled(tmp_path: Path) -> None:
    run(flat(tmp_path / "images", 3), tmp_path / "shards")
    folder = ShardFolder(tmp_path / "shards")
    assert (folder.classes, folder.keys()) == ((), ["1.jpg", "2.jpg", "3.jpg"])
    assert {(pair.label, pair.class_name, pair.split) for pair in folder} == {(-1, None, -1)}


def test_images_that_are_known_to_be_duplicates_are_stored_as_such(tmp_path: Path) -> None:
    images = flat(tmp_path / "images", 6)
    catalogue = marked(read_folder(images), [0, 1, 2, 3, 1, 5])
    run(catalogue, tmp_path / "shards")
    stored = [ShardFolder(tmp_path / "shards").shard(number).groups.tolist() for number in (0, 1)]
    assert stored == [[-1, 1, -1, -1], [1, -1]]
    assert verify(tmp_path / "shards", deep=True).problems == ()
    with pytest.raises(SalpipeError, match="holds the shards of another plan \\(records"):
        run(images, tmp_path / "shards")


def test_the_level_of_the_label_can_be_chosen(tmp_path: Path) -> None:
    images = photographs(tmp_path / "images", ["a/x/1.jpg", "a/y/2.jpg", "b/x/3.jpg"])
    for level, classes in ((0, ()), (1, ("a", "b")), (2, ("x", "y"))):
        run(read_folder(images, label_level=level), tmp_path / f"shards-{level}")
        assert ShardFolder(tmp_path / f"shards-{level}").classes == classes


def test_several_targets_are_the_highest_classes(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "shards", target="top:3")
    engine = explainer(target=Target("predicted", 3))
    for shard in shards(tmp_path / "shards"):
        np.testing.assert_array_equal(shard.targets("gradcam"), shard.predictions[0][:, :3])
        assert_same_maps(shard, "gradcam", engine.explain(shard.images()).maps["gradcam"])


def test_one_class_can_be_explained_in_all_images(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "shards", target="tabby")
    engine = explainer(target=Target("fixed", index=281))
    for shard in shards(tmp_path / "shards"):
        assert (shard.targets("gradcam") == 281).all()
        assert_same_maps(shard, "gradcam", engine.explain(shard.images()).maps["gradcam"])


def test_several_methods_come_from_one_pass(images: Path, tmp_path: Path) -> None:
    methods = ("gradcam", "gradient", "gradient:smilkov")
    run(images, tmp_path / "shards", methods=methods)
    folder = ShardFolder(tmp_path / "shards")
    assert folder.methods == ("gradcam", "gradient", "gradient-smilkov")
    assert set(folder.provenance["methods"]) == set(folder.methods)
    engine = explainer(methods)
    for shard in shards(tmp_path / "shards"):
        expected = engine.explain(shard.images())
        assert shard.maps("gradient").shape[1:] == (1, 64, 64)
        for method in folder.methods:
            assert_same_maps(shard, method, expected.maps[method])


@pytest.mark.slow
def test_the_default_model_is_the_embedded_one(tmp_path: Path) -> None:
    images = photographs(tmp_path / "images", ["n02123045/1.jpg", "n07930864/2.jpg", "n02123045/3.jpg"])
    generate(images, tmp_path / "shards", target="label", backend="torch", precision="fp32")
    (shard,) = shards(tmp_path / "shards")
    assert shard.provenance["source"]["model"] == "efficientnet_lite0"
    assert shard.targets("gradcam")[:, 0].tolist() == [281, 281, 968]
    assert shard.maps("gradcam").shape == (3, 1, 7, 7)
    assert shard.images().shape == (3, 224, 224, 3)


def test_labels_that_are_classes_of_the_source_can_be_explained(tmp_path: Path) -> None:
    images = photographs(tmp_path / "images", ["n02123045/1.jpg", "n07930864/2.jpg", "n02123045/3.jpg"])
    run(images, tmp_path / "shards", target="label")
    (shard,) = shards(tmp_path / "shards")
    assert shard.targets("gradcam")[:, 0].tolist() == [281, 281, 968]
    assert shard.maps("gradcam").shape == (3, 1, 2, 2)


@pytest.mark.parametrize(("folder", "why"), [("kitten/1.jpg", "not the source model's"), ("1.jpg", "no labels")])
def test_labels_that_are_none_are_refused(tmp_path: Path, folder: str, why: str) -> None:
    images = photographs(tmp_path / "images", [folder])
    with pytest.raises(SalpipeError, match=f"^--target label: .*{why}.*; use --target predicted"):
        run(images, tmp_path / "shards", target="label")


def test_a_catalogue_and_a_request_do_as_well(images: Path, finished: Path, tmp_path: Path) -> None:
    report = generate(read_folder(images), tmp_path / "shards", GenerateConfig(**OPTIONS))
    assert report.complete
    assert kept(tmp_path / "shards") == kept(finished)
    with pytest.raises(TypeError, match="not both"):
        generate(images, tmp_path / "shards", GenerateConfig(), size=64)


@pytest.mark.parametrize("place", [".", "train", "train/cat/new", "link"])
def test_an_output_folder_inside_the_images_is_refused(images: Path, tmp_path: Path, place: str) -> None:
    if place == "link":
        (tmp_path / "link").symlink_to(images, target_is_directory=True)
        output = tmp_path / "link" / "shards"
    else:
        output = images / place
    with pytest.raises(SalpipeError, match="inside the image folder"):
        run(images, output)
    assert not list(images.rglob("receipts"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"model": "resnet5O"}, "did you mean"),
        ({"weights": "/nowhere.safetensors"}, "/nowhere.safetensors"),
        ({"layers": ("layer9",)}, "layer4"),
        ({"methods": ("gradcma",)}, "did you mean gradcam?"),
        ({"methods": ()}, "choose from gradcam, "),
        ({"target": "no such class"}, "give an index"),
        ({"target": "top:0"}, "top:K with K from 1 on"),
        ({"target": "top:1001"}, "use top:1 to top:1000"),
        ({"target": "1000"}, "has classes 0 to 999"),
        ({"backend": "onnx"}, "choose from auto, torch, compile, openvino"),
        ({"precision": "fp8"}, "choose from auto, fp32, bf16"),
        ({"backend": "openvino", "methods": ("gradient",)}, "pixel gradients need --backend torch"),
        ({"device": "cuda:99"}, "use --device cpu"),
        ({"device": "cudacpu"}, "use --device cpu"),
        ({"device": "tpu"}, "use --device cpu"),
        ({"size": 0}, "use a number from 1"),
        ({"fit": "zoom"}, "choose from crop, pad, squash"),
        ({"encoding": "png"}, "choose from raw, jpeg"),
        ({"jpeg_quality": 101}, "use a number from 1 to 100"),
        ({"shard_size": 0}, "--shard-size 0: use a number from 1"),
        ({"batch_size": 0}, "--batch-size 0: use a number from 1"),
        ({"max_pixels": 0}, "--max-pixels 0: use a number from 1"),
        ({"jobs": 0}, "use 1 or more"),
        ({"part": (0, 3)}, "use I/N with I from 1 to N"),
        ({"part": (4, 3)}, "use I/N with I from 1 to N"),
        ({"layout": "foldres"}, "--layout foldres: no such layout; did you mean 'folders'?"),
    ],
)
def test_what_cannot_be_is_one_line_that_names_the_remedy(
    images: Path, tmp_path: Path, option: dict[str, object], message: str
) -> None:
    with pytest.raises(SalpipeError) as caught:
        run(images, tmp_path / "shards", **option)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_size_the_network_does_not_take_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(SalpipeError, match=r"^--size 50: test_vit does not accept such frames"):
        run(images, tmp_path / "shards", model="test_vit", size=50)


def test_a_transformer_is_explained_on_its_grid(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "shards", model="test_vit", size=None)
    for shard in shards(tmp_path / "shards"):
        side = shard.size // 16
        assert shard.maps("gradcam").shape[1:] == (1, side, side)
        assert np.abs(shard.maps("gradcam")).max() > 0


def state() -> tuple[object, ...]:
    """All state of a caller of the library that must not change."""
    return (
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_rng_state().tolist(),
        str(np.random.get_state()),
        random.getstate(),
        os.getcwd(),
        threading.active_count(),
        dict(os.environ),
    )


def test_a_run_leaves_no_trace_in_its_process(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "warm")
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        before = state()
        run(images, tmp_path / "shards")
        assert state() == before
        (tmp_path / "full" / "shard-00001.h5").mkdir(parents=True)
        with pytest.raises(SalpipeError, match=r"cannot write .*shard-00001\.h5"):
            run(images, tmp_path / "full")
        assert state() == before
    finally:
        torch.set_num_threads(threads)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, saliency_pipeline as s; print(*dir(s)); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(saliency_pipeline.__all__) <= set(done.stdout.split())
    assert not {"torch", "numpy", "h5py", "timm", "PIL", "joblib"} & set(done.stderr.split())


def test_public_names_are_imported_when_first_used() -> None:
    assert saliency_pipeline.generate is generate
    assert saliency_pipeline.verify is verify
    for name in saliency_pipeline.__all__:
        assert callable(getattr(saliency_pipeline, name))
    with pytest.raises(AttributeError, match="no attribute 'generat'"):
        saliency_pipeline.generat  # noqa: B018
