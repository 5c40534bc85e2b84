"""What all forked processes find done: imports, of those too that torch makes on first use, for seconds each."""

import torch._dynamo  # by the first optimizer
import torch.distributed.fsdp
import torch.distributed.tensor

import tests.sketches.failing
from tests.sketches.processes import GATHERED, sketched

sketched(GATHERED["perm-k units"], 1)
