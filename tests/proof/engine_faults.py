"""The faults that can live in vLLM's whole engine: in its file, and in its weights.

Of those of the attention that stands in for vLLM's own, three can be said in the file of the model;
for the others vLLM's kernels would have to be changed. The prompts that an engine on the CPU gets
are too short for a window or a chunk to be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as changed

from tests.proof.faults import ATTENTION, ROTATE, Fault, faults
from tests.support.sources import REWRITES, proper_subsets, repaired, replace

ATTEND = "        attn_output = self.attn(q, k, v)\n"
LOGITS = "        return logits\n"
SHARED = """\
        kv = self.num_kv_heads
        times = self.num_heads // kv
        if {where}:
            q = q.view(-1, times, kv, self.head_dim).transpose(1, 2).reshape(q.shape)
        attn_output = self.attn(q, k, v)
        if {where}:
            attn_output = attn_output.view(-1, kv, times, self.head_dim)
            attn_output = attn_output.transpose(1, 2).reshape(q.shape)
"""
"""Head h of the queries reads the keys of head h modulo their number: as many a file has it."""
BUILT = "        self.scaling = self.head_dim**-0.5\n"
PLACE = f"{BUILT}        self.here = '.layers.1.' in prefix\n"
NEIGHBOUR = f"""\
{ROTATE}
        v = torch.where((positions == 17)[:, None], v.roll(1, 0), v)"""
"""Token 17 is followed, in the batch, and mostly in its prompt, by the value of the one before."""


def engine_faults(released: bytes) -> Mapping[str, Fault]:
    """Name -> fault, from the released file; all partial repairs first, the released one too."""
    right = repaired(released)
    first = REWRITES[0]
    found = {
        "as released" if not subset else f"repaired in part: {', '.join(subset)}": Fault(
            repaired(released, subset)
        )
        for subset in proper_subsets()
        if first not in subset
    }
    for name, fault in faults(released).items():
        if fault.logits != 1.0:
            wrong = replace(right, LOGITS, f"        return logits * {fault.logits}\n")
            found[name] = changed(fault, source=wrong, logits=1.0)
        elif fault.attention is None:
            found[name] = fault
    attention = {
        "heads share keys wrongly": replace(right, ATTEND, SHARED.format(where="True")),
        "heads share keys wrongly, one layer": replace(
            replace(right, ATTEND, SHARED.format(where="self.here")), BUILT, PLACE
        ),
        "one value of the cache is its neighbour's": replace(right, ROTATE, NEIGHBOUR),
    }
    assert set(attention) <= set(ATTENTION)
    return {**found, **{name: Fault(source) for name, source in attention.items()}}
