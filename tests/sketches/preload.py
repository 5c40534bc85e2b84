"""What forked processes find done: what torch imports on first use, for a second or more each."""

from tests.sketches.processes import GATHERED, sgd, sketched

sgd(list(sketched(GATHERED["perm-k units"], 1).parameters()))
