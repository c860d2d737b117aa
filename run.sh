#!/usr/bin/env bash
# From a clean clone to a trained network, in one command.
#
#   ./run.sh              set up, then train DiffAugment on 100 photographs of faces, a few minutes on two CPU cores
#   ./run.sh setup        virtual environment, package, patched host, sample data; repeated calls reuse what is there
#   ./run.sh train ARGS   the host's train.py with ARGS, for example --plugin diffaugment --data=PICTURES --outdir=runs
#   ./run.sh test         the test suite
#
# STYLEGAN_HOST=DIR uses a host of your own instead of hosts/stylegan2-ada-pytorch; patch it first.
# PYTHON=python3.12 chooses the interpreter; STYLEGAN_PLUGINS_TORCH="torch==2.13.0" a version of PyTorch.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$here/.venv
host=${STYLEGAN_HOST:-$here/hosts/stylegan2-ada-pytorch}
data=$here/data/faces.zip

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

install() { # $1: extras
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    local python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
      { echo "Error: $python is missing or older than 3.10; set PYTHON to a newer one." >&2; exit 2; }
    say "Making $venv"
    "$python" -m venv --clear "$venv"
  fi
  local torch=${STYLEGAN_PLUGINS_TORCH:-torch>=2.10} stamp=$venv/.installed-${1//,/-}
  if [ "$(cat "$stamp" 2>/dev/null)" != "$torch" ] || [ "$here/setup.py" -nt "$stamp" ]; then
    say "Installing stylegan-plugins and PyTorch (several GB the first time, some minutes)"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$torch"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$here[$1]"
    echo "$torch" >"$stamp"
  fi
}

setup() {
  install demo
  if [ -z "${STYLEGAN_HOST:-}" ]; then # a host of one's own is left alone
    [ -e "$host/train.py" ] || { say "Fetching the host" && "$venv/bin/stylegan-plugins" host fetch "$host"; }
    "$venv/bin/stylegan-plugins" patch "$host"
  fi
  [ -e "$data" ] || "$venv/bin/stylegan-plugins" demo-data "$data"
}

train() { "$venv/bin/python" "$host/train.py" "$@"; }

case ${1:-demo} in
  setup)
    setup
    ;;
  train)
    shift
    setup >/dev/null
    train "$@"
    ;;
  test)
    shift
    install demo,analysis,vision,metrics,report,share,explore,test
    cd "$here"
    exec "$venv/bin/python" -m pytest --numprocesses=2 --dist=worksteal "$@"
    ;;
  demo)
    setup
    say "Training DiffAugment on 100 faces"
    net=(--batch=8 --cbase=512 --cmax=32 --gamma=0.02 --mirror=1 --workers=0 --metrics=none) # small, for two cores
    train --plugin=diffaugment --data="$data" --outdir="$here/runs" --kimg=6 --tick=1 --snap=3 "${net[@]}"
    run=$(find "$here/runs" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*-*' | sort | tail -n 1)
    pickle=$(find "$run" -name 'network-snapshot-*.pkl' | sort | tail -n 1)
    say "Done: $run"
    echo "  page         $run/report.html"
    echo "  samples      $(find "$run" -name 'fakes0*.png' | sort | tail -n 1)"
    echo "  photographs  $run/reals.png"
    echo "  network      $pickle"
    echo "  statistics   $run/stats.jsonl"
    printf '\nGo on training, exactly from there:\n  '
    printf '%q ' "$here/run.sh" train --resume-run="$run" --kimg=100
    printf '\n\nYour own images, a folder of pictures of any size and kind:\n  '
    printf '%q ' "$here/run.sh" train --plugin=diffaugment --data=PICTURES --outdir="$here/runs" --resume=auto
    echo
    ;;
  *)
    sed -n '2,10p' "$0" | sed 's/^# \{0,1\}//'
    exit 2
    ;;
esac
