"""Which thin volume is to be expected?"""

from ctinterp_dagster.pipeline import expect
from ctinterp_dagster.pipeline.common.runner import run_stage

if __name__ == "__main__":
    run_stage(expect.run)
