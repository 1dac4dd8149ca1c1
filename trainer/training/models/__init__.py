"""The pretrained model: find, check, load, adapt."""
