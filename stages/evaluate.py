"""How far from the truth, against every baseline?"""

from ctinterp_dagster.pipeline import evaluate
from ctinterp_dagster.pipeline.common.runner import run_stage

if __name__ == "__main__":
    run_stage(evaluate.run)
