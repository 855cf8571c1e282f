"""Make the pictures of docs/methods*.md: PYTHONPATH=. python docs/method_pictures.py [METHOD...]."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.models.source.source import SourceModel, load_source
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.method import LayerMethod, Method
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.prepared import prepared_layers
from saliency_pipeline.saliency.render import contact_sheet, normalize, overlay
from saliency_pipeline.saliency.targets import Target

FOLDER = Path(__file__).with_name("images")
SIDE = 168
BLOCK = 4
EARLY, MIDDLE, LAST = "blocks.2", "blocks.4", "bn2"
SECOND = "second class"

# the tiles of each picture: caption, and method with parameters; methods without a layer explain the last one
PICTURES = {
    "gradcam": {"gradcam": "gradcam", SECOND: "gradcam", f"at {MIDDLE}": f"gradcam:layer={MIDDLE}"},
    "gradcampp": {"gradcampp": "gradcampp", f"at {MIDDLE}": f"gradcampp:layer={MIDDLE}"},
    "xgradcam": {"xgradcam": "xgradcam", f"at {MIDDLE}": f"xgradcam:layer={MIDDLE}"},
    "layercam": {
        "layercam": "layercam",
        f"at {MIDDLE}": f"layercam:layer={MIDDLE}",
        f"at {EARLY}": f"layercam:layer={EARLY}",
        "fuse=max": f"layercam:fuse=max,layer={EARLY}+{MIDDLE}+{LAST}",
    },
    "hirescam": {"hirescam": "hirescam", f"at {MIDDLE}": f"hirescam:layer={MIDDLE}"},
    "eigencam": {"eigencam": "eigencam", f"at {MIDDLE}": f"eigencam:layer={MIDDLE}"},
    "eigengradcam": {"eigengradcam": "eigengradcam", f"at {MIDDLE}": f"eigengradcam:layer={MIDDLE}"},
    "ablationcam": {"ablationcam": "ablationcam", SECOND: "ablationcam"},
    "finercam": {"gradcam": "gradcam", "finercam": "finercam", "gamma=1": "finercam:gamma=1.0"},
    "gradient": {"gradient": "gradient"},
    "gradient-smilkov": {"gradient-smilkov": "gradient-smilkov"},
    "input-x-gradient": {"input-x-gradient": "input-x-gradient"},
    "smoothgrad": {
        "smoothgrad": "smoothgrad",
        "stat=square": "smoothgrad:stat=square",
        "stat=var": "smoothgrad:stat=var",
    },
    "integrated-gradients": {
        "baseline=mean": "integrated-gradients:nodes=50",
        "baseline=black": "integrated-gradients:nodes=50,baseline=black",
        "baseline=blur": "integrated-gradients:nodes=50,baseline=blur",
    },
    "expected-gradients": {"expected-gradients": "expected-gradients"},
    "fullgrad": {"fullgrad": "fullgrad"},
    "captum": {"captum:DeepLift": "captum:DeepLift", "captum:Deconvolution": "captum:Deconvolution"},
    "spectral-residual": {"spectral-residual": "spectral-residual"},
    "edges": {"edges": "edges"},
    "center-prior": {"center-prior": "center-prior", "sigma=0.1": "center-prior:sigma=0.1"},
    "random": {"random": "random", "cells=28": "random:cells=28"},
}


def frames_of(source: SourceModel) -> np.ndarray:
    """Frames (N, S, S, 3) of photographs that scikit-image ships; the first is the one explained."""
    frames = []
    for photo in (data.chelsea(), data.astronaut(), data.coffee(), data.rocket(), data.stereo_motorcycle()[0]):
        file = io.BytesIO()
        Image.fromarray(photo).save(file, "png")
        preprocessing = source.preprocessing
        frames.append(decode_frame(file.getvalue(), preprocessing.size, interpolation=preprocessing.interpolation)[0])
    return np.stack(frames)


def diverging(values: np.ndarray) -> np.ndarray:
    """A signed pixel map, red for and blue against the class, as sums over blocks: single pixels would blend to gray."""
    side = len(values) // BLOCK
    sums = normalize(values.reshape(side, BLOCK, side, BLOCK).sum((1, 3), dtype=np.float32))
    faded = 1 - np.abs(sums)
    rgb = np.where((sums > 0)[..., None], np.dstack([np.ones_like(faded), faded, faded]), faded[..., None])
    rgb[..., 2] = np.where(sums > 0, faded, 1)
    return np.asarray(np.rint(255 * rgb), np.uint8).repeat(BLOCK, 0).repeat(BLOCK, 1)


def save(name: str, tiles: dict[str, np.ndarray]) -> None:
    """Write one picture, tiles side by side."""
    small = [
        np.asarray(Image.fromarray(tile).resize((SIDE, SIDE), Image.Resampling.LANCZOS)) for tile in tiles.values()
    ]
    sheet = Image.fromarray(contact_sheet(small, len(small), list(tiles)))
    FOLDER.mkdir(exist_ok=True)
    sheet.save(FOLDER / f"{name}.jpg", quality=80, optimize=True)


def main(names: list[str]) -> None:
    """Make the pictures of some methods, or of all."""
    source = load_source("efficientnet_lite0")
    frames = frames_of(source)
    for name in names or PICTURES:
        methods = {caption: method_of(text) for caption, text in PICTURES[name].items()}
        layers = [layer for method in methods.values() for layer in method.explained((LAST,))]
        explainer = Explainer(
            source,
            prepared_layers(source, list(dict.fromkeys(layers))),
            list({method.canonical: method for method in methods.values()}.values()),
            Target("predicted", 2),
            batch=1,
            placement=Placement(),
            background=frames[1:],
        )
        explanation = explainer.explain(frames[:1], keys=["chelsea"])
        tiles = {"photograph": frames[0]} if name == "gradcam" else {}
        for caption, method in methods.items():
            values = explanation.maps[method.canonical][0, int(caption == SECOND)]
            tiles[caption] = (
                diverging(values) if method.signed and len(values) > BLOCK * 14 else overlay(frames[0], values)
            )
        save(name, tiles)
        targets = [source.classes[index].partition(",")[0] for index in explanation.targets[0]]
        residuals = {method: values[0].round(3).tolist() for method, values in explanation.residuals.items()}
        print(name, targets, residuals or "")


def method_of(text: str) -> Method:
    """The method, which names the layer that it explains."""
    (method,) = find_methods([text])
    return replace(method, layer=LAST) if isinstance(method, LayerMethod) and method.layer is None else method


if __name__ == "__main__":
    main(sys.argv[1:])
