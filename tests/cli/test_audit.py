"""`salpipe audit` on the command line: output, exit codes and errors."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from tests.gallery.test_pairs import LIST, copies


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photos"
    copies(folder)
    return folder


def audit(images: Path, *arguments: object) -> Result:
    return CliRunner().invoke(salpipe, ["audit", str(images), *map(str, arguments)])


def test_the_result_is_on_standard_output_and_notes_are_not(images: Path, tmp_path: Path) -> None:
    result = audit(images, "-o", tmp_path / "audit")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        f"{images}: 5 images, 1 of them unreadable",
        "1 group of duplicates: 1 exact, 1 near",
        "1 group with different labels, 1 across splits; 2 images of validation or test also in training",
        f"{tmp_path / 'audit' / 'duplicates.html'}",
    ]
    assert "1 of 5 images cannot be read" in result.stderr
    quiet = audit(images, "-o", tmp_path / "audit", "--quiet")
    assert quiet.stdout == result.stdout
    assert quiet.stderr == ""


def test_it_goes_beside_the_images_by_default(images: Path) -> None:
    assert audit(images, "-q").exit_code == 0
    assert sorted(path.name for path in Path(f"{images}-audit").iterdir()) == [
        "duplicates.csv",
        "duplicates.html",
        "fingerprints",
    ]


def test_names_of_folders_stay_in_their_lines(images: Path, tmp_path: Path) -> None:
    result = audit(images, "-o", tmp_path / "two\nlines", "-q", "--exact-only")
    assert result.stdout.splitlines()[1:] == [
        "1 group of duplicates: 1 exact, near ones not searched",
        "0 groups with different labels, 1 across splits; 1 image of validation or test also in training",
        f"'{tmp_path}/two\\nlines/duplicates.html'",
    ]


def test_json_is_one_object(images: Path, tmp_path: Path) -> None:
    report = json.loads(audit(images, "-o", tmp_path, "--json", "-q").stdout)
    assert report == {
        "page": str(tmp_path / "duplicates.html"),
        "table": str(tmp_path / "duplicates.csv"),
        "images": 5,
        "unreadable": 1,
        "exact": 1,
        "near": 1,
        "groups": 1,
        "largest": 3,
        "conflicts": 1,
        "leaks": 1,
        "leaked": 2,
        "across": {"train-validation": 1, "train-test": 1, "validation-test": 1},
        "passed_over": {},
    }


def test_a_leak_fails_only_on_request(images: Path, tmp_path: Path) -> None:
    result = audit(images, "-o", tmp_path, "--fail-on-leak", "-q")
    assert result.exit_code == 4
    assert len(result.stdout.splitlines()) == 4
    assert result.stderr == (
        f"salpipe: error: {images}: duplicates in more than one split, 1 group; leave them out (generate --dedupe "
        "keep-first) or split anew (generate --split)\n"
    )
    assert audit(images / "train", "-o", tmp_path, "--fail-on-leak", "-q").exit_code == 0


def test_exact_only_threshold_and_selection_are_heeded(images: Path, tmp_path: Path) -> None:
    def counts(*options: object) -> tuple[int, int, int | None]:
        report = json.loads(audit(images, "-o", tmp_path, "--json", "-q", *options).stdout)
        return report["images"], report["exact"], report["near"]

    assert counts("--exact-only") == (5, 1, None)
    assert counts("--threshold", 0) == (5, 1, 0)
    assert counts("--classes", "cat") == (3, 1, 0)
    (tmp_path / "settings.toml").write_text("exact-only = true\n")
    assert counts("--config", tmp_path / "settings.toml") == (5, 1, None)


def test_a_list_of_urls_is_audited_by_its_md5(tmp_path: Path) -> None:
    (tmp_path / "dev_urls.txt").write_text(LIST)
    result = audit(tmp_path / "dev_urls.txt")
    assert result.stdout.splitlines() == [
        f"{tmp_path / 'dev_urls.txt'}: 6 rows",
        "2 groups of duplicates: 3 exact, near ones not searched",
        "1 group with different labels",
        f"{tmp_path / 'dev_urls-audit' / 'duplicates.html'}",
    ]
    assert result.stderr.startswith("salpipe: dev_urls.txt:9: ")
    assert audit(tmp_path / "dev_urls.txt", "-q").stderr == ""
    result = audit(tmp_path / "dev_urls.txt", "--classes", "person one")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "a list is compared as a whole; leave out --classes" in result.stderr


def test_what_a_selection_leaves_out_is_noted(images: Path, tmp_path: Path) -> None:
    result = audit(images, "-o", tmp_path, "--min-per-class", "3")
    assert "salpipe: class dog (2): left out, it has fewer than 3 images\n" in result.stderr


def test_mistakes_are_usage_errors_or_one_line(images: Path, tmp_path: Path) -> None:
    assert audit(images, "--threshold", 0.5).exit_code == 2
    assert audit(tmp_path / "nothing").exit_code == 2
    (tmp_path / "empty").mkdir()
    result = audit(tmp_path / "empty")
    assert result.exit_code == 1
    assert result.stderr.startswith("salpipe: error: ")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "empty-audit").exists()
