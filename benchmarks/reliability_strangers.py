"""A row of `reliability.py`: models, checkpoints and chips that a stranger made to do harm."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.reliability_bench import Bench, Outcome

Job = list[object]


class _Payload:
    """Makes a folder when it is unpickled by something that should not unpickle it."""

    def __init__(self, mark: Path) -> None:
        self._mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._mark,)


def malicious(bench: Bench, trials: int) -> Outcome:
    """Open files that run code where they are unpickled, name classes or lie about their size."""
    found, names = Outcome(), []
    mark = bench.folder / "executed"
    for name, make in _CASES.items():
        for forced in (False, True):
            folder = bench.fresh("stranger")
            job = make(bench, folder, mark)
            process = bench.start(*job, prepare=_force if forced else None)
            code = process.wait(60)
            wrong = None
            if mark.exists():
                wrong = "it was executed"
                mark.rmdir()
            elif code is None:
                wrong = "it hangs"
            elif (unclear := process.is_clear()) is not None:
                wrong = unclear
            variable = ", with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1" if forced else ""
            found.add(wrong and f"{name}{variable}: {wrong}")
        names.append(name)
    found.notes.append(
        ", ".join(names) + "; each without and with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    )
    return found


def _force() -> None:
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"


def _checkpoint(bench: Bench, folder: Path, write: Callable[[Path], None]) -> Job:
    """A run whose newest checkpoint is a stranger's, with the right hash beside it."""
    from geocyclegan.files import sha256

    run = shutil.copytree(bench.whole / "run", folder / "run")
    file = sorted((run / "checkpoints").glob("step_*.pt"))[-1]
    write(file)
    file.with_name(file.name + ".sha256").write_text(f"{sha256(file)}  {file.name}\n")
    return [*bench.train(folder), "--steps", 1000, "--resume"]


def _zip_checkpoint(bench: Bench, folder: Path, mark: Path) -> Job:
    import torch

    content = {"format": 1, "step": 1, "networks": _Payload(mark)}
    return _checkpoint(bench, folder, lambda file: torch.save(content, file))


def _legacy_checkpoint(bench: Bench, folder: Path, mark: Path) -> Job:
    import torch

    def write(file: Path) -> None:
        torch.save(_Payload(mark), file, _use_new_zipfile_serialization=False)

    return _checkpoint(bench, folder, write)


def _plain_pickle(bench: Bench, folder: Path, mark: Path) -> Job:
    return _checkpoint(bench, folder, lambda file: _dump(file, mark))


def _dump(file: Path, mark: Path) -> None:
    file.write_bytes(pickle.dumps(_Payload(mark)))


def _class_names(bench: Bench, folder: Path, mark: Path) -> Job:
    return _document(bench, folder, "os.mkdir", {"path": str(mark), "_target_": "os.mkdir"})


def _import_path(bench: Bench, folder: Path, mark: Path) -> Job:
    # A module that makes the mark, beside the model and in the folder where the command runs.
    for place in (folder, bench.folder):
        (place / "stranger_module.py").write_text(f"import os\nos.mkdir({str(mark)!r})\n")
    return _document(bench, folder, "stranger_module.Network", {"class_path": "stranger_module.X"})


def _document(bench: Bench, folder: Path, name: str, args: dict[str, Any]) -> Job:
    """A bundle, with the right hashes, whose network has this name and these arguments."""
    from geocyclegan.document import write_document

    model = shutil.copytree(bench.model, folder / "model")
    document = json.loads((model / "model.json").read_text())
    document["method"] = name
    for spec in document["generators"].values():
        spec["name"], spec["args"] = name, {**spec["args"], **args}
    write_document(model, document)
    return bench.infer(folder / "p.tif", model)


def _huge_network(bench: Bench, folder: Path, mark: Path) -> Job:
    return _document(bench, folder, "resnet9", {"width": 2**40})


def _yaml(bench: Bench, folder: Path, mark: Path) -> Job:
    run = shutil.copytree(bench.whole / "run", folder / "run")
    (run / "config.yaml").write_text(f"method: !!python/object/apply:os.mkdir ['{mark}']\n")
    return [*bench.train(folder), "--resume"]


def _weights(bench: Bench, folder: Path, data: bytes) -> Job:
    """A bundle, with the right hashes, whose weights are these bytes."""
    from geocyclegan.document import write_document
    from geocyclegan.files import sha256

    model = shutil.copytree(bench.model, folder / "model")
    (model / "model.safetensors").write_bytes(data)
    document = json.loads((model / "model.json").read_text())
    document["weights"]["sha256"] = sha256(model / "model.safetensors")
    write_document(model, document)
    return bench.infer(folder / "p.tif", model)


def _header_length(bench: Bench, folder: Path, mark: Path) -> Job:
    return _weights(bench, folder, struct.pack("<Q", 2**62) + b"{}")


def _header_shape(bench: Bench, folder: Path, mark: Path) -> Job:
    tensor = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    header = json.dumps({"a2b.x": tensor}).encode()
    return _weights(bench, folder, struct.pack("<Q", len(header)) + header + b"\0" * 64)


def _header_depth(bench: Bench, folder: Path, mark: Path) -> Job:
    header = b"[" * 1_000_000
    return _weights(bench, folder, struct.pack("<Q", len(header)) + header)


def _pickled_weights(bench: Bench, folder: Path, mark: Path) -> Job:
    return _weights(bench, folder, pickle.dumps(_Payload(mark)))


def _encoder(bench: Bench, folder: Path, mark: Path) -> Job:
    _dump(folder / "encoder.pth", mark)
    weights = ["--generator", "smp-unet", "--encoder-weights", folder / "encoder.pth"]
    return [*bench.train(folder), *weights]


def _segmenter(bench: Bench, folder: Path, mark: Path) -> Job:
    _dump(folder / "network.safetensors", mark)
    more = ["--method", "semantic", "--segmenter", folder / "network.safetensors"]
    return ["-q", "train", bench.chips, "--out", folder, *more, "--steps", 2]


def _imported(bench: Bench, folder: Path, mark: Path) -> Job:
    _dump(folder / "net_G.pth", mark)
    return ["-q", "import", folder / "net_G.pth", "--out", folder / "model"]


def _array_chips(bench: Bench, folder: Path, mark: Path) -> Job:
    import numpy as np

    for domain in ("a", "b"):
        (folder / "chips" / f"train_{domain}").mkdir(parents=True)
        for number in range(2):
            file = folder / "chips" / f"train_{domain}" / f"{number}.npy"
            np.save(file, np.array([_Payload(mark)], dtype=object), allow_pickle=True)
    return bench.train(folder / "runs", chips=folder / "chips")


def _statistics(bench: Bench, folder: Path, mark: Path) -> Job:
    import numpy as np

    chips = shutil.copytree(bench.chips, folder / "chips")
    for file in (chips / ".statistics").rglob("*.npz"):
        with np.load(file) as arrays:
            names = list(arrays)
        harmed: dict[str, Any] = {n: np.array([_Payload(mark)], dtype=object) for n in names}
        np.savez(file, **harmed)
    other = shutil.copy(bench.partner, folder / "other.tif")
    return [*bench.chip(Path(other), chips), "--bands", "1,2"]


_CASES: dict[str, Callable[[Bench, Path, Path], Job]] = {
    "checkpoint with a pickled call": _zip_checkpoint,
    "legacy checkpoint": _legacy_checkpoint,
    "plain pickle as checkpoint": _plain_pickle,
    "class names in model.json": _class_names,
    "module beside the model": _import_path,
    "network of 2^40 channels": _huge_network,
    "tagged config.yaml": _yaml,
    "header of 2^62 bytes": _header_length,
    "tensor of 2^40 numbers": _header_shape,
    "header of a million brackets": _header_depth,
    "pickle as safetensors": _pickled_weights,
    "encoder weights": _encoder,
    "segmenter": _segmenter,
    "imported weights": _imported,
    "pickled npy chips": _array_chips,
    "pickled statistics": _statistics,
}
