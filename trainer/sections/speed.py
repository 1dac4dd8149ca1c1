"""The `speed:` section: how a step is computed; nothing here changes what is learnt beyond rounding and random numbers."""

from pydantic import Field

from trainer.sections.training import Section


class SpeedSection(Section):
    """How a step is computed. The defaults are the fastest that were measured; what is learnt stays the same."""

    packing: bool = True
    """Run the encoder over the tokens alone, without padding, and its last layer only where the head reads it. Models that give other \
logits so are trained padded, and the log says so."""
    fast_layers: bool = True
    """On CPUs: cheaper dropout masks, an embedding gradient that clears only the rows it used, and bfloat16 kept between layers."""
    tokens_per_pass: int | None = Field(default=None, ge=1)
    """Most tokens of one forward and backward pass, in training and evaluation; a batch with more is cut, which leaves its gradient as it is. \
A row is never cut. Lower it where memory is short. Left out: 16,384 on a GPU, 2,048 on a CPU, whose caches then hold it."""
