"""`eelib.training.finetune` with its model sharded over processes on a CPU, which FSDP can and accelerate leaves out.

accelerate shards only over what it knows as accelerators. Here it takes the CPU's processes for such; all else is as it
runs on GPUs.
"""

import os

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule

from eelib.training import finetune
from eelib.training.trainer import ExitTrainer

os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
torch.distributed.init_process_group("gloo")
PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_XPU)


class Sharded(ExitTrainer):
    """Says which modules were made units of their own."""

    def log(self, *args, **kwargs):
        units = [name for name, module in self.model.named_modules() if isinstance(module, FSDPModule)]
        print("units:", *units, flush=True)
        super().log(*args, **kwargs)


finetune.ExitTrainer = Sharded
finetune.main()
