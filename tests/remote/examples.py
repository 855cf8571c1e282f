"""Data sets of small photographs as folder, tar, WebDataset shards and parquet tables."""

import io
import json
import tarfile
from pathlib import Path

from tests.generation.examples import photographs

NAMES = [f"{kind}/{number}.jpg" for kind in ("cat", "dog") for number in range(1, 6)]
"""Two classes of five images, in natural order."""


def folder(top: Path) -> Path:
    """The photographs in folders of their classes, and a file that is no image."""
    photographs(top, NAMES)
    (top / "cat" / "1.jpg").write_bytes(b"not an image")
    (top / "notes.txt").write_text("no image")
    return top


def tar(top: Path, path: Path, names: list[str] | None = None) -> Path:
    """A tar of a folder, in the order of its names or another."""
    with tarfile.open(path, "w") as archive:
        for name in names or sorted(str(each.relative_to(top)) for each in top.rglob("*") if each.is_file()):
            archive.add(top / name, name)
    return path


def webdataset(top: Path, target: Path) -> Path:
    """WebDataset shards of a folder of classes, four images in each, with labels as .cls and .json in turn."""
    target.mkdir(parents=True)
    for start in range(0, len(NAMES), 4):
        with tarfile.open(target / f"train-{start // 4:05d}.tar", "w") as archive:
            for index, name in enumerate(NAMES[start : start + 4], start):
                label = int(name.startswith("dog"))
                parts = {"jpg": (top / name).read_bytes(), "cls": str(label).encode()}
                if index % 2:
                    parts["json"] = json.dumps({"label": label}).encode()
                    del parts["cls"]
                for ending, data in parts.items():
                    info = tarfile.TarInfo(f"{index:05d}.{ending}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    return target


def tables(top: Path, target: Path, split: str = "train") -> Path:
    """Parquet tables of a folder of classes, as the Hub has them, in row groups of three."""
    import pyarrow as pa
    from pyarrow import parquet

    (target / "data").mkdir(parents=True)
    for part, names in enumerate((NAMES[:6], NAMES[6:])):
        images = [{"bytes": (top / name).read_bytes(), "path": name.rpartition("/")[2]} for name in names]
        labels = [int(name.startswith("dog")) for name in names]
        table = pa.table({"image": images, "label": labels})
        info = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
        path = target / "data" / f"{split}-{part:05d}-of-00002.parquet"
        parquet.write_table(table, path, row_group_size=3)
    return target


def content(start: int, end: int) -> bytes:
    """Bytes that tell their offset, from one offset to another."""
    whole = bytes(range(251))
    return (whole * ((end - start) // 251 + 2))[start % 251 :][: end - start]
