"""Translate whole georeferenced scenes between imaging domains.

`import geocyclegan as gcg` offers the functions of `geocyclegan.api`. They are imported when they
are first used, so that the import itself takes no time.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geocyclegan.api import ChipOptions as ChipOptions
    from geocyclegan.api import ChipReport as ChipReport
    from geocyclegan.api import ExportOptions as ExportOptions
    from geocyclegan.api import ExportResult as ExportResult
    from geocyclegan.api import InferOptions as InferOptions
    from geocyclegan.api import Model as Model
    from geocyclegan.api import TrainConfig as TrainConfig
    from geocyclegan.api import TrainResult as TrainResult
    from geocyclegan.api import VerifyReport as VerifyReport
    from geocyclegan.api import chip as chip
    from geocyclegan.api import chip_pairs as chip_pairs
    from geocyclegan.api import export as export
    from geocyclegan.api import infer as infer
    from geocyclegan.api import info as info
    from geocyclegan.api import load as load
    from geocyclegan.api import set_progress as set_progress
    from geocyclegan.api import train as train
    from geocyclegan.api import verify as verify

__version__ = "0.1.0"

# Also what `from geocyclegan import *` imports; the same as in `geocyclegan.api`.
__all__ = [
    "ChipOptions",
    "ChipReport",
    "ExportOptions",
    "ExportResult",
    "InferOptions",
    "Model",
    "TrainConfig",
    "TrainResult",
    "VerifyReport",
    "chip",
    "chip_pairs",
    "export",
    "infer",
    "info",
    "load",
    "set_progress",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a name of the API when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'geocyclegan' has no attribute {name!r}")
    from geocyclegan import api

    value = getattr(api, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
