"""`python -m saliency_pipeline.cli` is `salpipe`."""

from saliency_pipeline.cli.main import main

main()
