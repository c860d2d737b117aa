#!/usr/bin/env bash
# From a clean clone to a trained network, in one command.
#
#   ./run.sh              set up, then train twice on 106 small faces, without a plug-in and with DiffAugment: a few
#                         minutes on two CPU cores, one for each run
#   ./run.sh photos       fine-tune a small network, which comes with the package, on 100 gray photographs of faces, and
#                         train from scratch beside it: as long
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
smileys=$here/data/smileys.zip

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
  [ -e "$smileys" ] || "$venv/bin/stylegan-plugins" demo-data "$smileys" --kind=smileys --size=16
}

train() { "$venv/bin/python" "$host/train.py" "$@"; }

# Train twice at once, one core each: with the arguments in `one` and in `other`, and "$@" for both. What `one` prints
# is shown. Sets `first` and `second`, the folders of the runs.
train_both() {
  local flags=("$@" --cfg=auto --batch=16 --pl-weight=0 --mirror=1 --workers=0 --metrics=none --device=cpu --tick=1)
  mkdir -p "$folder/one" "$folder/other"
  export OMP_NUM_THREADS=1
  "$venv/bin/python" "$host/train.py" "${other[@]}" "${flags[@]}" --outdir="$folder/other" >"$folder/other.log" 2>&1 &
  local process=$!
  trap "kill $process 2>/dev/null || true" EXIT
  train "${one[@]}" "${flags[@]}" --outdir="$folder/one"
  wait "$process" || { tail -n 3 "$folder/other.log" >&2; exit 1; }
  trap - EXIT
  first=$(newest "$folder/one") second=$(newest "$folder/other")
}

newest() { find "$1" -mindepth 1 -maxdepth 1 -type d -name '[0-9]*-*' | sort | tail -n 1; }

show() { # $@: further networks on the picture
  "$venv/bin/stylegan-plugins" sheet "$first" "$@" --beside="$second" --outdir="$folder" >/dev/null
  "$venv/bin/stylegan-plugins" report "$second" "$first" --out="$folder/report.html" >/dev/null
  say "Done"
  echo "  samples side by side  $folder/sheet-beside.png"
  echo "  page about both runs  $folder/report.html"
  echo "  network               $(find "$first" -name 'network-snapshot-*.pkl' | sort | tail -n 1)"
  printf '\nGo on training, exactly from there:\n  '
  printf '%q ' "$here/run.sh" train --resume-run="$first" --kimg=100
  echo
}

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
    install demo,analysis,vision,metrics,report,share,explore,cluster,docs,test
    cd "$here"
    exec "$venv/bin/python" -m pytest --numprocesses=2 --dist=worksteal "$@"
    ;;
  demo)
    setup
    say "Training twice on 106 faces, side by side: with DiffAugment, and without a plug-in"
    folder=$here/runs/demo
    small=(--cbase=512 --cmax=32 --gamma=0.02 --glr=0.006 --dlr=0.006 --no-noise-inputs)
    one=(--plugin=diffaugment --diffaugment-policy=color,translation --aug=noaug) other=(--aug=noaug)
    train_both --data="$smileys" --kimg=18 --snap=6 "${small[@]}"
    show
    printf '\nYour own images, a folder of pictures of any size and kind:\n  '
    printf '%q ' "$here/run.sh" train --plugin=diffaugment --data=PICTURES --outdir="$here/runs" --resume=auto
    echo
    ;;
  photos)
    setup
    photos=$here/data/photographs.zip source=$here/stylegan_plugins/files/people32.safetensors
    [ -e "$photos" ] || "$venv/bin/stylegan-plugins" demo-data "$photos" --kind=photographs
    say "Training twice on 100 photographs, side by side: from a network of drawn portraits, and from scratch"
    folder=$here/runs/photos
    one=(--plugin=freezed,diffaugment --resume=people32)
    other=(--plugin=diffaugment --cbase=512 --cmax=32 --no-noise-inputs)
    train_both --data="$photos" --colors=gray --kimg=12 --snap=6 --gamma=0.05 --glr=0.006 --dlr=0.006 \
      --ema-kimg=0.5 --diffaugment-policy=color,translation
    show --beside="$source"
    ;;
  *)
    sed -n '2,13p' "$0" | sed 's/^# \{0,1\}//'
    exit 2
    ;;
esac
