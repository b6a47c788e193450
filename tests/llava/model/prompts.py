"""Batches of prompts for the model's tests."""

import torch

PROMPTS = [
    ([1, 21, -200, 45, 46, 47], 1),
    ([1, 31, 32, 33, 34, 35, -200, 51, 52], 1),
    ([1, 61, 62, 63], 0),
    ([1, -200, -200, 77, 78, 79, 80], 2),
]
"""Ids, and how many images each takes (text takes a dummy)."""


WITH_ROUTER = [([*ids[:-1], 1000, ids[-1]], count) if count else (ids, count) for ids, count in PROMPTS]
"""The same with a routing token (the first id behind the golden vocabulary) in front of the last one."""


def make_images(count, seed=0):
    return torch.randn(count, 3, 56, 56, generator=torch.Generator().manual_seed(seed))


def make_batch(prompts=PROMPTS, side="left", answers=0):
    """Pad prompts; `answers` marks the last tokens of every row as supervised."""
    length = max(len(ids) for ids, _ in prompts)
    input_ids = torch.zeros(len(prompts), length, dtype=torch.long)
    mask = torch.zeros(len(prompts), length, dtype=torch.bool)
    labels = torch.full_like(input_ids, -100)
    for row, (ids, _) in enumerate(prompts):
        place = slice(length - len(ids), length) if side == "left" else slice(0, len(ids))
        input_ids[row, place], mask[row, place] = torch.tensor(ids), True
        if answers:
            labels[row, place][-answers:] = torch.tensor(ids[-answers:])
    images = [make_images(max(1, count), seed=row) for row, (_, count) in enumerate(prompts)]
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels, "images": torch.cat(images)}


def alone(row, prompts=PROMPTS, answers=0):
    """The batch that holds one of the prompts only, with the images it has in the whole batch."""
    ids, count = prompts[row]
    batch = make_batch([(ids, count)], answers=answers)
    batch["images"] = make_images(max(1, count), seed=row)
    return batch
