#!/usr/bin/env bash
# From a clean clone to a trained network, in one command.
#
#   ./run.sh              set up, then train twice on 106 small faces, without a plug-in and with DiffAugment: a few
#                         minutes on two CPU cores, one for each run
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
data=$here/data/smileys.zip

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
  [ -e "$data" ] || "$venv/bin/stylegan-plugins" demo-data "$data" --kind=smileys --size=16
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
    say "Training twice on 106 faces, side by side: without a plug-in, and with DiffAugment"
    demo=$here/runs/demo
    mkdir -p "$demo"
    net=(--batch=16 --cbase=512 --cmax=32 --gamma=0.02 --glr=0.006 --dlr=0.006 --pl-weight=0 --no-noise-inputs)
    net+=(--mirror=1 --aug=noaug --workers=0 --metrics=none --device=cpu) # small, for one core each
    flags=(--cfg=auto --data="$data" --outdir="$demo" --kimg=18 --tick=1 --snap=6 "${net[@]}")
    export OMP_NUM_THREADS=1
    train "${flags[@]}" >"$demo/without.log" 2>&1 & # what the other one prints is enough to watch
    without=$!
    trap 'kill "$without" 2>/dev/null || true' EXIT
    train --plugin=diffaugment --diffaugment-policy=color,translation "${flags[@]}"
    wait "$without" || { tail -n 3 "$demo/without.log" >&2; exit 1; }
    trap - EXIT
    newest() { find "$demo" -mindepth 1 -maxdepth 1 -type d -name "$1" | sort | tail -n 1; }
    plain=$(newest '[0-9]*-noaug') augmented=$(newest '[0-9]*-diffaugment')
    "$venv/bin/stylegan-plugins" sheet "$plain" --beside="$augmented" --outdir="$demo" >/dev/null
    "$venv/bin/stylegan-plugins" report "$plain" "$augmented" --out="$demo/report.html" >/dev/null
    say "Done"
    echo "  samples side by side  $demo/sheet-beside.png"
    echo "  page about both runs  $demo/report.html"
    echo "  network               $(find "$augmented" -name 'network-snapshot-*.pkl' | sort | tail -n 1)"
    printf '\nGo on training, exactly from there:\n  '
    printf '%q ' "$here/run.sh" train --resume-run="$augmented" --kimg=100
    printf '\n\nYour own images, a folder of pictures of any size and kind:\n  '
    printf '%q ' "$here/run.sh" train --plugin=diffaugment --data=PICTURES --outdir="$here/runs" --resume=auto
    echo
    ;;
  *)
    sed -n '2,11p' "$0" | sed 's/^# \{0,1\}//'
    exit 2
    ;;
esac
