"""`salpipe verify`: check shards for damage."""

from __future__ import annotations

from pathlib import Path

import click

from saliency_pipeline.cli.options import (
    ShardsPath,
    cache_options,
    echo,
    json_echo,
    json_option,
    progress_bar,
    quiet_option,
)
from saliency_pipeline.errors import IntegrityError
from saliency_pipeline.text import shown


@click.command()
@click.argument("shards", type=ShardsPath())
@click.option("--deep", is_flag=True, help="Also recompute every hash and check every value.")
@cache_options
@json_option
@quiet_option
def command(shards: Path, deep: bool, as_json: bool, quiet: bool) -> None:
    """Check SHARDS, a complete folder of shards or one shard file, and list the damaged ones.

    Nothing is changed. The exit code is 4 if a shard is damaged; 'salpipe generate' then rewrites only those.

    \b
    Examples:
      salpipe verify shards
      salpipe verify shards --deep --json
    """  # noqa: D301 - click reads \b
    from saliency_pipeline.shards.verify import verify
    from saliency_pipeline.storage.mirror import Mirror
    from saliency_pipeline.text import plural

    with progress_bar(0, "shard", "verifying", quiet=quiet) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = verify(shards, deep=deep, progress=advance)
    mirror = Mirror.at(shards)
    place = mirror.url if mirror else str(shards)
    if as_json:
        json_echo(
            {
                "shards": report.shards,
                "images": report.images,
                "deep": report.deep,
                "damaged": list(report.damaged),
                "problems": [{"shard": p.shard, "message": p.message} for p in report.problems],
            }
        )
    else:
        for problem in report.problems:
            echo(str(problem))
        if not report.problems:
            how = "hashes and values" if report.deep else "structure"
            echo(f"{shown(place)}: {plural(report.images, 'image')} in {plural(report.shards, 'shard')}, {how} intact")
    if report.problems:
        more = f" and {len(report.damaged) - 5:,} more" if len(report.damaged) > 5 else ""
        raise IntegrityError(
            f"{place}: damaged: {', '.join(report.damaged[:5])}{more}; run the same 'salpipe generate' again to "
            "rewrite them"
        )
