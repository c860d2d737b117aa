#!/usr/bin/env bash
# A release as a user gets it: builds archive and wheel, installs the wheel into a new environment, and works with it in a
# folder without the repository. PYTHON is the Python of the environment (default: python3), STYLEGAN_PLUGINS_TORCH the
# version of PyTorch (default: torch). Ends with 3 if that version cannot be installed.
#
#   bash benchmarks/release_check.sh FOLDER
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && cd "$1"
[ -z "$(ls -A)" ] || { echo "$1 is not empty: name a new folder" >&2; exit 2; }
unset PYTHONPATH

"${PYTHON:-python3}" -m venv environment
export PATH="$PWD/environment/bin:$PATH"
pip install --quiet build
python -m build --outdir dist "$top" >build.log 2>&1 || { tail -n 30 build.log; exit 1; }
wheel=$(echo dist/*.whl) archive=$(echo dist/*.tar.gz) torch=${STYLEGAN_PLUGINS_TORCH:-torch}
pip install --quiet "$torch" || { echo "$torch cannot be installed." >&2; exit 3; }
pip install --quiet "$torch" "$wheel[demo,vision,metrics]"

stylegan-plugins --version
stylegan-plugins list
stylegan-plugins host fetch host
stylegan-plugins patch host
stylegan-plugins demo-data photographs.zip --kind=photographs
python host/train.py --plugin=diffaugment --data=photographs.zip --outdir=runs --device=cpu --kimg=1 --tick=1 --snap=1 \
  --cbase=256 --cmax=16 --batch=16 --metrics=none
stylegan-plugins sample runs/0* --seeds=0-3 --outdir=samples --device=cpu
stylegan-plugins evaluate runs/0* --metrics=kid --features=efficientnet_lite0 --samples=50 --device=cpu

pip install --quiet --force-reinstall --no-deps "$archive"
stylegan-plugins --version
ls samples dist
echo "The release works."
