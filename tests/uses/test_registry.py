"""The registry of uses: names, parameters and their errors."""

import pytest

from saliency_pipeline.errors import OptionError
from saliency_pipeline.training.config import TrainConfig
from saliency_pipeline.uses.choices import USES as LINES
from saliency_pipeline.uses.registry import USES, find_use


def test_every_use_has_a_line_of_help_and_a_formula() -> None:
    assert set(USES) <= set(LINES)
    for name, kind in USES.items():
        assert kind.name == name
        assert kind.formula


@pytest.mark.parametrize("text", ["zoom", "mask:fill=blur", "keep:share=1", "mix:labels=mass", "modulate"])
def test_canonical_names_are_read_back(text: str) -> None:
    use = find_use(text)
    assert find_use(use.canonical) == use
    assert find_use(use.canonical).canonical == use.canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("zom", "--use zom: unknown; did you mean zoom"),
        ("zoom:mass=2", "mass=2: use a number from 0.01 to 1"),
        ("zoom:mass=0.5,threshold=0.5", "replaces mass; leave one of them out"),
        ("zoom:views=3", "views"),
        ("mask:fill=red", "fill=red"),
        ("mix:kind=mixup,labels=mass", "kind=mixup reads no maps; use kind=saliency or labels=area"),
        ("keep:areas=2", "no such parameter"),
    ],
)
def test_errors_are_one_line(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as error:
        find_use(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("use", "training", "test"),
    [
        ("zoom", True, True),
        ("mask", True, True),
        ("keep", True, False),
        ("mix", True, False),
        ("mix:kind=cutmix", False, False),
        ("mix:kind=mixup", False, False),
    ],
)
def test_maps_are_read_where_a_use_needs_them(use: str, training: bool, test: bool) -> None:
    config = TrainConfig(use=use)
    assert (config.arch, config.reads_maps, config.maps_at_test) == ("baseline", training, test)
    if not training:
        with pytest.raises(OptionError, match="reads no maps"):
            TrainConfig(use=use, maps="uniform")
