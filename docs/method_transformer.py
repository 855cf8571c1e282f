"""A small vision transformer for the pictures of docs/methods-attention.md, trained on scenes in a few minutes."""

from functools import cache

import numpy as np
import timm
import torch
from PIL import Image
from skimage import data

from saliency_pipeline.models.preprocessing import Preprocessing

SIDE, OBJECT, PATCH = 64, 16, 8
STEPS, BATCH = 400, 32
PREPROCESSING = Preprocessing(SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
CLASSES = ("cat", "coffee", "rocket", "astronaut")
# the classes of the objects of the scene that is shown
SHOWN = (0, 2)
_SEED_OF_THE_SCENE = 3


def scene(random: np.random.Generator, objects: tuple[int, ...]) -> np.ndarray:
    """A frame (SIDE, SIDE, 3) uint8 of brick, grass or gravel with a tile of the photograph of each class, apart."""
    photographs, backgrounds = _pictures()

    def tile(pixels: np.ndarray, side: int, shown: int) -> Image.Image:
        y, x = (int(random.integers(0, length - side + 1)) for length in pixels.shape[:2])
        return Image.fromarray(pixels[y : y + side, x : x + side]).convert("RGB").resize((shown, shown))

    frame = tile(backgrounds[random.integers(len(backgrounds))], 2 * SIDE, SIDE)
    places: list[tuple[int, int]] = []
    while len(places) < len(objects):
        x, y = (PATCH * int(cell) for cell in random.integers(0, (SIDE - OBJECT) // PATCH + 1, 2))
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
        img_size=SIDE,
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
