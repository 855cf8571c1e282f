"""Methods of attention: twins in NumPy, torch-cam's LeGrad, sums, equalities, neighbors, parameters."""

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from saliency_pipeline.errors import OptionError
from saliency_pipeline.saliency.engine.layers import choose_layer
from saliency_pipeline.saliency.explainer import Explainer
from saliency_pipeline.saliency.methods.attention import relevance, rollout
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.tuning import default_batch
from tests.saliency.networks import BATCH, FP32, PREDICTED, noise, normalized, own_source, relative_error
from tests.saliency.transformers import (
    BUILDERS,
    CLASSES,
    DEPTH,
    GRIDS,
    PREFIXES,
    SIZE,
    explainer_of,
    graph_of,
    layer_of,
    transformer,
)

ALL = ("attention", "attention:block=1,heads=max", "rollout", "rollout:discard=0.3", "chefer", "legrad")
FRAMES = noise(3, SIZE)


def softmaxed(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(-1)


def slow_rollout(matrices: list[np.ndarray], residual: float, discard: float, prefix: int) -> np.ndarray:
    """The whole product (T, T) for one image, factor by factor, in float64."""
    product = np.eye(matrices[0].shape[-1])
    for matrix in matrices:
        mean = matrix.astype(np.float64).mean(0)
        inner = mean[:, prefix:]
        lowest = np.sort(inner.ravel())[: int(discard * inner.size)]
        for row, column in np.ndindex(inner.shape):
            if inner[row, column] in lowest:
                inner[row, column] = 0
        factor = residual * np.eye(len(mean)) + (1 - residual) * mean
        product = factor / factor.sum(1, keepdims=True) @ product
    return product


def slow_relevance(matrices: list[np.ndarray], gradients: list[np.ndarray]) -> np.ndarray:
    """R (T, T) for one image, from the first block to the last, in float64."""
    size = matrices[0].shape[-1]
    relevances = np.eye(size)
    for matrix, gradient in zip(matrices, gradients, strict=True):
        positive = np.maximum(gradient.astype(np.float64) * matrix, 0).mean(0)
        relevances = relevances + positive @ relevances
    return relevances


@pytest.mark.parametrize(("residual", "discard", "prefix"), [(0.5, 0, 1), (0.2, 0.4, 1), (0, 0.9, 2), (1, 0, 0)])
def test_rollout_is_the_product_of_all_factors(residual: float, discard: float, prefix: int) -> None:
    matrices = [softmaxed(2, 3, 6, 6, seed=seed) for seed in range(4)]
    rows = torch.eye(6).expand(2, 6, 6)
    got = rollout(matrices, rows, residual, discard, prefix)
    for n in range(2):
        want = slow_rollout([matrix[n].numpy() for matrix in matrices], residual, discard, prefix)
        assert np.allclose(got[n].numpy(), want, atol=1e-5)


@pytest.mark.parametrize("discard", [0.0, 0.5, 0.9])
def test_rows_of_rollout_sum_to_1(discard: float) -> None:
    matrices = [softmaxed(2, 3, 9, 9, seed=seed) for seed in range(12)]
    rows = rollout(matrices, torch.eye(9).expand(2, 9, 9), 0.5, discard, 1)
    assert torch.allclose(rows.sum(2), torch.ones(2, 9), atol=1e-5)


def test_without_residual_and_attention_nothing_is_left() -> None:
    nothing = rollout([torch.zeros(1, 1, 3, 3)], torch.eye(3)[None], residual=0.0)
    assert torch.equal(nothing, torch.zeros(1, 3, 3))


def test_relevance_is_the_recursion_over_whole_matrices() -> None:
    matrices = [softmaxed(2, 3, 6, 6, seed=seed) for seed in range(4)]
    gradients = [torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    rows = torch.eye(6)[:2].expand(2, 2, 6)
    got = relevance(matrices, gradients, rows)
    for n in range(2):
        pairs = ([tensor[n].numpy() for tensor in tensors] for tensors in (matrices, gradients))
        want = slow_relevance(*pairs)[:2] - np.eye(6)[:2]
        assert np.allclose(got[n].numpy(), want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("kind", ["vit", "distilled", "registers", "averaged", "torchvision"])
def test_maps_are_rows_of_the_tokens_that_the_classifier_reads(kind: str) -> None:
    explanation = explainer_of(kind, "attention", "rollout", "chefer", targets=2).explain(FRAMES[:BATCH])
    graph, prefix = graph_of(kind), PREFIXES.get(kind, 1)
    read = graph.read.numpy()
    frames = normalized(FRAMES[:BATCH], own_source(transformer(kind), SIZE, CLASSES)).requires_grad_()
    with torch.enable_grad():
        attended = graph.attend(frames)
    matrices = [matrix.numpy() for matrix in attended.matrices]
    targets = torch.as_tensor(explanation.targets).long()
    for n in range(BATCH):
        own = [matrix[n] for matrix in matrices]
        for name, want in (
            ("attention:block=last,heads=mean", read @ own[-1].mean(0)),
            ("rollout:discard=0.0,residual=0.5", read @ slow_rollout(own, 0.5, 0, prefix)),
        ):
            got = explanation.maps[name][n, 0]
            assert np.allclose(got.ravel(), want[prefix:], atol=1e-5)
    for t, gradients in enumerate(attended.gradients(targets)):
        for n in range(BATCH):
            product = slow_relevance([m[n] for m in matrices], [g[n].numpy() for g in gradients])
            want = (read @ (product - np.eye(len(read))))[prefix:]
            assert np.allclose(explanation.maps["chefer"][n, t].ravel(), want, atol=1e-5 * want.max())


def test_legrad_is_torch_cams() -> None:
    from torchcam.methods import LeGrad

    network = transformer("torchvision")
    explanation = explainer_of("torchvision", "legrad", "legrad:blocks=1").explain(FRAMES)
    pixels = normalized(FRAMES, own_source(network, SIZE, CLASSES))
    for name, blocks in (("all", DEPTH), ("1", 1)):
        with LeGrad(network, list(network.encoder.layers)[-blocks:]) as extractor:
            scores = network(pixels)
            (want,) = extractor(explanation.targets[:, 0].tolist(), scores, normalized=False)
        got = explanation.maps[f"legrad:blocks={name},score=mean"][:, 0]
        assert relative_error(got, want.detach().numpy()) < 1e-4


def test_legrad_with_the_networks_own_tokens_is_the_gradient_at_the_last_block() -> None:
    explainer = explainer_of("vit", "legrad:blocks=1,score=network", "legrad:blocks=1")
    explanation = explainer.explain(FRAMES[:BATCH])
    graph = graph_of("vit")
    frames = normalized(FRAMES[:BATCH], own_source(transformer("vit"), SIZE, CLASSES)).requires_grad_()
    with torch.enable_grad():
        attended = graph.attend(frames)
    (gradients,) = attended.gradients(torch.as_tensor(explanation.targets).long())
    want = attended.to_grid(gradients[-1].relu().mean((1, 2))[:, None]).numpy()
    own, mean = (explanation.maps[f"legrad:blocks=1,score={score}"] for score in ("network", "mean"))
    assert relative_error(own[:, 0], want[:, 0]) < 1e-5
    assert relative_error(own[:, 0], mean[:, 0]) > 0.01


def test_attention_is_rollout_of_a_single_block() -> None:
    methods = ("attention", "rollout:residual=0.0", "attention:heads=max", "attention:heads=min")
    maps = explainer_of("masked", *methods).explain(FRAMES).maps
    mean, single = maps["attention:block=last,heads=mean"], maps["rollout:discard=0.0,residual=0.0"]
    assert np.allclose(mean, single, rtol=1e-5)
    assert (maps["attention:block=last,heads=max"] >= mean).all()
    assert (maps["attention:block=last,heads=min"] <= mean).all()


@pytest.mark.parametrize("kind", BUILDERS)
def test_maps_have_their_shapes_and_do_not_depend_on_their_neighbors(kind: str) -> None:
    explainer = explainer_of(kind, *ALL, targets=2)
    one, other = explainer.explain(FRAMES[[0, 1]]), explainer.explain(FRAMES[[0, 2]])
    alone, second = explainer.explain(FRAMES[:1]), explainer.explain(FRAMES[[2, 1]])
    for method in explainer.methods:
        maps = one.maps[method.canonical]
        assert maps.shape == (2, 2 if method.class_specific else 1, *GRIDS.get(kind, (3, 3))), method.canonical
        assert (maps >= 0).all()
        assert np.ptp(maps) > 0
        for same in (other, alone):
            assert np.array_equal(same.maps[method.canonical][0], maps[0]), method.canonical
        assert np.array_equal(second.maps[method.canonical][1], maps[1]), method.canonical


def test_nor_on_their_position_as_batches_are_of_one_frame() -> None:
    methods = find_methods(ALL)
    assert default_batch(methods, "cpu") == 1
    source = own_source(transformer("distilled"), SIZE, CLASSES)
    explainer = Explainer(source, [layer_of("distilled")], methods, PREDICTED, 1, FP32)
    maps, turned = (explainer.explain(frames).maps for frames in (FRAMES, FRAMES[::-1]))
    for name, values in maps.items():
        assert np.array_equal(turned[name][::-1], values), name


def test_classes_differ_and_methods_without_one_have_target_minus_1() -> None:
    explanation = explainer_of("vit", *ALL, targets=2).explain(FRAMES)
    for name in ("chefer", "legrad:blocks=all,score=mean"):
        assert relative_error(explanation.maps[name][:, 0], explanation.maps[name][:, 1]) > 0.05
    assert (explanation.map_targets["rollout:discard=0.0,residual=0.5"] == -1).all()


def test_other_methods_share_the_pass() -> None:
    others = ("gradcam", "gradient", "finercam", "smoothgrad:samples=2")
    together = explainer_of("vit", *ALL, *others).explain(FRAMES)
    for method in others:
        name = find_methods([method])[0].canonical
        alone = explainer_of("vit", method).explain(FRAMES).maps[name]
        assert relative_error(together.maps[name][:, 0], alone[:, 0]) < 1e-3, name
    own = explainer_of("vit", *ALL).explain(FRAMES)
    for name, maps in own.maps.items():
        assert np.allclose(together.maps[name], maps, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("attention:block=0", "attention:block=0: use 'last' or a number from 1"),
        ("attention:block=first", "attention:block=first: use 'last' or a number from 1"),
        ("attention:heads=sum", "attention:heads=sum: choose from mean, max, min"),
        ("legrad:blocks=-1", "legrad:blocks=-1: use 'all' or a number from 1"),
        ("rollout:discard=1", "rollout:discard=1: use a number from 0 to 0.999"),
    ],
)
def test_parameters_are_checked(method: str, message: str) -> None:
    with pytest.raises(OptionError, match=f"--method {message}"):
        find_methods([method])


CELL = 8
ROWS, COLUMNS = np.mgrid[:CELL, :CELL]
PATTERNS = np.stack([(ROWS // 2) % 2, (COLUMNS // 2) % 2, (ROWS // 4 + COLUMNS // 4) % 2, (ROWS + COLUMNS) // 2 % 2])


def marked(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames (count, 48, 48, 3) of noise with one of four patterns in a cell, its class, and the index of the cell."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(60, 196, (count, SIZE, SIZE, 3)).astype(np.uint8)
    classes, cells = rng.integers(0, 4, count), rng.integers(0, (SIZE // CELL) ** 2, count)
    for frame, pattern, cell in zip(frames, PATTERNS[classes], cells, strict=True):
        top, left = (CELL * int(index) for index in divmod(cell, SIZE // CELL))
        frame[top : top + CELL, left : left + CELL] = (40 + 175 * pattern)[:, :, None]
    return frames, classes, cells


@pytest.mark.slow
def test_maps_of_a_trained_transformer_peak_at_the_place_that_decides_the_class() -> None:
    options = {"depth": 2, "embed_dim": 48, "num_heads": 3, "num_classes": 4}
    network = timm.create_model("vit_tiny_patch16_224", img_size=SIZE, patch_size=CELL, **options)
    source = own_source(network, SIZE, 4)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, 150)
    for step in range(150):
        frames, classes, _ = marked(64, step)
        loss = nn.functional.cross_entropy(network(normalized(frames, source)), torch.from_numpy(classes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval().requires_grad_(False)
    frames, classes, cells = marked(100, 1000)
    methods = find_methods(["attention", "rollout", "chefer", "legrad"])
    explainer = Explainer(source, [choose_layer(network, SIZE)], methods, PREDICTED, BATCH, FP32)
    explanation = explainer.explain(frames)
    assert (explanation.targets[:, 0] == classes).mean() > 0.95
    for name, maps in explanation.maps.items():
        hits = (maps[:, 0].reshape(len(maps), -1).argmax(1) == cells).mean()
        # by chance it would be one cell of 36
        assert hits > 0.25, name
