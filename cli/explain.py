"""`salpipe explain`: saliency maps of single images, methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saliency_pipeline.cli.options import (
    LocalPath,
    OutputPath,
    common_options,
    echo,
    json_echo,
    prints_on_stderr,
    setting_options,
    take_settings,
)
from saliency_pipeline.cli.progress import TerminalProgress
from saliency_pipeline.errors import OptionError
from saliency_pipeline.explanation import METHOD
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.models.files.file_kinds import check_weights
from saliency_pipeline.settings import settings_of
from saliency_pipeline.text import plural, shown

if TYPE_CHECKING:
    from saliency_pipeline.explanation.explanation import Explanation

_SHARED = ("model", "weights", "size", "fit", "device")
_OTHERS = tuple(name for name in settings_of(GenerateConfig) if name not in _SHARED)


@click.command()
@click.argument("images", nargs=-1, required=True, type=LocalPath(dir_okay=False))
@click.option(
    "-o",
    "--output",
    "outputs",
    type=OutputPath(dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Output: .png is one picture, .html a page, .npz the raw maps; may be repeated.  "
    "[default: NAME-explained.png of the first image, in the current folder]",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    default=(METHOD,),
    show_default=True,
    metavar="NAME",
    help="Saliency method, with parameters as NAME:key=value,...; see 'salpipe methods'. May be repeated.",
)
@click.option(
    "--target",
    default="predicted",
    show_default=True,
    metavar="predicted|top:K|CLASS",
    help="Class of the source model that is explained: the predicted one, the K highest, or one by index, WordNet id "
    "or name.",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    metavar="NAME",
    help="Layer that is explained; may be repeated.  [default: the last one that the whole signal passes through]",
)
@setting_options(GenerateConfig, without=_OTHERS)
@common_options
def command(
    images: tuple[Path, ...],
    outputs: tuple[Path, ...],
    methods: tuple[str, ...],
    target: str,
    layers: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Explain IMAGES, one or a few, and show methods side by side.

    Each row of the picture is an image and an explained class, each column a method. For a whole data set use 'salpipe
    generate'.

    \b
    Examples:
      salpipe explain cat.jpg
      salpipe explain cat.jpg --method gradcam --method layercam -o cat.html
      salpipe explain cat.jpg dog.jpg --method smoothgrad:samples=50 --target top:3
      salpipe explain cat.jpg --model resnet50 --layer layer2 --layer layer4 -o cat.png -o cat.npz
    """  # noqa: D301 - click reads \b
    config = take_settings(GenerateConfig, options)
    outputs = outputs or (Path(f"{images[0].stem}-explained.png"),)
    # before the libraries are imported, which takes seconds
    check_weights(config.weights)
    for path in outputs:
        if any(path.exists() and path.samefile(image) for image in images):
            raise OptionError(f"-o {path}: is the image itself; choose another name")
    progress = TerminalProgress(quiet)
    progress.note(f"loading {config.model}")
    from saliency_pipeline.explanation.explain import Explainer
    from saliency_pipeline.explanation.explanation import check_output_file
    from saliency_pipeline.saliency.methods.registry import find_methods
    from saliency_pipeline.saliency.targets import check_target

    with prints_on_stderr():
        find_methods(methods, layers)
    check_target(target)
    for path in outputs:
        check_output_file(path)
    shared = {name: getattr(config, name) for name in _SHARED}
    explainer = Explainer(**shared)
    for note in explainer.source.notes:
        progress.note(note)
    progress.note(f"explaining {plural(len(images), 'image')}")
    with prints_on_stderr():
        explanations = explainer.explain(list(images), methods, target, layers)
    for path in outputs:
        (explanations if len(explanations) > 1 else explanations[0]).save(path)
    if as_json:
        json_echo(
            {"model": explainer.source.name, "images": list(map(_as_dict, images, explanations)), "files": outputs}
        )
        return
    for explanation in explanations:
        echo(f"{shown(explanation.name)}: {', '.join(map(str, explanation.top))}")
    for path in outputs:
        echo(shown(path))


def _as_dict(image: Path, explanation: Explanation) -> dict[str, object]:
    """The predictions and targets of an image, and the range of each map."""
    errors = explanation.standard_errors
    maps = {
        name: {
            "shape": maps.shape,
            "min": maps.min(axis=(1, 2)),
            "max": maps.max(axis=(1, 2)),
            **({"residual": explanation.residuals[name]} if name in explanation.residuals else {}),
            **({"standard_error": errors[name]} if name in errors else {}),
        }
        for name, maps in explanation.maps.items()
    }
    classes = {"top": explanation.top, "targets": explanation.targets}
    return {"image": image} | {name: [vars(each) for each in own] for name, own in classes.items()} | {"maps": maps}
