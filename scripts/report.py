"""What finished runs came to: python scripts/report.py outputs/cub_rambo [--html report.html] [--figures figures]."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that it runs from a clone without installation

from harness.record.composition import CONFIGS, place
from harness.show import report_page, report_tables
from harness.show.report_facts import interrupted, versions, warnings
from harness.show.report_tables import Choice
from harness.study.results import PLUS_MINUS, SELECTED, Study, check_metrics, find_runs, studies
from harness.study.tables import published_by_label


def table(study: Study, choice: Choice) -> str:
    """The Markdown table; if no metric is named of all of the test split, or of all where that was left alone."""
    tested = [name for name in study.metrics if name.startswith("test/")]
    return report_tables.markdown(study, replace(choice, metrics=choice.metrics or tested or study.metrics))


def tables(grouped: list[Study], choice: Choice) -> str:
    """A table for each data set that has one of the metrics; of several, each under the name of its own."""
    grouped = [study for study in grouped if not choice.metrics or set(choice.metrics) & set(study.metrics)]
    texts = [table(study, choice) for study in grouped]
    if len(grouped) == 1:
        return texts[0]
    heads = [f"## {study.data}, judged by {study.monitor}, data {study.fingerprint[:12]}" for study in grouped]
    return "\n\n".join(f"{head}\n\n{text}" for head, text in zip(heads, texts, strict=True))


def report(arguments: argparse.Namespace) -> None:
    notes: list[str] = []
    grouped = studies(find_runs(arguments.folders, notes.append), notes.append)
    check_metrics(grouped, arguments.metrics)
    for note in [*notes, *versions(grouped)]:
        print(note, file=sys.stderr)
    published = published_by_label(CONFIGS / "table")
    choice = Choice(arguments.selected, arguments.metrics, published, arguments.spread)
    if arguments.html:
        warned = [*notes, *warnings(grouped, interrupted(arguments.folders))]
        print("page:", report_page.write(arguments.html, grouped, warned, choice, arguments.sweep))
    else:
        print(tables(grouped, choice))
    if arguments.figures:
        paths, failures = report_page.write_figures(arguments.figures, grouped, arguments.sweep)
        for path in paths:
            print("figure:", path)
        for failure in failures:
            print(failure, file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[place("outputs")], help="run folders, or what is above"
    )
    parser.add_argument("--metrics", nargs="+", help="columns; default: every metric of the test split")
    parser.add_argument(
        "--selected",
        nargs="+",
        choices=SELECTED,
        default=list(SELECTED),
        metavar="EPOCH",
        help=f"rows of each method: {', '.join(SELECTED)} (as the papers select)",
    )
    parser.add_argument(
        "--spread",
        choices=PLUS_MINUS,
        default="interval",
        help="what stands after ±: half of the 95 %% interval of the mean (default), or the standard deviation",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with tables and figures instead")
    parser.add_argument("--figures", type=Path, metavar="FOLDER", help="write each figure as PNG and SVG as well")
    parser.add_argument(
        "--sweep",
        nargs="+",
        default=[],
        metavar="KEY",
        help="one or two settings to draw figures over, such as loss.margin; default: what the commands swept",
    )
    arguments = parser.parse_args()
    if len(arguments.sweep) > 2:
        parser.error(f"--sweep takes one or two settings, got {', '.join(arguments.sweep)}")
    if arguments.sweep and not (arguments.html or arguments.figures):
        parser.error("--sweep is of figures: give --html FILE or --figures FOLDER with it")
    try:
        report(arguments)
    except (OSError, ValueError, ImportError) as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
