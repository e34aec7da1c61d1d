# SPDX-License-Identifier: Apache-2.0
"""The `sightline` command: its subcommands on one page; each lives with its package."""

import sys

from cyclopts import App
from cyclopts.exceptions import CycloptsError

# Only the subcommand that is called is imported.
COMMANDS = {
    "run": ("pipeline.cli:run", "Detect and track in files, images and cameras."),
    "serve": ("pipeline.serve.cli:serve", "Watch many cameras for months."),
    "demo": ("pipeline.demo.cli:demo", "Let the default model look at a clip, or a drawn street."),
    "bench": ("pipeline.bench.cli:bench", "Measure how fast this machine is, and what limits it."),
    "check": ("pipeline.cli:check", "Validate settings and print the graph they make."),
    "init": ("pipeline.cli:init", "Look at a camera and print its settings."),
    "worker": ("pipeline.cli:worker", "Find boxes for clients on other hosts."),
    "keys": ("pipeline.cli:keys", "Make a pair of keys for a worker or a client."),
    "bundle": (
        "pipeline.box.bundling.cli:bundle",
        "Make a folder that installs a box without a network.",
    ),
    "bundle-key": ("pipeline.box.cli:bundle_key", "Make a pair of keys that sign bundles."),
    "update": ("pipeline.box.cli:update", "Go over to another version, and back if it fails."),
    "warm": ("pipeline.box.versioncli:warm", "Compile the engine of a service into the cache."),
    "migrate": ("pipeline.box.versioncli:migrate", "Bring a service's database up to date."),
    "doctor": ("pipeline.cli:doctor", "Say what this machine can do and what it lacks."),
    "models": ("model.cli:models", "List models and sizes, or say what a weights file is."),
    "fetch": ("model.cli:fetch", "Download official weights and convert them."),
    "evaluate": (
        "sightline_evaluate:evaluate",
        "Measure the average precision of weights or of an artefact.",
    ),
    "import": ("training.cli:import_", "Convert a published checkpoint into our weights file."),
    "train": ("training.cli:train", "Train a detector, from a data.yaml to deployed weights."),
    "ship": ("training.cli:ship", "Make the file that is shipped from weights of our training."),
    "export": (
        "pipeline.export:export",
        "Make an artefact for an engine, proven against the weights.",
    ),
}


def build() -> App:
    """The command with all its subcommands."""
    app = App(
        name="sightline",
        help="Real-time video detection and tracking.",
        version=_version,
        result_action="return_value",
    )
    for name, (target, summary) in COMMANDS.items():
        app.command(target, name=name, help=summary)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; errors of its user end in a line or four, never in a traceback."""
    try:
        return build()(arguments, exit_on_error=False) or 0
    except CycloptsError:
        return 2  # cyclopts has printed what is wrong
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except ImportError as error:
        return _fail(_import_hint(error))
    except Exception as error:
        from model.errors import ModelError
        from pipeline.errors import PipelineError

        if isinstance(error, ModelError | PipelineError):
            return _fail(str(error), getattr(error, "exit_code", 2))
        raise


def _fail(message: str, code: int = 2) -> int:
    print(f"sightline: {message}", file=sys.stderr)  # noqa: T201 - this is the command line
    return code


def _import_hint(error: ImportError) -> str:
    text = str(error)
    if "libGL" in text or "libgthread" in text or "libglib" in text:
        return f"{text}\ninstall it with: apt-get install -y libgl1 libglib2.0-0"
    if error.name:
        return f"{text}\ninstall it with: pip install -e '.[dev]' in Sightline's folder"
    raise error


def _version() -> str:
    from importlib.metadata import version

    return version("sightline")


if __name__ == "__main__":
    sys.exit(main())
