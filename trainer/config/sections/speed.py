"""The `speed:` section: how a training step is computed."""

from pydantic import Field

from trainer.config.sections.section import Section


class SpeedSection(Section):
    """How a training step is computed. The defaults are the fastest that we measured. Apart from
    rounding and random numbers, they do not change what the model learns.
    """

    packing: bool = True
    """Compute the encoder without padding, and its last layer only where the classification head
    reads it. A model whose logits would change is trained with padding, and the log says so."""
    fast_layers: bool = True
    """On CPUs: use cheaper dropout masks, and clear only the used rows of the embedding gradient.
    With bfloat16, sums between layers are also kept in bfloat16. (In a BERT of 16 random layers,
    the last hidden states then differ from float32 by 2.8 % instead of 1.9 %.)"""
    tokens_per_pass: int | None = Field(default=None, ge=1)
    """Maximum tokens of one forward and backward pass, in training and evaluation. Padding counts
    if it is computed, as in attention on GPUs without flash kernels. A larger batch is divided into
    several passes, which leaves its gradient unchanged; a row is never divided. Use a smaller
    number if memory is short. Default: 16,384 on a GPU, and 2,048 on a CPU, because they then fit
    into its caches."""
    halve_on_out_of_memory: bool = True
    """If a GPU runs out of memory, return to the last checkpoint and continue with half the tokens
    of the largest pass. With several processes, the run ends first and must be started again.
    If false, the run fails."""
