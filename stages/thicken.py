"""What would a thick-slice scan have seen?"""

from ctinterp_dagster.pipeline import thicken
from ctinterp_dagster.pipeline.common.runner import run_stage

if __name__ == "__main__":
    run_stage(thicken.run)
