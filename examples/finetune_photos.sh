#!/bin/sh
# Fine-tune an open checkpoint on your photos:  sh examples/finetune_photos.sh PHOTOS OUT [more options of pretrain]
# PHOTOS/captions.jsonl, a line a photo: {"file_name": "a.jpg", "caption": "short", "long": "Several sentences. ..."}
set -e
photos=$1 out=$2; shift 2
boresight pretrain "$photos" --out "$out" --model "${MODEL:-openai/clip-vit-base-patch32}" --synthetic long \
    --steps 500 --batch-size 128 --learning-rate 1e-5 --warmup 50 --layer-decay 0.8 --average 0.99 "$@"
boresight embed "$photos" --encoder "$out/model" --out "$out/embeddings"
boresight evaluate "$out/embeddings"
