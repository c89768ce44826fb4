"""The settings of a training: read once, from Python and from the command line, without a look at torch."""

from __future__ import annotations

import json
import subprocess
import sys
from bisect import bisect
from dataclasses import replace

import pytest
import tyro

from boresight.cli.pretrain import Pretrain
from boresight.errors import InputError
from boresight.training.config import CaptionerShape, PretrainConfig, Stage, StreamConfig, StreamOptions


def test_the_command_line_needs_no_torch_to_tell_its_options() -> None:
    program = (
        "import sys\n"
        "from boresight.cli.main import main\n"
        "try:\n"
        "    main(['pretrain', '--help'])\n"
        "except SystemExit:\n"
        "    print('heavy:', sorted({'torch', 'transformers', 'datasets', 'accelerate'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.endswith("heavy: []\n")
    for option in ("--learning-rate", "--stages", "--minimum-area", "--captioner-size", "--no-flip"):
        assert option in done.stdout


def test_options_stay_flat_and_reach_the_settings() -> None:
    words = ["photos", "--out", "run", "--steps", "7", "--stages", "0.5:112:32", "1:224:77", "--betas", "0.8", "0.9"]
    command = tyro.cli(Pretrain, args=[*words, "--lock", "image", "--no-flip", "--strategy", "block"])
    stages = (Stage(until=0.5, image_size=112, text_length=32), Stage(image_size=224, text_length=77))
    assert command.training == PretrainConfig(steps=7, stages=stages, betas=(0.8, 0.9), lock=("image",))
    assert command.stream == StreamOptions(strategy="block", flip=False, workers=2)
    assert tyro.cli(Pretrain, args=words[:3]).training == PretrainConfig()


def test_stages_are_given_as_text_too() -> None:
    config = PretrainConfig(stages=("0.5:112:32", "1:224:77"), steps=10)
    assert [config.stages[bisect(config.ends, step)].image_size for step in (0, 4, 5, 9)] == [112, 112, 224, 224]
    assert replace(config, steps=20).stages == config.stages
    with pytest.raises(InputError, match=r"The stage 'half' is not 'share:pixels:tokens'.*in quotes in a yaml file"):
        PretrainConfig(stages=("half",))
    with pytest.raises(InputError, match="A stage of 0 pixels"):
        PretrainConfig(stages=("1:0:12",))


def test_what_decides_the_outcome_is_json_and_leaves_out_what_does_not() -> None:
    config = PretrainConfig(micro_batch=4, every=3)
    assert json.loads(json.dumps(config.of_outcome)) == config.of_outcome == PretrainConfig().of_outcome
    assert config.of_outcome["stages"] == [{"until": 1.0, "image_size": None, "text_length": None}]
    assert replace(config, seed=1).of_outcome != config.of_outcome
    stream = StreamConfig(batch_size=3, workers=1)
    assert stream.of_outcome == StreamConfig().of_outcome != StreamConfig(budget=9).of_outcome


def test_shapes_of_a_captioner_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="queries is 0; it must be at least 1"):
        CaptionerShape(queries=0)
    with pytest.raises(InputError, match="width 10 is no multiple of heads 6"):
        CaptionerShape(width=10)
