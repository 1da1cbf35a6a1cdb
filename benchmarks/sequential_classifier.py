"""SentEval's classifier as its protocol is run elsewhere: one fit after the other, one torch step after the other.

The baseline that `benchmarks/evaluation.py` times, and the oracle of the tests: written from the protocol's
description, as plainly as possible, and never used by the package.
"""

from __future__ import annotations

import copy

import numpy as np
import torch

from dalr.evaluation.senteval.fitting import Protocol


class SequentialClassifier:
    """One logistic regression with early stopping; rows are gathered batch by batch."""

    def __init__(self, dim: int, classes: int, penalty: float, protocol: Protocol) -> None:
        np.random.seed(protocol.seed)
        torch.manual_seed(protocol.seed)
        self.protocol = protocol
        self.model = torch.nn.Linear(dim, classes)
        self.loss = torch.nn.CrossEntropyLoss()
        optimizers = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
        self.optimizer = optimizers[protocol.optimizer](
            self.model.parameters(), lr=protocol.learning_rate, weight_decay=penalty
        )
        self.passes = 0

    def fit(self, x: torch.Tensor, y: torch.Tensor, dev: tuple[torch.Tensor, torch.Tensor] | None = None) -> float:
        """Train, keep the weights that were best on `dev` (or on 5 % of the rows), give that accuracy."""
        if dev is None:
            permutation = np.random.permutation(len(x))
            border = int(0.05 * len(x))
            dev = x[permutation[:border]], y[permutation[:border]]
            x, y = x[permutation[border:]], y[permutation[border:]]
        best, best_state, failures, stop = -1.0, copy.deepcopy(self.model.state_dict()), 0, False
        while not stop and self.passes <= self.protocol.max_passes:
            for _ in range(self.protocol.passes_per_check):
                self._one_pass(x, y)
            accuracy = self.score(*dev)
            if accuracy > best:
                best, best_state = accuracy, copy.deepcopy(self.model.state_dict())
            else:
                stop = failures >= self.protocol.tenacity
                failures += 1
        self.model.load_state_dict(best_state)
        return best

    def _one_pass(self, x: torch.Tensor, y: torch.Tensor) -> None:
        permutation = np.random.permutation(len(x))
        for start in range(0, len(x), self.protocol.batch_size):
            rows = torch.from_numpy(permutation[start : start + self.protocol.batch_size])
            loss = self.loss(self.model(x[rows]), y[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        self.passes += 1

    @torch.no_grad()
    def score(self, x: torch.Tensor, y: torch.Tensor) -> float:
        right = 0
        for start in range(0, len(x), self.protocol.batch_size):
            batch = slice(start, start + self.protocol.batch_size)
            right += int((self.model(x[batch]).argmax(dim=1) == y[batch]).sum())
        return right / len(x)
