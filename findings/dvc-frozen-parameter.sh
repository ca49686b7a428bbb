#!/usr/bin/env bash
# Bet: a frozen stage is "considered not changed by dvc status and dvc repro" (dvc.org/doc/command-reference/freeze):
# `dvc repro` leaves its entry in dvc.lock as it is. Once it is no longer frozen, it runs if it is out of date.
#
# Seen: DVC 3.67.1, the newest on PyPI. So it is while only a dependency changes. If a parameter in the `${...}` of its
# command changes too, `dvc repro` writes the new command and the new dependency into dvc.lock without having run it:
# "Verifying outputs in frozen stage". Without `frozen: true` the stage then counts as up to date: a model of 3 epochs
# stands as one of 4, made of data that it never saw, and DVC will not train it.
#
# Why: Stage.changed asks for the command before the dependencies, and only changed_deps knows of frozen stages. Then
# Stage.run skips the command and saves the rest (dvc/stage/__init__.py). DVC issue 11004, open, has it for `--force`.
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
YAML
dvc repro -q

run() { # the exit status and output of a command
    local status=0
    "$@" >../log 2>&1 || status=$?
    echo "== $* -> $status"
    sed "s|$work/||" ../log
    code=$status
}
frozen() { # dvc repro, while train is frozen
    cp dvc.yaml ../dvc.yaml
    sed -i '/train:/s/}$/, frozen: true}/' dvc.yaml
    run dvc repro
    test "$code" = 0
    cp ../dvc.yaml .
    test "$(xargs <model)" = "1 3"
}
echo 2 >raw
frozen
run dvc status
grep -q "changed deps" ../log
cp dvc.lock ../dvc.lock

echo "epochs: 4" >params.yaml
run dvc status
grep -q "changed command" ../log
frozen
grep -q "Verifying outputs in frozen stage: 'train'" ../log
run diff ../dvc.lock dvc.lock
grep -q "> .*echo 4 >> model" ../log
run dvc status
grep -q "Data and pipelines are up to date" ../log
run dvc repro
test "$code" = 0
test "$(xargs <model)" = "1 3"
