"""Several layers: one map per layer and layer method, named by the layer."""

from pathlib import Path

import numpy as np
import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.generation.resolve import map_shapes
from saliency_pipeline.generation.run import with_names
from saliency_pipeline.saliency.methods.registry import find_methods
from saliency_pipeline.shards.reader import ShardFolder
from tests.generation.examples import flat, kept, run


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs. Not to be changed."""
    return flat(tmp_path_factory.mktemp("few") / "images", 5)


def maps(folder: Path, method: str) -> np.ndarray:
    return np.stack([pair.maps[method] for pair in ShardFolder(folder)])


def grids(folder: Path) -> dict[str, tuple[int, int]]:
    return {name: (shape.height, shape.width) for name, shape in ShardFolder(folder).header.maps.items()}


def test_every_layer_has_a_map_of_its_own(few: Path, tmp_path: Path) -> None:
    report = run(few, tmp_path / "two", layers=("layer4", "layer3"), methods=("gradcam", "gradient"))
    # in the order in which they run
    assert report.layers == ("layer3", "layer4")
    assert with_names(report.layers) == "layers layer3, layer4"
    both = {"gradcam:layer=layer3": (4, 4), "gradcam:layer=layer4": (2, 2), "gradient": (64, 64)}
    assert grids(tmp_path / "two") == both
    for layer in report.layers:
        run(few, tmp_path / layer, layers=(layer,))
        assert grids(tmp_path / layer) == {"gradcam": both[f"gradcam:layer={layer}"]}
        one, of_two = maps(tmp_path / layer, "gradcam"), maps(tmp_path / "two", f"gradcam:layer={layer}")
        np.testing.assert_allclose(of_two, one, atol=2e-3 * np.abs(one).max())
    settings = ShardFolder(tmp_path / "two").provenance["settings"]
    assert settings["layer"] == ["layer4", "layer3"]
    assert settings["method"] == ["gradcam:layer=layer4", "gradcam:layer=layer3", "gradient"]


def test_a_method_may_name_its_layer(few: Path, tmp_path: Path) -> None:
    report = run(few, tmp_path / "own", methods=("gradcam:layer=layer3",))
    assert report.layers == ("layer3",)
    assert grids(tmp_path / "own") == {"gradcam:layer=layer3": (4, 4)}
    # others explain the default layer, and are named by it where there are several
    options = {"methods": ("gradcam:layer=layer2", "gradcam")}
    run(few, tmp_path / "both", **options)
    assert grids(tmp_path / "both") == {"gradcam:layer=layer2": (8, 8), "gradcam:layer=layer4": (2, 2)}
    before = kept(tmp_path / "both")
    (tmp_path / "both" / "shard-00001.h5").unlink()
    assert run(few, tmp_path / "both", **options).written == 1
    assert kept(tmp_path / "both") == before
    run(few, tmp_path / "requested", layers=("layer3",), **options)
    assert grids(tmp_path / "requested") == {"gradcam:layer=layer2": (8, 8), "gradcam:layer=layer3": (4, 4)}


def test_fused_layers_are_one_map(few: Path, tmp_path: Path) -> None:
    methods = ("layercam:fuse=max", "gradcam")
    run(few, tmp_path / "fused", layers=("layer3", "layer4"), methods=methods)
    assert sorted(grids(tmp_path / "fused").values()) == [(2, 2), (4, 4), (4, 4)]


@pytest.mark.parametrize("method", ["gradcam:layer=layer3+layer4", "layercam:layer=layer3+layer4"])
def test_several_layers_of_one_map_are_refused_where_nothing_fuses_them(few: Path, tmp_path: Path, method: str) -> None:
    with pytest.raises(SalpipeError, match=r"--layer layer3\+layer4: is no layer of this network; candidates: "):
        run(few, tmp_path / "shards", methods=(method,))


def test_a_plan_whose_layers_do_not_fit_its_methods_is_refused() -> None:
    with pytest.raises(
        SalpipeError, match=r"--method gradcam:layer=a: its layer is none of the plan's \(none\); choose"
    ):
        map_shapes(find_methods(["gradcam:layer=a"]), (), 64, 1)
