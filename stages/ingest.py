"""Is this a regular CT volume in HU, whose patient is it, which split?"""

from ctinterp_dagster.pipeline import ingest
from ctinterp_dagster.pipeline.common.runner import run_stage

if __name__ == "__main__":
    run_stage(ingest.run)
