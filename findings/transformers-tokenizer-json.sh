#!/usr/bin/env bash
# transformers 5.23.0: AutoTokenizer does not follow the rules on capitals and accents that stand in tokenizer.json.
#
# A repository of a cased model with an accent-keeping vocabulary: tokenizer.json, written by the tokenizers library,
# says so (BertNormalizer with lowercase and strip_accents false), and tokenizer_config.json names the class,
# BertTokenizer, and no more, as repositories do whose tokenizer.json holds all settings.
# One would expect the ids that tokenizer.json gives. AutoTokenizer takes the vocabulary from that file, makes the
# pipeline anew from the defaults of the class and lower-cases: a cased model is fed other words, or unknown ones. The
# file that says otherwise is there, nothing is warned of, and save_pretrained writes the wrong rule over the right one.
# The class PreTrainedTokenizerFast reads the file as it is.
# Hurt is whoever loads a text tower or an encoder with a tokenizer.json of its own under a class that has defaults.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import sys
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

model = Path(sys.argv[1]) / "cased"
model.mkdir()
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Polish", "polish", "Café", "the"]
written = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
written.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
written.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
written.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
written.save(str(model / "tokenizer.json"))
(model / "config.json").write_text(json.dumps({"model_type": "bert"}))

text = "the Polish Café"
found = {"tokenizer.json itself": written.encode(text).tokens}
for name in ("BertTokenizer", "PreTrainedTokenizerFast"):
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    (model / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **special}))
    tokenizer = AutoTokenizer.from_pretrained(model)
    found[name] = tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])
    tokenizer.save_pretrained(model.with_name(name))
saved = json.loads((model.with_name("BertTokenizer") / "tokenizer.json").read_text())["normalizer"]

print("transformers", transformers.__version__)
for name, tokens in found.items():
    print(f"{name:>24}: {tokens}")
print("tokenizer.json after save_pretrained:", saved)
right = ["[CLS]", "the", "Polish", "Café", "[SEP]"]
wrong = ["[CLS]", "the", "polish", "[UNK]", "[SEP]"]
expected = {"tokenizer.json itself": right, "BertTokenizer": wrong, "PreTrainedTokenizerFast": right}
sys.exit(0 if found == expected and saved["lowercase"] else 1)
PYTHON
