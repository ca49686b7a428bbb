#!/usr/bin/env bash
# Bet: `dvc push --all-commits` pushes the data of every commit to the remote. A remote on a shared disk may be given as
# a relative path, which DVC keeps relative to its config file.
#
# Seen: DVC 3.67.1 pushes what the working tree has to that folder, and what the commits have to another: in a commit the
# project's folder counts as `/`, so that `../store` is `/store` there. It says "3 files pushed" of two, and whoever
# takes the folder of the remote elsewhere lacks the earlier version. With an absolute path all is in one folder.
#
# The name of the remote is chosen so that the other folder lies in the temporary one too.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -qq dvc==3.67.1
export PATH=$work/venv/bin:$PATH DVC_NO_ANALYTICS=1 GIT_CONFIG_GLOBAL=/dev/null
dvc --version
files() { find "$1" -type f 2> /dev/null | wc -l; }
push() { # two versions of a file, to the remote $1
  rm -rf project
  mkdir project
  (
    cd project
    git init -q .
    git config user.email a@example.com
    git config user.name a
    dvc init -q
    dvc remote add -q -d storage "$1"
    for n in 1 2; do
      echo "$n" > data.txt
      dvc add -q data.txt
      git add -A
      git commit -qm "$n"
    done
    dvc push --all-commits
  )
}
push "$work/absolute"
push "..${work}/store"
echo "files in the folder of the remote: absolute path $(files absolute), relative $(files ".${work}/store")"
echo "files in the folder that the relative path is from /: $(files store)"
test "$(files absolute)" = 2
test "$(files ".${work}/store")" = 1
test "$(files store)" = 2
