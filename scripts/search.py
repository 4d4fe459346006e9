"""Finds the images of a gallery most like others: python scripts/search.py RUN query.jpg --gallery embeddings.npz."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from hydra.errors import InstantiationException

from harness.checkpoint import CheckpointError
from harness.data import inputs
from harness.data.image_list import image_list
from harness.files import write_text
from harness.record import model_options
from harness.record.faults import sentence
from harness.show.sheet import csv_text, show
from rambo import embeddings
from rambo.found import Found
from rambo.gallery import INDICES, kept_index, neighbours


def search(chosen: argparse.Namespace) -> None:
    gallery = embeddings.read(chosen.gallery)
    model = model_options.loaded(chosen)
    gallery.check_model(embeddings.made_by(model), chosen.gallery)
    if not 1 <= chosen.k <= len(gallery.images):
        raise ValueError(f"-k must lie between 1 and the {len(gallery.images):,} images of the gallery, got {chosen.k}")
    index, notes = None, [f"{len(gallery.images):,} images searched, each with every query"]
    if chosen.index != "exact":
        index, note = kept_index(chosen.gallery, gallery, chosen.index)
        notes = [note]
    first, *others = chosen.queries
    if first.suffix in embeddings.KINDS and not others:
        queries = embeddings.read(first)
        queries.check_model(gallery.model, first)
    else:
        images, skip = image_list(first, *others, column=chosen.column), chosen.on_bad_image == "skip"
        queries = embeddings.embedded(model, images, chosen.batch_size, chosen.workers, skip)
        for line in inputs.told(queries.parts[0]["left_out"], images):
            print(line, file=sys.stderr)
    device = next(model.network.parameters()).device if index is None else None
    found = Found(queries.images, gallery.images, *neighbours(queries, gallery, chosen.k, index, device))
    show(found.sheet(), notes=notes)
    if chosen.csv:
        write_text(chosen.csv, csv_text(found.records()))
        print("table:", chosen.csv)
    if chosen.html:
        made = gallery.model
        facts = {
            "gallery": f"{chosen.gallery}: {len(gallery.images):,} images",
            "model": f"{made.get('experiment')}, seed {made.get('seed')}, epoch {made.get('epoch')}",
            "similarity": "cosine of the embeddings; 1 is equal",
        }
        for note in found.write_page(chosen.html, facts, chosen.root):
            print(note, file=sys.stderr)
        print("page:", chosen.html)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    model_options.add(parser)
    parser.add_argument(
        "queries", nargs="+", type=Path, help="an image, a folder, a CSV, a list, or embeddings of scripts/embed.py"
    )
    parser.add_argument("--gallery", type=Path, required=True, metavar="FILE", help="what scripts/embed.py wrote")
    parser.add_argument("-k", type=int, default=10, help="how many to find for each (default: 10)")
    parser.add_argument("--column", help="of a CSV of queries, the one with the paths")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page of queries with their neighbours")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write all that was found")
    parser.add_argument(
        "--root", type=Path, metavar="FOLDER", help="where the images of the gallery are now, for --html"
    )
    parser.add_argument(
        "--index",
        choices=("exact", *INDICES),
        default="exact",
        help="exact (default); faiss, which finds the same; or hnsw, sooner in millions and not all: kept beside FILE",
    )
    try:
        search(parser.parse_args(arguments))
    except (OSError, ValueError, ImportError, CheckpointError, InstantiationException) as error:
        raise SystemExit(f"error: {sentence(error)}") from None


if __name__ == "__main__":
    main()
