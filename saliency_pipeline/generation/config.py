"""Settings of `salpipe generate` that decide what is stored, each defined once."""

from __future__ import annotations

from dataclasses import dataclass

from saliency_pipeline.settings import check_settings, documented, setting


@documented
@dataclass(frozen=True)
class GenerateConfig:
    """Settings that decide frames and maps. `None` and `auto` leave a choice to salpipe.

    Raises:
        OptionError: naming the option that is out of range.
    """

    model: str = setting(
        "efficientnet_lite0",
        "Source model: a name of 'salpipe models', or one's own network: package.module:function, hf-hub:OWNER/NAME, "
        "local-dir:FOLDER or the folder of a run.",
    )
    weights: str = setting(
        "default",
        "Weights of the source model: pretrained, random, or a file (.safetensors or a checkpoint of torch.save).",
        metavar="default|none|PATH",
    )
    layers: tuple[str, ...] = setting(
        (),
        "Layer that is explained. May be repeated: one map per layer and layer method.",
        option="layer",
        metavar="NAME",
        default_text="the last one that the whole signal passes through",
    )
    methods: tuple[str, ...] = setting(
        ("gradcam",),
        "Saliency method with its parameters; see 'salpipe methods'. May be repeated to compute several in one pass.",
        option="method",
        metavar="NAME[:key=value,...]",
    )
    target: str = setting(
        "predicted",
        "Class of the source model that is explained: the predicted one, the image's own label (for viewing only; "
        "'salpipe train' refuses such maps), the K highest, or one class for all images by index, WordNet id or name.",
        metavar="predicted|label|top:K|CLASS",
    )
    size: int | None = setting(
        None,
        "Side of the square frame in pixels.",
        range=(1, 1 << 14),
        metavar="PIXELS",
        default_text="that of the source model",
    )
    fit: str = setting(
        "crop",
        "How an image becomes square: center crop of the short side, padding of the long one, or distortion.",
        choices=("crop", "pad", "squash"),
    )
    encoding: str = setting(
        "raw",
        "Encoding of stored frames: raw is the fastest to read, jpeg takes a tenth of the space.",
        choices=("raw", "jpeg"),
    )
    jpeg_quality: int = setting(95, "JPEG quality of stored frames.", range=(1, 100), metavar="1-100")
    shard_size: int = setting(1024, "Images per shard.", range=(1, 1 << 20), metavar="N")
    precision: str = setting(
        "auto",
        "Precision of the network: auto measures, and uses bf16 if it is faster and reproduces the maps.",
        choices=("auto", "fp32", "bf16"),
    )
    backend: str = setting(
        "auto",
        "Backend that runs the network up to the explained layer.",
        choices=("auto", "torch", "compile", "openvino"),
    )
    device: str = setting(
        "auto",
        "Device: auto is a GPU if there is one; cuda:all is every GPU of this machine, each with a worker process.",
        metavar="auto|cpu|cuda[:N|:all]",
    )
    batch_size: int | None = setting(
        None, "Frames per batch.", range=(1, 1 << 14), metavar="N", default_text="2 or 16 on a CPU, 32 or 64 on a GPU"
    )
    max_pixels: int = setting(
        128_000_000,
        "Maximum pixels per image, half of that for WebP and a third for JPEG 2000, whose decoders take more memory; "
        "larger images are rejected unread.",
        range=(1, 1 << 40),
        metavar="N",
    )

    def __post_init__(self) -> None:
        check_settings(self)
