"""The objective in a script of sentence-transformers' own trainer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dalr.errors import ConfigError
from dalr.losses import Grounding, InfoNCE, ListNet, Objective
from dalr.losses.consistency import Consistency
from dalr.losses.inputs import Targets
from dalr.losses.token_level import GlobalToLocal
from dalr.models.config import HeadsConfig, StudentConfig
from dalr.models.loading import load_encoder
from tiny import Toys, captions

pytestmark = pytest.mark.filterwarnings("ignore")  # that trainer's own
datasets = pytest.importorskip("datasets")

from sentence_transformers import (  # noqa: E402
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)

from dalr.integrations.sentence_transformers import ObjectiveLoss, VectorCollator  # noqa: E402

OBJECTIVE = Objective(
    infonce=InfoNCE(), grounding=Grounding(weight=0.1), consistency=Consistency(weight=0.2), list_net=ListNet()
)
HEADS = HeadsConfig(grounding_dim=8, aligner_dim=8)


def student(toys: Toys, dropout: float | None = None) -> SentenceTransformer:
    return load_encoder(StudentConfig(model=str(toys.student), pooling="cls", dropout=dropout))


def rows(count: int = 16, *, image: bool = True) -> dict[str, Any]:
    """Captions, two of each image, with vectors."""
    random = np.random.default_rng(0)
    images = random.normal(size=(count // 2, 16)).repeat(2, axis=0).astype(np.float32)
    teacher = random.normal(size=(count, 24)).astype(np.float32)
    found: dict[str, Any] = {"caption": captions(count), "teacher": teacher.tolist()}
    return found | ({"image": images.tolist()} if image else {})


def trainer(
    model: SentenceTransformer, loss: ObjectiveLoss, dataset: Any, folder: Path, **options: Any
) -> SentenceTransformerTrainer:
    settings: dict[str, Any] = {"max_steps": 4, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no"}
    args = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **settings | options,
    )
    collator = VectorCollator(preprocess_fn=model.preprocess)
    return SentenceTransformerTrainer(
        model=model, args=args, train_dataset=dataset, loss=loss, data_collator=collator
    )


def test_a_few_steps_train_student_and_heads(toys: Toys, tmp_path: Path) -> None:
    model = student(toys)
    loss = ObjectiveLoss(model, OBJECTIVE, heads=HEADS, image_dim=16)
    before = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    made = trainer(model, loss, datasets.Dataset.from_dict(rows()), tmp_path)
    made.train()
    after = loss.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in before if name.startswith("heads.")} <= changed
    assert len([name for name in changed if name.startswith("model.")]) > 20
    assert loss.passes == 4
    logged = [entry for entry in made.state.log_history if "loss" in entry]
    assert len(logged) == 4
    assert all(np.isfinite(entry["loss"]) for entry in logged)
    assert any("grounding" in key for entry in logged for key in entry), "terms are logged"

    loss.save_heads(tmp_path / "heads.safetensors")
    other = ObjectiveLoss(student(toys), OBJECTIVE, heads=HEADS, image_dim=16, seed=5)
    other.load_heads(tmp_path / "heads.safetensors")
    stored = load_file(tmp_path / "heads.safetensors")
    assert all(torch.equal(stored[name], tensor) for name, tensor in other.heads.state_dict().items())
    model.save(str(tmp_path / "model"), create_model_card=False)
    reloaded = SentenceTransformer(str(tmp_path / "model"), local_files_only=True)
    np.testing.assert_allclose(reloaded.encode(captions(2)), model.encode(captions(2)), atol=1e-6)


@pytest.mark.parametrize("dims", [(), (32, 8)])
def test_the_loss_is_that_of_our_trainer(toys: Toys, tmp_path: Path, dims: tuple[int, ...]) -> None:
    """The same rows, weights and derangement, dropout off, through both."""
    from dalr.losses.matryoshka import make_matryoshka
    from dalr.models.embedding import pad
    from dalr.training.batch import Batch, TokenBatch
    from dalr.training.module import TrainingTask

    model = student(toys, dropout=0.0)
    loss = ObjectiveLoss(model, OBJECTIVE, heads=HEADS, image_dim=16, matryoshka_dims=dims, seed=3)
    data = rows(8)
    features = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    collated = VectorCollator(preprocess_fn=model.preprocess)(features)
    made = trainer(model, loss, datasets.Dataset.from_dict(rows()), tmp_path)
    [text], _ = made.collect_features(dict(collated))
    inputs = loss.inputs(text)
    theirs = made.compute_loss(loss.model, dict(collated))

    ids, mask = pad(model.tokenizer(data["caption"])["input_ids"], pad_id=0)
    batch = Batch(
        kind="pair",
        step=0,
        row_ids=tuple(data["caption"]),
        tokens=TokenBatch(ids=ids, mask=mask, lengths=tuple(mask.sum(1).tolist())),
        targets=Targets(
            tie_order=inputs.tie_order,
            image=torch.tensor(data["image"]),
            same_image=torch.block_diag(*[torch.ones(2, 2)] * 4).bool(),
            unmatched=inputs.unmatched,
            teachers=(torch.tensor(data["teacher"]),),
            teacher_weights=(1.0,),
        ),
    )
    nested = make_matryoshka(dims)
    task = TrainingTask(student=model, heads=loss.heads, objective=OBJECTIVE, matryoshka=nested)
    ours = task.train()(batch)
    assert set(ours.terms) == {"infonce", "grounding", "consistency", "list_net"}
    assert theirs.item() == pytest.approx(ours.total.item(), rel=1e-5)
    assert inputs.unmatched is not None
    assert not (inputs.unmatched // 2 == torch.arange(8) // 2).any(), "unmatched pairs are of other images"


def test_data_sets_with_and_without_images_take_turns(toys: Toys, tmp_path: Path) -> None:
    objective = Objective(infonce=InfoNCE(), grounding=Grounding(weight=0.1))
    model = student(toys)
    loss = ObjectiveLoss(model, objective, heads=HEADS, image_dim=16)
    pairs = datasets.Dataset.from_dict(rows()).remove_columns("teacher")
    text = datasets.Dataset.from_dict({"line": captions(40)[24:]})
    made = trainer(model, loss, {"pairs": pairs, "text": text}, tmp_path)
    made.train()
    assert loss.passes == 4
    [features], _ = made.collect_features(made.data_collator([{"line": line} for line in captions(8)]))
    assert set(loss([features])) == {"infonce"}


def test_an_objective_without_images_has_all_its_terms(toys: Toys) -> None:
    model = student(toys)
    loss = ObjectiveLoss(model, Objective(infonce=InfoNCE(), list_net=ListNet(weight=0.5)))
    data = rows(8, image=False)
    features = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    collated = VectorCollator(preprocess_fn=model.preprocess)(features)
    text = {key.removeprefix("caption_"): value for key, value in collated.items()}
    assert set(loss([text])) == {"infonce", "list_net"}
    del text["dalr_teacher_0"]
    with pytest.raises(ConfigError, match="1 teacher_weights, but 0 teacher columns"):
        loss([text])


def test_all_that_is_missing_is_said_at_once(toys: Toys) -> None:
    with_normalize = SentenceTransformer(str(toys.teacher), local_files_only=True, device="cpu")
    objective = Objective(grounding=Grounding(clip_text_branch=True), global_to_local=GlobalToLocal())
    with pytest.raises(ConfigError) as refused:
        ObjectiveLoss(with_normalize, objective)
    assert [problem.where for problem in refused.value.problems] == [
        "model",
        "objective",
        "image_dim",
        "clip_text_dim",
    ]
    collator = VectorCollator(preprocess_fn=with_normalize.preprocess)
    with pytest.raises(ConfigError, match=r"expected one column of text .* found \['a', 'b'\]"):
        collator([{"a": "x", "b": "y", "image": [1.0]}])


def test_the_documented_example_without_a_trainer(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    section = text.split("## The objective without the trainer")[1].split("\n## ")[0]
    [code] = [block for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL) if "torch.randn" in block]
    assert len([line for line in code.split("\n") if line.strip() and "import" not in line]) <= 10
    names: dict[str, Any] = {}
    exec(compile(code, "extending.md", "exec"), names)
    assert set(names["losses"].terms) == {"infonce", "list_net"}
    total = names["losses"].terms["infonce"] + 0.5 * names["losses"].terms["list_net"]
    torch.testing.assert_close(names["losses"].total, total)
    assert "infonce" in capsys.readouterr().out
