import json

import pytest

from llava.eval.export import main
from tests.llava.eval.conftest import write_lines
from tests.llava.eval.golden import unpack

GQA_ANSWERS = "gqa/answers/llava_gqa_testdev_balanced/golden-model/merge.jsonl"


def export(name, root, answers, output):
    main([name, "--data-root", str(root), "--answers", str(answers), "--output", str(output)])
    return json.loads(output.read_text())


def test_what_converters_keep_to_themselves_is_said(tmp_path, capsys):
    unpack("vqav2_conversion", tmp_path)
    answers = tmp_path / "vqav2/answers/llava_vqav2_mscoco_test-dev2015/golden-model/merge.jsonl"
    export("vqav2", tmp_path, answers, tmp_path / "new" / "out.json")
    said = capsys.readouterr()
    assert said.out == "total results: 4, total split: 8, error_line: 2\n"
    assert "2 line(s) that are no answers were left out" in said.err
    assert "merge.jsonl:6: not valid JSON" in said.err
    assert "1 question(s) are answered twice or more (2001)" in said.err


def test_answers_of_another_benchmark_are_refused(tmp_path):
    unpack("gqa", tmp_path)
    write_lines(tmp_path / "answers.jsonl", [{"question_id": "v1_0", "prompt": "Who?", "text": "Bob"}])
    with pytest.raises(SystemExit, match=r"none of the 1 answers belongs to a question of gqa, for example"):
        export("gqa", tmp_path, tmp_path / "answers.jsonl", tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_a_truncated_answers_file_is_refused_where_the_converter_would_fail(tmp_path):
    unpack("gqa", tmp_path)
    answers = tmp_path / GQA_ANSWERS
    answers.write_text(answers.read_text()[:-20])
    with pytest.raises(SystemExit, match=r"merge.jsonl:10: not valid JSON"):
        export("gqa", tmp_path, answers, tmp_path / "out.json")


def test_a_benchmark_without_a_submission_says_so(data_root, tmp_path):
    answers = data_root / "pope" / "answers" / "golden-model.jsonl"
    with pytest.raises(SystemExit, match="pope has no submission: its answers are scored here"):
        export("pope", data_root, answers, tmp_path / "out.json")


def test_the_answers_are_never_written_over(tmp_path):
    unpack("gqa", tmp_path)
    answers = tmp_path / GQA_ANSWERS
    before = answers.read_text()
    (tmp_path / "link.json").symlink_to(answers)
    for output in (answers, tmp_path / "link.json"):
        with pytest.raises(SystemExit, match="is the answers file itself"):
            export("gqa", tmp_path, answers, output)
    assert answers.read_text() == before


def test_an_unwritable_output_is_a_clear_error(tmp_path):
    unpack("gqa", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"can't write .*file/out.json"):
        export("gqa", tmp_path, tmp_path / GQA_ANSWERS, tmp_path / "file" / "out.json")


def test_nothing_in_an_answer_is_more_than_text(tmp_path):
    unpack("gqa", tmp_path)
    wicked = "$(touch owned); `touch owned` __import__('os').system('touch owned')\n\ud800\x00"
    write_lines(tmp_path / "a.jsonl", [{"question_id": "201", "prompt": "p", "text": wicked}])
    written = export("gqa", tmp_path, tmp_path / "a.jsonl", tmp_path / "out.json")
    assert written == [{"questionId": "201", "prediction": wicked.lower()}]
