"""Embeds images with a trained model: python scripts/embed.py RUN IMAGES --out embeddings.npz."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from hydra.errors import InstantiationException
from rich.console import Console
from rich.progress import Progress

from harness.checkpoint import CheckpointError
from harness.data import inputs
from harness.data.image_list import image_list
from harness.files import check_free
from harness.interrupts import hear_no_more
from harness.record import model_options
from harness.record.faults import sentence
from rambo import embeddings


def embed(chosen: argparse.Namespace) -> None:
    out, started = chosen.out, time.monotonic()
    for file in embeddings.files_of(out):
        check_free(file, chosen.force or chosen.add)
    before = embeddings.read(out) if chosen.add else None
    images, model = image_list(*chosen.images, column=chosen.column), model_options.loaded(chosen)
    if before is not None:
        before.check_model(embeddings.made_by(model), out)
        given = len(images)
        images = images.not_among(before.images)
        print(f"{given - len(images):,} of {given:,} images are in {out} already")
        if not len(images):
            return
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("embedding", total=len(images))
        skip = chosen.on_bad_image == "skip"
        made = embeddings.embedded(
            model, images, chosen.batch_size, chosen.workers, skip, lambda count: bar.advance(task, count)
        )
    everything = made if before is None else before.followed_by(made)
    embeddings.write(out, everything)
    for line in inputs.told(made.parts[0]["left_out"], images):
        print(line, file=sys.stderr)
    count, dimensions = everything.vectors.shape
    print(f"{out}: {count:,} images, {dimensions} dimensions; took {time.monotonic() - started:.1f} s")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    model_options.add(parser)
    parser.add_argument(
        "images", nargs="+", type=Path, help="a folder, an image, a CSV with a column of paths, or a text of paths"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".npz, or .npy, which is not read into memory"
    )
    parser.add_argument("--column", help="of a CSV, the one with the paths; the others are kept with the embeddings")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--force", action="store_true", help="replace an existing FILE")
    existing.add_argument("--add", action="store_true", help="add the images that FILE does not have to it")
    try:
        embed(parser.parse_args(arguments))
    except (OSError, ValueError, ImportError, CheckpointError, InstantiationException) as error:
        raise SystemExit(f"error: {sentence(error)}") from None
    except KeyboardInterrupt:
        hear_no_more()
        raise SystemExit("interrupted; nothing was written") from None


if __name__ == "__main__":
    main()
