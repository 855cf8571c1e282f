"""`salpipe show`, and the page it writes at work in a browser where the machine has one."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.gallery.page import show
from saliency_pipeline.shards.reader import ShardFolder
from tests.gallery.test_page import EVIL, Page, evil
from tests.shards import examples

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return examples.folder(tmp_path / "shards")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(salpipe, ["show", *map(str, arguments)], prog_name="salpipe")


def test_it_prints_where_the_page_is(folder: Path, tmp_path: Path) -> None:
    result = run(folder, "-o", tmp_path / "gallery")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'gallery' / 'gallery.html'}\n"
    assert result.stderr == ""
    assert len(Page(tmp_path / "gallery" / "gallery.html").all("article")) == 12


def test_json(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "gallery"
    assert json.loads(run(folder, "-o", out, "--json", "--count", 3).stdout) == {
        "page": str(out / "gallery.html"),
        "contact_sheet": str(out / "contact-sheet.png"),
        "images": 3,
    }


def test_the_gallery_goes_beside_the_shards_by_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(folder).stdout == f"{folder}-gallery/gallery.html\n"
    monkeypatch.chdir(folder)
    assert run(".").stdout == f"{folder}-gallery/gallery.html\n"
    assert run("shard-00001.h5").stdout == "shard-00001-gallery/gallery.html\n"
    monkeypatch.chdir(folder.parent)
    assert run("shards/").stdout == "shards-gallery/gallery.html\n"


def test_options_select_images(folder: Path, tmp_path: Path) -> None:
    data, out = ShardFolder(folder), tmp_path / "g"

    def keys(*arguments: object) -> list[str | None]:
        result = run(folder, "-o", out, *arguments)
        assert result.exit_code == 0, result.stderr
        return [card["data-key"] for card in Page(out / "gallery.html").all("article")]

    names = data.keys()
    assert keys("--key", names[7], "--key", names[0]) == [names[7], names[0]]
    dogs = {pair.key for pair in data if pair.class_name == "dog"}
    assert set(keys("--class", "dog")) == dogs
    assert keys("--random", "--seed", 1, "-n", 5) == keys("--random", "--seed", 1, "-n", 5)
    assert keys("--random", "--seed", 1, "-n", 5) != keys("--random", "--seed", 2, "-n", 5)
    keys("--method", "gradcam")
    assert len(Page(out / "gallery.html").all("img")) == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--key", "no.jpg"], "no image called 'no.jpg'"),
        (["--class", "dgo"], "did you mean 'dog'? there are cat, dog, Vögel"),
        (["--method", "lime"], "it holds gradcam, gradient-simonyan"),
    ],
)
def test_what_is_not_there_is_one_line(folder: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run(folder, "-o", tmp_path / "g", *arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("salpipe: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_damaged_shard_is_exit_code_4(folder: Path, tmp_path: Path) -> None:
    path = folder / "shard-00001.h5"
    path.write_bytes(path.read_bytes()[:500])
    result = run(folder, "-o", tmp_path / "g")
    assert result.exit_code == 4
    assert "shard-00001.h5" in result.stderr


def test_help_shows_examples() -> None:
    text = run("--help").stdout
    assert "  salpipe show shards --random --seed 7\n" in text
    assert "--key KEY" in text


def test_torch_is_not_imported(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from saliency_pipeline.cli.main import salpipe; "
        f"salpipe(['show', {str(folder)!r}, '-o', {str(tmp_path / 'g')!r}], standalone_mode=False); "
        "assert 'torch' not in sys.modules and 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


# actions of a reader, and what is then visible
ACTIONS = r"""
const seen = {};
const visible = () => cards.filter(card => card.getClientRects().length > 0).map(card => card.dataset.key);
const opacity = () => getComputedStyle(document.querySelector(".overlay")).opacity;
document.head.append(Object.assign(document.createElement("style"), {textContent: ".overlay { transition: none }"}));
seen.all = visible().length;
seen.narrow = document.documentElement.scrollWidth <= innerWidth;
seen.title = document.title;
for (const input of all("input[name=group]")) {
  input.click();
  (seen.groups ||= {})[input.parentElement.innerText.trim().replace(/\s+/g, " ")] = visible().length;
}
const everything = document.querySelector("input[name=group]");
if (everything) everything.click();
const search = words => { one("search").value = words; one("search").dispatchEvent(new Event("input")); };
search(cards[3].dataset.key.toUpperCase());
seen.matching = visible();
seen.status = one("shown").textContent;
search("nothing is called so");
seen.empty = one("empty").getClientRects().length > 0;
search("");
seen.before = opacity();
one("mix").value = 0;
one("mix").dispatchEvent(new Event("input"));
seen.after = opacity();
const views = () => [...new Set(all(".card [data-view]:not([hidden])").map(part => part.dataset.view))].join();
const select = (id, index) => { one(id).selectedIndex = index; one(id).dispatchEvent(new Event("change")); };
seen.views = [views()];
select("target", 1);
seen.views.push(views());
select("method", one("method").length - 1);
seen.views.push(views());
seen.hash = location.hash;
cards[0].querySelector(".frame").click();
seen.dialog = large.open && one("inside").querySelector(".key").textContent;
seen.predictions = one("inside").querySelectorAll(".score").length;
large.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
seen.next = one("inside").querySelector(".key").textContent;
large.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowDown"}));
seen.switched = [one("mapped").textContent, views(), one("inside").querySelectorAll(".overlay:not([hidden])").length];
one("close").click();
seen.closed = !large.open;
one("beside").click();
seen.beside = document.querySelector(".photo").getBoundingClientRect().right
  <= document.querySelector(".overlay:not([hidden])").getBoundingClientRect().left + 3;
document.body.dataset.seen = JSON.stringify(seen);
"""


def browse(page: Path, tmp_path: Path, width: int = 1280, fragment: str = "") -> dict[str, object]:
    """Open a page in a frame of some width, act on it, and return what is visible; any console message fails."""
    acted = tmp_path / "acted.html"
    before, end, after = page.read_text(encoding="utf-8").rpartition("</script>")
    acted.write_text(before + ACTIONS + end + after, encoding="utf-8")
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},1000", "--enable-logging=stderr"),
        *("--dump-dom", acted.as_uri() + fragment),
    ]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    assert result.returncode == 0, result.stderr
    assert "CONSOLE" not in result.stderr
    dom = tmp_path / "dom.html"
    dom.write_text(result.stdout, encoding="utf-8")
    (body,) = Page(dom).all("body")
    assert body.get("data-seen"), result.stderr
    seen: dict[str, object] = json.loads(body["data-seen"] or "")
    return seen


if CHROMIUM:  # pages are checked by parsing them in any case

    @pytest.mark.parametrize("width", [1280, 500])
    def test_the_page_works_in_a_browser(folder: Path, tmp_path: Path, width: int) -> None:
        page = show(folder, tmp_path / "g").page
        keys = [card["data-key"] for card in Page(page).all("article")]
        labels = Counter(pair.class_name or "(unlabeled)" for pair in ShardFolder(folder))
        seen = browse(page, tmp_path, width)
        assert seen == {
            "all": 12,
            "narrow": True,
            "title": "shards · saliency gallery",
            "groups": {"all 12": 12} | {f"{name} {count}": count for name, count in labels.items()},
            "matching": [keys[3]],
            "status": "1 shown",
            "empty": True,
            "before": "1",
            "after": "0",
            # gradcam has one target, the gradient two
            "views": ["0", "0", "2"],
            "hash": "#method=gradient-simonyan&target=2",
            "switched": ["gradcam", "0", 1],
            "dialog": keys[0],
            "predictions": 5,
            "next": keys[1],
            "closed": True,
            "beside": True,
        }

    def test_the_page_opens_with_the_method_of_its_address(tmp_path: Path) -> None:
        name = "smoothgrad:noise=0.15,samples=25,seed=0,stat=square"
        others = {"a+b": {}, "captum:DeepLift": {"signed": True}, "eigencam": {"class_agnostic": True}}
        path = examples.of_methods(
            tmp_path / "s.h5", {**others, name: {}, name.replace("square", "var"): {}}, targets=3
        )
        seen = browse(
            show(path, tmp_path / "g").page,
            tmp_path,
            # as the page writes it
            fragment="#method=smoothgrad%3Anoise%3D0.15%2Csamples%3D25%2Cseed%3D0%2Cstat%3Dsquare&target=3",
        )
        # 3 + 3 + 1 + 3 views before those of the last method, of which the second target is chosen
        assert seen["views"] == ["9", "8", "11"]
        assert seen["hash"] == "#method=smoothgrad%3Anoise%3D0.15%2Csamples%3D25%2Cseed%3D0%2Cstat%3Dvar&target=2"
        assert seen["switched"] == ["a+b", "1", 1]

    def test_markup_in_names_does_nothing_in_a_browser(tmp_path: Path) -> None:
        seen = browse(show(evil(tmp_path / "s.h5"), tmp_path / "g").page, tmp_path)
        assert seen["title"] == "s.h5 · saliency gallery"
        assert seen["all"] == len(EVIL)
        assert seen["matching"] == [EVIL[3]]
        assert seen["dialog"] == EVIL[0]


def test_a_gallery_does_not_land_among_photographs(folder: Path, tmp_path: Path) -> None:
    for name in ("cat/1.jpg", "dog/1.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        (tmp_path / "photos" / name).touch()
    before = sorted((tmp_path / "photos").rglob("*"))
    for output in ("photos", "photos/cat", "photos/gallery"):
        result = run(folder, "-o", tmp_path / "photos" / output.removeprefix("photos").lstrip("/"))
        assert (result.exit_code, result.stdout) == (1, "")
        assert "choose an output folder outside" in result.stderr
    assert sorted((tmp_path / "photos").rglob("*")) == before
