"""COCO files: images with a mask and a box per map, cut from the maps."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from saliency_pipeline.conversion.masks import Cut, box_of, run_lengths
from saliency_pipeline.conversion.names import sample_name
from saliency_pipeline.conversion.output import OutputFiles
from saliency_pipeline.conversion.samples import Sample, explained_class
from saliency_pipeline.files import write_atomically
from saliency_pipeline.shards.reader import ShardFolder

ANNOTATIONS, IMAGES = "annotations.json", "images"
UNLABELED = "unlabeled"


def write_coco(folder: Path, data: ShardFolder, samples: Iterable[Sample], cut: Cut) -> tuple[Path, int]:
    """Write `annotations.json` in the format of COCO's instances, and the images.

    The category of an annotation is the image's own class, numbered from 1 in label order; images without a label have
    the category `unlabeled`. Masks are run lengths, boxes enclose them. A map whose mask is empty has no annotation.

    Returns:
        The file, and the number of annotations.

    Raises:
        SalpipeError: the disk is full or cannot be written.
        IntegrityError: a shard is damaged.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    size, unlabeled = data.header.size, False
    with OutputFiles(folder, listed=False) as output:
        for sample in samples:
            name = f"{IMAGES}/{sample_name(sample.position)}.{sample.suffix}"
            output.write(name, sample.image)
            number = sample.position + 1
            images.append(
                {"id": number, "file_name": name, "width": size, "height": size}
                | {"key": sample.key, "split": sample.split}
            )
            unlabeled = unlabeled or sample.label < 0
            for method, maps in sample.maps.items():
                targets = sample.facts["saliency"][method]["target"]
                for rank, (values, target) in enumerate(zip(maps, targets, strict=True)):
                    mask = cut.mask(values, size)
                    if not mask.any():
                        continue
                    annotations.append(
                        {
                            "id": len(annotations) + 1,
                            "image_id": number,
                            "category_id": 1 + (sample.label if sample.label >= 0 else len(data.classes)),
                            "segmentation": run_lengths(mask),
                            "area": int(mask.sum()),
                            "bbox": box_of(mask),
                            "iscrowd": 0,
                            "method": method,
                            "rank": rank,
                            "target": target,
                            "target_name": explained_class(data, target),
                        }
                    )
        output.publish()
    names = [*data.classes, *([UNLABELED] if unlabeled else [])]
    document = {
        "info": {"description": f"masks from saliency maps, {cut}", "provenance": data.provenance},
        "licenses": [],
        "categories": [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(names, 1)],
        "images": images,
        "annotations": annotations,
    }
    write_atomically(folder / ANNOTATIONS, json.dumps(document, allow_nan=False) + "\n")
    return folder / ANNOTATIONS, len(annotations)
