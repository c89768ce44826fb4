#!/usr/bin/env bash
# The extra [open-clip], tested in an environment of its own: .ci/openclip.sh [folder for the environment]
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-.venv-openclip}
if [ ! -x "$venv/bin/pytest" ]; then
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps \
    torchvision==0.28.0 open_clip_torch==3.3.0 timm==1.0.31 ftfy==6.3.1 wcwidth==0.9.4
  "$venv/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt -e . pytest pytest-timeout hypothesis
fi
HF_HUB_OFFLINE=1 PYTHONPATH=.ci "$venv/bin/python" -m pytest -p torchvision_operators tests/encoders/test_openclip.py tests/encoders/test_long_text.py
