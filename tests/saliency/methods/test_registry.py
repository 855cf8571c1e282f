"""Methods by name: parameters, aliases, layers, errors in one line, and methods of other packages."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from saliency_pipeline.errors import OptionError, SalpipeError
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods import registry
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.saliency.methods.registry import METHODS, all_methods, find_methods, packages_of
from saliency_pipeline.settings import setting


@dataclass(frozen=True)
class Sampled(Method):
    """A method with one parameter of each type."""

    name = "sampled"
    needs = Need.POINTS
    convention = "mean over samples"
    paper = "arXiv:0000.00000"
    complete = True

    def maps(self, ask):
        return ask.pixels()[:, :1]

    samples: int = setting(25, "Number of samples.", range=(1, 1000))
    noise: float = setting(0.15, "Noise.", range=(0.0, 10.0))
    stat: str = setting("mean", "Statistic.", choices=("mean", "square"))
    absolute: bool = setting(False, "Absolute values.")
    layer: str | None = setting(None, "Layer.")


@dataclass(frozen=True)
class Agnostic(Method):
    """A method that explains no class."""

    name = "agnostic"
    needs = Need.NOTHING
    convention = "brightness"
    paper = "none"
    class_specific = False

    def maps(self, ask):
        return ask.pixels()[:, :1]


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "sampled", Sampled)


@pytest.mark.parametrize(
    ("texts", "canonical"),
    [
        (["gradcam"], ["gradcam"]),
        (["gradient", "gradcam"], ["gradient", "gradcam"]),
        (["gradient:simonyan"], ["gradient"]),
        (["gradient-simonyan", "gradient:smilkov"], ["gradient", "gradient-smilkov"]),
        (["gradcam", "gradcam"], ["gradcam"]),
        (["layercam", "captum:Saliency"], ["layercam", "captum:Saliency"]),
        (["vargrad"], ["smoothgrad:noise=0.15,samples=25,seed=0,stat=var"]),
        (["squaregrad:samples=3"], ["smoothgrad:noise=0.15,samples=3,seed=0,stat=square"]),
        (["sampled"], ["sampled:absolute=false,noise=0.15,samples=25,stat=mean"]),
        (["sampled:stat=square,samples=5,absolute"], ["sampled:absolute=true,noise=0.15,samples=5,stat=square"]),
        (["sampled:noise=1", "sampled:noise=1.0"], ["sampled:absolute=false,noise=1.0,samples=25,stat=mean"]),
        (["sampled:absolute=true,layer=a.b"], ["sampled:absolute=true,layer=a.b,noise=0.15,samples=25,stat=mean"]),
    ],
)
@pytest.mark.usefixtures("sampled")
def test_methods_by_name(texts: list[str], canonical: list[str]) -> None:
    methods = find_methods(texts)
    assert [method.canonical for method in methods] == canonical
    assert find_methods(canonical) == methods


def test_several_layers_give_one_method_per_layer() -> None:
    names = [method.canonical for method in find_methods(["gradient", "gradcam"], ("early", "late"))]
    assert names == ["gradient", "gradcam:layer=early", "gradcam:layer=late"]
    for layers in (("late",), ("late", "late")):
        assert [method.canonical for method in find_methods(["gradcam"], layers)] == ["gradcam"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GradCAM", "--method GradCAM: unknown; did you mean gradcam?"),
        ("gradiant:samples=3", "--method gradiant:samples=3: unknown; did you mean gradient?"),
        ("captum", "--method captum:: unknown; choose from "),
        ("captum:DeepLIFT", "--method captum:DeepLIFT: unknown; choose from "),
        ("", "--method : unknown; choose from gradcam, gradcampp"),
        ("sampled:samples=x", "--method sampled:samples=x: use a whole number"),
        ("sampled:noise=1,samples=0", "--method sampled:samples=0: use a number from 1 to 1000"),
        ("sampled:noise=nan", "--method sampled:noise=nan: use a number from 0 to 10"),
        ("sampled:stat=median", "--method sampled:stat=median: choose from mean, square"),
        ("sampled:absolute=yes", "--method sampled:absolute=yes: use true or false"),
        ("sampled:sample=3", "--method sampled:sample=3: no such parameter; did you mean samples?"),
        ("sampled:", "--method sampled:: no such parameter; choose from absolute, layer, noise"),
        ("sampled:samples", "--method sampled:samples: has no value; use samples=VALUE"),
        ("sampled:layer=", "--method sampled:layer=: has no value; use layer=VALUE"),
        ("sampled:samples=3,samples=4", "--method sampled:samples=3,samples=4: samples is set twice; leave one out"),
        ("gradient:samples=3", "--method gradient:samples=3: gradient has no parameters"),
    ],
)
@pytest.mark.usefixtures("sampled")
def test_what_is_wrong_is_reported_in_one_line(text: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        find_methods([text])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_no_method_at_all_is_refused() -> None:
    with pytest.raises(OptionError, match="--method: no method is requested; choose from gradcam, gradcampp"):
        find_methods([])


@pytest.mark.parametrize("kind", METHODS.values(), ids=lambda kind: kind.name)
def test_every_method_describes_itself(kind: type[Method]) -> None:
    method = kind()
    assert METHODS[method.name] is kind
    assert find_methods([method.canonical]) == (method,)
    description = method.describe()
    assert {"level", "convention", "paper"} <= set(description)
    assert description["level"] in ("image", "layer", "attention", "pixels", "network")
    assert method.cost >= 0


PLUG_IN = """
from dataclasses import dataclass
from saliency_pipeline.saliency.engine.need import Need
from saliency_pipeline.saliency.methods.method import Method
from saliency_pipeline.settings import setting

@dataclass(frozen=True)
class Brightness(Method):
    name = "brightness"
    needs = Need.NOTHING
    convention = "brightness of a pixel"
    paper = "none"
    class_specific = False
    power: float = setting(1.0, "Exponent.", range=(0.1, 10.0))

    def maps(self, ask):
        return ask.pixels()[:, :1]

class Nameless(Method):
    needs = Need.NOTHING

    def maps(self, ask):
        return ask.pixels()[:, :1]

class Needy(Brightness):
    name = "needy"
    needs = "pixels"

class Papers(Brightness):
    name = "papers"
    paper = ("one", "two")

class Costly(Brightness):
    name = "costly"
    cost = property(lambda self: 1 / 0)

@dataclass(frozen=True)
class Labeled(Brightness):
    name = "labeled"
    label: str = setting("a", "Any text.")
"""


def install(folder: Path, package: str, entries: dict[str, str], module: str = PLUG_IN) -> None:
    """Install a package with entry points as pip does, in a folder on the path."""
    (folder / f"{package}.py").write_text(module, encoding="utf-8")
    information = folder / f"{package}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    lines = "\n".join(f"{name} = {package}:{attribute}" for name, attribute in entries.items())
    (information / "entry_points.txt").write_text(f"[salpipe.methods]\n{lines}\n", encoding="utf-8")


def test_a_method_of_an_installed_package_is_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "bright_package", {"brightness": "Brightness"})
    monkeypatch.syspath_prepend(tmp_path)
    assert [method.canonical for method in find_methods(["brightness:power=2"])] == ["brightness:power=2.0"]
    assert list(all_methods()) == [*METHODS, "brightness"]
    assert packages_of(["brightness:power=2", "gradcam", "captum:LRP"]) == ("bright_package", "captum")
    with pytest.raises(OptionError, match=r"--method brigtness: unknown; did you mean brightness\?"):
        find_methods(["brigtness"])
    with pytest.raises(OptionError, match=r"--method brightness:power=0: use a number from 0\.1 to 10"):
        find_methods(["brightness:power=0"])


@pytest.mark.parametrize("value", ["a/b", "<b>", "a b", "\n", "é"])
def test_values_fit_in_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    install(tmp_path, "label_package", {"labeled": "Labeled"})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OptionError, match="use letters a-z, digits and"):
        find_methods([f"labeled:label={value}"])


@pytest.mark.parametrize(
    ("name", "attribute", "message"),
    [
        (
            "absent",
            "Absent",
            "absent of odd_package: cannot be imported (AttributeError: module 'odd_package' has no",
        ),
        ("dataclass", "dataclass", "is no subclass of Method; update or uninstall it"),
        ("nameless", "Nameless", "method nameless of odd_package: Nameless lacks name, convention, paper; update"),
        ("other", "Brightness", "method other of odd_package: Brightness is called brightness; update"),
        ("needy", "Needy", "method needy of odd_package: Needy.needs is of type str, no Need; update"),
        ("papers", "Papers", "method papers of odd_package: Papers.paper is no text; update"),
        ("costly", "Costly", "costly of odd_package: has no valid defaults or description (division by zero); update"),
        ("long" * 20, "Brightness", "longlong of odd_package: a name has up to 64 letters"),
        (
            "Odd:name",
            "Brightness",
            "Odd:name of odd_package: a name has up to 64 letters a-z, digits and '-'; update",
        ),
    ],
)
def test_a_broken_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, attribute: str, message: str
) -> None:
    install(tmp_path, "odd_package", {name: attribute})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SalpipeError) as caught:
        all_methods()
    assert message in str(caught.value)
    assert find_methods(["gradcam"])
    errors: list[SalpipeError] = []
    assert list(all_methods(errors.append)) == list(METHODS)
    assert [str(error) for error in errors] == [str(caught.value)]


def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "broken_package", {"broken": "Broken"}, "raise RuntimeError('no\\nGPU')\n")
    monkeypatch.syspath_prepend(tmp_path)
    message = r"^method broken of broken_package: cannot be imported at broken_package\.py:1 \(RuntimeError: no GPU\)"
    with pytest.raises(SalpipeError, match=message):
        find_methods(["broken"])


def test_no_package_replaces_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "greedy_package", {"gradcam": "Brightness"})
    monkeypatch.syspath_prepend(tmp_path)
    assert type(find_methods(["gradcam"])[0]) is METHODS["gradcam"]
    with pytest.raises(SalpipeError, match="method gradcam of greedy_package: salpipe has a method of that name"):
        all_methods()


def test_two_packages_with_the_same_method_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("first_package", "second_package"):
        install(tmp_path, package, {"brightness": "Brightness"})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SalpipeError, match="method brightness of first_package, second_package: more than one"):
        find_methods(["brightness"])


def test_packages_are_not_searched_for_names_that_salpipe_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in ("load_plug_in", "plug_in_names"):
        monkeypatch.setattr(registry, function, lambda *_: pytest.fail("searched"))
    assert find_methods(["gradcam", "gradient"])
