"""`export`: the ONNX model computes what the network does, for any batch size, and describes its inputs."""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.evaluation import export as module
from saliency_pipeline.evaluation.export import TOLERANCE, export
from saliency_pipeline.models.trained.initialize import initialize
from saliency_pipeline.models.trained.trained import load_trained, write_trained
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network
from saliency_pipeline.training.config import TrainConfig
from tests.evaluation.runs import Notes


def network(file: Path, spec: NetworkSpec, **options: Any) -> Path:
    """A network of random weights in a file."""
    built = build_network(spec)
    initialize(built, spec, "scratch", seed=3)
    write_trained(file, built, spec, {"config": asdict(TrainConfig(arch=spec.arch, **options))})
    return file


def session(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])


def spec(backbone: str = "test_resnet", size: int = 32, **options: Any) -> NetworkSpec:
    return NetworkSpec(backbone, ("cat", "dog", "Vögel"), size, **options)


@pytest.mark.parametrize(
    "asked",
    [
        spec("test_resnet", 64, arch="baseline"),
        spec("test_resnet", 64, arch="modulated", fusion="input"),
        # 25 cells a side at the stem and 13 after the stage, which divide neither way
        pytest.param(
            spec("test_resnet", 100, arch="modulated", fusion="concat", fuse_at="layer2"), marks=pytest.mark.slow
        ),
        pytest.param(spec("efficientnet_lite0", 64, arch="modulated", learn_alpha=True), marks=pytest.mark.slow),
        pytest.param(spec("resnet18", 64, arch="baseline"), marks=pytest.mark.slow),
        pytest.param(spec("resnet18", 64, arch="modulated", fusion="input"), marks=pytest.mark.slow),
        pytest.param(spec("test_resnet", 64, arch="learned", fusion="multiply"), marks=pytest.mark.slow),
    ],
    ids=lambda asked: f"{asked.backbone}-{asked.arch}-{asked.fusion}-{asked.fuse_at}",
)
def test_the_model_computes_what_the_network_does(asked: NetworkSpec, tmp_path: Path) -> None:
    file = network(tmp_path / "n.safetensors", asked, method="gradcam")
    exported = export(file, tmp_path / "model.onnx")
    assert 0 <= exported.error <= TOLERANCE

    trained, model = load_trained(file), session(tmp_path / "model.onnx")
    assert [each.name for each in model.get_inputs()] == list(exported.inputs)
    assert list(exported.inputs) == (["image", "map"] if asked.needs_maps else ["image"])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (trained.preprocessing.mean, trained.preprocessing.std))
    generator = torch.Generator().manual_seed(1)
    for count in (1, 2, 7):
        image = torch.rand(count, 3, asked.size, asked.size, generator=generator)
        maps = torch.rand(count, 1, asked.size, asked.size, generator=generator)
        with torch.inference_mode():
            expected = trained.network((image - mean) / std, maps).numpy()
        feed = {"image": image.numpy()} | ({"map": maps.numpy()} if asked.needs_maps else {})
        (logits,) = model.run(["logits"], feed)
        assert logits.shape == (count, 3)
        np.testing.assert_allclose(logits, expected, atol=TOLERANCE * np.ptp(expected))
    if asked.needs_maps:
        (changed,) = model.run(["logits"], feed | {"map": 1 - feed["map"]})
        assert abs(changed - logits).max() > TOLERANCE * np.ptp(logits)


def test_the_model_says_what_it_takes(tmp_path: Path) -> None:
    file = network(tmp_path / "n.safetensors", spec(arch="modulated"), method="gradient", normalize="p99")
    notes = Notes()
    exported = export(file, tmp_path / "new" / "model.onnx", opset=20, progress=notes)
    assert (exported.opset, exported.classes) == (20, 3)
    assert exported.inputs == {"image": "N x 3 x 32 x 32", "map": "N x 1 x 32 x 32"}
    assert notes.notes == ["exporting modulated test_resnet", "comparing with PyTorch"]
    model = onnx.load(exported.file)
    onnx.checker.check_model(model)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    dimensions = [each.dim_param or each.dim_value for each in model.graph.input[1].type.tensor_type.shape.dim]
    assert dimensions == ["N", 1, 32, 32]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["classes"]) == ["cat", "dog", "Vögel"]
    assert (metadata["method"], metadata["arch"], metadata["backbone"]) == ("gradient", "modulated", "test_resnet")
    assert metadata["network_sha256"] == load_trained(file).sha256
    assert json.loads(metadata["normalization"]) == {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bilinear",
        "map": "p99",
        "map_absolute": False,
    }
    # the exporter would write where in the source every node comes from
    assert b".py" not in exported.file.read_bytes()


@pytest.mark.slow
def test_a_network_without_maps_names_none(tmp_path: Path) -> None:
    exported = export(network(tmp_path / "n.safetensors", spec()), tmp_path / "model.onnx")
    metadata = session(exported.file).get_modelmeta().custom_metadata_map
    assert metadata["method"] == ""
    assert json.loads(metadata["normalization"])["map"] is None


@pytest.mark.slow
def test_a_run_is_exported_by_its_best_network(figure_run: Path, tmp_path: Path) -> None:
    exported = export(figure_run, tmp_path / "model.onnx")
    metadata = session(exported.file).get_modelmeta().custom_metadata_map
    assert metadata["network_sha256"] == load_trained(figure_run / "best.safetensors").sha256
    assert json.loads(metadata["classes"]) == ["circle", "square", "stripe"]


def test_a_model_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, output = network(tmp_path / "n.safetensors", spec()), tmp_path / "model.onnx"
    output.write_text("an older one")
    build = module.Deployed

    def wrong(network: torch.nn.Module, preprocessing: Any) -> module.Deployed:
        made = build(network, preprocessing)
        made.shift += 1e-2
        return made

    monkeypatch.setattr(module, "Deployed", wrong)
    with pytest.raises(SalpipeError, match=r"differs from PyTorch by .* of the range of the logits, more than 0.0001"):
        export(file, output)
    assert output.read_text() == "an older one"
    assert {path.name for path in tmp_path.iterdir()} == {"n.safetensors", "model.onnx"}


def test_a_network_of_no_numbers_is_not_written(tmp_path: Path) -> None:
    file = network(tmp_path / "n.safetensors", spec())
    trained = load_trained(file)
    next(iter(trained.network.parameters())).fill_(3e38)  # finite, but no output is
    write_trained(file, trained.network, trained.spec, trained.about)
    with pytest.raises(SalpipeError, match="differs from PyTorch by nan"):
        export(file, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    with pytest.raises(SalpipeError) as caught:
        export(tmp_path, tmp_path / "model.onnx")
    assert str(caught.value) == f"{missing}: not installed; run pip install 'saliency-pipeline[onnx]'"


@pytest.mark.parametrize(
    ("opset", "output", "message"),
    [
        (17, "model.onnx", "--opset 17: PyTorch exports 18 and higher"),
        (999, "model.onnx", "--opset 999"),
        (18, ".", "is a folder; name the file to write, such as"),
        (18, "n.safetensors/model.onnx", r"cannot write .*/n.safetensors/model.onnx: "),
    ],
)
def test_mistakes(opset: int, output: str, message: str, tmp_path: Path) -> None:
    file = network(tmp_path / "n.safetensors", spec())
    with pytest.raises(SalpipeError, match=message) as caught:
        export(file, tmp_path / output, opset=opset)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["n.safetensors"]
