"""Make the pictures of docs/methods*.md: PYTHONPATH=. python docs/method_pictures.py [METHOD...]."""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from skimage import data

from saliency_pipeline import Explainer
from saliency_pipeline.models.preprocessing import Preprocessing
from saliency_pipeline.saliency.render import contact_sheet, normalize

FOLDER = Path(__file__).with_name("images")
PHOTO = data.chelsea()
OTHERS = (data.astronaut(), data.coffee(), data.rocket(), data.stereo_motorcycle()[0])

SIDE = 168
# signed pixel maps are shown as sums over blocks of so many pixels per side: single ones would blend to gray
BLOCK = 4
EARLY, MIDDLE, LAST = "blocks.2", "blocks.4", "bn2"
SECOND = "second class"

# a small transformer, trained on scenes of one object, and the scene of two that its maps are shown of
FRAME, OBJECT, PATCH = 64, 16, 8
STEPS, BATCH = 400, 32
PREPROCESSING = Preprocessing(FRAME, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
CLASSES = ("cat", "coffee", "rocket", "astronaut")
# the objects of the scene that is shown, in which both classes have nearly the same logit
SHOWN = (0, 1)
_SEED_OF_THE_SCENE = 6

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
    "attention": {
        "scene": "",
        "attention": "attention",
        "block=1": "attention:block=1",
        "heads=max": "attention:heads=max",
    },
    "rollout": {"rollout": "rollout", "residual=0": "rollout:residual=0", "discard=0.5": "rollout:discard=0.5"},
    "chefer": {"chefer": "chefer", SECOND: "chefer"},
    "legrad": {
        "legrad": "legrad",
        SECOND: "legrad",
        "blocks=1": "legrad:blocks=1",
        "score=network": "legrad:score=network",
    },
    "guided-backprop": {"rule=guided": "guided-backprop", "rule=deconvnet": "guided-backprop:rule=deconvnet"},
    "guided-gradcam": {"guided-gradcam": "guided-gradcam", SECOND: "guided-gradcam"},
    "deeplift": {"baseline=mean": "deeplift", "baseline=black": "deeplift:baseline=black", SECOND: "deeplift"},
    "lrp": {"epsilon-plus-flat": "lrp", "epsilon-gamma-box": "lrp:rule=epsilon-gamma-box"},
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

# pictures of a transformer that is trained here
ATTENTION = ("attention", "rollout", "chefer", "legrad")

# pictures of blocks, which PNG stores in fewer bytes than JPEG
BLOCKS = ("input-x-gradient", "integrated-gradients", "expected-gradients", "deeplift", "lrp", "captum")


def tile(explainer: Explainer, photo: np.ndarray, text: str, target: int) -> np.ndarray:
    """A picture of one map, for the class with the highest score or the second one; the photograph without a method."""
    # the first of several images, for a method that compares them
    images = [photo, *OTHERS] if text == "expected-gradients" else [photo]
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


def scene(random: np.random.Generator, objects: tuple[int, ...]) -> np.ndarray:
    """A frame (FRAME, FRAME, 3) uint8 of brick, grass or gravel with a tile of the photograph of each class, apart."""
    photographs, backgrounds = _pictures()

    def tile(pixels: np.ndarray, side: int, shown: int) -> Image.Image:
        y, x = (int(random.integers(0, length - side + 1)) for length in pixels.shape[:2])
        return Image.fromarray(pixels[y : y + side, x : x + side]).convert("RGB").resize((shown, shown))

    frame = tile(backgrounds[random.integers(len(backgrounds))], 2 * FRAME, FRAME)
    places: list[tuple[int, int]] = []
    while len(places) < len(objects):
        x, y = (PATCH * int(cell) for cell in random.integers(0, (FRAME - OBJECT) // PATCH + 1, 2))
        if all(max(abs(x - other), abs(y - another)) > OBJECT for other, another in places):
            frame.paste(tile(photographs[objects[len(places)]], 8 * OBJECT, OBJECT), (x, y))
            places.append((x, y))
    return np.asarray(frame)


@cache
def _pictures() -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """The photographs of the classes, and the backgrounds."""
    return (data.chelsea(), data.coffee(), data.rocket(), data.astronaut()), (data.brick(), data.grass(), data.gravel())


def shown_scene() -> np.ndarray:
    """The scene of the pictures, with an object of each of two classes."""
    return scene(np.random.default_rng(_SEED_OF_THE_SCENE), SHOWN)


def trained_transformer() -> torch.nn.Module:
    """A ViT with a class token, trained to recognize the single object of a scene."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    network = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=FRAME,
        patch_size=PATCH,
        depth=3,
        embed_dim=48,
        num_heads=3,
        num_classes=len(CLASSES),
    )
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, STEPS)
    for step in range(STEPS + 4):
        classes = random.integers(0, len(CLASSES), BATCH)
        frames = np.stack([scene(random, (int(index),)) for index in classes])
        # the last steps only measure
        with torch.set_grad_enabled(step < STEPS):
            logits = network.train(step < STEPS)(_normalized(frames))
        if step < STEPS:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, torch.from_numpy(classes)).backward()
            optimizer.step()
            schedule.step()
        if step >= STEPS or step % 50 == 49:
            print(f"step {step + 1}: accuracy {(logits.argmax(1).numpy() == classes).mean():.2f}")
    return network.eval().requires_grad_(False)


def _normalized(frames: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def main(names: list[str]) -> None:
    """Make the pictures of some methods, or of all."""
    names = names or list(PICTURES)
    explainer, attending = Explainer("efficientnet_lite0"), None
    if any(name in ATTENTION for name in names):
        attending = Explainer(trained_transformer(), preprocessing=PREPROCESSING, classes=CLASSES)
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        own, photo = (attending, shown_scene()) if attending and name in ATTENTION else (explainer, PHOTO)
        tiles = [tile(own, photo, text, int(caption == SECOND)) for caption, text in PICTURES[name].items()]
        picture = Image.fromarray(contact_sheet(tiles, len(tiles), list(PICTURES[name])))
        if name in BLOCKS:
            picture.quantize(128, Image.Quantize.MAXCOVERAGE).save(FOLDER / f"{name}.png", optimize=True)
        else:
            picture.save(FOLDER / f"{name}.jpg", quality=80, optimize=True)
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
