"""The same config gives the same numbers, to the last bit, whatever else differs: pairs of runs, drawn by chance."""

import os
import random
import subprocess
import sys

import pytest
from commanded import ROOT, run, words
from killing import differing

pytestmark = pytest.mark.faults
EXPERIMENTS = {
    "retrieval": ("cub_rambo", "loss.memory=gallery", "loss.memory_batches=2", "trainer.average=0.9"),
    "regression": ("agedb_ranksim", "data.target_scale=10"),
    "digits": ("demo_regression", "regularizer=ranksim"),
    "detection": ("demo_detection",),
    "text": ("stsb_small_ranksim",),
}
BESIDE = ("wandb", "tensorboard", "profile", "train.log", "uncommitted.patch")  # what only one of two may have
OF_IMAGES = ("cold cache", "warm cache")


def in_an_environment(**environment):
    def make(place, experiment, *words):
        run(experiment, place, *words, environment=environment)

    return make


def with_words(*more):
    def make(place, experiment, *words):
        run(experiment, place, *words, *more)

    return make


def cold_cache(place, experiment, *words):
    run(experiment, place, *words, f"data.cache={place.parent / 'images'}")


def warm_cache(place, experiment, *words):
    for folder in (place.with_name("warming"), place):
        run(experiment, folder, *words, f"data.cache={place.parent / 'images'}", "workers=2")


def elsewhere(place, experiment, *words):
    (place.parent / "a place, with ünicode").mkdir(exist_ok=True)
    run(experiment, place, *words, cwd=place.parent / "a place, with ünicode")


def optimized(place, experiment, *given):
    command = words(experiment, place, *given)
    subprocess.run([command[0], "-O", *command[1:]], check=True, cwd=ROOT, capture_output=True)


def beside_busy_threads(place, experiment, *words):
    """Which take the cores in turns, so that the loading processes and ours meet in other orders."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        run(experiment, place, *words, "workers=2")
    finally:
        for process in busy:
            process.kill()
            process.wait()


def after_others_in_one_process(place, experiment, *given):
    """The last job of a sweep, whose first ones had other settings of what a process may remember."""
    others = "seed=1 trainer.matmul=medium trainer.precision=bf16"
    script = (
        "import sys; from pathlib import Path; from hydra import compose, initialize_config_dir; import train\n"
        "place, *words = sys.argv[1:]\n"
        f"for name, more in (('first', {others.split()!r}), ('second', ['deterministic=false', 'seed=2']), ('', [])):\n"
        "    with initialize_config_dir(str(train.CONFIGS), version_base='1.3'):\n"
        "        config = compose('train', [*words, *more])\n"
        "    train.train(config, Path(place + name), 'one of several', [])\n"
    )
    command = [w for w in words(experiment, place, *given)[2:] if not w.startswith("hydra.")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script, str(place), *command], check=True, cwd=ROOT, env=environment)


def in_a_sweep(place, experiment, *given):
    command = [w for w in words(experiment, place, *given) if not w.startswith("hydra.run")]
    command += ["seed=3,0", f"hydra.sweep.dir={place.parent / 'sweep'}", "hydra.sweep.subdir=${hydra:job.num}"]
    subprocess.run([*command[:2], "-m", *command[2:]], check=True, cwd=ROOT, capture_output=True)
    (place.parent / "sweep" / "1").rename(place)


def interrupted_and_resumed(place, experiment, *given):
    script = (
        "import sys; sys.path[0] = sys.argv.pop(1)\n"
        "from harness.train.training import Training\n"
        "save = Training.save\n"
        "def interrupted(self):\n"
        "    save(self)\n"
        "    if self.epoch == 1: raise KeyboardInterrupt\n"
        "Training.save = interrupted\n"
        "import train; train.main()\n"
    )
    command = words(experiment, place, *given)
    subprocess.run([command[0], "-c", script, str(ROOT), *command[2:]], cwd=ROOT, capture_output=True, check=False)
    assert (place / "checkpoints" / "last.pt").exists()
    assert not (place / "DONE").exists()
    given = [w for w in command[2:] if not w.startswith("hydra.run")]
    subprocess.run([*command[:2], *given, f"resume={place}"], cwd=ROOT, check=True, capture_output=True)


CONDITIONS = {
    "twice": with_words(),
    "one loading process": with_words("workers=1"),
    "four loading processes": with_words("workers=4"),
    "cold cache": cold_cache,
    "warm cache": warm_cache,
    "interrupted and resumed": interrupted_and_resumed,
    "after others in one process": after_others_in_one_process,
    "in a sweep": in_a_sweep,
    "beside busy threads": beside_busy_threads,
    "elsewhere": elsewhere,
    "hash seed": in_an_environment(PYTHONHASHSEED="4711"),
    "locale and time zone": in_an_environment(LC_ALL="C", LANG="tr_TR.UTF-8", TZ="Asia/Kathmandu", PYTHONUTF8="0"),
    "memory full of junk": in_an_environment(MALLOC_PERTURB_="165"),
    "more threads in the environment": in_an_environment(OMP_NUM_THREADS="2", MKL_NUM_THREADS="2"),
    "W&B offline": with_words("tracking.wandb=offline"),
    "TensorBoard and a profile": with_words("tracking.tensorboard=true", "trainer.profile=true"),
    "optimized": optimized,
}
ALL = [(e, c) for e in EXPERIMENTS for c in CONDITIONS if not (c in OF_IMAGES and e not in ("retrieval", "regression"))]
PAIRS = [*sorted(random.Random(0).sample(ALL, 36)), ("retrieval", "cold cache")]  # which chance has left out


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """The folder of the run with which others are compared."""
    made = {}

    def make(experiment):
        if experiment not in made:
            made[experiment] = tmp_path_factory.mktemp(experiment) / "usual"
            name, *given = EXPERIMENTS[experiment]
            run(name, made[experiment], *given)
        return made[experiment]

    return make


def test_every_experiment_and_every_condition_is_there():
    assert {experiment for experiment, _ in PAIRS} == set(EXPERIMENTS)
    assert {condition for _, condition in PAIRS} == set(CONDITIONS)
    assert (len(PAIRS), len(set(PAIRS)), len(CONDITIONS)) == (37, 37, 17)  # as docs/reliability.md says


@pytest.mark.parametrize(("experiment", "condition"), PAIRS)
def test_the_same_config_gives_the_same_numbers(experiment, condition, usual, tmp_path):
    name, *given = EXPERIMENTS[experiment]
    one, other = usual(experiment), tmp_path / "other"
    CONDITIONS[condition](other, name, *given, f"paths.data={one.parent / 'data'}")
    assert [what for what in differing(one, other) if not what.startswith(BESIDE)] == []


def test_another_seed_gives_other_numbers(usual, tmp_path):
    """Else the comparison would see nothing."""
    name, *given = EXPERIMENTS["digits"]
    run(name, tmp_path / "other", *given, "seed=1")
    assert {"checkpoints/last.pt", "metrics.jsonl", "report.json"} <= set(
        differing(usual("digits"), tmp_path / "other")
    )
