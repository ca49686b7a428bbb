#!/usr/bin/env bash
# Bet: `dvc add --quiet` keeps its errors. Its documentation reads "do not write anything to standard output"
# (dvc.org/doc/command-reference/add), and DVC writes errors to standard error.
#
# Seen: DVC 3.67.1, the newest on PyPI. The exit status is that of the error, and the ERROR line is not there. Of a file
# that does not exist nothing is written at all; where the cache cannot be written, the one line is where to ask for
# support. `dvc repro --quiet` hides the line too and shows what the command of the failed stage wrote. In a script
# `dvc add raw >/dev/null` is quiet and keeps errors.
#
# Why: `--quiet` sets the logger to CRITICAL, above ERROR (main in dvc/cli/__init__.py), and the line of support does
# not go through the logger. DVC discussion 5891, without an answer, asks what `--quiet` should do with errors.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq dvc==3.67.1
export PATH="$work/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_GLOBAL_CONFIG_DIR="$work" DVC_SITE_CACHE_DIR="$work/site"
mkdir project
cd project
git init -q
dvc init -q
echo voxels >raw
cat >dvc.yaml <<'YAML'
stages:
  train: {cmd: 'echo epoch 1; exit 3', outs: [model]}
YAML

run() { # the exit status of a command, and what it wrote to standard error
    local status=0
    "$@" >../output 2>../errors || status=$?
    echo "== $* -> $status"
    sed "s|$work/||" ../errors
    code=$status
}
both() { # a command that fails with this exit status, with and without --quiet
    local expected=$1
    shift
    run "$@"
    test "$code" = "$expected"
    grep -q "^ERROR: " ../errors
    run "$@" --quiet
    test "$code" = "$expected"
    test "$(grep -c ERROR ../errors)" = 0
}
both 1 dvc add missing
test ! -s ../errors
both 255 dvc repro
test ! -s ../errors
grep -q "epoch 1" ../output
touch file
dvc cache dir -q file/cache
both 255 dvc add raw
test "$(grep -c . ../errors)" = 1
grep -q "Having any troubles?" ../errors
