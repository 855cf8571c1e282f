"""Names of source models: the models that exist, the library of a name, and the listing of `salpipe models`."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.models.source.hub import hub_cached, url_cached

EMBEDDED = "efficientnet_lite0"
EMBEDDED_ARCHITECTURE = "tf_efficientnet_lite0"

HUB, LOCAL = "hf-hub:", "local-dir:"
"""Before a repository of the Hugging Face Hub and before a folder with the same files, as timm spells them."""

SUGGESTED = (
    "resnet50",
    "resnet18",
    "efficientnet_b0",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "densenet121",
    "vgg16",
    "convnext_tiny",
    "regnety_032",
    "inception_v3",
    "vit_small_patch16_224",
    "deit_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "torchvision/resnet50",
)
"""Well-known networks of each kind, listed without a pattern."""

_CHECKED = "checked at run time"
_HEADS = {
    "yes": """
        resnet resnext wide_resnet seresne ecaresne gcresne skresne res2ne resnest senet efficientnet
        gc_efficientnet mobilenetv1 mobilenetv2 mobilenet_edgetpu mnasnet semnasnet spnasnet fbnetc mixnet tinynet
        densenet regnet inception_v3 inception_v4 inception_resnet_v2 xception mobileone repvgg hrnet convmixer
        cspresne cspdarknet darknet cs3 nfnet dm_nfnet eca_nfnet nf_ gernet rexnet selecsls vovnet ese_vovnet
        tresnet torchvision/resnet torchvision/resnext torchvision/wide_resnet torchvision/regnet
        torchvision/shufflenet torchvision/googlenet torchvision/inception torchvision/efficientnet
        torchvision/mobilenet_v2 torchvision/mnasnet convnext_tiny_hnf
        """,
    "no": """
        convnext edgenext rdnet mobilenetv3 mobilenetv4 ghostnet repghostnet fbnetv3 lcnet lcnetv2 hgnet hardcorenas
        vgg dla dpn resnetv2 inception_next poolformer caformer convformer davit mambaout fasternet tiny_vit
        repvit resnet50_mlp vit_ deit beit eva flexivit cait levit xcit pit_ swin_ mixer resmlp gmlp crossvit volo
        torchvision/vgg torchvision/alexnet torchvision/squeezenet torchvision/convnext torchvision/mobilenet_v3
        torchvision/vit torchvision/maxvit
        """,
}
# the longest matching prefix decides, so that 'resnetv2' is not a 'resnet'
_FAMILIES = {prefix: answer for answer, prefixes in _HEADS.items() for prefix in prefixes.split()}


@dataclass(frozen=True)
class SourceInfo:
    """One line of `salpipe models`.

    Attributes:
        name: Value for `--model`.
        library: `embedded`, `timm` or `torchvision`.
        weights: `embedded` (come with the installation), `cached` (already downloaded), `download` (need the network
            once), or `none available` (no pretrained classifier exists; `--weights PATH` or `none` may still do).
        size: Side of the square input in pixels.
        closed_form: Whether Grad-CAM at the last layer needs no backward pass because the head is average pooling
            and one linear layer: `yes`, `no` or `checked at run time`, by the architecture's family; a run relies
            only on its own numerical check.
    """

    name: str
    library: str
    weights: str
    size: int
    closed_form: str


def find_source(name: str) -> tuple[str, str]:
    """The library of a model's name, and the model's name within it.

    Args:
        name: `efficientnet_lite0` (embedded), a timm name with or without its pretrained tag and with or without
            `timm/` before it, or `torchvision/` and a torchvision name.

    Returns:
        `embedded`, `timm` or `torchvision`, and the name there.

    Raises:
        SalpipeError: The model does not exist or does not classify images.
    """
    if name == EMBEDDED:
        return "embedded", EMBEDDED_ARCHITECTURE
    import timm

    library, slash, bare = name.partition("/")
    if library == "torchvision" and slash:
        from torchvision import models

        if bare in models.list_models(module=models):
            return library, bare
        if bare in models.list_models():
            raise SalpipeError(f"{name}: not a float network that classifies single images; see 'salpipe models'")
    else:
        bare = name.removeprefix("timm/")
        architecture, _, tag = bare.partition(".")
        # listed, not only accepted: timm also accepts retired names
        if bare in timm.list_models(architecture) or (tag and bare in timm.list_models(f"{bare}*", pretrained=True)):
            return "timm", bare
    if os.path.isfile(name):
        raise SalpipeError(f"model {name!r} is a file; give it to --weights, and the name of its network to --model")
    if is_own(name):
        raise SalpipeError(f"model {name!r} is no model of timm or torchvision; use one here, see 'salpipe models'")
    close = difflib.get_close_matches(name.removeprefix("timm/").lower(), _all_names(with_tags="." in name), n=4)
    guess = f"did you mean {', '.join(close)}? " if close else ""
    raise SalpipeError(f"model {name!r} is unknown; {guess}'salpipe models PATTERN' searches the names")


def stored_name(name: str) -> str:
    """The spelling under which a model's name is stored: without a redundant `timm/`, with `hf-hub:`."""
    # timm has another network of the embedded one's name, which keeps the prefix
    if name == f"timm/{EMBEDDED}":
        return name
    return re.sub("^hf_hub:", HUB, name.removeprefix("timm/"))


def is_own(name: str) -> bool:
    """Return whether a name is that of one's own network: a factory, `hf-hub:` or `local-dir:`."""
    return ":" in name and not os.path.exists(name)


def is_source(name: str) -> bool:
    """Return whether a name is that of a model; it takes precedence over a folder of the same name."""
    try:
        find_source(name)
    except SalpipeError:
        return False
    return True


def timm_config(name: str) -> Any:
    """The `PretrainedCfg` of a timm name, with or without a tag."""
    import timm

    return timm.get_pretrained_cfg(name, allow_unregistered=False)


def classifies(count: int) -> bool:
    """Return whether timm's number of outputs is a number of classes.

    Other values are 0, for feature extractors, and the 384 to 1,280 dimensions of CLIP image embeddings.
    """
    return count == 1000 or count > 2000


def closed_form(name: str) -> str:
    """Forward-only shortcut of the family of a name; see `SourceInfo.closed_form`."""
    name = name.removeprefix("timm/").removeprefix("tf_").removeprefix("legacy_")
    if "clip" in name:
        return _CHECKED
    fits = [prefix for prefix in _FAMILIES if name.startswith(prefix)]
    return _FAMILIES[max(fits, key=len)] if fits else _CHECKED


def list_sources(pattern: str | None = None) -> list[SourceInfo]:
    """List available models, without building any.

    Args:
        pattern: Shell pattern (`resnet*`, `*` for all), or a part of the name; case does not matter. A pattern with
            a dot looks through the names with timm's pretrained tags, one entry for each set of weights. None lists
            the embedded model and some well-known ones.

    Returns:
        Embedded first, then timm's and torchvision's, each in the library's order; empty if nothing matches.
    """
    if pattern is None:
        return [_info(name) for name in (EMBEDDED, *SUGGESTED)]
    glob = pattern.lower().removeprefix("timm/")
    if not any(sign in glob for sign in "*?["):
        glob = f"*{glob}*"
    names = [
        name
        for name in _all_names(with_tags="." in glob)
        if fnmatchcase(name.lower(), glob) or fnmatchcase(name.lower().partition("/")[2], glob)
    ]
    return [info for name in names if (info := _info(name)).size > 0]


def _all_names(with_tags: bool) -> list[str]:
    import timm
    from torchvision import models

    torchvision = [f"torchvision/{name}" for name in models.list_models(module=models)]
    # timm has another network of the embedded one's name
    from_timm = [f"timm/{name}" if name == EMBEDDED else name for name in timm.list_models(pretrained=with_tags)]
    return [EMBEDDED, *from_timm, *torchvision]


def _info(name: str) -> SourceInfo:
    if name == EMBEDDED:
        return SourceInfo(name, "embedded", "embedded", 224, "yes")
    if name.startswith("torchvision/"):
        from torchvision import models

        default = models.get_model_weights(name.removeprefix("torchvision/")).DEFAULT
        weights = "cached" if url_cached(default.url) else "download"
        return SourceInfo(name, "torchvision", weights, default.transforms().crop_size[0], closed_form(name))
    config = timm_config(name.removeprefix("timm/"))
    return SourceInfo(name, "timm", _timm_weights(config), square_size(config.input_size), closed_form(name))


def _timm_weights(config: Any) -> str:
    if not classifies(config.num_classes) or not config.has_weights:
        return "none available"
    cached = hub_cached(config.hf_hub_id) if config.hf_hub_id else url_cached(config.url)
    return "cached" if cached else "download"


def square_size(input_size: tuple[int, int, int]) -> int:
    """Side of a square RGB input given as (channels, height, width) in pixels; 0 for any other input."""
    channels, height, width = input_size
    return height if channels == 3 and height == width else 0
