"""Which thin volumes explain the thick one?"""

from ctinterp_dagster.pipeline import generate
from ctinterp_dagster.pipeline.common.runner import run_stage

if __name__ == "__main__":
    run_stage(generate.run)
