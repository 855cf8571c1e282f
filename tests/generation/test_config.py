"""Settings of `generate`: the choices are those that exist, and the modules of settings are quick to import."""

import subprocess
import sys

import pytest

from saliency_pipeline.errors import OptionError
from saliency_pipeline.generation.config import GenerateConfig
from saliency_pipeline.images.decode import DEFAULT_MAX_PIXELS
from saliency_pipeline.images.fit import FITS
from saliency_pipeline.saliency.engine.backends import BACKENDS, PRECISIONS
from saliency_pipeline.settings import settings_of
from saliency_pipeline.subsets.duplicates import POLICIES
from saliency_pipeline.subsets.selection import Grouping


def test_choices_and_defaults_are_those_of_the_modules_that_use_them() -> None:
    choices = {name: setting.choices for name, (_, setting) in settings_of(GenerateConfig).items()}
    assert choices["fit"] == FITS
    assert choices["backend"] == ("auto", *BACKENDS)
    assert choices["precision"] == ("auto", *PRECISIONS)
    assert GenerateConfig().max_pixels == DEFAULT_MAX_PIXELS
    assert settings_of(Grouping)["dedupe"][1].choices == POLICIES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "--size 0: use a number from 1 to 16384"),
        ({"shard_size": True}, "--shard-size True: use a whole number"),
        ({"methods": "gradcam"}, "--method 'gradcam': use a list of names"),
        ({"fit": "zoom"}, "--fit zoom: choose from crop, pad, squash"),
    ],
)
def test_wrong_values_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        GenerateConfig(**options)  # type: ignore[arg-type]


def test_options_are_there_without_slow_imports() -> None:
    code = (
        "import sys, saliency_pipeline.cli.generate, saliency_pipeline.cli.audit\n"
        "print([name for name in ('torch', 'numpy', 'h5py', 'PIL', 'scipy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
