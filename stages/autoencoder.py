"""Which latent space?"""

from ctinterp_dagster.pipeline import autoencoder
from ctinterp_dagster.pipeline.common.runner import run_stage

if __name__ == "__main__":
    run_stage(autoencoder.run)
