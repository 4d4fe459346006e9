import pytest
from made_runs import made, swept

from harness.study.results import find_runs
from harness.study.swept import find_sweeps, settings_of, varied


def test_settings_are_the_dotted_config_without_what_shapes_no_number(tmp_path):
    made(tmp_path / "a", settings={"loss.margin": 0.02, "loss.rule": None, "metrics.recall_at": [1, 2], "workers": 4})
    (run,) = find_runs([tmp_path])
    assert settings_of(run) == {
        "trainer.monitor": "recall@1", "trainer.higher_is_better": True, "trainer.seed": 0,
        "loss.margin": 0.02, "loss.rule": "null", "metrics.recall_at": "[1, 2]",
    }  # fmt: skip


def test_what_follows_the_seed_is_no_setting_and_of_equals_the_one_that_was_given_is_named(tmp_path):
    for seed, margin in enumerate((0, 0.1)):
        settings = {"loss.margin": margin, "a.copy": margin, "recall.margin": float(margin), "data.seed": seed}
        made(tmp_path / str(seed), seed, settings=settings, overrides=[f"recall.margin={margin}"])
    assert varied(find_runs([tmp_path])) == {"recall.margin": [0.0, 0.1]}


def test_a_setting_that_some_runs_lack_varies(tmp_path):
    made(tmp_path / "a", settings={"loss.loss": "recall", "loss.margin": 0.02})
    made(tmp_path / "b", settings={"loss.loss": "triplet"}, overrides=["loss=triplet"])
    assert varied(find_runs([tmp_path])) == {"loss.loss": ["recall", "triplet"], "loss.margin": [0.02, "-"]}


def test_two_swept_settings_are_found_in_the_order_of_the_command(tmp_path):
    runs = swept(tmp_path, {(x, y): 0.5 for x in (1, 4) for y in (0, 0.02, 0.1)})
    (sweep,) = find_sweeps(runs)
    assert (sweep.settings, sweep.fixed) == (("loss.interpolation", "loss.margin"), "cub_rambo")
    assert len(sweep.runs) == 12


def test_a_sweep_by_name_is_over_what_its_file_lists(tmp_path):
    for name, epochs in (("short", 3), ("long", 9)):
        for at in (0.2, 1, 4):
            settings = {"loss.interpolation": at, "loss.margin": 0.02, "trainer.epochs": epochs, "loss.scale": at}
            changed = [f"{key}={value}" for key, value in settings.items()]
            made(tmp_path / f"{name}{at}", settings=settings, overrides=["+sweep=lambda_margin", *changed[:3]])
    assert [(sweep.settings, sweep.fixed) for sweep in find_sweeps(find_runs([tmp_path]))] == [
        (("loss.interpolation",), "cub_rambo trainer.epochs=9"),
        (("loss.interpolation",), "cub_rambo trainer.epochs=3"),
    ]


def test_a_search_over_three_settings_is_no_figure(tmp_path):
    for k in range(4):
        settings = {"loss.interpolation": k, "loss.margin": k / 10, "optimizer.lr": 10.0**-k}
        made(tmp_path / str(k), settings=settings, overrides=[f"{key}={value}" for key, value in settings.items()])
    assert find_sweeps(find_runs([tmp_path])) == []


def test_one_swept_setting_is_found_beside_another_method(tmp_path):
    runs = swept(tmp_path, {(x, 0.02): 0.5 for x in (0.2, 1, 4)})
    made(tmp_path / "other", settings={"loss.loss": "triplet"}, overrides=["loss=triplet"])
    (sweep,) = find_sweeps(find_runs([tmp_path]))
    assert sweep.settings == ("loss.interpolation",)
    assert sorted(run.folder for run in sweep.runs) == sorted(run.folder for run in runs)


def test_losses_with_margins_of_their_own_are_no_sweep_of_the_margin(tmp_path):
    for loss, margin in {"recall": 0.02, "triplet": 0.05, "margin": 0.2}.items():
        made(tmp_path / loss, settings={"loss.loss": loss, "loss.margin": margin}, overrides=[f"loss={loss}"])
    assert find_sweeps(find_runs([tmp_path])) == []


@pytest.mark.parametrize("values", [(0.1, 0.2), ("log", "loglog", "none"), (True, False)])
def test_two_values_or_words_are_no_sweep(values, tmp_path):
    assert find_sweeps(swept(tmp_path, {(value, 0.02): 0.5 for value in values})) == []
