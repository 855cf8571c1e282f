"""Table of every kind of file that salpipe reads: seeds, mutators and reader. A new kind is one line of `KINDS`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz import outputs, pictures, readers, seeds, structures
from tests.fuzz.mutations import BYTES, JSON, JSON_LINES, TEXT, TOML, Mutator


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: what `--kind` calls it.
        seeds: fills a folder with valid files, and gives them; see `seeds.py`.
        read: reads a mutated file. It returns where the file is accepted and raises SalpipeError where it is refused;
            anything else that it raises is a defect.
        mutators: those that know the format; those of `BYTES` are added.
        valid: whether the seeds must be accepted.
    """

    name: str
    seeds: Callable[[Path], Iterator[Path]]
    read: Callable[[Path, Random], None]
    mutators: Sequence[Mutator] = ()
    valid: bool = True


def _image(name: str, *mutators: Mutator) -> Kind:
    # large ones take seconds to decode
    seldom = (*(mutators or BYTES[:1]) * 7, pictures.enlarge)
    return Kind(name, lambda root: seeds.images(name, root), readers.read_image, seldom)


_TARS = (structures.tar_header, structures.tar_header, structures.tar_member)
_TABLES = (structures.parquet_footer, structures.parquet_table)
_SHARDS = (structures.hdf5_attribute, structures.hdf5_values, structures.hdf5_dataset)
_TENSORS = (structures.safetensors_header,)
_CHECKPOINTS = (structures.zip_member, structures.pickle_number, structures.safetensors_header)
_CACHE = tuple(structures.signed(mutator) for mutator in (*JSON, *TEXT))

KINDS: tuple[Kind, ...] = (
    _image("jpeg", pictures.jpeg_segments),
    _image("png", pictures.png_chunks),
    _image("webp", pictures.riff_chunks),
    _image("gif", pictures.gif_blocks),
    _image("tiff", pictures.tiff_tags),
    _image("bmp"),
    _image("avif", pictures.boxes),
    _image("jpeg2000", pictures.boxes),
    Kind("tar", seeds.tars, readers.read_tar, _TARS),
    Kind("webdataset", seeds.webdataset, readers.read_data_set, _TARS),
    Kind("imagenet-tar", seeds.imagenet_tars, readers.read_data_set, (*_TARS, structures.packed((*_TARS, *BYTES)))),
    Kind("parquet", seeds.tables, readers.read_data_set, _TABLES),
    Kind("export", outputs.exports, readers.read_export, (*JSON, *JSON_LINES)),
    Kind("export-tar", outputs.export_tars, readers.read_export, _TARS),
    Kind("export-table", outputs.export_tables, readers.read_export, _TABLES),
    Kind("shard", outputs.shard_files, readers.read_shard, _SHARDS),
    Kind("manifest", outputs.manifests, readers.read_manifest, JSON),
    Kind("rejects", outputs.rejects, readers.read_manifest, JSON_LINES),
    Kind("repository", outputs.repositories, readers.read_repository, JSON),
    Kind("plan", outputs.plans, readers.read_plan, (*JSON, structures.plan_with_hash, structures.plan_with_hash)),
    Kind("receipt", outputs.receipts, readers.read_receipts, JSON),
    Kind("weights", outputs.weights, readers.read_weights, _CHECKPOINTS),
    Kind("trained", outputs.trained, readers.read_trained, _TENSORS),
    Kind("checkpoint", outputs.checkpoints, readers.read_checkpoint, _TENSORS),
    Kind("run-json", outputs.run_documents, readers.read_finished_run, (*JSON, *JSON_LINES)),
    Kind("run-table", outputs.run_tables, readers.read_finished_run, TEXT),
    Kind("comparison", outputs.comparisons, readers.read_comparison, JSON),
    Kind("configuration", outputs.configurations, readers.read_configuration, (*TOML, *TEXT)),
    Kind("arms", outputs.arms, readers.read_arms, (*TOML, *TEXT)),
    Kind("list", seeds.lists, readers.read_data_set, (*TEXT, *JSON)),
    Kind("meta", seeds.meta, readers.read_data_set, (structures.mat_numbers,)),
    Kind("xml", seeds.xml, readers.read_data_set, TEXT),
    Kind("boxes", seeds.boxes, readers.read_box_file, (*TEXT, *JSON)),
    Kind("map", seeds.ready_maps, readers.read_map, (structures.npy_header, pictures.png_chunks)),
    Kind("classes", seeds.classes, readers.read_classes, TEXT),
    Kind("pubfig", seeds.pubfig, readers.read_pubfig, (*TEXT, *JSON_LINES)),
    Kind("cache", outputs.cache, readers.read_cache, _CACHE),
    Kind("graph", outputs.graphs, readers.read_graph, (structures.signed(structures.safetensors_header),)),
    Kind("remote-index", outputs.remote_index, readers.read_remote_index),
    Kind("fingerprints", outputs.fingerprints, readers.read_fingerprints, (structures.npy_header,)),
    Kind("speeds", outputs.speeds, readers.read_speeds, JSON),
)
