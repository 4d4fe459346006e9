"""A long run in a process of its own, which prints what it holds: python long_run.py FOLDER EPOCHS WORD..."""

import gc
import json
import os
import sys
import threading
import time
from pathlib import Path

from hydra import compose, initialize_config_dir

import train
from harness.train.training import Training

TIMES = 20  # looks during a run, the last at its end


def held(folder):
    """What this process and its run folder hold."""
    gc.collect()
    return {
        "objects": len(gc.get_objects()),
        "bytes": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        "handles": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "tasks": len(os.listdir("/proc/self/task")),
        "files": sum(len(files) for _, _, files in os.walk(folder)),
    }


def main(folder, epochs, *words):
    """Trains, and looks after every twentieth part."""
    looks, finish = [], Training.finish_epoch

    def look(self, numbers, seconds):
        finish(self, numbers, seconds)
        if self.epoch % max(1, epochs // TIMES) == 0:
            saved = (folder / "checkpoints" / "last.pt").stat().st_size
            looks.append({"step": self.step, "time": time.process_time(), "saved": saved, **held(folder)})

    Training.finish_epoch = look
    with initialize_config_dir(str(train.CONFIGS), version_base="1.3"):
        config = compose("train", [*words, f"trainer.epochs={epochs}", f"paths.data={folder.parent / 'data'}"])
    train.train(config, folder, "long", list(words))
    print(json.dumps(looks))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
