#!/usr/bin/env bash
# Bet: two branches that each added a file to a folder merge with DVC's merge driver (dvc.org/doc/user-guide/how-to/
# merge-conflicts: "DVC will simply combine data from both branches"). `dvc gc --all-branches` keeps what the branches
# have, and all was pushed. Where the driver cannot merge, there is a plain conflict, with both versions in the file.
#
# Seen: DVC 3.67.1, the newest on PyPI, with dvc-data 3.18.3. The branches merge. After `dvc gc`, with `--workspace` as
# with `--all-branches`, the driver ends with "[Errno 2] No such file or directory". Git calls that a conflict, but
# raw.dvc is that of one's own branch without a marker: `dvc status` finds it up to date, and `git commit --all`
# drops the other's file. `dvc fetch --all-commits` mends it.
#
# Why: the merge needs three lists of files (`.dir` objects), of both branches and of their last common commit. That is
# no branch's tip, so `dvc gc` deletes its list, and merge in dvc_data/hashfile/tree.py reads the cache alone. DVC issue
# 8638, closed, has the file without markers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq dvc==3.67.1 dvc-data==3.18.3
export PATH="$work/venv/bin:$PATH" DVC_NO_ANALYTICS=1 DVC_GLOBAL_CONFIG_DIR="$work" DVC_SITE_CACHE_DIR="$work/site"
export GIT_CONFIG_GLOBAL="$work/gitconfig"
git config --global user.name Ann
git config --global user.email ann@example.org
mkdir -p project/raw remote
cd project
git init -q
dvc init -q
dvc remote add -q -d there "$work/remote"
git config merge.dvc.driver 'dvc git-hook merge-driver --ancestor %O --our %A --their %B'
echo '*.dvc merge=dvc' >.gitattributes

run() { # the exit status and output of a command
    local status=0
    "$@" >../log 2>&1 || status=$?
    echo "== $* -> $status"
    sed "s|$work/||" ../log
    code=$status
}
add() { # a file, committed and pushed
    echo "voxels of $1" >"raw/$1"
    dvc add -q raw
    dvc push -q
    git add --all
    git commit -qm "add $1"
}
add old
git branch -m ours
git checkout -qb theirs
add bob
git checkout -q ours
dvc checkout -q
add ann
git tag tip

merged() { # whether the merge has the three files
    run git merge --no-edit theirs
    test "$code" = 0
    dvc checkout -q
    test "$(ls raw | xargs)" = "ann bob old"
    git reset -q --hard tip
    dvc checkout -q
}
failed() { # whether the merge ends in the error, and leaves one's own raw.dvc, which a commit takes
    run git merge --no-edit theirs
    test "$code" = 1
    grep -q "unexpected error - \[Errno 2\] No such file or directory: .*\.dir'" ../log
    grep -q "CONFLICT (content): Merge conflict in raw.dvc" ../log
    git show tip:raw.dvc | cmp - raw.dvc
    run dvc status
    grep -q "Data and pipelines are up to date" ../log
    git commit -qam merged
    git show HEAD:raw.dvc | cmp - <(git show tip:raw.dvc)
    git reset -q --hard tip
}
merged
for scope in --all-branches --workspace; do
    run dvc gc "$scope" --force
    failed
    run dvc fetch --all-commits
    test "$code" = 0
    merged
done
