"""Fits a peer's MMoE and predicts; run by the peers' interpreter, which has no module of this project but inputs.py.

    python torch_worker.py FOLDER      # reads FOLDER/job.json, writes FOLDER/rows-SEED.npy and slates-SEED.npy

Models, losses, optimizers and training loops are the libraries' own. What is not: which rows come when, and for
torch-rechub the loader, whose batches are those of its own TorchDataset without a Python dictionary per row.
"""

import json
import math
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inputs import chosen_tasks, inputs, keep, prepared

PREDICTED = 4096  # rows at a time


def main(folder: Path) -> None:
    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    window, settings = Path(job["window"]), job["settings"]
    fields = json.loads((window / "fields.json").read_text())
    fields = keep(fields, settings["ids"])
    tasks = chosen_tasks(fields["tasks"], job["objectives"], settings["tasks"])
    parts = {name: inputs(window / name, fields) for name in ("train", "rows", "slates")}
    targets = prepared(np.load(window / "train" / "targets.npy"), tasks, settings["regression_weight"])
    day = np.load(window / "train" / "day.npy")
    columns = [[task["name"] for task in tasks].index(name) for name in job["objectives"]]
    for seed in job["seeds"]:
        torch.manual_seed(seed)
        passes = [day == d for d in np.unique(day)] if settings["order"] == "days" else [np.ones(len(day), bool)]
        fit = {"deepctr_torch": deepctr_torch, "torch_rechub": torch_rechub}[job["library"]]
        predict = fit(fields, tasks, settings, seed, parts["train"], targets, passes)
        for name in ("rows", "slates"):
            np.save(folder / f"{name}-{seed}.npy", predict(parts[name])[:, columns].astype(np.float64))


def deepctr_torch(fields: Any, tasks: Any, settings: Any, seed: int, train: Any, targets: Any, passes: Any) -> Any:
    # On import it asks the network for its newest version, with a library that it does not depend on: not here.
    sys.modules["requests"] = types.ModuleType("requests")
    from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
    from deepctr_torch.models import MMOE

    def sparse(f: Any) -> Any:
        return SparseFeat(f["name"], f["rows"], settings["dim"], embedding_name=f["table"])

    features = [sparse(f) for f in fields["categories"]]
    features += [VarLenSparseFeat(sparse(f), f["width"], "mean") for f in fields["sequences"]]
    features.append(DenseFeat("numbers", len(fields["numbers"])))
    model = MMOE(
        features,
        num_experts=settings["experts"],
        expert_dnn_hidden_units=settings["layers"],
        gate_dnn_hidden_units=settings["gate"],
        tower_dnn_hidden_units=settings["tower"],
        l2_reg_embedding=settings["embedding_l2"],
        init_std=settings["init"],
        seed=seed,
        dnn_dropout=settings["dropout"],
        task_types=[task["kind"] for task in tasks],
        task_names=[task["name"] for task in tasks],
    )
    model.compile(
        torch.optim.Adam(model.parameters(), settings["learning_rate"], weight_decay=settings["weight_decay"]),
        ["mse" if task["kind"] == "regression" else "binary_crossentropy" for task in tasks],
    )
    for chosen in passes:
        rows = {name: values[chosen] for name, values in train.items()}
        model.fit(rows, targets[chosen], settings["batch_size"], settings["epochs"], verbose=0)
    return lambda part: model.predict(dict(part), PREDICTED)


def torch_rechub(fields: Any, tasks: Any, settings: Any, seed: int, train: Any, targets: Any, passes: Any) -> Any:
    from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
    from torch_rechub.basic.initializers import RandomNormal
    from torch_rechub.models.multi_task import MMOE
    from torch_rechub.trainers import MTLTrainer

    owner: dict[str, str] = {}
    features: list[Any] = []
    for f in [*fields["categories"], *fields["sequences"]]:
        own = {"shared_with": owner.get(f["table"]), "initializer": RandomNormal(0, settings["init"])}
        owner.setdefault(f["table"], f["name"])
        if f in fields["sequences"]:
            features.append(SequenceFeature(f["name"], f["rows"], settings["dim"], pooling="mean", padding_idx=0, **own))
        else:
            features.append(SparseFeature(f["name"], f["rows"], settings["dim"], **own))
    features.append(DenseFeature("numbers", len(fields["numbers"])))
    types_ = ["regression" if task["kind"] == "regression" else "classification" for task in tasks]
    layer = {"dropout": settings["dropout"]}
    model = MMOE(
        features,
        types_,
        settings["experts"],
        {"dims": settings["layers"], **layer},
        [{"dims": settings["tower"], **layer} for _ in tasks],
    )
    trainer = MTLTrainer(
        model,
        types_,
        optimizer_params={"lr": settings["learning_rate"], "weight_decay": settings["weight_decay"]},
        regularization_params={"embedding_l2": settings["embedding_l2"]},
        adaptive_params=None if settings["balancing"] is None else {"method": settings["balancing"]},
    )
    for chosen in passes:
        batches = Batches({name: values[chosen] for name, values in train.items()}, settings["batch_size"], targets[chosen])
        for _ in range(settings["epochs"]):
            trainer.train_one_epoch(batches)
    return lambda part: np.array(trainer.predict(model, Batches(part, PREDICTED)))


class Batches:
    """What torch-rechub's trainer goes over: (inputs, targets) in a new order each time, or inputs alone in order."""

    def __init__(self, inputs: dict[str, np.ndarray], size: int, targets: np.ndarray | None = None) -> None:
        self.inputs = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in inputs.items()}
        self.targets = None if targets is None else torch.from_numpy(targets)
        self.size, self.rows = size, len(next(iter(inputs.values())))

    def __len__(self) -> int:
        return math.ceil(self.rows / self.size)

    def __iter__(self) -> Iterator[Any]:
        order = torch.arange(self.rows) if self.targets is None else torch.randperm(self.rows)
        for chosen in order.split(self.size):
            if self.targets is not None and len(chosen) == 1:
                continue  # batch normalisation needs two
            inputs = {name: values[chosen] for name, values in self.inputs.items()}
            yield inputs if self.targets is None else (inputs, self.targets[chosen])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
