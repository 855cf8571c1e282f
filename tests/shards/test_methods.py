"""Stored methods: named with all, some or none of their parameters, and what is recorded of them."""

import pytest

from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.shards.methods import is_class_agnostic, is_signed, stored_method
from saliency_pipeline.shards.reader import ShardFolder
from tests.shards.examples import of_methods

SMOOTH = "smoothgrad:noise=0.15,samples=25,seed=0,stat=mean"
SQUARE = "smoothgrad:noise=0.15,samples=25,seed=0,stat=square"
PLUS = "gradcampp:normalized=true"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    names = ["gradcam", SMOOTH, SQUARE, PLUS, "captum:DeepLift", "layercam", "layercam:layer=blocks.3"]
    methods = {name: {} for name in names}
    return ShardFolder(of_methods(tmp_path_factory.mktemp("methods") / "a.h5", methods, count=1))


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("gradcam", "gradcam"),
        (SMOOTH, SMOOTH),
        ("smoothgrad:stat=square", SQUARE),
        ("smoothgrad:samples=25.0,stat=mean,noise=.15", SMOOTH),
        ("gradcampp", PLUS),
        ("gradcampp:normalized", PLUS),
        ("captum", "captum:DeepLift"),
        # not the variant for another layer as well
        ("layercam", "layercam"),
        ("layercam:layer=blocks.3", "layercam:layer=blocks.3"),
    ],
)
def test_a_method_is_named_with_some_of_its_parameters(stored, text, method):
    assert stored_method(stored, text) == method


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smoothgrad", f"holds maps of several methods 'smoothgrad'; choose one of {SMOOTH} and {SQUARE}"),
        ("lime", "holds no maps of 'lime'; it holds captum:DeepLift, gradcam, "),
        ("smoothgrad:samples=50", "holds no maps of 'smoothgrad:samples=50'"),
        ("smoothgrad:samples=many", "holds no maps of"),
        ("gradcam:layer=a", "holds no maps of"),
        ("", "holds no maps of ''"),
        (":", "holds no maps of ':'"),
    ],
)
def test_a_name_of_none_or_several_is_one_line(stored, text, message):
    with pytest.raises(SalpipeError) as raised:
        stored_method(stored, text)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("methods", [None, [], {}, {"a": None}, {"a": {"signed": 1, "class_agnostic": "yes"}}])
def test_a_provenance_from_outside_may_say_anything(methods):
    assert not is_signed({"methods": methods}, "a")
    assert not is_class_agnostic({"methods": methods}, "a")


def test_properties_are_those_recorded():
    provenance = {"methods": {"a": {"signed": True}, "b": {"class_agnostic": True}}}
    assert [is_signed(provenance, name) for name in "abc"] == [True, False, False]
    assert [is_class_agnostic(provenance, name) for name in "abc"] == [False, True, False]
