"""The `speed:` section: how a step is computed; nothing here changes what is learnt beyond rounding and random numbers."""

from pydantic import Field

from trainer.config.sections.training import Section


class SpeedSection(Section):
    """How a step is computed. The defaults are the fastest that were measured; what is learnt stays the same."""

    packing: bool = True
    """Run the encoder over the tokens alone, without padding, and its last layer only where the head reads it. Models that give other \
logits so are trained padded, and the log says so."""
    fast_layers: bool = True
    """On CPUs: cheaper dropout masks, an embedding gradient that clears only the rows it used, and under bfloat16 sums between layers in bfloat16 too \
(in a BERT of 16 random layers the last hidden states are then 2.8 % off float32, else 1.9 %)."""
    tokens_per_pass: int | None = Field(default=None, ge=1)
    """Most tokens of one forward and backward pass, in training and evaluation. Padding counts where it is computed, \
as in the attention of GPUs. A batch with more is cut, which leaves its gradient as it is. A row is never cut. \
Lower it where memory is short. Left out: 16,384 on a GPU, 2,048 on a CPU, whose caches then hold it."""
    halve_on_out_of_memory: bool = True
    """When a GPU runs out of memory: go back to the last checkpoint and on with half the tokens of the largest pass. Several processes end for that \
and must be started again. Off: the run fails."""
