"""Does the challenger replace the champion?"""

from ctinterp_dagster.pipeline import promote
from ctinterp_dagster.pipeline.common.runner import run_stage

if __name__ == "__main__":
    run_stage(promote.run)
