"""What does a person look at?"""

from ctinterp_dagster.pipeline import report
from ctinterp_dagster.pipeline.common.runner import run_stage

if __name__ == "__main__":
    run_stage(report.run)
