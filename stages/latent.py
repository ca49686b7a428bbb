"""Which latent denoiser?"""

from ctinterp_dagster.pipeline import latent
from ctinterp_dagster.pipeline.common.runner import run_stage

if __name__ == "__main__":
    run_stage(latent.run)
