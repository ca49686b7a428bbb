"""How far from the truth, against every baseline?"""

from ctinterp_dagster.pipeline.common.cpu_instructions import limit_instructions

if __name__ == "__main__":
    limit_instructions()

    from ctinterp_dagster.pipeline import evaluate
    from ctinterp_dagster.pipeline.common.runner import run_stage

    run_stage(evaluate.run)
