import os

os.environ["WANDB_MODE"] = "disabled"  # tests of tracking choose a mode themselves
