"""Train with WeightedTrainer in one process, or in two that share the weights (FSDP) on CPUs.

Arguments: folder, file for the result, and a JSON object with sampler and processes.
"""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))
from accelerate.state import AcceleratorState
from sharded_on_cpu import start_as_on_gpus
from test_weighted_trainer import arguments, model, rows

from trainer.training.weighted_trainer import WeightedTrainer

if __name__ == "__main__":
    folder, out, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    sharding = {}
    if options["processes"] > 1:
        AcceleratorState.__init__ = start_as_on_gpus
        config = {
            "version": 2,
            "transformer_layer_cls_to_wrap": ["BertLayer"],
            "state_dict_type": "FULL_STATE_DICT",
        }
        sharding = {"fsdp": "full_shard auto_wrap", "fsdp_config": config, "ddp_backend": "gloo"}
    is_balanced = options["sampler"] == "class_balanced"
    args = arguments(
        folder,
        max_steps=3,
        per_device_train_batch_size=12 // options["processes"] // 2,
        gradient_accumulation_steps=2,
        train_sampling_strategy="random" if is_balanced else "sequential",
        optim="sgd",
        **sharding,
    )
    trained = WeightedTrainer(
        model(),
        args,
        train_dataset=rows(),
        eval_dataset=rows(seed=1),
        class_weights="balanced",
        sampler="class_balanced" if is_balanced else None,
    )
    trained.train()
    loss = trained.evaluate()["eval_loss"]
    weights = trained.accelerator.get_state_dict(trained.model_wrapped)
    if args.process_index == 0:
        flat = torch.cat([weights[name].flatten().float() for name in sorted(weights)])
        result = {"weights": flat, "loss": loss, "sharded": trained.is_fsdp_enabled}
        torch.save(result, out)
