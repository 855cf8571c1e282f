"""Readers of mutated files, one per kind; they raise SalpipeError for refused files, as the commands do."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import matplotlib.figure  # noqa: F401 - what readers import late would seem to be the first file's memory
import timm  # noqa: F401
import torch
from click.testing import CliRunner

from saliency_pipeline.cache import cached
from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.comparison.arms import choose_arms
from saliency_pipeline.comparison.output import rebuild
from saliency_pipeline.comparison.plan_file import chosen_before, store
from saliency_pipeline.comparison.runs import is_finished, read_run
from saliency_pipeline.datasets.box_files import with_boxes
from saliency_pipeline.datasets.layout import ReadOptions
from saliency_pipeline.datasets.open import LAYOUTS, read_images
from saliency_pipeline.datasets.remote_index import KeptBytes
from saliency_pipeline.documents import DocumentError, read_object, read_regular
from saliency_pipeline.errors import BadImageError, SalpipeError
from saliency_pipeline.evaluation.predictions import recorded_config
from saliency_pipeline.fetching.fetch_log import FetchLog
from saliency_pipeline.generation.plan import check_same_plan, stored_plan
from saliency_pipeline.generation.receipt import read_receipt, valid_receipt
from saliency_pipeline.hub.contents import ALLOWED, read_listing
from saliency_pipeline.images.decode import FITS, decode_frame
from saliency_pipeline.images.ready_maps import read_frame_map
from saliency_pipeline.models.source import source
from saliency_pipeline.models.source.weights import read_state_dict
from saliency_pipeline.models.trained.trained import BEST, load_trained, recorded_images
from saliency_pipeline.models.trained.two_branch import build_network
from saliency_pipeline.saliency.engine.stored_graph import from_bytes, to_bytes
from saliency_pipeline.shards.manifest import Manifest
from saliency_pipeline.shards.reader import ShardFolder
from saliency_pipeline.speeds import remembered_speeds
from saliency_pipeline.subsets.fingerprint import ROW
from saliency_pipeline.subsets.fingerprint_cache import FingerprintCache
from saliency_pipeline.training.checkpoint import load_last
from saliency_pipeline.training.config import TrainConfig, check_same
from tests.fuzz import outputs
from tests.fuzz.outputs import CONFIG, INDEXED, NETWORK
from tests.fuzz.watch import EXIT_CODES, broken_promise

MOST_IMAGES = 6


class BrokenPromiseError(Exception):
    """A command did not end as documented."""


def command(*arguments: object) -> None:
    """Run a command of salpipe in this process, and check its output; raises SalpipeError if it refuses.

    Raises:
        SalpipeError: it ended with one of the documented exit codes.
        BrokenPromiseError: with another one, with more than a line, or after printing what no terminal should get.
    """
    result = CliRunner().invoke(salpipe, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    for line in result.output.split("\n"):
        if not line.isprintable():
            raise BrokenPromiseError(f"{arguments[0]} prints {line[:200]!r}")
    errors = [line for line in result.stderr.splitlines() if line.startswith("salpipe: error: ")]
    if result.exit_code not in (0, *EXIT_CODES) or (result.exit_code != 2 and len(errors) != (result.exit_code != 0)):
        raise BrokenPromiseError(f"{arguments[0]} ended with {result.exit_code} and {len(errors)} errors")
    if result.exit_code:
        raise SalpipeError(errors[0] if errors else f"{arguments[0]}: wrong usage")


def each(*calls: Callable[[], object]) -> None:
    """All of the calls, though some refuse; then the first refusal is raised."""
    refusals: list[SalpipeError] = []
    for call in calls:
        try:
            call()
        except SalpipeError as error:
            check_message(error)
            refusals.append(error)
    if refusals:
        raise refusals[0]


def besides(*calls: Callable[[], object]) -> None:
    """Calls that may refuse even a valid file, such as one that takes it for something else."""
    with suppress(SalpipeError):
        each(*calls)


def check_message(error: SalpipeError) -> None:
    """Raises BrokenPromiseError where the message is not one printable line, or the exit code not a documented one."""
    if problem := broken_promise(error):
        raise BrokenPromiseError(f"{problem}: {str(error)[:300]!r}") from error


# readers


def read_image(path: Path, random: Random) -> None:
    """As `generate` reads a folder of one class, or a single file."""
    if random.random() < 0.1:
        besides(lambda: decode_all(path, random))
    if reasons := decode_all(path.parent.parent, random):
        raise reasons[0]


def read_data_set(path: Path, random: Random) -> None:
    """As `generate` lists and decodes it; sometimes as a file alone, as another layout, or in a dry run."""
    root = _root(path)
    if random.random() < 0.2:
        besides(lambda: decode_all(root, random, random.choice(LAYOUTS).name))
    if random.random() < 0.2:
        besides(lambda: decode_all(path, random))
    if random.random() < 0.2:
        besides(lambda: command("generate", root, "-o", root.parent / "out", "--dry-run"))
    decode_all(root, random, options=ReadOptions(noise=50 if path.name.startswith("noisy") else 0))


def read_export(path: Path, random: Random) -> None:
    """As `generate --maps-from` reads an export of `convert`: images and maps."""
    read_data_set(path, random)
    records = read_images(_root(path), "export").records
    for record in random.sample(list(records), min(3, len(records))):
        if record.maps is not None:
            with suppress(BadImageError, OSError):
                record.maps.read()


def read_repository(path: Path, random: Random) -> None:
    """As `pull` reads the list of a repository's files: no name leads out of a folder."""
    with suppress(OSError, DocumentError):  # downloads are regular files
        _read_repository(read_regular(path))


def _read_repository(data: bytes) -> None:
    kind, _, files = read_listing(data, "hf://org/name")
    for name in files:
        assert ALLOWED[kind].fullmatch(name)
        assert not name.startswith("/")
        assert ".." not in name.split("/")


def read_tar(path: Path, random: Random) -> None:
    """As `generate` reads a tar that is given itself."""
    if random.random() < 0.2:
        besides(lambda: command("generate", path, "-o", path.parent / "out", "--dry-run"))
    decode_all(path, random)


def decode_all(
    path: Path, random: Random, layout: str = "auto", options: ReadOptions | None = None
) -> list[BadImageError]:
    """The first images of a data set as frames; those that are rejected, as in rejects.jsonl, by their reasons."""
    catalogue = read_images(path, layout, options)
    fit, size = random.choice(FITS), random.choice((8, 64, 64, 224))
    reasons = []
    for record in catalogue.records[:MOST_IMAGES]:
        try:
            decode_frame(record.read(), size, fit=fit, box=record.box)
        except (BadImageError, OSError) as error:
            reason = error if isinstance(error, BadImageError) else BadImageError(str(error.strerror))
            check_message(reason)
            reasons.append(reason)
    return reasons


def read_shard(path: Path, random: Random) -> None:
    """As a file alone and in its folder: inspect, verify, all pairs, sometimes a gallery."""

    def pairs(where: Path) -> None:
        folder = ShardFolder(where)
        folder.keys()
        for position in range(min(len(folder), MOST_IMAGES)):
            folder[position]

    places = (path, path.parent) if path.suffix == ".h5" else (path.parent,)
    calls: list[Callable[[], object]] = []
    for place in places:
        calls += [lambda place=place: pairs(place), lambda place=place: command("inspect", place)]
        calls.append(lambda place=place: command("verify", place, random.choice(("--deep", "--json"))))
    if random.random() < 0.1:
        calls.append(lambda: command("show", path.parent, "-o", path.parent.parent / "gallery", "--count", "4"))
        calls.append(lambda: command("inspect", path.parent, "--json"))
    each(*calls)


def read_manifest(path: Path, random: Random) -> None:
    each(lambda: Manifest.read(path.parent), lambda: read_shard(path, random))


def read_plan(path: Path, random: Random) -> None:
    plan = stored_plan(path.parent)
    if plan is None:
        raise SalpipeError("no plan")
    besides(
        lambda: check_same_plan(
            path.parent, plan, {"model": "other", "method": ["gradcam"], "versions": {"torch": "3"}}
        )
    )


def read_receipts(path: Path, random: Random) -> None:
    folder, name = path.parent.parent, path.with_suffix(".h5").name
    receipt = read_receipt(folder, name)
    if receipt is None or valid_receipt(folder, name, receipt.plan) is None:
        raise SalpipeError("not a receipt")


def read_weights(path: Path, random: Random) -> None:
    each(lambda: read_state_dict(path), lambda: source.load_source(NETWORK, str(path)).module)


def read_trained(path: Path, random: Random) -> None:
    besides(lambda: source.load_source(str(path.parent)).class_index("square"))
    besides(lambda: recorded_images(path.parent / BEST))
    recorded_config(load_trained(path.parent))


def read_checkpoint(path: Path, random: Random) -> None:
    model = build_network(load_trained(path.parent).spec)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    load_last(path.parent, model, optimizer)
    optimizer.zero_grad()


def read_finished_run(path: Path, random: Random) -> None:
    run = _root(path)
    each(lambda: read_run(run, "half", "all images"), lambda: is_finished(run, CONFIG), lambda: _document(path))


def _document(path: Path) -> None:
    if path.suffix == ".json":
        read_object(path)


def read_comparison(path: Path, random: Random) -> None:
    folder = path.parent
    plan = outputs.comparison_plan()
    if path.name == "plan.json":
        each(lambda: chosen_before(folder), lambda: store(plan, folder))
    else:
        rebuild(folder)


def read_configuration(path: Path, random: Random) -> None:
    """The configuration of a run or of a command."""
    if path.name == "options.toml":
        photos, out = path.parent / "photos", path.parent / "out"
        command("generate", photos, "-o", out, "--dry-run", "--config", path)
    else:
        config = TrainConfig.read(path.parent)
        if config is None:
            raise SalpipeError("no configuration")
        check_same(path.parent, config, CONFIG)


def read_arms(path: Path, random: Random) -> None:
    for arm in choose_arms((), path):
        arm.config(CONFIG)


def read_classes(path: Path, random: Random) -> None:
    command("generate", path.parent / "photos", "-o", path.parent / "out", "--dry-run", "--classes", f"@{path}")


def read_box_file(path: Path, random: Random) -> None:
    with_boxes(read_images(path.parent / "photos"), path, lambda line: None)


def read_map(path: Path, random: Random) -> None:
    result = read_frame_map(str(path), (random.randrange(1, 500), random.randrange(1, 500)), 32, random.choice(FITS))
    assert result.shape == (8, 8)
    assert 0 <= result.min() <= result.max() <= 1


def read_pubfig(path: Path, random: Random) -> None:
    folder = path.parent

    def log() -> None:
        with FetchLog(folder):
            pass

    besides(lambda: command("fetch", "pubfig", "--list", folder / "dev_urls.txt", "-o", folder, "--check"))
    each(lambda: decode_all(folder, random, random.choice(("pubfig", "auto"))), log)


def read_cache(path: Path, random: Random) -> None:
    """A damaged entry is computed again, so every file is accepted."""
    os.environ["XDG_CACHE_HOME"] = str(_root(path))
    key = ("fuzz",)

    def load() -> source.SourceModel:
        return source.load_source(NETWORK, "none")

    value = cached("source", key, load, source._serialize, lambda data: source._deserialize(data, key, load))
    value.class_index("0")


def read_graph(path: Path, random: Random) -> None:
    """As `read_cache`."""
    os.environ["XDG_CACHE_HOME"] = str(_root(path))
    cached("network", ("fuzz",), lambda: (None, {}), lambda arrays: to_bytes(*arrays), from_bytes)


def read_remote_index(path: Path, random: Random) -> None:
    """What an index has of some parts, if it is one."""
    kept = KeptBytes.load(path, INDEXED)
    if kept is None:
        raise SalpipeError("not an index")
    for offset in range(0, 100_000, 500):
        assert len(kept.read(100, offset) or bytes(100)) == 100


def read_fingerprints(path: Path, random: Random) -> None:
    """A damaged part is skipped; three of four are called by the digest of their bytes, as a part must be."""
    if random.random() < 0.75 and path.is_file() and path.stat().st_size < 2**26:
        path.rename(path.with_name(f"{hashlib.sha256(path.read_bytes()).hexdigest()}.npy"))
    FingerprintCache(path.parent, ROW, 1).load([b"0" * 32, b"1" * 32], lambda place, row: None)


def read_speeds(path: Path, random: Random) -> None:
    os.environ["XDG_CACHE_HOME"] = str(_root(path))
    speeds = remembered_speeds("key", ("torch", "openvino"), lambda: (1.0, 2.0))
    assert list(speeds) == ["torch", "openvino"]


def _root(path: Path) -> Path:
    """The folder of the data set or run: the first one below `work`."""
    return next(parent for parent in path.parents if parent.parent.name == "work")
