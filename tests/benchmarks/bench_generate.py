"""`generate` from JPEG files to shards, compared with the forward pass of its own engine and with captum.

Each arm is a process of its own; arms alternate over the rounds and the best round of each counts.

    salpipe    the whole task on n/4 and on n images: (n - n/4) / (t(n) - t(n/4)), without preparing the engine
    forward    frames in memory through the network up to the explained layer, on the very backend, precision, batch
               size and streams that `generate` chose: nothing is decoded, explained or written
    captum     finds the predicted class and explains it with LayerGradCam or Saliency, frames in memory, at its best
               batch size of 1, 4 and 16 (16, 64 and 256 on a GPU)

    python tests/benchmarks/bench_generate.py --images FOLDER -n 2000
    python tests/benchmarks/bench_generate.py --model resnet50 --weights none -n 160 --method gradient
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ARMS = ("salpipe", "forward", "captum")


def photographs(folder: Path, count: int) -> Path:
    """`count` JPEG files of 533 x 400 pixels, cut from the photographs that scikit-image ships."""
    import cv2
    from skimage import data

    folder.mkdir()
    photos = [cv2.cvtColor(photo, cv2.COLOR_RGB2BGR) for photo in (data.astronaut(), data.chelsea(), data.coffee())]
    for i in range(count):
        photo = photos[i % len(photos)]
        shift = i % 40
        crop = photo[shift // 2 : photo.shape[0] - 20 + shift // 2, shift : photo.shape[1] - 40 + shift]
        cv2.imwrite(str(folder / f"{i:05d}.jpg"), cv2.resize(crop, (400, 533), interpolation=cv2.INTER_AREA))
    return folder


def linked(source: Path, folder: Path, count: int) -> Path:
    """`count` of the JPEG files of `source` under numbered names; files repeat where there are fewer."""
    folder.mkdir()
    files = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    for i, file in enumerate(itertools.islice(itertools.cycle(files), count)):
        os.symlink(file.resolve(), folder / f"{i:05d}.jpg")
    return folder


def salpipe(images: Path, work: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The whole task, from files to published shards: marginal rate, without fixed costs of a run."""
    from saliency_pipeline import generate

    files = sorted(images.iterdir())
    few = linked(images, work / f"few-{time.time_ns()}", len(files) // 4)
    reports = [generate(folder, work / f"shards-{time.time_ns()}", **options) for folder in (few, images)]
    less, more = (report.images / report.images_per_second for report in reports)
    rate = (reports[1].images - reports[0].images) / (more - less)
    return {"rate": rate, "engine": f"{reports[1].backend} {reports[1].precision}"}


def forward(images: Path, work: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The engine's network alone, up to the explained layer, all streams busy."""
    import torch

    from saliency_pipeline.datasets.folder import read_folder
    from saliency_pipeline.generation.config import GenerateConfig
    from saliency_pipeline.generation.resolve import resolve
    from saliency_pipeline.generation.summary import summarize
    from saliency_pipeline.memory import keep_large_blocks
    from saliency_pipeline.saliency.tuning import FRAMES
    from saliency_pipeline.workers import usable_cores

    keep_large_blocks()
    folder = work / f"plan-{time.time_ns()}"
    folder.mkdir()
    data = summarize(read_folder(images), measured=FRAMES)
    job, build = resolve(folder, GenerateConfig(**options), data, usable_cores(), lambda _: None)
    network = build().network
    frames, device = frames_of(images, job.header.size, job.resolved.batch_size), job.placement.device
    pixels = network.normalize(frames)

    def run() -> object:
        with torch.no_grad():
            output = network.trunk(frames) if network.trunk else network.whole(pixels)
        if device != "cpu":
            torch.cuda.synchronize(device)
        return output

    rate = rate_of(run, job.resolved.batch_size, job.placement.streams, seconds=6.0)
    return {"rate": rate, "engine": f"{job.placement.backend} {job.placement.precision}"}


def captum(images: Path, work: Path, options: dict[str, Any]) -> dict[str, Any]:
    """captum on the same network, untouched, at its best batch size."""
    import torch
    from captum.attr import LayerGradCam, Saliency

    from saliency_pipeline import load_source
    from saliency_pipeline.devices import find_device
    from saliency_pipeline.saliency.engine.backends import Normalize
    from saliency_pipeline.saliency.engine.layers import choose_layer

    source, device = load_source(options["model"], options["weights"]), str(find_device("auto"))
    network, size = source.module, source.preprocessing.size
    layer = network.get_submodule(choose_layer(network, size).name)
    network.to(device)
    rates = {}
    for batch in (1, 4, 16) if device == "cpu" else (16, 64, 256):
        pixels = Normalize(source.preprocessing, device)(frames_of(images, size, batch)).contiguous()

        def run(pixels: torch.Tensor = pixels) -> object:
            with torch.no_grad():
                target = network(pixels).argmax(1)
            if options["methods"] == ("gradcam",):
                maps = LayerGradCam(network, layer).attribute(pixels, target, relu_attributions=True)
            else:
                maps = Saliency(network).attribute(pixels.clone().requires_grad_(), target)
            return maps.detach().cpu()

        rates[batch] = rate_of(run, batch, None, seconds=4.0)
    return {"rate": max(rates.values()), "batch": max(rates, key=rates.__getitem__)}


def frames_of(images: Path, size: int, count: int) -> Any:
    """The first `count` frames, (count, S, S, 3) uint8."""
    import numpy as np

    from saliency_pipeline.images.decode import decode_frame

    files = itertools.islice(itertools.cycle(sorted(images.iterdir())), count)
    return np.stack([decode_frame(file.read_bytes(), size)[0] for file in files])


def rate_of(run: Callable[[], object], batch: int, streams: int | None, seconds: float) -> float:
    """Frames per second of `run`, in this thread or in `streams` threads of one core each."""
    import torch

    def work(until: float) -> int:
        done = 0
        while time.perf_counter() < until:
            run()
            done += batch
        return done

    if streams is None:
        run()
        start = time.perf_counter()
        return work(start + seconds) / (time.perf_counter() - start)
    with ThreadPoolExecutor(streams, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(work, [0.0] * streams))
        list(pool.map(work, [time.perf_counter() + 1] * streams))
        start = time.perf_counter()
        return sum(pool.map(work, [start + seconds] * streams)) / (time.perf_counter() - start)


def main() -> None:
    """Run every arm in turn and print the ratios; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files; scikit-image's photographs otherwise")
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--method", default="gradcam")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--arm", nargs=3, metavar=("ARM", "IMAGES", "WORK"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    options = {name: getattr(args, name) for name in ("model", "weights", "precision", "backend")}
    options["methods"] = (args.method,)
    if args.arm:
        arm, images, work = args.arm
        print(json.dumps(globals()[arm](Path(images), Path(work), options)))
        return
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        images = linked(args.images, work / "in", args.n) if args.images else photographs(work / "in", args.n)
        for _, arm in itertools.product(range(args.rounds), ARMS):
            command = [sys.executable, __file__, *sys.argv[1:], "--arm", arm, str(images), temporary]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            result = json.loads(output.splitlines()[-1])
            if arm not in results or result["rate"] > results[arm]["rate"]:
                results[arm] = result
            print(f"{arm:8} {result['rate']:8.1f} images/s  {result.get('engine') or result['batch']}", flush=True)
    rate = {arm: result["rate"] for arm, result in results.items()}
    ratios = {"of_forward": rate["salpipe"] / rate["forward"], "of_captum": rate["salpipe"] / rate["captum"]}
    print(json.dumps({**results, **{name: round(ratio, 3) for name, ratio in ratios.items()}}))


if __name__ == "__main__":
    main()
