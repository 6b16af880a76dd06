"""The verbs and the model, for Python: what `import geocyclegan as gcg` offers.

    gcg.chip("sar.tif", domain="a")
    gcg.chip("optical.tif", domain="b")
    run = gcg.train(steps=20_000)
    gcg.infer("sar.tif", out="translated.tif", model=run.run)
    translated = gcg.load(run.run).translate(array)

Options have the names and the defaults of the command line, with underscores.
"""

from geocyclegan.api.looking import VerifyReport, info, verify
from geocyclegan.api.model import Model, load
from geocyclegan.api.verbs import chip, chip_pairs, export, infer, train
from geocyclegan.chips.options import ChipOptions
from geocyclegan.chips.tiler import ChipReport
from geocyclegan.exporting.files import ExportOptions, ExportResult
from geocyclegan.inference.run import InferOptions
from geocyclegan.progress import set_progress
from geocyclegan.training.config import TrainConfig
from geocyclegan.training.loop import TrainResult

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
