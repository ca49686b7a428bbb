#!/usr/bin/env bash
# Bet: .gitignore means to DVC what it means to Git. With the lines `/data/*` and `!/data/raw.dvc` Git offers
# data/raw.dvc for a commit (gitignore(5) has a like example), so `dvc status`, `dvc push` and `dvc gc` know of it.
#
# Seen: DVC 3.67.1, the newest on PyPI, with scmrepo 3.6.2 and dulwich 1.2.21. `dvc add data/raw` works; after it,
# data/raw.dvc is not there, and nothing names it: `dvc status` says "no data or pipelines tracked", `dvc push` says
# "Everything is up to date", and `dvc gc --workspace` deletes its only copy in the cache. `/data/?*` in place of
# `/data/*` mends it.
#
# Why: DVC walks past a folder if `data/`, with a slash, is ignored (collect_files in dvc/repo/index.py). `git
# check-ignore` says yes to `data/` and no to `data`, and dulwich the same: the star matches an empty name. `git status`
# does not ask that. DVC issue 10987, open, has it for `**`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq dvc==3.67.1 scmrepo==3.6.2 dulwich==1.2.21
export PATH="$work/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_GLOBAL_CONFIG_DIR="$work" DVC_SITE_CACHE_DIR="$work/site"
mkdir -p project/data remote
cd project
git init -q
dvc init -q
dvc remote add -q -d there ../remote
echo voxels >data/raw
printf '%s\n' '/data/*' '!/data/raw.dvc' >.gitignore

run() { # the exit status and output of a command
    local status=0
    "$@" >../log 2>&1 || status=$?
    echo "== $* -> $status"
    sed "s|$work/||" ../log
    code=$status
}
files() { find "$1" -type f | wc -l; }
run dvc add data/raw
test "$code" = 0
run git status --short --untracked-files=all data
grep -qx '?? data/raw.dvc' ../log
run git check-ignore data
test "$code" = 1
run git check-ignore data/
test "$code" = 0
run dvc status
test "$code" = 0
grep -q "no data or pipelines tracked" ../log
run dvc push
test "$code" = 0
grep -q "Everything is up to date" ../log
test "$(files ../remote)" = 0
test "$(files .dvc/cache)" = 1
run dvc gc --workspace --force
test "$code" = 0
test "$(files .dvc/cache)" = 0

dvc commit -q -f data/raw.dvc
printf '%s\n' '/data/?*' '!/data/raw.dvc' >.gitignore
echo "with /data/?*"
run dvc status
grep -q "up to date" ../log
run dvc push
grep -q "1 file pushed" ../log
run dvc gc --workspace --force
test "$(files .dvc/cache)" = 1
