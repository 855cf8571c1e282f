"""`salpipe generate`: output, exit codes, settings from a file, and errors."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from saliency_pipeline.cli.main import salpipe
from tests.generation import examples
from tests.generation.examples import COMMAND, OPTIONS, flat


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flat(tmp_path_factory.mktemp("images"), 9)


def generate(images: Path, *arguments: object) -> Result:
    return CliRunner().invoke(salpipe, ["generate", str(images), *map(str, arguments)])


def test_the_result_is_on_standard_output_and_notes_are_not(images: Path, tmp_path: Path) -> None:
    output = tmp_path / "shards"
    result = generate(images, "-o", output, *COMMAND)
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first == f"{output}: 9 images in 3 shards (3 written now), 0 rejected; complete"
    assert second.startswith("layer layer4; ")
    assert " images/s, torch fp32; " in second
    notes = result.stderr.splitlines()
    assert all(note.startswith("salpipe: ") for note in notes)
    assert notes[0].startswith(f"salpipe: {images}: layout folders (")
    assert notes[1] == "salpipe: 9 images in 0 classes; loading test_resnet"
    assert notes[-1] == "salpipe: test_resnet, layer layer4, torch fp32 on cpu"

    again = generate(images, "-o", output, *COMMAND, "--quiet")
    assert again.stdout == f"{output}: 9 images in 3 shards (0 written now), 0 rejected; complete\n"
    assert again.stderr == ""


def test_json_is_one_object_and_all_of_standard_output(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", str(images), "-o", str(tmp_path / "shards"), *COMMAND, "--json", "--shards", "2/2"]
    salpipe.main(arguments, prog_name="salpipe", standalone_mode=False)
    report = json.loads(capfd.readouterr().out)
    assert report.pop("seconds") > 0
    assert report.pop("images_per_second") > 0
    assert report == {
        "folder": str(tmp_path / "shards"),
        "images": 4,
        "rejects": 0,
        "single_color": 0,
        "seen": 0,
        "shards": 1,
        "written": 1,
        "complete": False,
        "layers": ["layer4"],
        "backend": "torch",
        "precision": "fp32",
        "passed_over": {},
    }


def test_a_part_reports_that_others_are_not_complete(images: Path, tmp_path: Path) -> None:
    result = generate(images, "-o", tmp_path / "shards", *COMMAND, "--shards", "1/2")
    assert "5 images in 2 shards (2 written now), 0 rejected; this part is complete; others are not" in result.stdout
    result = generate(images, "-o", tmp_path / "shards", *COMMAND, "--shards", "2/2")
    assert "4 images in 1 shard (1 written now), 0 rejected; complete" in result.stdout


def test_a_repair_is_noted(images: Path, tmp_path: Path) -> None:
    generate(images, "-o", tmp_path, *COMMAND)
    (tmp_path / "shard-00001.h5").write_bytes(b"")
    result = generate(images, "-o", tmp_path, *COMMAND)
    assert "salpipe: damaged or without a receipt, written again: shard-00001.h5\n" in result.stderr
    assert "(1 written now)" in result.stdout


def test_settings_come_from_a_file_and_what_is_typed_wins(images: Path, tmp_path: Path) -> None:
    settings = "\n".join(
        f"{name.replace('_', '-')} = {json.dumps(value)}" for name, value in OPTIONS.items() if name != "size"
    )
    config = tmp_path / "run.toml"
    config.write_text(f'[generate]\nsize = 32\nmethod = ["gradcam", "gradient"]\nshards = "1/1"\n{settings}\n')
    result = generate(images, "-o", tmp_path / "a", "--config", config, "--size", "64", "--json")
    assert result.exit_code == 0, result.stderr
    plan = json.loads((tmp_path / "a" / "plan.json").read_text())["provenance"]["settings"]
    assert (plan["size"], plan["method"], plan["shard-size"]) == (64, ["gradcam", "gradient"], 4)

    config.write_text("sise = 32\n")
    result = generate(images, "-o", tmp_path / "b", "--config", config)
    assert result.exit_code == 1
    assert result.stderr == (
        f"salpipe: error: {config}: unknown key 'sise' for 'salpipe generate'; did you mean 'size'?\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--shards", "0/3"],
        ["--shards", "4/3"],
        ["--shards", "1"],
        ["--shards", "one/two"],
        ["--shards", "1/3/5"],
        ["--max-rejects", "many"],
        ["--max-rejects", "-1"],
        ["--max-rejects", "0.5"],
        ["--max-rejects", "nan%"],
        ["--size", "0"],
        ["--size", "large"],
        ["--jobs", "0"],
        ["--batch-size", "0"],
        ["--shard-size", "0"],
        ["--jpeg-quality", "101"],
        ["--max-pixels", "0"],
        ["--label-level", "-1"],
        ["--fit", "zoom"],
        ["--encoding", "png"],
        ["--precision", "fp8"],
        ["--backend", "onnx"],
        ["--no-such-option"],
    ],
    ids=" ".join,
)
def test_wrong_usage_names_the_option(images: Path, tmp_path: Path, arguments: list[str]) -> None:
    result = generate(images, "-o", tmp_path / "shards", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr.splitlines()[-1]
    assert not (tmp_path / "shards").exists()


def test_images_and_output_are_needed(images: Path, tmp_path: Path) -> None:
    assert "--output" in generate(images).stderr
    missing = generate(tmp_path / "nowhere", "-o", tmp_path / "shards")
    assert missing.exit_code == 2
    assert "does not exist" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--model", "resnet5O"], "did you mean resnet50"),
        (["--weights", "nowhere.pt"], "nowhere.pt"),
        (["--layer", "layer9"], "layer4"),
        (["--target", "tabbby"], "did you mean tabby"),
        (["--target", "label"], "use --target predicted, top:K or a class name"),
        (["--backend", "openvino", "--method", "gradient"], "need --backend torch"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_that_names_the_remedy(
    images: Path, tmp_path: Path, arguments: list[str], remedy: str
) -> None:
    result = generate(images, "-o", tmp_path / "shards", *COMMAND, "--quiet", *arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("salpipe: error: ")
    assert result.stderr.count("\n") == 1
    assert remedy in result.stderr
    assert result.stdout == ""


def test_a_folder_without_images_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = generate(tmp_path / "empty", "-o", tmp_path / "shards")
    assert result.exit_code == 1
    assert "no images found" in result.stderr
    assert not (tmp_path / "shards").exists()


def test_another_plan_is_refused(images: Path, tmp_path: Path) -> None:
    generate(images, "-o", tmp_path, *COMMAND)
    result = generate(images, "-o", tmp_path, *COMMAND, "--size", 32, "--quiet")
    assert result.exit_code == 1
    assert result.stderr == (
        f"salpipe: error: {tmp_path} holds the shards of another plan (size 64 -> 32); choose another output folder\n"
    )


def test_too_many_rejects_end_with_their_own_code_after_the_report(tmp_path: Path) -> None:
    images = flat(tmp_path / "images", 3)
    (images / "bad.jpg").touch()
    result = generate(images, "-o", tmp_path / "shards", *COMMAND, "--json", "--quiet", "--max-rejects", "24.9%")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["rejects"] == 1
    assert result.stderr == (
        "salpipe: error: 1 of 4 images were rejected, more than --max-rejects 24.9%: see rejects.jsonl in "
        f"{tmp_path / 'shards'}; all others are stored\n"
    )
    for limit in ("25%", "1"):
        assert generate(images, "-o", tmp_path / "shards", *COMMAND, "--max-rejects", limit).exit_code == 0


def test_a_bar_is_shown_on_a_terminal(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from saliency_pipeline.cli.generate import TerminalProgress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    examples.run(images, tmp_path / "shards", progress=TerminalProgress(quiet=False))
    drawn = capsys.readouterr()
    assert drawn.out == ""
    assert "explaining" in drawn.err
    examples.run(images, tmp_path / "shards", progress=TerminalProgress(quiet=False))
    assert "checking" in capsys.readouterr().err
    examples.run(images, tmp_path / "shards", progress=TerminalProgress(quiet=True))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--target", "top:0"], 2, "--target top:0: use predicted, label, top:K with K from 1 on"),
        (["--target", "top:x"], 2, "--target top:x: use predicted"),
        (["--target", "top:1001"], 1, "use top:1 to top:1000"),
        (["--target", "labels"], 1, "--target: class 'labels': not one of test_resnet's 1000 classes"),
        (["--device", "gpu"], 2, "--device gpu: not available here; use --device cpu"),
        (["--device", "cuda:99"], 1, "--device cuda:99: not available here; use --device cpu"),
        (["--layer", "nosuch"], 1, "--layer nosuch: is no layer of this network; candidates: "),
        (["--method", "gradcam:layer=nosuch"], 1, "--layer nosuch: is no layer of this network; candidates: "),
        (["--method", "ablationcam:layer=layer4.0.bn1"], 1, "test_resnet cannot be cut at layer4.0.bn1; use a layer"),
        (["--method", "gradcma"], 2, "--method gradcma: unknown; did you mean gradcam?"),
        (["--method", "smoothgrad:samples=0"], 2, "--method smoothgrad:samples=0: use a number from 1"),
        (["--classes", "@nofile"], 1, "--classes @nofile: No such file or directory; check the path"),
        (["--size", "16385"], 2, "--size 16385: use a number from 1 to 16384"),
    ],
)
def test_wrong_options_are_refused_before_images_are_listed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, message: str
) -> None:
    monkeypatch.setattr(
        "saliency_pipeline.generation.checks.prepare", lambda *_, **__: pytest.fail("images were listed")
    )
    result = generate(images, "-o", tmp_path / "shards", *COMMAND, *options)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert not (tmp_path / "shards").exists()


def test_an_output_folder_that_cannot_be_made_is_refused_before_images_are_listed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "saliency_pipeline.generation.checks.prepare", lambda *_, **__: pytest.fail("images were listed")
    )
    (tmp_path / "shards").symlink_to(tmp_path / "missing")
    result = generate(images, "-o", tmp_path / "shards", *COMMAND)
    assert result.exit_code == 1
    assert "a dangling link to" in result.stderr


def test_frames_too_small_for_a_layer_are_the_sizes_fault(images: Path, tmp_path: Path) -> None:
    result = generate(images, "-o", tmp_path / "shards", *COMMAND, "--size", "1")
    assert result.exit_code == 1
    assert "--size 1: test_resnet has no layer on a grid for such frames; use a larger size" in result.stderr


def test_a_file_for_a_model_is_sent_to_weights(images: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.pth").touch()
    result = generate(images, "-o", tmp_path / "shards", "--model", tmp_path / "plain.pth")
    assert "plain.pth' is a file; give it to --weights" in result.stderr


@pytest.mark.parametrize("command", ["train", "compare", "evaluate", "predict"])
def test_devices_are_looked_at_before_anything_else(images: Path, tmp_path: Path, command: str) -> None:
    inputs = [images, "--run", images] if command == "predict" else [images] * (2 if command == "evaluate" else 1)
    for device, code in (("gpu", 2), ("cuda:99", 1)):
        arguments = [command, *inputs, "-o", tmp_path / "out", "--device", device]
        result = CliRunner().invoke(salpipe, [*map(str, arguments)])
        assert (result.exit_code, device in result.stderr) == (code, True), result.output
