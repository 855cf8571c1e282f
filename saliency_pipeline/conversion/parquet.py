"""Parquet tables with the features of Hugging Face datasets: image, label, and the data sets of a shard as columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from saliency_pipeline.conversion.description import Description
from saliency_pipeline.conversion.names import sample_name
from saliency_pipeline.conversion.output import FileEntry, LargeFile, OutputFiles
from saliency_pipeline.conversion.samples import Sample
from saliency_pipeline.errors import SalpipeError
from saliency_pipeline.files import disk_errors_explained
from saliency_pipeline.shards.schema import PREDICTED, SCORE, SHA256, SOURCE_SIZE, TOP, MapPart, map_path, to_json

_GROUP_ROWS = 100
"""Rows per row group, as many as the Hub recommends for images."""

_DTYPES: dict[MapPart, str] = {
    "target": "int32",
    "scale": "float32",
    "flag": "uint8",
    "residual": "float32",
    "standard_error": "float32",
}


def import_pyarrow() -> Any:
    """The module pyarrow, with `pyarrow.parquet`.

    Raises:
        SalpipeError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SalpipeError("--to parquet needs pyarrow; pip install 'saliency-pipeline[parquet]'") from None
    return pyarrow


def write_tables(
    folder: Path, number: int, samples: Iterable[Sample], description: Description
) -> tuple[FileEntry, ...]:
    """Write the images of one shard as tables, one per split.

    Raises:
        SalpipeError: the disk is full or cannot be written, or pyarrow is missing.
        IntegrityError: the shard is damaged.
    """
    schema = schema_of(description)
    tables: dict[str, _Table] = {}
    with OutputFiles(folder) as output, ExitStack() as opened:
        for sample in samples:
            if sample.split not in tables:
                file = output.create(sample.split, number, "parquet")
                tables[sample.split] = opened.enter_context(_Table(file, schema, description))
            tables[sample.split].add(sample)
        for table in tables.values():
            table.finish()
        return output.publish()


class _Table:
    """A table that is written row group by row group; leaving the block without `finish` abandons it."""

    def __init__(self, file: LargeFile, schema: Any, description: Description) -> None:
        self._file, self._schema, self._description = file, schema, description
        self._waiting: list[Sample] = []
        with disk_errors_explained(file.path):
            # dictionaries would hold every image and map twice in memory
            self._writer = import_pyarrow().parquet.ParquetWriter(file.stream, schema, use_dictionary=False)

    def __enter__(self) -> _Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # otherwise it is closed when it is freed, which after the error of a full disk prints the same one again
        with suppress(OSError):
            self._writer.close()

    def add(self, sample: Sample) -> None:
        """Add a row. Raises SalpipeError if the disk is full or cannot be written."""
        self._waiting.append(sample)
        self._file.images += 1
        if len(self._waiting) == _GROUP_ROWS:
            self._flush()

    def finish(self) -> None:
        """Write the last rows and the end of the file. Raises SalpipeError if the disk is full or cannot be written."""
        if self._waiting:
            self._flush()
        with disk_errors_explained(self._file.path):
            self._writer.close()

    def _flush(self) -> None:
        rows, self._waiting = _rows(self._waiting, self._schema, self._description), []
        with disk_errors_explained(self._file.path):
            self._writer.write_table(rows, row_group_size=_GROUP_ROWS)


def schema_of(description: Description) -> Any:
    """The schema of the tables, with the features of `datasets` and the description of the export as metadata."""
    pyarrow = import_pyarrow()
    columns = _columns(description)
    features = {name: feature for name, (feature, _) in columns.items()}
    # in the order of the columns, unlike `to_json`
    own = json.dumps({"info": {"features": features}}, allow_nan=False)
    metadata = {"huggingface": own, "salpipe": to_json(description.as_dict())}
    return pyarrow.schema([(name, kind) for name, (_, kind) in columns.items()], metadata=metadata)


def _columns(description: Description) -> dict[str, tuple[dict[str, Any], Any]]:
    """Feature of `datasets` and Arrow type of every column."""
    pa, header = import_pyarrow(), description.header

    def value(dtype: str) -> tuple[dict[str, Any], Any]:
        return {"dtype": dtype, "_type": "Value"}, getattr(pa, dtype)()

    def several(dtype: str, count: int) -> tuple[dict[str, Any], Any]:
        return {"feature": value(dtype)[0], "length": count, "_type": "Sequence"}, pa.list_(value(dtype)[1], count)

    columns: dict[str, tuple[dict[str, Any], Any]] = {
        "image": ({"_type": "Image"}, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    }
    if header.classes:
        columns["label"] = {"names": list(header.classes), "_type": "ClassLabel"}, pa.int64()
    columns |= {name: value("string") for name in ("key", "class", "split")}
    columns |= {PREDICTED: several("int32", TOP), SCORE: several("float32", TOP)}
    columns |= {SHA256: value("string"), SOURCE_SIZE: several("int32", 2)}
    if header.boxes:
        box, kind = several("int32", 4)
        columns["source/box"] = {"feature": box, "_type": "Sequence"}, pa.list_(kind)
    if header.groups:
        columns["source/group"] = value("int64")
    for method, shape in header.maps.items():
        feature = {"shape": [shape.targets, shape.height, shape.width], "dtype": "float32", "_type": "Array3D"}
        columns[map_path(method, "map")] = feature, pa.list_(pa.list_(pa.list_(pa.float32())))
        for part, dtype in _DTYPES.items():
            if getattr(shape, part, True):
                columns[map_path(method, part)] = several(dtype, shape.targets)
    return columns


def _rows(samples: Sequence[Sample], schema: Any, description: Description) -> Any:
    pa, facts = import_pyarrow(), [sample.facts for sample in samples]
    images = [{"bytes": sample.image, "path": f"{sample_name(sample.position)}.{sample.suffix}"} for sample in samples]
    columns: dict[str, Any] = {
        "image": images,
        "label": [sample.label for sample in samples],
        **{name: [each[name] for each in facts] for name in ("key", "class", "split")},
        PREDICTED: [each["prediction"]["class"] for each in facts],
        SCORE: [each["prediction"]["score"] for each in facts],
        SHA256: [each["source"]["sha256"] for each in facts],
        SOURCE_SIZE: [each["source"]["size"] for each in facts],
        "source/box": [each["source"].get("box") for each in facts],
        "source/group": [each["source"].get("group") for each in facts],
    }
    for method in description.header.maps:
        columns[map_path(method, "map")] = _nested(np.stack([sample.maps[method] for sample in samples]))
        for part in _DTYPES:
            columns[map_path(method, part)] = [each["saliency"][method].get(part) for each in facts]
    arrays = [
        columns[field.name] if isinstance(columns[field.name], pa.Array) else pa.array(columns[field.name], field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _nested(values: npt.NDArray[np.float32]) -> Any:
    """Maps (n, T, h, w) as lists of lists of lists, without a Python object per value."""
    pa = import_pyarrow()
    array, size = pa.array(values.reshape(-1)), values.size
    for length in values.shape[:0:-1]:
        array = pa.ListArray.from_arrays(np.arange(0, size + 1, length, dtype=np.int32), array)
        size //= length
    return array
