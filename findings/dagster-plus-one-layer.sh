#!/usr/bin/env bash
# Bet: in a selection of Dagster's command line `+d` means d and all that it is made from, as `+key:d` does, for the
# documentation of the syntax says that `+` alone goes all the way.
#
# Seen: Dagster 1.13.27 takes `+key:d` as documented. `+d` is no error: it is read by the rules of an older syntax, in
# which each plus is one layer. Of the chain a, b, c, d it selects c and d, and ends with 0. `dagster asset materialize`
# has the same selections.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq dagster==1.13.27
mkdir home
export DAGSTER_HOME=$work/home DAGSTER_DISABLE_TELEMETRY=1 PATH=$work/venv/bin:$PATH
cat > project.py <<'PYTHON'
import dagster as dg

NAMES = "abcd"


def made(name, made_from):
    @dg.asset(name=name, deps=made_from)
    def make():
        pass

    return make


defs = dg.Definitions([made(name, list(NAMES[:i][-1:])) for i, name in enumerate(NAMES)])
PYTHON
list() { dagster asset list -f project.py --select "$1" 2> /dev/null | xargs; }
dagster --version
plain=$(list +d)
by_key=$(list +key:d)
echo "+d selects: $plain"
echo "+key:d selects: $by_key"
test "$plain" = "c d"
test "$by_key" = "a b c d"
