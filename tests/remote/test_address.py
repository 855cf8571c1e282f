"""URLs of images: accepted, refused, shown, and named."""

import pytest

from saliency_pipeline.errors import OptionError
from saliency_pipeline.remote.address import checked_url, hub_parts, name_of, shown_url


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://bucket", "bucket"),
        ("s3://bucket/a/photos.tar", "photos.tar"),
        ("abfs://container@account.dfs.core.windows.net/photos", "photos"),
        ("https://host:8443/a/photos%20of%20birds.tar?download=1", "photos of birds.tar"),
        ("hf://datasets/org/birds", "birds"),
        ("hf://datasets/org/birds@v1/data/train.parquet", "train.parquet"),
    ],
)
def test_urls_of_images(url: str, name: str) -> None:
    assert checked_url(url) == url
    assert name_of(url) == name


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/a.tar", "ftp://: images are read from s3://, gs://, az://, https:// and hf://datasets/"),
        ("https://user:secret@host/a.tar", r"https://host: a URL with a user name or password"),
        ("s3://key:secret@bucket/a", "s3://bucket: a URL with a user name or password"),
        ("s3://key@bucket/a", "s3://bucket: a URL with a user name or password"),
        ("abfs://user:secret@account/a", "a URL with a user name or password"),
        ("https://host/", "a web server lists no files; give the URL of one file"),
        ("https://host/folder/", "a web server lists no files"),
        ("s3://bucket/a/../b", "empty, . and .. are no names of folders"),
        ("s3://bucket//b", "empty, . and .. are no names of folders"),
        ("https://host/a.tar#part", "not the URL of images"),
        ("hf://models/org/name", r"give hf://datasets/ORG/NAME\[@REVISION\]\[/PATH\]"),
        ("hf://datasets/org/name@", "not a data set of the Hub"),
        ("hf://org/name", "not a data set of the Hub"),
    ],
)
def test_other_urls_are_refused(url: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        checked_url(url)
    assert "secret" not in str(caught.value)


def test_a_signature_is_not_shown() -> None:
    assert shown_url("https://host/a.tar?X-Amz-Signature=secret") == "https://host/a.tar?..."
    assert shown_url("s3://bucket/odd?name") == "s3://bucket/odd?name"


def test_parts_of_a_data_set_of_the_hub() -> None:
    assert hub_parts("hf://datasets/birds") == ("birds", None, "")
    assert hub_parts("hf://datasets/org/birds@v1.0/data/a.tar") == ("org/birds", "v1.0", "data/a.tar")
    assert hub_parts("hf://datasets/org/birds@refs%2Fpr%2F7/data") == ("org/birds", "refs/pr/7", "data")
    assert hub_parts("hf://datasets/org/birds@refs/pr/7/data") == ("org/birds", "refs/pr/7", "data")
