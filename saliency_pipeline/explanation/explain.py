"""`explain` and `Explainer`: saliency maps of one image, or of a few, without shards."""

from __future__ import annotations

import copy
import operator
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
import torch

from saliency_pipeline.devices import find_device
from saliency_pipeline.documents import open_regular
from saliency_pipeline.errors import BadImageError, OptionError, SalpipeError
from saliency_pipeline.explanation import METHOD
from saliency_pipeline.explanation.explanation import ClassScore, Explanation, Explanations
from saliency_pipeline.figures.pictures import Pixels
from saliency_pipeline.images.decode import decode_frame
from saliency_pipeline.images.in_memory import frame_of
from saliency_pipeline.models.source.registry import EMBEDDED, is_own
from saliency_pipeline.models.source.source import SourceModel, load_source
from saliency_pipeline.saliency.capability import check_capable
from saliency_pipeline.saliency.engine.backends import Placement
from saliency_pipeline.saliency.engine.layers import Layer
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.explainer import Explainer as Engine
from saliency_pipeline.saliency.explainer import Explanation as Explained
from saliency_pipeline.saliency.layer_choice import explained_layers
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.saliency.prepared import prepared_split
from saliency_pipeline.saliency.targets import Target, check_target, parse_target
from saliency_pipeline.text import one_line, shown

if TYPE_CHECKING:
    import PIL.Image

    Image = str | os.PathLike[str] | PIL.Image.Image | npt.NDArray[Any] | torch.Tensor
    """An image: its file, or as `images.in_memory.frame_of` takes it."""

    Model = str | os.PathLike[str] | SourceModel | torch.nn.Module
    """A source model: its name, the model itself, or a network."""

_KEPT = 4


class Explainer:
    """Explains single images with one source model, which is loaded once.

    Networks are prepared for the layers explained and for what methods need of them, and kept for the next call. May be
    called from several threads.

    Example::

        explainer = Explainer("resnet50")
        explainer.explain("cat.jpg").overlay().save("cat.png")
        explainer.explain("cat.jpg", ["gradcam", "smoothgrad:samples=50"], target="top:3").save("cat.html")
    """

    def __init__(
        self,
        model: Model = EMBEDDED,
        *,
        weights: str | os.PathLike[str] = "default",
        preprocessing: object = None,
        classes: Sequence[str] | None = None,
        size: int | None = None,
        fit: str = "crop",
        device: str = "auto",
    ) -> None:
        """Load the source model.

        Args:
            model: name of a source model, as for `load_source`, the source model, or a network (`nn.Module`).
            weights: weights of a model by name, as for `load_source`.
            preprocessing: that of a network, as for `source_from_module`.
            classes: names of the classes of a network.
            size: side of the frame in pixels; that of the source model by default.
            fit: how an image becomes square: `crop`, `pad` or `squash`.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.

        Raises:
            SalpipeError: the model, its weights or the device is not available.
        """
        self.device = str(find_device(device))
        with torch.inference_mode(False):
            source = _source(model, os.fspath(weights), preprocessing, classes)
        if size is not None and (isinstance(size, bool) or size < 1):
            raise OptionError(f"--size {size}: use a whole number from 1 on")
        self.source = source.with_size(operator.index(size)) if size is not None else source
        self.size, self.fit = size, fit
        self._engines: OrderedDict[tuple[tuple[Layer, ...], Need], Engine] = OrderedDict()
        self._lock = threading.Lock()

    @overload
    def explain(
        self,
        images: Image,
        method: str | Method | Sequence[str | Method] = ...,
        target: str | int = ...,
        layer: str | Sequence[str] | None = ...,
    ) -> Explanation: ...

    @overload
    def explain(
        self,
        images: list[Any] | tuple[Any, ...],
        method: str | Method | Sequence[str | Method] = ...,
        target: str | int = ...,
        layer: str | Sequence[str] | None = ...,
    ) -> Explanations: ...

    def explain(
        self,
        images: Image | list[Any] | tuple[Any, ...],
        method: str | Method | Sequence[str | Method] = METHOD,
        target: str | int = "predicted",
        layer: str | Sequence[str] | None = None,
    ) -> Explanation | Explanations:
        """Explain an image, or each of a list of images; see `explain`.

        Raises:
            SalpipeError: an image cannot be read, or an unknown method, class or layer.
        """
        layers = (layer,) if isinstance(layer, str) else tuple(layer or ())
        methods = _methods(method, layers)
        check_target(str(target))
        classes = parse_target(str(target), len(self.source.classes), self.source.class_index)
        each = list(images) if isinstance(images, list | tuple) else [images]
        if not each:
            return Explanations()
        names = [_name(image) for image in each]
        frames = np.stack([self._frame(image, name) for image, name in zip(each, names, strict=True)])
        # gradients are needed in a caller's inference mode too
        with torch.inference_mode(False):
            engine = self._engine(methods, layers, classes, frames if len(frames) > 1 else None)
            # one at a time, so that not even the rounding depends on the others
            results = [
                self._explanation(engine, engine.explain(frame[None], keys=[name]), name, frame)
                for name, frame in zip(names, frames, strict=True)
            ]
        return Explanations(results) if isinstance(images, list | tuple) else results[0]

    def _frame(self, image: Image, name: str) -> Pixels:
        p = self.source.preprocessing
        try:
            if isinstance(image, str | os.PathLike):
                data = _read(Path(image))
                return decode_frame(data, p.size, fit=self.fit, interpolation=p.interpolation)[0]
            return frame_of(image, p.size, fit=self.fit, interpolation=p.interpolation)[0]
        except BadImageError as error:
            # that option is not one of `salpipe explain`
            reason = str(error).replace(" (--max-pixels)", "; use a smaller copy")
            raise SalpipeError(f"{shown(name)}: {reason}") from error

    def _engine(
        self, methods: Sequence[Method], names: Sequence[str], target: Target, background: Pixels | None
    ) -> Engine:
        """The engine for some methods; its network is one of those kept, or prepared."""
        for method in methods:
            if background is None and method.needs_background:
                raise SalpipeError(f"--method {method.name}: needs other images to compare with; explain several")
        layers, methods = explained_layers(self.source, methods, names, self.size)
        need = reduce(operator.or_, (method.needs for method in methods), Need.NOTHING)
        with self._lock:
            engine = self._engines.pop((layers, need), None)
            if engine is None:
                # what fails in the module itself is reported when it runs
                check_capable(self.source, [m for m in methods if not m.needs & Need.MODULE], layers, 1)
                placement = Placement("torch", "fp32", self.device)
                # a batch of one image, so that lists of any length are explained by the same network
                split = prepared_split(self.source, layers, 1)
                engine = Engine(self.source, layers, methods, target, 1, placement, split, background)
            self._engines[layers, need] = engine
            while len(self._engines) > _KEPT:
                self._engines.popitem(last=False)
        own = copy.copy(engine)
        own.methods, own.target, own.background = tuple(methods), target, background
        return own

    def _explanation(self, engine: Engine, explained: Explained, name: str, frame: Pixels) -> Explanation:
        if not np.isfinite(explained.prediction_score).all():
            raise SalpipeError(f"{shown(name)}: the scores of {self.source.name} are not finite; check its weights")
        scores = zip(explained.prediction_class[0], explained.prediction_score[0], strict=True)
        targets = zip(explained.targets[0], explained.target_score[0], strict=True)
        return Explanation(
            name=name,
            frame=frame,
            top=tuple(self._class(index, score) for index, score in scores if index >= 0),
            targets=tuple(self._class(index, score) for index, score in targets),
            maps={method: maps[0] for method, maps in explained.maps.items()},
            residuals={method: values[0] for method, values in explained.residuals.items()},
            standard_errors={method: values[0] for method, values in explained.standard_errors.items()},
            methods={method.canonical: method for method in engine.methods},
            facts={
                "Source model": self.source.name,
                "Weights": self.source.weights,
                "Layer": ", ".join(layer.name for layer in engine.layers),
            },
        )

    def _class(self, index: int, score: float) -> ClassScore:
        name = self.source.classes[index].partition(",")[0] or f"class {index}"
        return ClassScore(int(index), name, float(score))


@overload
def explain(
    images: Image,
    method: str | Method | Sequence[str | Method] = ...,
    model: Model = ...,
    target: str | int = ...,
    layer: str | Sequence[str] | None = ...,
    *,
    weights: str | os.PathLike[str] = ...,
    preprocessing: object = ...,
    classes: Sequence[str] | None = ...,
    size: int | None = ...,
    fit: str = ...,
    device: str = ...,
) -> Explanation: ...


@overload
def explain(
    images: list[Any] | tuple[Any, ...],
    method: str | Method | Sequence[str | Method] = ...,
    model: Model = ...,
    target: str | int = ...,
    layer: str | Sequence[str] | None = ...,
    *,
    weights: str | os.PathLike[str] = ...,
    preprocessing: object = ...,
    classes: Sequence[str] | None = ...,
    size: int | None = ...,
    fit: str = ...,
    device: str = ...,
) -> Explanations: ...


def explain(
    images: Image | list[Any] | tuple[Any, ...],
    method: str | Method | Sequence[str | Method] = METHOD,
    model: Model = EMBEDDED,
    target: str | int = "predicted",
    layer: str | Sequence[str] | None = None,
    *,
    weights: str | os.PathLike[str] = "default",
    preprocessing: object = None,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    fit: str = "crop",
    device: str = "auto",
) -> Explanation | Explanations:
    """Explain an image, or each of a list of images.

    The last model is kept, so that calls with the same one load nothing; an `Explainer` keeps its own.

    Args:
        images: path of a file, image of Pillow, array (H, W, 3) uint8 or in [0, 1], tensor (3, H, W), or a list of
            these; see `images.in_memory.frame_of`.
        method: name of a saliency method with parameters or without, `NAME[:key=value,...]`, or a list of these; see
            `salpipe methods`.
        model: name of a source model, as for `load_source`, the source model, or a network (`nn.Module`).
        target: class that is explained: `predicted`, `top:K`, an index, a WordNet id or a name.
        layer: name of the explained layer or a list; by default the last one that the whole signal passes through.
            Methods that explain layers have one map per layer of a list.
        weights: weights of a model by name, as for `load_source`.
        preprocessing: that of a network, as for `source_from_module`; by default its own, as timm sets it.
        classes: names of the classes of a network.
        size: side of the frame in pixels; that of the source model by default.
        fit: how an image becomes square: `crop`, `pad` or `squash`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The `Explanation`, or for a list a tuple of them that can be saved and shown as a whole.

    Raises:
        SalpipeError: an image cannot be read, the model is not available, or an unknown method, class or layer.

    Example::

        explanation = explain("cat.jpg", ["layercam", "integrated-gradients"], target="top:2")
        explanation.prediction  # ClassScore(index=281, name='tabby', score=0.64)
        explanation.maps["layercam"]  # (2, 7, 7) float32
        explanation.save("cat.html")
    """
    of_library = weights in ("default", "none") and preprocessing is None and classes is None
    if isinstance(model, str) and of_library and not is_own(model) and not os.path.exists(model):
        explainer = _kept(model, os.fspath(weights), size, fit, device)
    else:
        # a network, a factory or a file may change between two calls
        explainer = Explainer(
            model,
            weights=weights,
            preprocessing=preprocessing,
            classes=classes,
            size=size,
            fit=fit,
            device=device,
        )
    return explainer.explain(images, method, target, layer)


@lru_cache(maxsize=1)
def _kept(model: str, weights: str, size: int | None, fit: str, device: str) -> Explainer:
    return Explainer(model, weights=weights, size=size, fit=fit, device=device)


def _source(model: Model, weights: str, preprocessing: object, classes: Sequence[str] | None) -> SourceModel:
    if isinstance(model, str | os.PathLike):
        if preprocessing is not None or classes is not None:
            raise OptionError(f"model {os.fspath(model)}: has its own preprocessing and classes; leave them out")
        return load_source(os.fspath(model), weights)
    if weights != "default":
        raise OptionError(f"--weights {weights}: the model is no name and brings its weights; leave out --weights")
    if isinstance(model, SourceModel):
        return model
    from saliency_pipeline.models.source.own import source_from_module

    network: object = model
    if not isinstance(network, torch.nn.Module):
        kind = f"the class {network.__name__}" if isinstance(network, type) else f"of type {type(network).__name__}"
        raise OptionError(f"model: is {kind}; give a name, a SourceModel or an nn.Module")
    return source_from_module(network, preprocessing, classes=classes)


def _methods(method: str | Method | Sequence[str | Method], layers: Sequence[str]) -> tuple[Method, ...]:
    requested = [method] if isinstance(method, str | Method) else list(method)
    parsed: dict[str, Method] = {}
    for each in requested:
        own = each.for_layers(tuple(layers)) if isinstance(each, Method) else find_methods([each], layers)
        parsed |= {one.canonical: one for one in own}
    return tuple(parsed.values()) or find_methods([])


def _name(image: Image) -> str:
    return Path(image).name if isinstance(image, str | os.PathLike) else "image"


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=open_regular) as file:
            return file.read()
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise SalpipeError(f"{shown(path)}: {reason}; use an image file") from error
