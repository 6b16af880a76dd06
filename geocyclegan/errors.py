"""The errors that a user can meet.

Each says in one line what was found, in which file or option, what was expected and what to do.
Each is also the matching built-in, so that library users need not import this module to catch it.
The command line prints the line and exits with `exit_code`: 2 for usage, 1 for data.
"""


class GeoCycleGANError(Exception):
    """Root of all errors that this package raises on purpose."""

    exit_code = 1


class OptionError(GeoCycleGANError, ValueError):
    """An option or argument that cannot be, or that contradicts another."""

    exit_code = 2


class NotFoundError(GeoCycleGANError, FileNotFoundError):
    """A file or folder that was named and is not there."""

    exit_code = 2


class SceneError(GeoCycleGANError, ValueError):
    """A scene that cannot be read, or that is not what the work needs."""


class ServerError(SceneError):
    """A scene on a server that fails, or that was replaced there; it may be well the next time."""


class ChipsError(GeoCycleGANError, ValueError):
    """A chip folder that is empty, mixed or damaged."""


class BundleError(GeoCycleGANError, ValueError):
    """A model bundle or checkpoint that is missing a part, damaged or of another kind."""


class OutputError(GeoCycleGANError, OSError):
    """An output that exists, is locked by another run, or cannot be written."""


class TrainingError(GeoCycleGANError, RuntimeError):
    """Training that cannot go on, such as a loss that is not finite."""


class MemoryShortage(GeoCycleGANError, MemoryError):
    """Work that takes more memory than there is."""


class ClusterError(GeoCycleGANError, RuntimeError):
    """A cluster or worker process that cannot be reached, does not match, or dies."""


class Interrupted(GeoCycleGANError):
    """The user or the system asked to stop; what was reached has been saved."""

    exit_code = 130

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code
