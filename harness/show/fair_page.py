"""A fair comparison on paper: terminal, Markdown, CSV, JSON and a figure, all of one outcome."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from harness.files import to_json, write_text
from harness.record.measures import ARROWS
from harness.record.runs import STAND_IN
from harness.show import sheet
from harness.show.figures import COLOURS, INK, drawing
from harness.show.sheet import Line, Sheet
from harness.study.fair import Outcome, Search, Tested, Values
from harness.study.specification import Column
from harness.study.uncertainty import interval, spread


def sheets(outcome: Outcome) -> list[Sheet]:
    """Everything that the outcome says, as tables: what was tested, what was told apart, what was chosen."""
    compared = [_compared(outcome)] if outcome.compared else []  # which takes two seeds
    return [_tested(outcome), *compared, _chosen(outcome)]


def lines(outcome: Outcome) -> list[str]:
    """What does not fit a table: how it was made, what failed, what the file remarks."""
    fair, methods = outcome.fair, outcome.methods.values()
    search, test = sum(m.searched.seconds for m in methods), sum(m.seconds for m in methods)
    first = next(iter(methods)).searched
    epoch = "after the last epoch" if fair.selection == "last" else "at the epoch that validation selects"
    recipe = " ".join([f"experiment={fair.experiment}", *fair.overrides])
    told = [
        f"{len(methods)} methods in one recipe ({recipe}); for each {fair.trials} trials with seed {fair.search_seed}, "
        f"of which the best {first.monitor} {epoch} was chosen; then {_seeds(fair.seeds)}, on the test split.",
        f"Training took {_minutes(search)} for the searches and {_minutes(test)} for the final runs, in runs of one "
        "thread, without their start.",
        *(f"Made of: {made}." for made in outcome.made_of),
    ]
    for method in methods:
        told += [f"{method.name}: {method.searched.method.note}"] if method.searched.method.note else []
        told += [
            f"{method.name}, trial {number + 1} ({' '.join(method.searched.trials[number].overrides)}) failed and "
            f"counts as the worst: {fault}"
            for number, fault in method.searched.faults.items()
        ]
        told += [f"{method.name}, seed {seed} failed and is left out: {fault}" for seed, fault in method.faults.items()]
        told += [] if method.searched.chosen else [f"{method.name}: every trial failed, so nothing was tested."]
    return [*told, *fair.notes]


def show(outcome: Outcome) -> None:
    """Prints the tables."""
    banner = STAND_IN if outcome.stand_in else ""
    sheet.show(*sheets(outcome), title=outcome.fair.title, banner=banner, notes=lines(outcome))


def write(outcome: Outcome, folder: Path) -> list[Path]:
    """Writes <name>.md, .csv, .json, .png and .svg, of stand-in data with that in the name; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{outcome.fair.label}{'_fixture' if outcome.stand_in else ''}"
    drawn = [folder / f"{name}{suffix}" for suffix in (".png", ".svg")]
    for path in drawn:
        path.unlink(missing_ok=True)  # of another call, with more seeds
        if outcome.compared:
            dot_plot(path, outcome)
    texts = {
        ".md": markdown(outcome, f"{name}.svg" if outcome.compared else None),
        ".csv": as_csv(outcome),
        ".json": to_json(as_json(outcome), indent=1) + "\n",
    }
    for suffix, text in texts.items():
        write_text(folder / f"{name}{suffix}", text)
    return [*(drawn if outcome.compared else []), *(folder / f"{name}{suffix}" for suffix in texts)]


def markdown(outcome: Outcome, picture: str | None = None) -> str:
    """A page that begins with the command that makes it."""
    fair, (introduction, *notes) = outcome.fair, lines(outcome)
    parts = [f"**{STAND_IN}**"] if outcome.stand_in else []
    parts.append(introduction)
    for each in sheets(outcome):
        parts += [f"## {each.title}", sheet.markdown_table(each), *each.below]
    parts += [f"![{fair.main.name} of every method over its seeds]({picture})"] if picture else []
    return sheet.markdown_page(fair.title, command(outcome), parts, notes)


def command(outcome: Outcome) -> str:
    """What makes the page."""
    fair = outcome.fair
    options = {"trials": str(fair.trials), "seeds": str(fair.seeds)}
    options |= {"scale": "fixture"} if outcome.stand_in else {}
    if fair.partial:
        options["methods"] = " ".join(fair.methods)
        return " ".join([f"python scripts/fair.py {fair.name}", *(f"--{k} {v}" for k, v in options.items())])
    return " ".join([f"make table-fair-{fair.name}", *(f"{k.upper()}={v}" for k, v in options.items())])


def as_csv(outcome: Outcome) -> str:
    """A row for each method and seed, in the unit of the columns, with the setting that was chosen."""
    rows = []
    for key, method in outcome.methods.items():
        setting = " ".join(method.searched.chosen.overrides) if method.searched.chosen else ""
        for seed in sorted(method.validation.keys() | set().union(*(v.keys() for v in method.test.values()))):
            row = {"method": key, "name": method.name, "setting": setting, "seed": seed}
            row["validation"] = method.validation.get(seed)
            rows.append(row | {name: method.test.get(name, {}).get(seed) for name in outcome.fair.columns})
    return sheet.csv_text(rows)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Everything: every trial with its validation metric, every seed, every comparison."""
    fair = outcome.fair
    return {
        "name": fair.name,
        "title": fair.title,
        "stand_in": outcome.stand_in,
        "experiment": fair.experiment,
        "overrides": fair.overrides,
        "selection": fair.selection,
        "search_seed": fair.search_seed,
        "columns": {name: vars(column) for name, column in fair.columns.items()},
        "methods": {key: _method(method) for key, method in outcome.methods.items()},
        "untrained": outcome.untrained,
        "against": {
            reference: {
                key: {"difference": c.interval.mean, "half": c.interval.half, "p": c.p_value, "p_holm": c.adjusted,
                      "seeds_needed": c.seeds_needed, "text": c.text}
                for key, c in compared.items()
            }
            for reference, compared in outcome.against.items()
        },
        "made_of": outcome.made_of,
    }  # fmt: skip


def _method(method: Tested) -> dict[str, Any]:
    search = method.searched
    trials = [
        {"settings": t.values, "validation": search.found.get(t.number), "fault": search.faults.get(t.number)}
        for t in search.trials
    ]
    return {
        "name": method.name,
        "overrides": search.method.overrides,
        "searched": [str(setting) for setting in search.method.settings.values()],
        "trials": trials,
        "chosen": None if search.chosen is None else search.chosen.number,
        "validation": method.validation,
        "test": method.test,
        "faults": method.faults,
        "seconds": {"search": search.seconds, "test": method.seconds},
    }


def _tested(outcome: Outcome) -> Sheet:
    fair = outcome.fair
    tested = [(method.name, method.test) for method in outcome.methods.values()]
    if any(outcome.untrained.values()):
        tested.append(("untrained network", outcome.untrained))
    rows = []
    for name, test in tested:
        cells = [_cell(column, test.get(key, {})) for key, column in fair.columns.items()]
        rows.append(Line([name, *cells, str(len(test.get(fair.main.name, {})))]))
    head = ["method", *(f"{name} {ARROWS[column.better]}" for name, column in fair.columns.items()), "seeds"]
    unit = f", in {fair.unit}" if fair.unit else ""
    half = " ± half of the 95 % t-interval" if any("±" in cell for row in rows for cell in row.cells) else ""
    about = f"Mean{half} over seeds{unit}; best first. {fair.data}."
    return Sheet(head, rows, title="Tested once", below=[about])


def _compared(outcome: Outcome) -> Sheet:
    def cell(key: str, reference: str) -> str:
        found = outcome.against[reference]
        return "—" if key == reference else found[key].text if key in found else "not compared"

    rows = [
        Line([outcome.methods[key].name, *(cell(key, reference) for reference in outcome.against)])
        for key in outcome.compared
    ]
    head = ["method", *(f"against {outcome.methods[reference].name}" for reference in outcome.against)]
    about = (
        f"Paired over seeds, by {outcome.fair.main.name}; a difference counts if it holds at 5 % among all comparisons "
        "of this table (Holm). Behind ± stands half of the 95 % t-interval of the difference. The best is the best on "
        "this test split, which favours it; the intervals know the chance of seeds, not that of the search or of the "
        "test split."
    )
    return Sheet(head, rows, words=len(head), title="Told apart", below=[about])


def _chosen(outcome: Outcome) -> Sheet:
    rows = []
    for method in outcome.methods.values():
        search, again = method.searched, spread(method.validation)
        numbers = [_number(search.best), _number(search.median), "" if again is None else again.shown(3)]
        rows.append(Line([method.name, _setting(search), *numbers, str(len(search.faults))]))
    first = next(iter(outcome.methods.values())).searched
    half = ", mean ± half of the 95 % t-interval" if any("±" in row.cells[-2] for row in rows) else ""
    about = (
        f"By {first.monitor}: of the chosen trial, which is the best of many and so flattered; of the median trial; of "
        f"the final seeds, which repeat the choice{half}. *: near an end of its range, so that a better value may lie "
        "beyond."
    )
    head = ["method", "chosen", "best", "median", "final", "failed"]
    return Sheet(head, rows, words=2, title="Chosen on validation data", below=[about])


def _setting(search: Search) -> str:
    if search.chosen is None:
        return "every trial failed"
    marks = ["*" if key in search.chosen.at_edge else "" for key in search.chosen.values]
    return " ".join(word + mark for word, mark in zip(search.chosen.overrides, marks, strict=True))


def _cell(column: Column, values: Values) -> str:
    found = spread(values)
    if found is not None:
        return found.shown(column.decimals)
    return "".join(f"{value:.{column.decimals}f}" for value in values.values())


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"


def _seeds(count: int) -> str:
    return "seed 0" if count == 1 else f"seeds 0 to {count - 1}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def dot_plot(path: Path, outcome: Outcome) -> dict[str, tuple[float, float, float]]:
    """Draws the mean of every method with its interval and its seeds, the best on top; the baseline is marked.

    Told apart by position, size and shape, so that it can be read without colour. `path` is the file to write.

    Returns:
        Mean, lower and upper end of the interval, by method.

    Raises:
        ValueError: If no method has two seeds.
    """
    if not (keys := outcome.compared):
        raise ValueError("an interval takes at least 2 seeds of a method; there is none to draw")
    fair, drawn = outcome.fair, dict[str, tuple[float, float, float]]()
    with drawing(path, (7, 1.5 + 0.36 * len(keys))) as figure:
        axes, names = figure.subplots(), []
        for place, key in enumerate(reversed(keys)):
            values, is_baseline = list(outcome.values(key).values()), key == fair.baseline
            found = interval(values)
            drawn[key] = found.mean, found.low, found.high
            below = [place - 0.27] * len(values)
            axes.scatter(values, below, s=12, facecolors="none", edgecolors=INK, linewidths=0.7)
            axes.errorbar(
                found.mean, place, xerr=found.half, fmt="s" if is_baseline else "o", markersize=7, capsize=4,
                color=COLOURS[1 if is_baseline else 0], linewidth=1.6,
            )  # fmt: skip
            if is_baseline:
                axes.axvline(found.mean, color=COLOURS[1], linestyle=(0, (4, 3)), linewidth=1, zorder=0)
            names.append(outcome.methods[key].name + (" (baseline)" if is_baseline else ""))
        axes.set_ylim(-0.7, len(keys) - 0.4)
        axes.set_yticks(range(len(keys)), names)
        unit, way = f" [{fair.unit}]" if fair.unit else "", "right" if fair.main.better == "higher" else "left"
        axes.set_xlabel(f"{fair.main.name}{unit} on test: mean, 95 % interval and seeds; better to the {way}")
        axes.grid(True, axis="x")
        axes.tick_params(axis="y", length=0)
        figure.suptitle(fair.title + (" (stand-in data: means nothing)" if outcome.stand_in else ""), fontsize=11)
    return drawn
