"""The command ``playground``: one run, a sweep, help. Help and errors import nothing heavy."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import NoReturn

EXIT_FAILED, EXIT_CONFIG = 1, 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 finished, 1 failed, 2 wrong command, 130/143 interrupted."""
    sys.exit(command(list(sys.argv[1:] if arguments is None else arguments)))


def command(arguments: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    from playground.schema import ConfigError

    try:
        given = flags(list(arguments))
        if given.help:
            from playground.help import show

            return show(given.overrides)
        if given.version:
            from playground import __version__

            sys.stdout.write(f"gradient-playground {__version__}\n")
            return 0
        if given.cfg or given.info or given.hydra_help:
            return hydra_command(list(arguments), given.overrides)
        if given.multirun:
            from playground.sweep import sweep

            return sweep(given.overrides)
        return single(given.overrides)
    except ConfigError as error:
        return fail(str(error), EXIT_CONFIG)
    except KeyboardInterrupt:
        return fail("interrupted", 130)


class Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Turn argparse's message into the command's one line."""
        from playground.schema import ConfigError

        raise ConfigError(f"{message} (playground --help shows what is allowed)")


def flags(arguments: list[str]) -> argparse.Namespace:
    """The flags and overrides of a command line.

    Raises:
        ConfigError: a flag that does not exist, or one without its value.
    """
    from playground.schema import ConfigError

    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-c", "--cfg", choices=("job", "hydra", "all"))
    parser.add_argument("-p", "--package")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("-i", "--info", nargs="?", const="all",
                        choices=("all", "config", "defaults", "defaults-tree", "plugins",
                                 "searchpath"))  # fmt: skip
    parser.add_argument("--hydra-help", action="store_true")
    given, rest = parser.parse_known_args(arguments)
    known = sorted(name for action in parser._actions for name in action.option_strings)
    for item in rest:
        if item.startswith("-"):
            close = difflib.get_close_matches(item, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(f"{item}: no such flag{hint} (allowed are {', '.join(known)})")
    if (given.resolve or given.package) and not given.cfg:
        raise ConfigError("--resolve and --package have an effect beside --cfg only")
    given.overrides = rest
    return given


def single(overrides: list[str]) -> int:
    """One run, or the continuation of one."""
    check(overrides)  # a wrong command must not wait for torch
    from playground.record.directory import RecordError
    from playground.run import run
    from playground.session import RunFailed
    from playground.signals import Interrupted

    try:
        run(overrides)
    except (RunFailed, RecordError) as error:
        return fail(f"run failed: {error}", EXIT_FAILED)
    except Interrupted as error:
        hint = "saved, go on with resume=RUN_DIR" if error.saved else "give the command again"
        fail(f"interrupted by {error}; {hint}", 0)
        return 128 + error.number
    return 0


def check(overrides: Sequence[str]) -> None:
    """Refuse what is wrong with a single run as far as that shows without torch.

    Raises:
        ConfigError: one line that names key, value and what is allowed.
    """
    from playground import back
    from playground.composition import for_hydra, parse
    from playground.config import compose
    from playground.explain import CUSTOM
    from playground.outside import CustomConfig
    from playground.record.directory import RunExists, check_run_dir
    from playground.resume import check as check_resume
    from playground.resume import split
    from playground.schema import ConfigError

    for item in overrides:
        if for_hydra(item):
            raise ConfigError(f"{item}: Hydra's own keys have an effect on sweeps only (-m)")
    parse(overrides)
    asked, rest = back.split(overrides)
    if asked is not None:
        back.check(asked, rest)
        return
    path, rest = split(overrides)
    if path is not None:
        check_resume(path, rest)
        return
    config = compose(overrides)
    if isinstance(config.problem, CustomConfig):
        raise ConfigError(CUSTOM)
    if config.run_dir is not None:
        try:
            check_run_dir(config.run_dir)
        except RunExists as error:
            raise ConfigError(f"run_dir={error}") from error


def hydra_command(arguments: list[str], overrides: list[str]) -> int:
    """Hydra's own flags, such as ``--cfg job`` and ``--info``."""
    import hydra

    from playground.composition import (
        check_hydra,
        composed,
        conf_dir,
        for_hydra,
        hydra_overrides,
        register,
    )

    composed([item for item in overrides if not for_hydra(item)])  # one line for what is wrong
    check_hydra(overrides)
    register()
    before, sys.argv = sys.argv, [sys.argv[0], *hydra_overrides(arguments)]

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def task(_config: object) -> None:
        """Never called: the flags show something instead."""

    try:
        task()
    finally:
        sys.argv = before
    return 0


def fail(message: str, code: int) -> int:
    """One line on stderr."""
    line = " ".join(message.split())
    sys.stderr.write(f"playground: {line}\n")
    return code


if __name__ == "__main__":
    main()
