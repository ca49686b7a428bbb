#!/usr/bin/env bash
# Bet: `dvc freeze STAGE` works for any stage: its reference says "stages or .dvc files to freeze", and names no other
# condition (dvc.org/doc/command-reference/freeze). A command that refuses changes nothing.
#
# Seen: DVC 3.67.1, the newest on PyPI. Of a stage with a `${...}`, freeze, unfreeze and `plots modify` end with "cannot
# dump a parametrized stage", and `remove` with "cannot remove" one; before that, `remove` takes the stage's output out
# of .gitignore, so that Git would add it. `stage add --force` works. What holds a training is `dvc repro --single-item`
# with the names of the other stages. `frozen: true` in dvc.yaml does too, until a parameter changes
# (dvc-frozen-parameter.sh).
#
# Why: a loaded stage has the values in place of `${...}`; to write it back would lose them, so that
# _check_if_parametrized in dvc/dvcfile.py refuses. DVC issues 6070 and 10380, both closed: one maintainer would edit
# dvc.yaml by hand, another says that freeze should do just that.
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
echo "epochs: 3" >params.yaml
echo 1 >raw
cat >dvc.yaml <<'YAML'
stages:
  prepare: {cmd: cp raw slabs, deps: [raw], outs: [slabs]}
  train: {cmd: 'cat slabs > model; echo ${epochs} >> model', deps: [slabs], outs: [model]}
  evaluate: {cmd: cp model report, deps: [model], outs: [report]}
YAML
dvc repro -q
cp dvc.yaml ../dvc.yaml

run() { # the exit status and output of a command
    local status=0
    "$@" >../log 2>&1 || status=$?
    echo "== $* -> $status"
    sed "s|$work/||" ../log
    code=$status
}
values() { cat "$@" | xargs; }
refused() { # dvc, of a stage with a parameter
    run dvc "$@"
    test "$code" != 0
    grep -q "cannot [a-z]* a parametrized stage: 'train'" ../log
    cmp dvc.yaml ../dvc.yaml
}
refused freeze train
refused unfreeze train
refused plots modify model --x-label epoch
grep -qx /model .gitignore
refused remove train
test "$(grep -cx /model .gitignore || true)" = 0
echo /model >>.gitignore
run dvc freeze evaluate
test "$code" = 0
cp ../dvc.yaml .
run dvc stage add -q --force --name train --deps slabs --outs model 'cat slabs > model; echo ${epochs} >> model'
test "$code" = 0
cp ../dvc.yaml .

echo "epochs: 4" >params.yaml
echo 2 >raw
run dvc repro --single-item prepare evaluate
test "$code" = 0
test "$(values slabs model)" = "2 1 3"
run dvc repro
test "$code" = 0
test "$(values slabs model report)" = "2 2 4 2 4"
