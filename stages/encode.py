"""What are thin and thick in latent units?"""

from ctinterp_dagster.pipeline import encode
from ctinterp_dagster.pipeline.common.runner import run_stage

if __name__ == "__main__":
    run_stage(encode.run)
