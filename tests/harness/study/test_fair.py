"""A fair comparison: files, draws, plans, choices."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import toy

from harness.record.composition import CONFIGS, composed
from harness.study import fair, jobs
from harness.study.fair_file import Fair, Setting
from harness.study.jobs import Outputs, alternating
from harness.train.evaluation import Evaluation

TINY = """
title: Letters
data: rendered letters
experiment: demo_rambo
overrides: [trainer.epochs=3]
trials: 4
seeds: 2
selection: last
baseline: recall
columns:
  R@1: {metric: test/recall@1, scale: 100, decimals: 1, better: higher}
settings:
  optimizer.lr: {log: [1.0e-4, 1.0e-1]}
methods:
  recall:
    name: RaMBO
    overrides: [loss=recall]
    settings:
      loss.margin: {uniform: [0.1, 0.3]}
      loss.weight: {choice: [log, loglog]}
  smooth_ap: {name: Smooth-AP, overrides: [loss=smooth_ap]}
"""
FILES = sorted((CONFIGS / "fair").glob("*.yaml"))


@pytest.fixture
def tiny(tmp_path):
    return written(tmp_path, TINY)


def written(folder, text):
    path = folder / "tiny.yaml"
    path.write_text(text)
    return Fair.load(path)


def setting(**values):
    return Setting.model_validate({"(key)": "x", **values})


def test_a_setting_is_drawn_on_its_scale_to_three_digits():
    assert setting(log=(1e-4, 1e-2)).at(0.5) == 1e-3
    assert setting(log=(1e-4, 1e-2)).at(0.25) == 0.000316
    assert setting(uniform=(0.1, 0.3)).at(0.25) == 0.15
    assert [setting(choice=("a", "b")).at(place) for place in (0, 0.49, 0.5, 0.99)] == [*"aabb"]


def test_rounding_does_not_leave_the_range():
    assert setting(uniform=(0.12345, 0.12349)).at(0.0) == 0.12345
    assert setting(uniform=(0.12345, 0.12349)).at(0.99) == 0.12345


def test_the_edges_of_a_range_are_its_outer_twentieths():
    unit = setting(uniform=(0.0, 1.0))
    assert [unit.near_edge(place) for place in (0.0, 0.049, 0.05, 0.5, 0.95, 0.951)] == [1, 1, 0, 0, 0, 1]
    assert not setting(choice=(1, 2)).near_edge(0.0)


def test_the_draws_are_these_on_every_machine(tiny):
    # Sobol's points are 0, 1/2, 3/4, 1/4 in the first dimension and 0, 1/2, 1/4, 3/4 in the second and the third.
    rates = [float(f"{1e-4 * 1e3 ** (point + 0.0210853):.3g}") for point in (0, 1 / 2, 3 / 4, 1 / 4)]
    margins = [round(0.1 + 0.2 * ((point + 0.5353587) % 1), 3) for point in (0, 1 / 2, 1 / 4, 3 / 4)]
    trials = fair.draw(tiny, tiny.methods["recall"])
    assert [trial.values["optimizer.lr"] for trial in trials] == rates
    assert [trial.values["loss.margin"] for trial in trials] == margins
    assert [trial.values["loss.weight"] for trial in trials] == ["loglog", "log", "loglog", "log"]  # from 0.56 on
    assert [trial.number for trial in trials] == [0, 1, 2, 3]


def test_every_method_has_as_many_trials_and_the_same_shared_values(tiny):
    first, second = (fair.draw(tiny, method) for method in tiny.methods.values())
    assert len(first) == len(second) == 4
    assert [t.values["optimizer.lr"] for t in first] == [t.values["optimizer.lr"] for t in second]


@pytest.mark.parametrize("trials", [1, 2, 3, 5, 8, 16])
def test_more_trials_leave_the_first_ones_as_they_are(tiny, trials):
    fewer, more = tiny.smaller(trials, None, []), tiny.smaller(trials + 3, None, [])
    method = tiny.methods["recall"]
    assert len(fair.draw(fewer, method)) == trials
    assert fair.draw(more, method)[:trials] == fair.draw(fewer, method)


def test_draws_stay_within_their_ranges_and_reach_all_of_them(tiny):
    trials = fair.draw(tiny.smaller(64, None, []), tiny.methods["recall"])
    margins = [trial.values["loss.margin"] for trial in trials]
    assert all(1e-4 <= trial.values["optimizer.lr"] <= 1e-1 for trial in trials)
    assert 0.1 <= min(margins) <= max(margins) <= 0.3
    assert max(b - a for a, b in itertools.pairwise(sorted(margins))) < 0.2 / 64 + 0.00101  # evenly, but for rounding
    assert [t.values["loss.weight"] for t in trials].count("log") == 32


def test_another_seed_of_the_search_draws_something_else(tmp_path, tiny):
    other = written(tmp_path, TINY + "search_seed: 7\n")
    assert fair.draw(other, other.methods["recall"]) != fair.draw(tiny, tiny.methods["recall"])


def test_a_trial_says_what_to_type_and_what_lies_at_an_edge(tiny):
    trial = fair.draw(tiny, tiny.methods["recall"])[0]
    assert trial.overrides == ("optimizer.lr=0.000116", "loss.margin=0.207", "loss.weight=loglog")
    assert trial.at_edge == ("optimizer.lr",)  # at 0.02 of its range


def test_the_search_never_evaluates_test_and_the_final_runs_do(tiny):
    searches = fair.plan_search(tiny)
    tried = [job for search in searches.values() for job in search.jobs]
    assert len({job.fingerprint for job in tried}) == len(tried) == 8
    for job in tried:
        trainer = job.config["trainer"]
        assert (trainer["splits"], trainer["epochs"]) == (["validation"], 3)
        assert job.seed == 100
    searches = {key: replace(search, found={1: 0.5}) for key, search in searches.items()}
    tests = fair.plan_tests(tiny, searches)
    for key, own in tests.items():
        assert [job.seed for job in own] == [0, 1]
        for job in own:
            config = job.config
            assert (config["trainer"]["splits"], config["trainer"]["epochs"]) == (None, 3)
            assert config["optimizer"]["lr"] == searches[key].trials[1].values["optimizer.lr"]
    assert {job.fingerprint for own in tests.values() for job in own}.isdisjoint(job.fingerprint for job in tried)


def test_the_search_goes_by_what_the_recipe_monitors(tiny):
    search = fair.plan_search(tiny.smaller(1, None, ["recall"]))["recall"]
    assert (search.monitor, search.higher_is_better) == ("validation/recall@1", True)


def test_methods_take_turns_so_that_a_search_may_be_stopped_anywhere(tiny):
    searches = fair.plan_search(tiny.smaller(2, None, []))
    assert [job.row.split(",")[0] for job in alternating([s.jobs for s in searches.values()])] == [
        "recall", "smooth_ap", "recall", "smooth_ap",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "higher", "expected"),
    [
        ({0: 0.1, 1: 0.3, 2: 0.2}, True, 1),
        ({0: 0.1, 1: 0.3, 2: 0.2}, False, 0),
        ({0: 0.3, 1: 0.3}, True, 0),  # the first of equal ones
        ({0: 0.3, 1: 0.3}, False, 0),
        ({1: 9.0}, False, 1),
        ({}, True, None),
    ],
)
def test_the_best_on_validation_is_chosen(values, higher, expected):
    assert fair.Search(None, range(3), [], "validation/recall@1", higher, found=values).chosen == expected


def test_what_would_fail_all_runs_is_told_before_they_are_begun(tiny, tmp_path, monkeypatch):
    planned, begun = fair.plan_search(tiny.smaller(4, None, ["recall"]))["recall"].jobs, []

    def without_data(arguments, *given, **named):
        begun.extend(arguments)
        return dict.fromkeys(arguments, "epoch 1\nerror: no data in data/letters\n")

    monkeypatch.setattr(jobs, "run_all", without_data)
    with pytest.raises(
        ValueError, match=r"^2 of 2 runs failed .*recall, trial 1 of 4, seed 100: no data in data/letters$"
    ):
        fair.run(planned, Outputs(tmp_path, at_once=2))
    assert begun == [job.name for job in planned[:2]]


def test_a_stopped_training_is_a_result_and_anything_else_ends_the_comparison(tiny, tmp_path, monkeypatch):
    first, second = fair.plan_search(tiny.smaller(2, None, ["recall"]))["recall"].jobs
    monkeypatch.setattr(jobs, "run_all", lambda *given, **named: {second.name: "error: no space left"})
    ended = replace(first, finished=tmp_path)
    fair.run([ended, replace(second, stopped=tmp_path, interrupted=tmp_path)], Outputs(tmp_path))
    with pytest.raises(
        ValueError,
        match=r"1 of 1 runs failed before .* no page was written; fair-tiny/recall, trial 2 of 2, .*: no space left",
    ):
        fair.run([ended, second], Outputs(tmp_path))


BAD = [
    ("baseline: recall", "baseline: triplet", "baseline is triplet, no method; there are recall, smooth_ap"),
    ("trials: 4", "trials: 0", "trials and seeds must be at least 1, got 0 and 2"),
    ("seeds: 2", "seeds: 2\nsearch_seed: 1", "seed 1, which is one of the final seeds 0 to 1"),
    ("test/recall@1", "validation/recall@1", "columns.R@1.metric is reported on the test split"),
    (
        "selection: last",
        "selection: best_on_test",
        "selection should be 'last' or 'best_on_validation', got 'best_on_test'",
    ),
    ("{uniform: [0.1, 0.3]}", "{uniform: [0.3, 0.1]}", "loss.margin.uniform must be a lower and an upper number"),
    ("{log: [1.0e-4, 1.0e-1]}", "{log: [0, 1]}", "optimizer.lr.log must begin above 0"),
    ("{choice: [log, loglog]}", "{choice: [log]}", "loss.weight.choice must list two values or more"),
    (
        "{uniform: [0.1, 0.3]}",
        "{normal: [0, 1]}",
        "loss.margin.normal is not known here",
    ),
    ("loss.margin:", "optimizer.lr:", "methods.recall.settings and the shared ones both have optimizer.lr"),
    ("title: Letters", "headline: Letters", "headline is not known here; did you mean"),
    ("data: rendered letters", "data: letters\ncolor: red", "color is not known here"),
    ("methods:", "methods: [", "not a readable file"),
]


@pytest.mark.parametrize(("was", "becomes", "says"), BAD)
def test_a_faulty_file_is_told_in_a_sentence_with_its_name(tmp_path, was, becomes, says):
    assert was in TINY
    with pytest.raises(ValueError, match=r"tiny\.yaml") as error:
        written(tmp_path, TINY.replace(was, becomes, 1))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("loss=smooth_ap", "loss=rough_ap", "methods.smooth_ap: .*there is no loss rough_ap"),
        ("loss.margin:", "loss.margn:", "methods.recall: .*margn"),
        ("loss=smooth_ap", "loss=smooth_ap, trainer.epochs=99", r"changes trainer \(trainer.epochs=99 instead"),
        ("loss=smooth_ap", "loss=smooth_ap, model=vit_small", "methods.smooth_ap changes model .*which has to be"),
        ("loss=smooth_ap", "loss=smooth_ap, optimizer.weight_decay=0.5", "methods.smooth_ap changes optimizer"),
        ("test/recall@1", "test/recall@3", "columns.R@1.metric is test/recall@3, which demo_rambo does not measure"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_before_anything_is(tmp_path, was, becomes, says):
    with pytest.raises(ValueError, match=says):
        fair.plan_search(written(tmp_path, TINY.replace(was, becomes, 1)).smaller(1, None, []))


def test_an_unknown_name_lists_what_there_is(tmp_path, tiny):
    with pytest.raises(ValueError, match="no fair comparison is called birds; there are tiny"):
        Fair.named("birds", tmp_path)
    with pytest.raises(ValueError, match="compares no method triplet; there are recall, smooth_ap"):
        tiny.smaller(None, None, ["triplet"])
    with pytest.raises(ValueError, match="at least 1"):
        tiny.smaller(0, None, [])


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_can_be_run_and_its_ranges_hold_the_usual_values(path):
    comparison = Fair.load(path)
    searches = fair.plan_search(comparison.smaller(1, None, []))
    assert {len(search.jobs) for search in searches.values()} == {1}
    for key, method in comparison.methods.items():
        usual = composed([f"experiment={comparison.experiment}", *comparison.overrides, *method.overrides])
        for setting in method.settings.values():
            value = lookup(usual, setting.key)
            if setting.choice is None:
                assert setting.range[0] <= value <= setting.range[1], f"{key}: {setting} leaves out the usual {value}"
            elif not isinstance(value, dict):  # a number rather than a file of a group
                assert value in setting.choice


def lookup(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def test_files_were_found():
    assert {"omniglot", "stsb"} <= {path.stem for path in FILES}


def test_a_run_evaluates_the_splits_it_is_told_to(tmp_path):
    results, _ = toy.fit(tmp_path, splits=["validation"])
    assert set(results) >= {"last", "best_on_validation", "untrained"}
    assert "best_on_test" not in results
    assert all(name.startswith("validation/") for name in results["last"]["metrics"])
    assert "test/" not in Path(tmp_path / "metrics.jsonl").read_text()


def test_a_split_that_the_data_lack_is_refused():
    loaders = {"validation": 1, "test": 2}

    def only(splits):
        return Evaluation(dict, loaders, "recall@1", True, splits).loaders

    assert only(None) == loaders
    assert only(["test"]) == {"test": 2}
    with pytest.raises(ValueError, match=r"trainer.splits=\['dev'\] must name some of the splits.*validation, test"):
        only(["dev"])
    with pytest.raises(ValueError, match="must name some"):
        only([])
