"""Entry point: picks the command, runs it, turns errors into one sentence and an exit code."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from importlib.metadata import version
from pathlib import Path

import tyro

from boresight.cli.caption import Caption
from boresight.cli.compare import Compare
from boresight.cli.demo import Demo
from boresight.cli.editor import Editor
from boresight.cli.embed import Embed
from boresight.cli.evaluate import Evaluate
from boresight.cli.explain import Explain
from boresight.cli.help import in_words
from boresight.cli.index import Index
from boresight.cli.inspect import Inspect
from boresight.cli.names import Names
from boresight.cli.pretrain import Pretrain
from boresight.cli.report import Report
from boresight.cli.sae import Sae
from boresight.cli.search import Search
from boresight.cli.serve import Serve
from boresight.cli.similar import Similar
from boresight.cli.tune import Tune
from boresight.errors import BoresightError, InputError, first_line

COMMANDS: dict[str, type] = {
    "demo": Demo,
    "embed": Embed,
    "sae": Sae,
    "names": Names,
    "editor": Editor,
    "evaluate": Evaluate,
    "compare": Compare,
    "explain": Explain,
    "similar": Similar,
    "index": Index,
    "search": Search,
    "tune": Tune,
    "serve": Serve,
    "caption": Caption,
    "inspect": Inspect,
    "pretrain": Pretrain,
    "report": Report,
}
for _command in COMMANDS.values():
    in_words(_command)
_CANNOT_WRITE = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR, errno.EEXIST)
DESCRIPTION = (
    "Make image-text models line up with what people wrote, and show why. "
    "Any command reads its options from a yaml file too: --config FILE. --version says which boresight this is."
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command. Exit codes: 0 done, 2 the user's input cannot be used, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        print(f"boresight {version('boresight')}")
        return
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="boresight",
            description=DESCRIPTION,
            args=_expand_config(arguments),
        ).run()
    except BoresightError as error:
        _stop(_as_typed(str(error), arguments), 2)
    except KeyboardInterrupt:
        _stop("Interrupted; the same command goes on from what was kept (no editor, no item of composition is).", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        where = f" {error.filename}" if error.filename else ""
        _stop(f"Cannot write{where} ({error.strerror}); free space or choose a folder you may write to.", 2)


def _as_typed(sentence: str, arguments: list[str]) -> str:
    """The sentence with the options of the command as they are typed: '--on-error skip' for "on_error='skip'"."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    for one in fields(command) if command is not None and is_dataclass(command) else ():
        option = "--" + one.name.replace("_", "-")
        sentence = re.sub(rf"(?<![\w.'-]){one.name}='([^']*)'", rf"{option} \1", sentence)
        if "_" in one.name:
            sentence = re.sub(rf"(?<![\w.'/-]){one.name}(?![\w'/=(]|\.\w)", option, sentence)
    return sentence


def _stop(sentence: str, code: int) -> None:
    print(f"boresight: {sentence}", file=sys.stderr)
    sys.exit(code)


def _expand_config(arguments: list[str]) -> list[str]:
    """Replaces `--config FILE` (or `--config=FILE`) by the options in that yaml file; options typed overrule them."""
    arguments = [
        part for word in arguments for part in (word.split("=", 1) if word.startswith("--config=") else [word])
    ]
    if "--config" not in arguments:
        return arguments
    at = arguments.index("--config")
    if at == 0 or at + 1 == len(arguments):
        raise InputError("--config stands after the command and needs a yaml file: boresight COMMAND --config FILE.")
    file = Path(arguments[at + 1])
    typed = arguments[1:at] + arguments[at + 2 :]
    overruled = {word.split("=")[0].replace("_", "-") for word in typed if word.startswith("--")}
    from_file = []
    for name, value in _read_yaml(file).items():
        option = "--" + str(name).replace("_", "-")
        negated = option.replace("--", "--no-", 1)
        if option in overruled or negated in overruled:
            continue
        if isinstance(value, bool):
            from_file.append(option if value else negated)
        elif isinstance(value, list):
            from_file += [option, *map(str, value)]
        else:
            from_file += [option, str(value)]
    return [arguments[0], *typed, *from_file]  # in this order a list in the file cannot swallow what was typed


def _read_yaml(file: Path) -> dict[str, object]:
    import yaml

    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The config file {file} cannot be read ({error.strerror}); check the path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"The config file {file} is no yaml ({first_line(error)}); mend it.") from error
    if not isinstance(values, dict) or any(isinstance(value, dict) for value in values.values()):
        raise InputError(f"The config file {file} must hold flat 'option: value' lines; mend it.")
    return values
