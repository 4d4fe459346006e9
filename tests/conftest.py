import os

from hypothesis import HealthCheck, settings

os.environ["WANDB_MODE"] = "disabled"  # tests of tracking choose a mode themselves
# A busy machine must not fail a test by its slowness; in CI the same examples are tried every time.
settings.register_profile(
    "ours", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("ours")
