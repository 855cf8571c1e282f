"""On a GPU maps, training, predictions and comparisons equal those of the CPU within rounding; `make test-cuda`."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from saliency_pipeline.comparison.arms import choose_arms
from saliency_pipeline.comparison.compare import compare
from saliency_pipeline.devices import capabilities, find_device
from saliency_pipeline.evaluation.evaluate import evaluate
from saliency_pipeline.evaluation.predict import predict
from saliency_pipeline.generation.run import Report, generate
from saliency_pipeline.models.source.own import source_from_module
from saliency_pipeline.models.trained.trained import load_trained
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.fidelity import BOUNDS, fidelity
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.tuning import choose_placement
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.run import train
from tests.comparison.examples import settings
from tests.generation.examples import OPTIONS, photographs
from tests.saliency.networks import FP32, library_explainer, library_layer, library_source, photos
from tests.training.examples import Interrupting, labeled

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here; run 'make test-cuda' where there is one"),
]

GPU = Placement("torch", "fp32", "cuda", streams=2)
QUICK = TrainConfig(backbone="resnet18", init="scratch", epochs=2, batch_size=8, lr=0.01, device="cuda")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled(tmp_path_factory.mktemp("shards") / "labeled")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [f"{part}/{name}/{i}.jpg" for i in range(3) for part in ("train", "validation") for name in ("cat", "dog")]
    return photographs(tmp_path_factory.mktemp("images"), names)


def test_auto_is_the_gpu_by_its_name() -> None:
    assert find_device("auto").type == "cuda"
    assert capabilities("cuda") == torch.cuda.get_device_name()


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050", "convnext_atto"])
@pytest.mark.parametrize("methods", [("gradcam",), ("gradcam", "gradient")])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_maps_are_the_cpus(name: str, methods: tuple[str, ...], precision: str) -> None:
    frames = photos(64)
    wanted = library_explainer(name, methods, FP32).explain(frames)
    explained = library_explainer(name, methods, dataclasses.replace(GPU, precision=precision)).explain(frames)
    same = explained.targets[:, 0] == wanted.targets[:, 0]
    assert same.mean() >= 0.75
    for method in methods:
        near = fidelity(explained.maps[method][same, 0], wanted.maps[method][same, 0])
        # random weights give weak maps and scores close together, so the bounds are at least these
        level = "layer" if method == "gradcam" and len(methods) == 1 else "pixels"
        correlation, error = BOUNDS[level, precision]
        assert near.within(min(correlation, 0.99), max(error, 0.1)), near


def test_a_map_does_not_depend_on_its_company() -> None:
    explainer = library_explainer("mobilenetv3_small_050", ("gradcam",), GPU)
    together = explainer.explain(photos(64)).maps["gradcam"]
    alone = [explainer.explain(photos(64)[i : i + 1]).maps["gradcam"] for i in range(4)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


@pytest.mark.parametrize("methods", [("gradcam",), ("gradient",)])
def test_a_placement_is_chosen_that_is_faithful(methods: tuple[str, ...]) -> None:
    named, frames = ("efficientnet_lite0", 224, "default"), photos()
    source, layer = library_source(*named), library_layer(*named)
    placement, explainer = choose_placement(
        source, layer, find_methods(methods), frames, device="cuda", streams=2, batch=8
    )
    assert (placement.backend, placement.device) == ("torch", "cuda")
    assert explainer is not None
    wanted = library_explainer("efficientnet_lite0", methods, FP32, 224, weights="default").explain(frames)
    near = fidelity(explainer.explain(frames).maps[methods[0]][:, 0], wanted.maps[methods[0]][:, 0])
    level = "layer" if methods == ("gradcam",) else "pixels"
    assert near.within(*BOUNDS[level, placement.precision]), (placement, near)


def generated(images: Path, folder: Path, **options: object) -> tuple[Report, ShardFolder]:
    report = generate(images, folder, **{**OPTIONS, "methods": ("gradcam", "gradient"), **options})
    return report, ShardFolder(folder)


def test_shards_are_the_cpus_but_for_rounding(images: Path, tmp_path: Path) -> None:
    report, ours = generated(images, tmp_path / "gpu", device="cuda")
    _, theirs = generated(images, tmp_path / "cpu", device="cpu")
    assert report.complete
    assert ours.provenance["settings"]["device"] == "cuda"
    for gpu, cpu in zip(ours, theirs, strict=True):
        assert gpu.key == cpu.key
        assert (gpu.image == cpu.image).all()
        near = fidelity(gpu.maps["gradcam"][:1].astype(np.float32), cpu.maps["gradcam"][:1].astype(np.float32))
        assert near.within(0.99, 0.1), near


def test_two_jobs_share_the_gpu(images: Path, tmp_path: Path) -> None:
    report = generate(images, tmp_path / "shards", **OPTIONS, device="cuda", jobs=2)
    assert report.complete
    assert report.images == 12


@pytest.mark.parametrize("arch", ["baseline", "modulated", "learned"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_training_learns(arch: str, precision: str, shards: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, arch=arch, precision=precision, epochs=6, optimizer="adamw", lr=1e-3)
    report = train(shards, tmp_path / "run", config)
    assert report.precision in ("fp32", "bf16")
    assert report.best.validation_top1 >= 0.75
    assert load_trained(tmp_path / "run").spec.arch == arch


def test_an_interrupted_run_resumes(shards: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(QUICK, precision="fp32")
    whole = train(shards, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        train(shards, tmp_path / "run", config, save_seconds=0.0, progress=Interrupting(8))
    report = train(shards, tmp_path / "run", config)
    assert report.epochs == whole.epochs
    # kernels of a GPU add in any order: near, not equal
    assert report.last.train_loss == pytest.approx(whole.last.train_loss, rel=0.1)


def scores(folder: Path) -> dict[str, float]:
    """The highest score of every image, by its key."""
    with open(folder / "predictions.csv", newline="") as file:
        return {row["key"]: float(row["score"]) for row in csv.DictReader(file)}


def test_evaluations_are_the_cpus(shards: Path, tmp_path: Path) -> None:
    train(shards, tmp_path / "run", dataclasses.replace(QUICK, precision="fp32"))
    for device in ("cuda", "cpu"):
        evaluate(tmp_path / "run", shards, "validation", tmp_path / device, device=device)
    gpu, cpu = (scores(tmp_path / device) for device in ("cuda", "cpu"))
    assert gpu == pytest.approx(cpu, abs=0.02)


def test_predictions_are_the_cpus(images: Path, tmp_path: Path) -> None:
    generate(images, tmp_path / "shards", **OPTIONS, device="cuda")
    train(tmp_path / "shards", tmp_path / "run", dataclasses.replace(QUICK, backbone="test_resnet", precision="fp32"))
    for device in ("cuda", "cpu"):
        predict(images, tmp_path / "run", tmp_path / device, device=device)
    gpu, cpu = (scores(tmp_path / device) for device in ("cuda", "cpu"))
    assert gpu == pytest.approx(cpu, abs=0.05)


@pytest.mark.parametrize("jobs", [1, 2])
def test_arms_are_compared(jobs: int, shards: Path, tmp_path: Path) -> None:
    shared = TrainConfig(backbone="test_resnet", init="scratch", epochs=2, batch_size=16, lr=0.01, device="cuda")
    arms = [
        dataclasses.replace(arm, options={**arm.options, "init": "scratch"})
        for arm in choose_arms(["baseline", "half", "mismatched"])
    ]
    compared = compare(shards, tmp_path / "compared", arms, shared, **settings(folds=2, repeats=1, jobs=jobs))
    assert compared.runs == 6
    results = json.loads((tmp_path / "compared" / "results.json").read_text())
    assert results["verdict"]["word"] == "underpowered"
    run = tmp_path / "compared" / "runs" / "all-images" / "half" / "seed-0-fold-1"
    assert TrainConfig.read(run).device == "cuda"


def test_a_network_of_the_callers_stays_on_the_gpu() -> None:
    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2)).cuda().half()
    source = source_from_module(module, {"size": 8, "mean": (0, 0, 0), "std": (1, 1, 1)})
    assert {(p.device.type, p.dtype) for p in module.parameters()} == {("cuda", torch.float16)}
    assert {(p.device.type, p.dtype) for p in source.module.parameters()} == {("cpu", torch.float32)}
