"""A model card: what a trained model is, where its numbers come from, and how it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness import words
from harness.record.composition import without_sweep
from harness.record.config import NOT_THE_RUN, flat, is_under
from harness.record.measures import Measure
from harness.record.standalone import Trained
from harness.show.sheet import Line, Sheet, markdown_table, template
from harness.study.results import Run, cell, mean_shown

KINDS = {"retrieval": "image-feature-extraction", "detection": "object-detection"}  # what the hub calls them
SETTINGS = ("model", "loss", "optimizer", "scheduler")  # of a config, shown whole


def card(
    model: Trained, run: Run | None = None, seeds: Sequence[Run] = (), licence: str = "", name: str = "", file: str = ""
) -> str:
    """The Markdown of a card, with the header of the Hugging Face hub.

    Args:
        model: What it is about.
        run: The finished run that it is of, for command and settings.
        seeds: Finished runs of the same method, `run` among them, for the intervals.
        licence: Of the weights, as the hub calls it; empty where it is not known.
        name: Its repository on the hub.
        file: The exported file beside it.
    """
    facts, made = model.facts, model.facts["run"]
    measured = facts.get("metrics") or {}
    header = {
        "license": licence,
        "library_name": "blackbox-ranking",
        "pipeline_tag": KINDS.get(facts["task"], ""),
        "tags": [tag for tag in (facts["task"], "ranking", made.get("experiment")) if tag],
        "metrics": list(dict.fromkeys(metric.rpartition("/")[2] for metric in measured)),
    }
    text: str = template("card.md.j2").render(
        header={key: value for key, value in header.items() if value},
        facts=facts, made=made, data=made.get("data") or {}, name=name, file=file, licence=licence,
        numbers=markdown_table(numbers(facts, seeds)) if measured else "",
        seeds=sorted(run.report["seed"] for run in seeds), selection=selection(facts),
        command=words.line(command(made, run)), known=run is not None,
        settings=markdown_table(Sheet(["setting", "value"], list(settings(facts, run)), words=2)),
        described=getattr(model.reader, "described", str)(),
        method={"retrieval": "embed", "regression": "predict", "detection": "predict"}.get(facts["task"], "answers"),
    )  # fmt: skip
    return text


def numbers(facts: Mapping[str, Any], seeds: Sequence[Run]) -> Sheet:
    """Every metric of the model; beside it, of several seeds, the mean with its 95 % interval."""
    lines = []
    for metric, value in facts["metrics"].items():
        measure = Measure(**(facts["measures"].get(metric.rpartition("/")[2]) or {}))
        cells = [measure.axis(metric), mean_shown([] if value is None else [value], measure)]
        lines.append(Line([*cells, *([cell(seeds, facts["checkpoint"], metric, measure)] if len(seeds) > 1 else [])]))
    return Sheet(["metric", "this model", *([f"{len(seeds)} seeds"] if len(seeds) > 1 else [])], lines)


def selection(facts: Mapping[str, Any]) -> str:
    """What the checkpoint was chosen by, in a sentence."""
    epoch = f"epoch {facts['epoch']}" if facts.get("epoch") is not None else "an epoch that is not on record"
    which = str(facts["checkpoint"]).removesuffix("_average")
    average = " The weights are the moving average." if which != facts["checkpoint"] else ""
    split = which.partition("best_on_")[2]
    if not split:
        return f"The weights are those of {epoch}, chosen by nothing ({which}).{average}"
    warning = " Its numbers on test are therefore too good." if split == "test" else ""
    return f"The weights are those of {epoch}, the best on {split}.{warning}{average}"


def command(made: Mapping[str, Any], run: Run | None) -> list[str]:
    """The words that make the run, without what lies where on somebody's machine."""
    given = without_sweep(run.report["overrides"]) if run else []
    kept = [one for one in given if not is_under(one.lstrip("+~").partition("=")[0], (*NOT_THE_RUN, "seed"))]
    named = [f"{one.partition('=')[0]}=..." if _of_a_machine(one.partition("=")[2]) else one for one in kept]
    return ["python", "train.py", f"experiment={made.get('experiment')}", *named, f"seed={made.get('seed')}"]


def settings(facts: Mapping[str, Any], run: Run | None) -> Iterator[Line]:
    """The settings that matter, dotted; classes by their names alone."""
    config = run.report["config"] if run else {}
    found = {"model": facts["model"]} | {key: config[key] for key in SETTINGS if config.get(key)}
    trainer = config.get("trainer") or {}
    found["trainer"] = {key: trainer[key] for key in ("epochs", "monitor", "precision") if key in trainer}
    for key, value in flat(found).items():
        if value is not None and not key.endswith("_partial_") and not _of_a_machine(str(value)):
            shown = str(value).rpartition(".")[2] if key.endswith("_target_") else words.value(value)
            yield Line([key.removesuffix("._target_"), shown])


def _of_a_machine(value: str) -> bool:
    """Whether it is the path of a file that nobody else has."""
    return value.lstrip("'\"").startswith(("/", "~", "."))
