"""Files of VQAv2's validation split about the small world, in the two official formats."""

from pathlib import Path

from llava.toy.benchmarks.files import NUM_ANSWERS, ask_about_boards, write_json

_KINDS = ("exist", "color", "digit", "count", "jump1")
_TYPES = {"exist": "yes/no", "count": "number", "digit": "number", "jump1": "number"}


def write_vqav2(folder: Path, *, seed: int, count: int) -> None:
    """Images, official questions and official annotations of val2014: ten annotators, all of one mind."""
    asked = ask_about_boards(
        folder / "val2014",
        seed=seed,
        part="vqav2",
        count=count,
        name="COCO_val2014_%012d.jpg",
        kinds=_KINDS,
    )
    questions, annotations = [], []
    for index, (board, question) in enumerate(asked):
        image_id = int(Path(board.path).stem.rsplit("_", 1)[1])
        ids = {"image_id": image_id, "question_id": 1000 * image_id + index % 2}
        questions.append({**ids, "question": question.text})
        answers = [
            {"answer": question.answer, "answer_confidence": "yes", "answer_id": number}
            for number in range(1, NUM_ANSWERS + 1)
        ]
        annotations.append(
            {
                **ids,
                "question_type": "what",
                "answer_type": _TYPES.get(question.kind, "other"),
                "multiple_choice_answer": question.answer,
                "answers": answers,
            }
        )
    about = {"info": {"description": "the small world"}, "license": {}, "data_subtype": "val2014"}
    write_json(
        folder / "v2_OpenEnded_mscoco_val2014_questions.json",
        {**about, "task_type": "Open-Ended", "data_type": "mscoco", "questions": questions},
    )
    write_json(
        folder / "v2_mscoco_val2014_annotations.json",
        {**about, "data_type": "mscoco", "annotations": annotations},
    )
