#!/usr/bin/env bash
# Bet: with `concurrency.pools.granularity: run` and `default_limit: 1`, Dagster starts one run at a time of those whose
# ops are in the same pool, as it does where the limit of the pool was set by `dagster instance concurrency set`.
#
# Seen: Dagster 1.13.27 starts both of two queued runs at once. With `dagster instance concurrency set writers 1` in
# addition, which sets the same number, the second waits for the first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq dagster==1.13.27
mkdir home
export DAGSTER_HOME=$work/home DAGSTER_DISABLE_TELEMETRY=1 PATH=$work/venv/bin:$PATH
cat > home/dagster.yaml <<'YAML'
concurrency:
  pools: {granularity: run, default_limit: 1}
telemetry: {enabled: false}
YAML
cat > project.py <<'PYTHON'
import time

import dagster as dg


@dg.op(pool="writers")
def write():
    time.sleep(15)


@dg.job
def writes():
    write()


defs = dg.Definitions(jobs=[writes])
PYTHON
cat > count.py <<'PYTHON'
"""Queue two runs, let the daemon work until both have ended, and print how many were started at most at once."""
import subprocess
import time

import dagster as dg

for _ in range(2):
    subprocess.run(["dagster", "job", "launch", "-f", "project.py", "-j", "writes"], check=True, capture_output=True)
ACTIVE = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
with dg.DagsterInstance.get() as instance:
    ids = [run.run_id for run in instance.get_runs(limit=2)]
    daemon = subprocess.Popen(["dagster-daemon", "run", "-f", "project.py"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = 0
    for _ in range(360):
        states = [instance.get_run_by_id(each).status for each in ids]
        most = max(most, sum(state in ACTIVE for state in states))
        if all(state == dg.DagsterRunStatus.SUCCESS for state in states):
            break
        time.sleep(0.5)
    daemon.terminate()
    daemon.wait()
    assert all(state == dg.DagsterRunStatus.SUCCESS for state in states), states
print(most)
PYTHON
dagster --version
default=$(python count.py)
dagster instance concurrency set writers 1 > /dev/null
set_by_name=$(python count.py)
echo "at most $default runs at once by the default limit of 1, $set_by_name by the limit of 1 that was set for the pool"
test "$default" = 2
test "$set_by_name" = 1
