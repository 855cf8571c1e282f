"""Valid files that salpipe itself writes, or that configure it, small and the same every time; see `seeds.py`."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tomli_w
import torch
from safetensors.torch import save_file

from saliency_pipeline.comparison.arms import choose_arms
from saliency_pipeline.comparison.config import ComparisonConfig
from saliency_pipeline.comparison.plan import Plan as ComparisonPlan
from saliency_pipeline.comparison.plan_file import described
from saliency_pipeline.conversion.convert import convert
from saliency_pipeline.datasets.export_file import KINDS
from saliency_pipeline.datasets.remote_index import KeptBytes, index_path
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.generation.plan import Choices, Plan, store_plan
from saliency_pipeline.generation.receipt import RECEIPTS, Receipt, Reject
from saliency_pipeline.hub.contents import Contents, File
from saliency_pipeline.models.source.source import _serialize, load_source
from saliency_pipeline.models.trained.trained import BEST, write_trained
from saliency_pipeline.models.trained.training_images import DIGEST, TrainingImages
from saliency_pipeline.models.trained.two_branch import NetworkSpec, build_network
from saliency_pipeline.remote.file import RemoteFile
from saliency_pipeline.saliency.engine.layers import Layer, choose_layer
from saliency_pipeline.saliency.engine.split import split_network
from saliency_pipeline.saliency.engine.stored_graph import to_bytes
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.subsets.fingerprint import ROW
from saliency_pipeline.subsets.fingerprint_cache import FingerprintCache
from saliency_pipeline.training.checkpoint import COLUMNS, EpochMetrics, State, save_last
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.training.runlog import PROVENANCE, SUMMARY, write_json, write_metrics, write_predictions
from tests.comparison.examples import results
from tests.fuzz.seeds import small_image, written
from tests.shards import examples as shards
from tests.training import examples as training

NETWORK = "test_resnet"
CONFIG = TrainConfig(backbone=NETWORK, init="scratch", epochs=2, precision="fp32", device="cpu", method="gradcam")


# shards and what lies beside them


def shard_files(root: Path) -> Iterator[Path]:
    """A shard in a finished folder, for each encoding."""
    for encoding in ("raw", "jpeg"):
        yield shards.folder(root / encoding, (3, 2), encoding) / "shard-00000.h5"


def exports(root: Path) -> Iterator[Path]:
    """Descriptions of exports and lists of samples."""
    for to in KINDS:
        yield export(root / to, to) / "export.json"
    yield export(root / "samples", "png") / "samples" / "shard-00000.jsonl"


def export_tars(root: Path) -> Iterator[Path]:
    yield export(root / "webdataset", "webdataset") / "train-00000.tar"


def export_tables(root: Path) -> Iterator[Path]:
    yield export(root / "parquet", "parquet") / "train-00000.parquet"


def export(root: Path, to: str) -> Path:
    """An export of one shard, without what resuming needs."""
    whole = shards.rows(3)
    whole.splits[:] = 0
    with TemporaryDirectory() as source:
        path = shards.write(Path(source) / "shard-00000.h5", shards.header(), whole)
        folder = Path(convert(path, root, to=to, methods=("gradcam",)).folder)
    shutil.rmtree(folder / ".receipts")
    (folder / ".lock").unlink()
    return folder


def manifests(root: Path) -> Iterator[Path]:
    yield shards.folder(root / "raw", (2, 1)) / "manifest.json"


def rejects(root: Path) -> Iterator[Path]:
    yield shards.folder(root / "raw", (2,), rejects=5) / "rejects.jsonl"


def repositories(root: Path) -> Iterator[Path]:
    """Lists of the files of a model and of a data set on the Hub."""
    for kind, name in (("model", "best.safetensors"), ("dataset", "shard-00000.h5")):
        listing = Contents(kind, "plan", (), None).listing((File.of(name, b"x"), File.of("README.md", b"")))  # type: ignore[arg-type]
        yield written(root / kind / "salpipe.json", listing.data or b"")


def plans(root: Path) -> Iterator[Path]:
    """A plan of `generate` beside a photo folder's shards."""
    folder = root / "generated"
    folder.mkdir()
    choices = Choices((Layer("layer4", "nchw", 512, (7, 7), 0, True),), "torch", "fp32", 2)
    images = {"classes": ["a"], "images": 5, "records": "0" * 64}
    source = {"model": "tiny", "weights_sha256": "0" * 64}
    record = {"source": source, "methods": {"gradcam": {}}, "data": {"layout": "folders"}, "versions": {"torch": "2"}}
    store_plan(folder, Plan(GenerateConfig(model="tiny", shard_size=4), choices, images, record))
    yield folder / "plan.json"


def receipts(root: Path) -> Iterator[Path]:
    folder = shards.folder(root / "raw", (2, 1))
    (folder / RECEIPTS).mkdir()
    Receipt("plan-1", Manifest.read(folder).shards[0], (Reject("a.jpg", "truncated"), Reject("b.jpg", "empty"))).write(
        folder
    )
    yield folder / RECEIPTS / "shard-00000.json"


# networks


def weights(root: Path) -> Iterator[Path]:
    """The weights of a tiny network, as people save them."""
    root.mkdir(parents=True, exist_ok=True)
    state = load_source(NETWORK, "none").module.state_dict()
    (root / "files").mkdir()
    for name, value, old in (
        ("zip.pth", state, False),
        ("legacy.pth", state, True),
        ("nested.pt", {"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3, "best": 0.5}, False),
    ):
        torch.save(value, root / "files" / name, _use_new_zipfile_serialization=not old)
        yield root / "files" / name
    save_file(state, root / "files" / "weights.safetensors")
    yield root / "files" / "weights.safetensors"


def _run(folder: Path, arch: str = "modulated") -> Path:
    """The files of a finished training run, without the training."""
    folder.mkdir(parents=True)
    shards: dict[str, Any] = {
        "path": "shards",
        "plan": "plan-labeled",
        "sha256": "5" * 64,
        "provenance": training.PROVENANCE,
    }
    spec = NetworkSpec(arch=arch, backbone=NETWORK, classes=("circle", "square", "stripe"), size=32)
    torch.manual_seed(0)
    model = build_network(spec)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    rows = [EpochMetrics(**dict.fromkeys(COLUMNS, 0.5) | {"epoch": epoch}) for epoch in (1, 2)]
    for parameter in list(model.parameters())[:2]:
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    save_last(folder, model, optimizer, State(epoch=2, rows=rows, best=rows[0], elapsed=2.0))
    training_record = {"config": json.loads(json.dumps(vars(replace(CONFIG, arch=arch)))), "shards": shards}
    images_seen = TrainingImages.of(np.arange(6 * DIGEST, dtype=np.uint8).reshape(6, DIGEST))
    write_trained(folder / BEST, model, spec, training_record, images_seen)
    CONFIG.write(folder)
    start = {"name": "scratch", "sha256": "0" * 64, "report": "random"}
    images = {"train": 6, "validation": 3, "pool": 6}
    environment = {"shuffle": [2, 64], "environment": {"python": "3"}}
    write_json(folder / PROVENANCE, {"shards": shards, "images": images, "initialization": start, **environment})
    write_metrics(folder, rows)
    keys, logits = [f"circle/{n}.jpg" for n in range(3)], np.eye(3, dtype=np.float32)
    for place in (folder, folder / "evaluation-test"):
        place.mkdir(exist_ok=True)
        write_predictions(place, keys, np.arange(3), logits, spec.classes)
    (folder / "evaluation-test" / "validation.csv").rename(folder / "evaluation-test" / "predictions.csv")
    report = {
        "folder": "run",
        "epochs": 2,
        "stopped_early": False,
        "best": vars(rows[0]),
        "last": vars(rows[1]),
        "seconds": 2.0,
    }
    write_json(folder / SUMMARY, report | {"precision": "fp32", "initialization": "scratch", "classes": 3})
    return folder


def trained(root: Path) -> Iterator[Path]:
    for arch in ("modulated", "baseline"):
        yield _run(root / arch, arch) / BEST


def checkpoints(root: Path) -> Iterator[Path]:
    yield _run(root / "run") / "last.safetensors"


def run_documents(root: Path) -> Iterator[Path]:
    """JSON of a run, and of a comparison of runs."""
    for name in (PROVENANCE, SUMMARY, "metrics.jsonl"):
        yield _run(root / name) / name


def run_tables(root: Path) -> Iterator[Path]:
    for name in ("validation.csv", "evaluation-test/predictions.csv"):
        yield _run(root / name.replace("/", "-")) / name


def comparison_plan() -> ComparisonPlan:
    """Specification of the comparison that `comparisons` writes."""
    return ComparisonPlan("shards", "plan-labeled", choose_arms(()), CONFIG, ComparisonConfig(), 1, False)


def comparisons(root: Path) -> Iterator[Path]:
    document = results(("baseline", "half"), folds=2, epochs=3)
    arm_costs = {
        arm["name"]: {"runs": 2, "seconds": 2.0, "seconds_per_epoch": 1.0, "reads_maps": True}
        for arm in document["arms"]
    }
    costs = {"settings": {s["name"]: arm_costs for s in document["settings"]}, "maps": {"images": 3, "seconds": 3.0}}
    files = {"results.json": document, "costs.json": costs, "plan.json": described(comparison_plan())}
    for name in files:
        for other, value in files.items():
            written(root / name / other, json.dumps(value, indent=1).encode())
        yield root / name / name


# configurations


def configurations(root: Path) -> Iterator[Path]:
    """Configurations of a run, and for `--config` of `generate`."""
    yield _run(root / "run") / "config.toml"
    options = {"size": 64, "fit": "pad", "method": ["gradcam", "gradient"], "max-rejects": "5%", "per-class": 5}
    tables = {
        "seed": 3,
        "generate": {**options, "classes": ["a*"], "layout": "folders"},
        "train": {"epochs": 3, "lr": 0.1},
    }
    written(root / "command" / "photos" / "a" / "1.jpg", small_image())
    yield written(root / "command" / "options.toml", tomli_w.dumps(tables).encode())


def arms(root: Path) -> Iterator[Path]:
    base: dict[str, Any] = {
        "like": "half",
        "lr": 0.01,
        "freeze": "stem",
        "augment": ["crop", "flip"],
        "kind": "candidate",
    }
    tables = {
        "plain": {"like": "baseline"},
        "mine": base,
        "moved": {"of": "mine", "maps": "mismatched"},
        "own": {"arch": "learned", "alpha": 0.5, "learn-alpha": True},
    }
    yield written(root / "arms" / "arms.toml", tomli_w.dumps({"arm": tables}).encode())


# the cache


def cache(root: Path) -> Iterator[Path]:
    """A prepared source model, as `saliency_pipeline.cache` keeps it: digest and JSON."""
    body = _serialize(load_source(NETWORK, "none"))
    name = f"source-{hashlib.sha256(b'fuzz').hexdigest()}"
    yield written(root / "home" / "salpipe" / "networks" / name, hashlib.sha256(body).digest() + body)


def graphs(root: Path) -> Iterator[Path]:
    """A network as operators and constants, in an entry of the cache."""
    network = load_source(NETWORK, "none")
    split = split_network(network.module, [choose_layer(network.module, 32)], 32, 2)
    body = to_bytes(split.whole, {"cut": True, "linear": True})
    name = f"network-{hashlib.sha256(b'fuzz').hexdigest()}"
    yield written(root / "home" / "salpipe" / "networks" / name, hashlib.sha256(body).digest() + body)


INDEXED = RemoteFile("s3://bucket/photos.tar", 100_000, "tag")
"""The remote archive whose index is mutated."""


def remote_index(root: Path) -> Iterator[Path]:
    """The index of a remote archive."""
    kept, path = KeptBytes(), index_path(root / "shards" / "index", INDEXED)
    for number in range(20):
        kept.add(5000 * number, b"name of a member %d" % number + bytes(400))
    kept.save(path, INDEXED)
    yield path


def fingerprints(root: Path) -> Iterator[Path]:
    folder = root / "shards" / "fingerprints"
    FingerprintCache(folder, ROW, 1).add([(b"%d" % n * 32, np.zeros((), ROW)) for n in range(3)])
    yield from folder.glob("*.npy")


def speeds(root: Path) -> Iterator[Path]:
    value = {"key": {"torch": 12.5, "openvino": 30.0}, "other": {"a": 1}}
    yield written(root / "home" / "salpipe" / "speeds.json", json.dumps(value, indent=1).encode())
