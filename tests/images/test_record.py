"""Records read their files and can be sent to other processes."""

import pickle

import pytest

from saliency_pipeline.images import record as record_module
from saliency_pipeline.images.record import Catalogue, ImageRecord, Split


def test_a_record_reads_its_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"pixels")
    assert ImageRecord("a.jpg", str(tmp_path / "a.jpg")).read() == b"pixels"


def test_a_file_too_large_for_memory_is_refused_unread(tmp_path):
    with open(tmp_path / "a.jpg", "wb") as file:
        file.truncate(record_module.MAX_FILE_BYTES + 1)  # sparse: takes no room on disk
    with pytest.raises(OSError, match="File too large"):
        ImageRecord("a.jpg", str(tmp_path / "a.jpg")).read()


def test_records_travel_to_worker_processes():
    records = [ImageRecord("a", "/a", 3, Split.TEST, (0, 0, 5, 5)), ImageRecord("b", "/b")]
    catalogue = Catalogue("/", records, ("x",))
    assert pickle.loads(pickle.dumps(catalogue)) == catalogue
    assert len(catalogue) == 2
    assert int(Split.NONE) == -1
