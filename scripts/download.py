"""Downloads and checks the data sets: python scripts/download.py NAME [--root DIR] [--verify]."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from torch import nn

from harness.data.download import DownloadError, faults, obtain
from harness.record.composition import place
from rambo.datasets.cub import CUB200
from rambo.datasets.cub_crops import CUBCrops, cut
from rambo.datasets.inshop import InShop
from rambo.datasets.omniglot import Omniglot
from rambo.datasets.retrieval import RetrievalData
from rambo.datasets.sop import StanfordOnlineProducts
from rambo.detection.bccd import BCCD
from rambo.detection.data import VOCStyle
from rambo.detection.voc import VOC2007, VOC2012
from rambo.sampling import ClassBalancedBatches
from ranksim.bins import Bins
from ranksim.datasets.agedb import AgeDB
from ranksim.datasets.imdb_wiki import IMDBWiki
from ranksim.datasets.regression import RegressionData
from ranksim.datasets.sts_b import DRAWS, STSB, score_bins

Kind = type[RetrievalData] | type[RegressionData] | type[VOCStyle]
FOLDERS = {"voc2007": "voc", "voc2012": "voc"}  # both lie in one devkit
DATA: dict[str, Kind] = {
    "cub": CUB200,
    "cub_crops": CUBCrops,
    "sop": StanfordOnlineProducts,
    "inshop": InShop,
    "omniglot": Omniglot,
    "agedb": AgeDB,
    "imdb_wiki": IMDBWiki,
    "sts_b": STSB,
    "voc2007": VOC2007,
    "voc2012": VOC2012,
    "bccd": BCCD,
}


def opened(kind: Kind, root: Path) -> dict[str, Any]:
    """The parts of a data set; building it checks its lists, counts and files."""
    if issubclass(kind, STSB):
        parts = {draw: kind(root, draw=draw, bins=score_bins()).parts for draw in DRAWS}
        return {f"{draw} {name}": part for draw, of in parts.items() for name, part in of.items()}
    if issubclass(kind, RegressionData):
        return kind(root, bins=Bins.uniform(0, 1, 1)).parts  # whatever the bins, the samples are the same
    if issubclass(kind, VOCStyle):
        return dict(kind(root).parts)
    sampler = partial(ClassBalancedBatches, batch_size=4, samples_per_class=2)
    return kind(root, sampler=sampler, train_transform=nn.Identity(), test_transform=nn.Identity()).parts


def summary(kind: Kind, root: Path) -> str:
    parts = []
    for name, found in opened(kind, root).items():
        facts = found.describe()
        what = f"{facts['classes']:,} classes" if "classes" in facts else f"{facts['different']:,} different targets"
        parts.append(f"{name} {len(found):,} samples, {what}")
    return f"{kind.title} is complete in {root}: {'; '.join(parts)}"


def verify(kind: Kind, root: Path) -> list[str]:
    """Everything that is wrong with what is there; decodes every image."""
    problems = faults(kind.files, root)
    try:
        parts = opened(kind, root)
    except (OSError, ValueError) as error:
        return [*problems, str(error)]
    total, done = sum(len(records) for records in parts.values()), 0
    for records in parts.values():
        if not getattr(records, "pictured", True):
            continue
        for index in range(len(records)):
            try:
                records.load(index)
            except OSError as error:
                problems.append(str(error))
            done += 1
            if sys.stderr.isatty() and (done % 200 == 0 or done == total):
                print(f"\rdecoding {done:,} of {total:,} images", end="\n" if done == total else "", file=sys.stderr)
    return problems


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Download a data set, or check the one that is there.")
    parser.add_argument("data", choices=sorted(DATA), help="which data set")
    parser.add_argument("--root", type=Path, help="its folder (default: data/<name>, or $RANKING_DATA/<name>)")
    parser.add_argument("--verify", action="store_true", help="download nothing: check hashes, counts and every image")
    parser.add_argument("--keep-archives", action="store_true", help="keep archives after unpacking them")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="CUB",
        help="cub_crops: cut them out of the official CUB in this folder",
    )
    chosen = parser.parse_args(arguments)
    if chosen.source and (chosen.data != "cub_crops" or chosen.verify):
        parser.error("--from is for cub_crops, and makes it: leave out --verify")
    kind = DATA[chosen.data]
    root = chosen.root or place("data") / FOLDERS.get(chosen.data, chosen.data)
    try:
        if chosen.verify:
            problems = verify(kind, root)
            print("\n".join(problems) if problems else summary(kind, root))
            return 1 if problems else 0
        if chosen.source:
            cut(chosen.source, root)
            print(summary(kind, root))
            print("these were cut here and have other pixels than the published crops: their numbers are not the same")
            return 0
        by_hand = kind.by_hand.format(root=root)
        print(obtain(kind.files, root, partial(summary, kind, root), by_hand, chosen.keep_archives, kind.unpack))
        return 0
    except (DownloadError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to go on where it stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
