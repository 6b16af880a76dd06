"""How processes of several machines find each other: who starts them, and how long they wait."""

from __future__ import annotations

import logging
import os
import threading
from datetime import timedelta

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import Store, default_pg_timeout

from geocyclegan.errors import Interrupted, OptionError, TrainingError
from geocyclegan.training.signals import StopRequest

log = logging.getLogger(__name__)

PATIENCE = timedelta(minutes=10)
"""How long processes wait for those that have not come; afterwards they wait for each other as long
as Lightning has it."""

_BY_HAND = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


def require_launcher(nodes: int, devices: int) -> None:
    """Refuse several machines where nothing says which of them this is: it would wait for ever.

    Args:
        nodes: machines; torchrun has not started this process.
        devices: on each.

    Raises:
        OptionError: neither a scheduler nor the environment says so.
    """
    if nodes == 1 or any(
        scheduler.detect() for scheduler in (SLURMEnvironment, LSFEnvironment, MPIEnvironment)
    ):
        return
    # Lightning takes torch's older name, too.
    known = {name: os.environ.get(name) for name in _BY_HAND}
    known["NODE_RANK"] = known["NODE_RANK"] or os.environ.get("GROUP_RANK")
    missing = [name for name, value in known.items() if not value]
    if missing:
        raise OptionError(
            f"--nodes {nodes}: nothing says which machine this is; start it on each with: torchrun"
            f" --nnodes {nodes} --nproc-per-node {devices} --rdzv-backend c10d --rdzv-endpoint"
            " HOST:29500 -m geocyclegan train ..., or with srun, jsrun or mpirun, or set"
            f" {', '.join(missing)}"
        )
    for name, least, beyond in (("MASTER_PORT", 1, 65536), ("NODE_RANK", 0, nodes)):
        value = str(known[name])
        if not value.isdecimal() or not least <= int(value) < beyond:
            raise OptionError(
                f"--nodes {nodes}: {name} is {value}; expected a number from {least} to"
                f" {beyond - 1}"
            )


def meet(environment: ClusterEnvironment) -> Store:
    """Wait until all processes are there; signals end it.

    Args:
        environment: knows where to meet, how many come, and which this is.

    Returns:
        What they exchange addresses by.

    Raises:
        TrainingError: not all came in time, or the place cannot be reached.
        Interrupted: SIGINT or SIGTERM.
    """
    size, rank = environment.world_size(), environment.global_rank()
    host, port = environment.main_address, environment.main_port
    where = f"{host}:{port}"
    found: list[Store] = []
    fault: list[RuntimeError] = []

    def wait() -> None:
        try:
            found.append(TCPStore(host, port, size, rank == 0, PATIENCE))
        except RuntimeError as error:
            fault.append(error)

    # In a thread, since nothing but the time limit ends it: signals come to the main one.
    thread = threading.Thread(target=wait, daemon=True)
    with StopRequest() as stop:
        thread.start()
        log.info("process %d of %d waits for the others at %s", rank, size, where)
        while thread.is_alive():
            thread.join(0.2)
            if stop:
                raise Interrupted(
                    f"stopped by {stop.name} while waiting for the other processes at {where};"
                    " nothing was written",
                    stop.exit_code,
                )
    if fault:
        reason = (str(fault[0]).strip().splitlines() or ["no reason given"])[0]
        raise TrainingError(
            f"not all of {size} processes met at {where} within {PATIENCE.total_seconds():.0f} s"
            f" ({reason}); start the same command on all machines, and see that the port is open"
        )
    # From here on nobody is late: one process may write a checkpoint while the others wait.
    found[0].set_timeout(default_pg_timeout)
    return found[0]
