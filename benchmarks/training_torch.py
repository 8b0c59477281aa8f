"""The contestants of ``training_speed.py`` on PyTorch, run in their own environment: no module of ours is imported."""

import json
import os
import resource
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

IDS = {"user": 8000, "video": 8000, "author": 2000, "hour": 25}
HISTORIES = ("watched", "liked")
WIDTH, PLACES, NUMBERS, OBJECTIVES, BATCH = 24, 20, 120, 5, 4096
Arrays = dict[str, np.ndarray]


def deepctr_torch() -> Callable[[Arrays, np.ndarray], Any]:
    sys.modules["requests"] = types.ModuleType("requests")  # it would ask the network for its newest version
    from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
    from deepctr_torch.models import MMOE

    features: list[Any] = [SparseFeat(name, size, WIDTH) for name, size in IDS.items()]
    for name in HISTORIES:
        features.append(VarLenSparseFeat(SparseFeat(name, IDS["video"], WIDTH, embedding_name="video"), PLACES, "mean"))
    features.append(DenseFeat("numbers", NUMBERS))
    names = [f"task_{k}" for k in range(OBJECTIVES)]
    model = MMOE(
        features,
        num_experts=8,
        expert_dnn_hidden_units=(256, 128),
        gate_dnn_hidden_units=(),
        tower_dnn_hidden_units=(64,),
        l2_reg_linear=0,
        l2_reg_embedding=0,
        task_types=["binary"] * OBJECTIVES,
        task_names=names,
    )
    model.compile("adam", ["binary_crossentropy"] * OBJECTIVES)
    return lambda inputs, targets: model.fit(inputs, targets, BATCH, 1, verbose=0)


def torch_rechub() -> Callable[[Arrays, np.ndarray], Any]:
    from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
    from torch_rechub.models.multi_task import MMOE
    from torch_rechub.trainers import MTLTrainer
    from torch_rechub.utils.data import DataGenerator

    features: list[Any] = [SparseFeature(name, size, WIDTH) for name, size in IDS.items()]
    for name in HISTORIES:
        own = {"pooling": "mean", "shared_with": "video", "padding_idx": 0}
        features.append(SequenceFeature(name, IDS["video"], WIDTH, **own))
    features.append(DenseFeature("numbers", NUMBERS))
    kinds = ["classification"] * OBJECTIVES
    model = MMOE(features, kinds, 8, {"dims": [256, 128]}, [{"dims": [64]}] * OBJECTIVES)
    trainer = MTLTrainer(model, kinds, optimizer_params={"lr": 1e-3})

    def fit(inputs: Arrays, targets: np.ndarray) -> None:
        loader, _, _ = DataGenerator(inputs, targets).generate_dataloader(
            x_val=inputs, y_val=targets, x_test=inputs, y_test=targets, batch_size=BATCH
        )
        trainer.train_one_epoch(loader)

    return fit


def main(name: str, folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the libraries print
    files = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    torch.manual_seed(1)
    fit = {"deepctr_torch": deepctr_torch, "torch_rechub": torch_rechub}[name]()
    for line in sys.stdin:
        start, stop = map(int, line.split())
        part = {key: np.ascontiguousarray(values[start:stop]) for key, values in files.items()}
        targets = part.pop("targets")
        begun = time.perf_counter()
        fit(part, targets)
        seconds = time.perf_counter() - begun
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "megabytes": megabytes}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
