"""What are thin and thick in latent units?"""

from ctinterp_dagster.pipeline.common.cpu_instructions import limit_instructions

if __name__ == "__main__":
    limit_instructions()

    from ctinterp_dagster.pipeline import encode
    from ctinterp_dagster.pipeline.common.runner import run_stage

    run_stage(encode.run)
