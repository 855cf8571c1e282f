"""Make the pictures of docs/methods*.md: PYTHONPATH=. python docs/method_pictures.py [METHOD...]."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from saliency_pipeline import Explainer
from saliency_pipeline.saliency.render import contact_sheet, normalize

FOLDER = Path(__file__).with_name("images")
PHOTO = data.chelsea()
OTHERS = (data.astronaut(), data.coffee(), data.rocket(), data.stereo_motorcycle()[0])

SIDE = 168
# signed pixel maps are shown as sums over blocks of so many pixels per side: single ones would blend to gray
BLOCK = 4
EARLY, MIDDLE, LAST = "blocks.2", "blocks.4", "bn2"
SECOND = "second class"

# the tiles of each picture: caption, and method with its parameters
PICTURES = {
    "gradcam": {"photograph": "", "gradcam": "gradcam", SECOND: "gradcam", f"at {MIDDLE}": f"gradcam:layer={MIDDLE}"},
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
    "scorecam": {"scorecam": "scorecam", "weights=softmax": "scorecam:weights=softmax"},
    "groupcam": {"groupcam": "groupcam", "groups=8": "groupcam:groups=8"},
    "occlusion": {"occlusion": "occlusion", "window=64": "occlusion:window=64"},
    "rise": {"rise": "rise", "debiased": "rise:debiased", "debiased,score=logit": "rise:debiased,score=logit"},
    "hsic": {"hsic": "hsic", "grid=14": "hsic:grid=14"},
    "kernelshap": {"kernelshap": "kernelshap", "segments=100": "kernelshap:segments=100"},
    "spectral-residual": {"spectral-residual": "spectral-residual"},
    "edges": {"edges": "edges"},
    "center-prior": {"center-prior": "center-prior", "sigma=0.1": "center-prior:sigma=0.1"},
    "random": {"random": "random", "cells=28": "random:cells=28"},
}

# pictures of blocks, which PNG stores in fewer bytes than JPEG
BLOCKS = ("input-x-gradient", "integrated-gradients", "expected-gradients", "captum")


def tile(explainer: Explainer, text: str, target: int) -> np.ndarray:
    """A picture of one map, for the class with the highest score or the second one; the photograph without a method."""
    # the first of several images, for a method that compares them
    images = [PHOTO, *OTHERS] if text == "expected-gradients" else [PHOTO]
    explanation = explainer.explain(images, text or "gradcam", "top:2")[0]
    (method,) = explanation.methods.values()
    values = explanation.map(target=target)
    if method.signed and values.shape == explanation.frame.shape[:2]:
        return diverging(values)
    picture = explanation.overlay(target=target) if text else Image.fromarray(explanation.frame)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def diverging(values: np.ndarray) -> np.ndarray:
    """A picture of a signed pixel map: red speaks for the class, blue against it."""
    side = len(values) // BLOCK
    sums = normalize(values.reshape(side, BLOCK, side, BLOCK).sum((1, 3), dtype=np.float32))
    faded = 1 - np.abs(sums)
    colors = np.dstack([np.where(sums > 0, 1, faded), faded, np.where(sums > 0, faded, 1)])
    return np.rint(255 * colors).astype(np.uint8).repeat(SIDE // side, 0).repeat(SIDE // side, 1)


def main(names: list[str]) -> None:
    """Make the pictures of some methods, or of all."""
    explainer = Explainer("efficientnet_lite0")
    FOLDER.mkdir(exist_ok=True)
    for name in names or PICTURES:
        tiles = [tile(explainer, text, int(caption == SECOND)) for caption, text in PICTURES[name].items()]
        picture = Image.fromarray(contact_sheet(tiles, len(tiles), list(PICTURES[name])))
        if name in BLOCKS:
            picture.quantize(128, Image.Quantize.MAXCOVERAGE).save(FOLDER / f"{name}.png", optimize=True)
        else:
            picture.save(FOLDER / f"{name}.jpg", quality=80, optimize=True)
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
