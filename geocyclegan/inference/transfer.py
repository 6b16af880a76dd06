"""Between the host and the device: on a GPU, copies overlap with computing.

Windows go up from pinned memory on a stream of their own while the batch before is computed, and
results come down on another one, so the GPU waits for neither. On a CPU nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geocyclegan.inference.levels import Levels, Read, stack_reads

Result = Callable[[], Levels]
"""Waits for a batch and returns it: (samples, bands, height, width), single precision."""


class Runner:
    """Runs batches on a device, one after the other.

    Args:
        device: where.

    Attributes:
        depth: batches that should be under way before the first is waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: tuple[torch.cuda.Stream, torch.cuda.Stream] | None = None
        self.depth = 0
        if device.type == "cuda":
            self._streams = (
                torch.cuda.Stream(device),  # type: ignore[no-untyped-call]
                torch.cuda.Stream(device),  # type: ignore[no-untyped-call]
            )
            self.depth = 1

    def run(
        self, reads: Sequence[Read], forward: Callable[[Tensor, Tensor | None], Tensor]
    ) -> Result:
        """Start a batch.

        Args:
            reads: levels `(bands, height, width)` and valid mask `(height, width)` of windows of
                one size.
            forward: takes levels (samples, bands, height, width) and the mask (samples, 1, height,
                width), None where every pixel is valid, and gives levels (samples, bands of the
                product, height, width).

        Returns:
            A function that waits for those levels and returns them as an array, float32.
        """
        x, mask = stack_reads(reads, pinned=self._streams is not None)
        with torch.inference_mode():
            if self._streams is None:
                output = forward(x, mask).float()
                return output.numpy
            up, down = self._streams
            compute = torch.cuda.current_stream(self._device)
            with torch.cuda.stream(up):
                x = x.to(self._device, non_blocking=True)
                mask = None if mask is None else mask.to(self._device, non_blocking=True)
            compute.wait_stream(up)
            # Allocated on one stream and used on another: not to be given away before that is done.
            x.record_stream(compute)
            if mask is not None:
                mask.record_stream(compute)
            output = forward(x, mask).float()
            down.wait_stream(compute)
            with torch.cuda.stream(down):
                host = torch.empty(output.shape, dtype=output.dtype, pin_memory=True)
                host.copy_(output, non_blocking=True)
                output.record_stream(down)
                copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                copied.record(down)

        def wait() -> Levels:
            copied.synchronize()
            levels: Levels = host.numpy()
            return levels

        return wait
