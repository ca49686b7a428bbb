#!/usr/bin/env bash
# Bet: a link to nowhere in a folder that one stage depends on concerns that stage. `dvc status` shows which stages
# changed (dvc.org/doc/command-reference/status), so it names that one, and the others.
#
# Seen: DVC 3.67.1, the newest on PyPI. `dvc status` ends with "unexpected error - [Errno 2]": no stage is named, and
# the change of another stage is not shown. `dvc repro` ends before the other stage too; with its name, or with -k, it
# runs. A line in .dvcignore with the link's name mends both. Such links are what git-annex leaves of a file that is not
# fetched. For `dvc add` the maintainers want the error (DVC issue 3717).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq dvc==3.67.1
export PATH="$work/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_GLOBAL_CONFIG_DIR="$work" DVC_SITE_CACHE_DIR="$work/site"
mkdir -p project/raw
cd project
git init -q
dvc init -q
echo 1 >raw/scan
echo old >other
cat >dvc.yaml <<'YAML'
stages:
  count: {cmd: ls raw | wc -l > count.txt, deps: [raw], outs: [count.txt]}
  copy: {cmd: cp other copy.txt, deps: [other], outs: [copy.txt]}
YAML
dvc repro -q

run() { # the exit status and output of a command
    local status=0
    "$@" >../log 2>&1 || status=$?
    echo "== $* -> $status"
    sed "s|$work/||" ../log
    code=$status
}
ln -s nowhere raw/link
echo new >other
run dvc status
test "$code" = 255
grep -q "unexpected error - \[Errno 2\]" ../log
test "$(grep -cE '^(count|copy):' ../log || true)" = 0
run dvc repro
test "$code" = 255
test "$(cat copy.txt)" = old
run dvc repro copy
test "$code" = 0
test "$(cat copy.txt)" = new
echo newer >other
run dvc repro -k
test "$code" = 255
test "$(cat copy.txt)" = newer
echo /raw/link >.dvcignore
run dvc repro
test "$code" = 0
run dvc status
test "$code" = 0
