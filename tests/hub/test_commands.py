"""Commands push and pull: dry runs, results, and one line per failure of the Hub, with its remedy."""

import json
from pathlib import Path

import huggingface_hub.constants as constants
import pytest
from click.testing import CliRunner

from saliency_pipeline.cli.main import salpipe
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.hub.address import HubAddress
from saliency_pipeline.hub.pull import pull
from saliency_pipeline.hub.push import check_license, push
from tests.hub.fake_hub import TOKEN, FakeHub

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def call(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(salpipe, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


def test_a_dry_run_sends_nothing(hub: FakeHub, shards: Path, home: Path) -> None:
    options = ("push", shards, "hf://org/figures", "--license", "mit", "--dry-run")
    code, out, _ = call(*options)
    assert code == 0
    assert "license: mit" in out
    assert f"{hub.url}/datasets/org/figures: dataset, 7 files, " in out
    assert "  shard-00001.h5\n" in out
    document = json.loads(call(*options, "--json")[1])
    assert document["commit"] is None
    assert document["files"]["shard-00001.h5"] == (shards / "shard-00001.h5").stat().st_size
    assert home.name not in document["card"]
    assert not hub.requests


def test_results_are_printed(hub: FakeHub, shards: Path, tmp_path: Path) -> None:
    code, out, err = call("push", shards, "hf://org/figures", "--license", "unknown", "--public")
    assert (code, err) == (0, "")
    assert out.startswith(f"{hub.url}/datasets/org/figures: public dataset, 7 files, 0.4 MB (7 sent now), commit ")
    code, out, _ = call("pull", "hf://org/figures", "-o", tmp_path / "again", "--json")
    assert (code, json.loads(out)["fetched"]) == (0, 6)
    code, out, _ = call("pull", "hf://org/figures", "-o", tmp_path / "again")
    assert "shards of org/figures, 6 files, 0.4 MB (0 downloaded now), commit " in out
    note = call("push", shards, "hf://org/figures", "--license", "unknown")[2]
    assert "is public, which is left as it is" in note
    assert "The license is not stated." in (tmp_path / "again" / "README.md").read_text()


def test_the_license_is_asked_for(hub: FakeHub, shards: Path) -> None:
    code, _, err = call("push", shards, "hf://org/figures")
    assert code == 2
    assert err == (
        "salpipe: error: --license: name the license of what is uploaded, such as apache-2.0, mit, cc-by-4.0, "
        "cc-by-sa-4.0, cc-by-nc-4.0, cc0-1.0, other; or --license unknown\n"
    )
    with pytest.raises(SalpipeError, match="--license CC BY: not an identifier"):
        check_license("CC BY")


@pytest.mark.parametrize(
    "text", ["org/name", "hf://name", "hf://org/name/more", "hf://org/../x", "s3://org/name", "hf://"]
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(SalpipeError, match="not a repository; give hf://org/name"):
        HubAddress.parse(text)


def test_without_a_login(hub: FakeHub, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(shards, "hf://org/figures", license="mit")
    monkeypatch.delenv("HF_TOKEN")
    code, _, err = call("push", shards, "hf://org/other", "--license", "mit")
    assert code == 1
    assert err == "salpipe: error: hf://org/other: not logged in to the Hub; run 'hf auth login', or set HF_TOKEN\n"
    code, _, err = call("pull", "hf://org/figures", "-o", tmp_path / "again")
    assert code == 1
    assert err == (
        "salpipe: error: hf://org/figures: no such repository, or no access to it; correct the name, or run 'hf auth "
        "login', or set HF_TOKEN\n"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_wrong-token")
    code, _, err = call("push", shards, "hf://org/other", "--license", "mit")
    assert (code, "wrong-token" in err, len(err.splitlines())) == (1, False, 1)


def test_without_a_connection(hub: FakeHub, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for action in (lambda: push(shards, "hf://org/a", license="mit"), lambda: pull("hf://org/a", tmp_path / "a")):
        with pytest.raises(SalpipeError, match=r"^hf://org/a: the Hub cannot be reached \(.*check the network and run"):
            action()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SalpipeError, match=r"^hf://org/a: "):
        pull("hf://org/a", tmp_path / "a")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, r"no permission \(Forbidden because\); use a token that may write there"),
        (412, r"was changed at the same time \(Forbidden because\); run the same command again"),
        (400, r"the Hub refused \(Forbidden because\); correct that"),
    ],
)
def test_refusals_of_the_hub(
    hub: FakeHub, shards: Path, monkeypatch: pytest.MonkeyPatch, status: int, message: str
) -> None:
    from tests.hub.fake_hub import Handler

    monkeypatch.setattr(
        Handler,
        "commit",
        lambda self, *_: self.answer({"error": "Forbidden because"}, status, X_Error_Message="Forbidden because"),
    )
    with pytest.raises(SalpipeError, match=f"^hf://org/figures: {message}") as caught:
        push(shards, "hf://org/figures", license="mit")
    assert TOKEN not in str(caught.value)
    # what was uploaded is still there
    monkeypatch.undo()


def test_other_inputs_are_refused(hub: FakeHub, tmp_path: Path, shards: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SalpipeError, match="holds no shards"):
        push(tmp_path / "empty", "hf://org/a", license="mit")
    with pytest.raises(SalpipeError, match="a file; give a run or a folder of shards"):
        push(shards / "shard-00000.h5", "hf://org/a", license="mit")
    with pytest.raises(SalpipeError, match=r"is for a repository of kind 'dataset'; give hf://org/a$"):
        push(shards, "hf://models/org/a", license="mit")
