"""Which denoiser?"""

from ctinterp_dagster.pipeline import train
from ctinterp_dagster.pipeline.common.runner import run_stage

if __name__ == "__main__":
    run_stage(train.run)
