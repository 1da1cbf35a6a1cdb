"""The contestants: the public arithmetic of a step, and sentence-transformers' own trainer.

`PublicStep` is the arithmetic that released code of this kind spends its time on: fp32, every row padded to the
longest of the batch, both text teachers run on both inputs in each pair step, the release's terms with its token-
level one. Text steps are InfoNCE alone. Its terms are those of the recipe `dalr-release`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from training_world import MAX_TOKENS, Clock, Seconds, World

from dalr.data.schedule import Kind
from dalr.losses.inputs import Inputs, TeacherTokens
from dalr.models.heads import Heads
from dalr.recipe.loading import load_recipe

if TYPE_CHECKING:
    from dalr.training.batch import Batch


class PublicStep(torch.nn.Module):
    """Student and heads, and the frozen teachers of the student's own shape."""

    def __init__(self, world: World) -> None:
        super().__init__()
        recipe = load_recipe("dalr-release")
        self.objective, self.weights = recipe.objective, (0.33, 0.67)
        self.student = world.student().transformers_model
        self.teachers = [world.student().transformers_model.eval().requires_grad_(False) for _ in self.weights]
        self.heads = Heads(
            recipe.heads,
            student_dim=world.dim,
            image_dim=world.dim,
            clip_text_dim=None,
            needs=recipe.objective.needs("pair") | recipe.objective.needs("text"),
            temperatures={},
        )

    def forward(self, batch: Batch) -> torch.Tensor:
        ids, mask = batch.tokens.ids.repeat(2, 1), batch.tokens.mask.repeat(2, 1)
        n = len(batch.tokens.ids)
        h = self.student(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        z = self.heads.sentence_vectors(h)
        pair = batch.kind == "pair"
        states = []
        if pair:
            with torch.no_grad():
                states = [
                    teacher(input_ids=ids, attention_mask=mask).last_hidden_state for teacher in self.teachers
                ]
        inputs = Inputs(
            h_a=h[:n],
            h_b=h[n:],
            z_a=z[:n],
            z_b=z[n:],
            tie_order=batch.targets.tie_order,
            s_a=self._head("text_grounding", h[:n]) if pair else None,
            s_b=self._head("text_grounding", h[n:]) if pair else None,
            image=batch.targets.image,
            image_grounded=self._head("image_grounding", batch.targets.image) if pair else None,
            same_image=batch.targets.same_image,
            text_aligned=self._head("text_aligner", z[:n]) if pair else None,
            image_aligned=self._head("image_aligner", batch.targets.image) if pair else None,
            unmatched=batch.targets.unmatched,
            teachers=tuple(state[:n, 0] for state in states),
            teacher_weights=self.weights if pair else (),
            teacher_tokens=tuple(
                TeacherTokens(states=state[:n, 1:], mask=mask[:n, 1:].bool(), weight=weight)
                for state, weight in zip(states, self.weights, strict=False)
            ),
        )
        return self.objective(inputs, batch.kind).total

    def _head(self, name: str, x: Any) -> Any:
        return getattr(self.heads, name)(x)


def public_round(world: World, step: PublicStep, kind: Kind, steps: int) -> Seconds:
    """A plain loop: forward, backward, clipping, AdamW."""
    parameters = [*step.student.parameters(), *step.heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0.0)
    dataset = world.dataset(teachers=False)
    step.student.train()
    step.heads.train()
    clock = Clock(world.device, steps + 1)
    for number, keys in zip(range(1, steps + 2), world.plan((kind,)).batches(), strict=False):
        loss = step(dataset[keys].to(world.device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        loss.item()  # released loops look at each loss
        clock.tick(number)
    return clock.seconds


def library_round(world: World, model: Any, kind: Kind, steps: int) -> Seconds:
    """`SentenceTransformerTrainer` on (s, s), MultipleNegativesRankingLoss; from step's end to step's end."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import PrinterCallback, TrainerCallback

    clock = Clock(world.device, steps + 1)

    class Ticking(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.tick(state.global_step)

    model.max_seq_length = MAX_TOKENS
    sentences = world.sentences[kind][: world.batch * (steps + 1)]
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(world.folder / "library"),
        per_device_train_batch_size=world.batch,
        max_steps=steps + 1,
        learning_rate=1e-6,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=world.device.type == "cpu",
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"anchor": sentences, "positive": sentences}),
        loss=MultipleNegativesRankingLoss(model),
        callbacks=[Ticking()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock.seconds
